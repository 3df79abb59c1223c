"""Charts of the evidence of a run: effects with intervals, held-out figures, shifts. As ECharts options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harmonization_app.views.charts import MOST_FEATURES, Options, rows_axis, value_axis


def covariate_chart(rows: Sequence[Mapping[str, Any]], covariate: str, unit: str) -> Options:
    """Return each effect with its 95 % interval: before, after, and adjusted for batch."""
    shown = list(rows)[:MOST_FEATURES]
    stages = (
        ("before", "before", "tone:bad"),
        ("after", "after", "tone:good"),
        ("batch_adjusted", "adjusted for batch, before", "tone:active"),
    )
    return {
        "tooltip": {"trigger": "item"},
        "legend": {"data": [label for _, label, _ in stages], "top": 0},
        "grid": {"left": 8, "right": 24, "top": 30, "bottom": 44, "containLabel": True},
        "xAxis": value_axis(f"effect of {covariate} ({unit} per unit), 95 % interval"),
        "yAxis": {
            "type": "category",
            "data": [row["feature"] for row in shown],
            "inverse": True,
            "axisLabel": {"interval": 0},
        },
        "series": [
            {
                "type": "boxplot",
                "name": label,
                "boxWidth": [4, 7],
                "data": [_interval(row[key]) for row in shown],
                "itemStyle": {"color": "transparent", "borderColor": colour, "borderWidth": 1.8},
            }
            for key, label, colour in stages
        ],
    }


def _interval(estimate: Mapping[str, Any]) -> list[Any]:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    return ["-"] * 5 if value is None else [low, low, value, high, high]


def held_out_chart(held_out: Mapping[str, Any]) -> Options:
    """Return the median batch effect in scans the method has not seen, beside that in the fitted ones."""
    values = (
        ("held out, before", held_out["held_out_before"], "tone:bad"),
        ("held out, after", held_out["held_out_after"], "tone:good"),
        ("fitted half, after (in-sample)", held_out["fitted_after"], "tone:quiet"),
        ("expected without any effect", held_out["noise_floor"], "tone:quiet"),
    )
    return {
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "grid": {"left": 8, "right": 48, "top": 8, "bottom": 44, "containLabel": True},
        "xAxis": {**value_axis("median partial eta squared"), "min": 0},
        "yAxis": {"type": "category", "inverse": True, "data": [name for name, _, _ in values]},
        "series": [
            {
                "type": "bar",
                "barMaxWidth": 22,
                "label": {"show": True, "position": "right"},
                "data": [
                    {"value": None if value is None else round(value, 3), "itemStyle": {"color": colour}}
                    for _, value, colour in values
                ],
            }
        ],
    }


def shift_chart(shifts: Mapping[str, float]) -> Options:
    """Return the mean shift of each batch in SD."""
    names = sorted(shifts)
    return {
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "grid": {"left": 8, "right": 24, "top": 8, "bottom": 44, "containLabel": True},
        "xAxis": value_axis("mean shift (SD of the feature before)"),
        "yAxis": rows_axis(names),
        "series": [
            {
                "type": "bar",
                "barMaxWidth": 18,
                "data": [round(shifts[name], 4) for name in names],
                "itemStyle": {"color": "tone:active"},
            }
        ],
    }


def contrast_chart(contrast: Mapping[str, Any]) -> Options:
    """Return a group contrast by feature with its 95 % interval, in residual SD, at the three stages."""
    rows = [{**row, "batch_adjusted": row["before_batch_adjusted"]} for row in contrast["listed"]]
    name = f"{contrast['covariate']} {contrast['level']} less {contrast['reference']}"
    options = covariate_chart(rows, name, "SD")
    options["xAxis"]["name"] = f"{name} (residual SD), 95 % interval"
    return options


def left_out_chart(rows: Sequence[Mapping[str, Any]]) -> Options:
    """Return how far the other scans move when a batch is left out, with what chance alone would give."""
    names = [row["batch"] for row in rows]
    stages = (
        ("median move", "median_move_sd", "tone:active", "circle"),
        ("greatest move", "greatest_move_sd", "tone:warn", "triangle"),
        ("expected median", "expected_move_sd", "tone:quiet", "rect"),
    )
    known = [stage for stage in stages if any(row.get(stage[1]) is not None for row in rows)]
    return {
        "tooltip": {"trigger": "item"},
        "legend": {"data": [label for label, *_ in known], "top": 0},
        "grid": {"left": 8, "right": 24, "top": 30, "bottom": 44, "containLabel": True},
        "xAxis": {**value_axis("move of the other scans (SD)"), "min": 0},
        "yAxis": rows_axis(names),
        "series": [
            {
                "type": "scatter",
                "name": label,
                "symbol": symbol,
                "symbolSize": 10,
                "itemStyle": {"color": colour},
                "data": [[round(row[key], 5), row["batch"]] for row in rows if row.get(key) is not None],
            }
            for label, key, colour, symbol in known
        ],
    }


def histogram_chart(distribution: Mapping[str, Any] | None) -> Options | None:
    """Return the distribution of all cells' shifts; None of a run that did not keep it."""
    if not distribution or not distribution.get("cells"):
        return None
    edges, cells = distribution["edges_sd"], distribution["cells"]
    names = [f"{low:g} to {high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    names += [f"{edges[-1]:g} and more"] * (len(cells) - len(names))
    return {
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "grid": {"left": 30, "right": 16, "top": 8, "bottom": 28, "containLabel": True},
        "xAxis": {
            "type": "category",
            "data": names,
            "name": "shift (SD of the feature before)",
            "nameLocation": "middle",
            "nameGap": 62,
            "axisLabel": {"rotate": 30, "interval": 0},
        },
        "yAxis": value_axis("cells", gap=48),
        "series": [
            {
                "type": "bar",
                "barCategoryGap": "4%",
                "data": list(cells),
                "itemStyle": {"color": "tone:active"},
            }
        ],
    }

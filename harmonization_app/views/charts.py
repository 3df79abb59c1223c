"""Charts of feature sets and runs, as ECharts options: plain JSON, drawn by static/js/charts.js."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harmonization_app.selectors.feature_set import BatchProfile, Distribution
from harmonization_app.selectors.run import FeatureEffect

MOST_FEATURES = 40
MOST_POINTS = 2000
# Okabe-Ito colours; symbols change at another period, so that more than eight batches stay apart.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8F98")
SYMBOLS = ("circle", "triangle", "rect", "diamond", "pin")

Options = dict[str, Any]


def distribution_chart(
    groups: Sequence[Distribution],
    feature: str,
    unit: str,
    *,
    limits: tuple[float, float] | None = None,
    tone: str = "active",
) -> Options:
    """Return boxes (quartiles, extremes) with every value as a point, one group per row.

    `limits` fixes the range of the axis, so that two charts can be compared by eye.
    """
    axis = value_axis(f"{feature} ({unit})" if unit else feature)
    if limits is not None:
        axis |= {
            "min": limits[0],
            "max": limits[1],
            "axisLabel": {"showMinLabel": False, "showMaxLabel": False},
        }
    names = [group.name for group in groups]
    each = max(1, sum(len(group.values) for group in groups) // MOST_POINTS)
    points = [[value, group.name] for group in groups for value in group.values[::each]]
    return {
        "tooltip": {"trigger": "item"},
        "grid": {"left": 8, "right": 24, "top": 16, "bottom": 44, "containLabel": True},
        "xAxis": axis,
        "yAxis": rows_axis(names),
        "series": [
            {
                "type": "boxplot",
                "name": "quartiles",
                "data": [list(group.five) for group in groups],
                "itemStyle": {"color": "transparent", "borderColor": f"tone:{tone}", "borderWidth": 1.5},
                "boxWidth": [8, 22],
            },
            {
                "type": "scatter",
                "name": "values",
                "data": points,
                "symbolSize": 5,
                "itemStyle": {"color": f"tone:{tone}", "opacity": 0.45},
            },
        ],
    }


def profile_chart(profile: BatchProfile) -> Options:
    """Return the standardized batch means as a map, features by batches, on a diverging scale."""
    cells = [
        [column, row, None if value is None else round(value, 3)]
        for row, means in enumerate(profile.means_sd)
        for column, value in enumerate(means)
    ]
    bound = max((abs(cell[2]) for cell in cells if cell[2] is not None), default=1.0)
    bound = max(0.5, math.ceil(bound * 2) / 2)
    return {
        "tooltip": {"position": "top"},
        "grid": {"left": 8, "right": 16, "top": 8, "bottom": 64, "containLabel": True},
        "xAxis": {
            "type": "category",
            "data": list(profile.groups),
            "axisLabel": {"interval": 0, "rotate": 25, "width": 130, "overflow": "truncate"},
        },
        "yAxis": rows_axis(profile.features),
        "visualMap": {
            "min": -bound,
            "max": bound,
            "calculable": False,
            "orient": "horizontal",
            "left": "center",
            "bottom": 0,
            "text": [f"+{bound:g} SD", f"−{bound:g} SD"],
            "inRange": {"color": ["tone:active", "tone:surface", "tone:bad"]},
        },
        "series": [{"type": "heatmap", "name": "batch mean (SD)", "data": cells}],
    }


def effect_chart(effects: Sequence[FeatureEffect], floor: float | None) -> Options:
    """Return a dumbbell per feature: partial eta squared before and after, largest before on top."""
    shown = [row for row in effects if row.eta_before is not None and row.eta_after is not None]
    shown = shown[:MOST_FEATURES]
    names = [row.feature for row in shown]
    before = [row.eta_before or 0.0 for row in shown]
    after = [row.eta_after or 0.0 for row in shown]
    pairs = list(zip(before, after, strict=True))
    bar = {"type": "bar", "stack": "span", "barWidth": 3, "silent": True, "tooltip": {"show": False}}
    return {
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "legend": {"data": ["before", "after"], "top": 0},
        "grid": {"left": 8, "right": 24, "top": 48, "bottom": 44, "containLabel": True},
        "xAxis": {**value_axis("partial eta squared of batch (in-sample)"), "min": 0},
        "yAxis": rows_axis(names),
        "series": [
            {**bar, "data": [min(pair) for pair in pairs], "itemStyle": {"color": "transparent"}},
            {
                **bar,
                "data": [abs(first - second) for first, second in pairs],
                "itemStyle": {"color": "tone:quiet", "opacity": 0.5},
            },
            {**_points("before", before, names, "tone:bad"), "symbol": "triangle"},
            {**_points("after", after, names, "tone:good"), "symbol": "circle", **_floor_line(floor)},
        ],
    }


def _points(name: str, values: Sequence[float], names: Sequence[str], colour: str) -> Options:
    data = [[round(value, 5), label] for value, label in zip(values, names, strict=True)]
    return {"type": "scatter", "name": name, "data": data, "symbolSize": 10, "itemStyle": {"color": colour}}


def _floor_line(floor: float | None) -> Options:
    if floor is None:
        return {}
    return {
        "markLine": {
            "silent": True,
            "symbol": "none",
            "data": [{"xAxis": floor}],
            "label": {
                "formatter": "expected without effect",
                "position": "start",
                "rotate": 0,
                "color": "tone:quiet",
            },
            "lineStyle": {"color": "tone:quiet", "type": "dashed"},
        }
    }


def projection_chart(projection: Mapping[str, Any], limits: tuple[float, float]) -> Options:
    """Return the scans on the first two components, each batch with a colour and a shape."""
    batches = sorted(set(projection["batches"]))
    explained = projection["explained"]
    series = []
    for index, batch in enumerate(batches):
        points = [
            {"value": [round(score[0], 3), round(score[1] if len(score) > 1 else 0.0, 3)], "name": row}
            for score, own, row in zip(
                projection["scores"], projection["batches"], projection["rows"], strict=True
            )
            if own == batch
        ]
        series.append(
            {
                "type": "scatter",
                "name": batch,
                "data": points,
                "symbol": SYMBOLS[index % len(SYMBOLS)],
                "symbolSize": 8,
                "itemStyle": {"color": PALETTE[index % len(PALETTE)], "opacity": 0.8},
            }
        )
    axis = {"min": limits[0], "max": limits[1]}
    second = explained[1] if len(explained) > 1 else 0.0
    return {
        "tooltip": {"trigger": "item"},
        "legend": {"type": "scroll", "bottom": 0, "data": batches},
        "grid": {"left": 30, "right": 16, "top": 12, "bottom": 64, "containLabel": True},
        "xAxis": {**value_axis(f"component 1 ({explained[0]:.0%})"), **axis},
        "yAxis": {**value_axis(f"component 2 ({second:.0%})", gap=34), **axis},
        "series": series,
    }


def projection_limits(*projections: Mapping[str, Any] | None) -> tuple[float, float]:
    """Return one range for all panels, so that before and after can be compared by eye."""
    largest = max(
        (abs(value) for item in projections if item for score in item["scores"] for value in score[:2]),
        default=1.0,
    )
    bound = float(round(largest * 1.08 + 0.5))
    return -bound, bound


def component_chart(before: Mapping[str, Any], after: Mapping[str, Any]) -> Options:
    """Return the share of each component's variance that lies between batches, before and after."""
    count = min(len(before["explained"]), len(after["explained"]))
    names = [f"component {index + 1}" for index in range(count)]
    return {
        "tooltip": {"trigger": "axis"},
        "legend": {"data": ["before", "after"], "top": 0},
        "grid": {"left": 30, "right": 16, "top": 30, "bottom": 8, "containLabel": True},
        "xAxis": {"type": "category", "data": names},
        "yAxis": {**value_axis("share between batches", gap=42), "min": 0, "max": 1},
        "series": [
            _bars("before", before["between_batches"][:count], "tone:bad"),
            _bars("after", after["between_batches"][:count], "tone:good"),
        ],
    }


def _bars(name: str, values: Sequence[float | None], colour: str) -> Options:
    rounded = [None if value is None else round(value, 4) for value in values]
    decal = (
        {"symbol": "rect", "rotation": 0.8, "dashArrayX": [1, 0], "dashArrayY": [3, 4]}
        if name == "before"
        else {}
    )
    item: Options = {"color": colour}
    if decal:
        item["decal"] = {**decal, "color": "rgba(255,255,255,0.35)"}
    return {"type": "bar", "name": name, "data": rounded, "itemStyle": item}


def value_axis(name: str, gap: int = 28) -> Options:
    return {"type": "value", "name": name, "nameLocation": "middle", "nameGap": gap, "scale": True}


def rows_axis(names: Sequence[str]) -> Options:
    """Return an axis that names every row, the first on top."""
    label = {"interval": 0, "width": 240, "overflow": "truncate"}
    return {"type": "category", "data": list(names), "inverse": True, "axisLabel": label}

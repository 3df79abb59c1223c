"""The chart of a comparison, as ECharts options."""

from __future__ import annotations

from harmonization_app.selectors.comparison import Comparison
from harmonization_app.views.charts import Options, rows_axis, value_axis


def held_out_comparison(comparison: Comparison) -> Options | None:
    """Return the held-out batch effect of each candidate, before and after, with what no effect would give.

    None where no candidate has held-out evidence.
    """
    shown = [
        (f"{column.letter}  {column.run.specification.get('title', '')}"[:60], column.diagnostics["held_out"])
        for column in comparison.columns
        if column.diagnostics.get("held_out", {}).get("evaluable")
    ]
    if not shown:
        return None
    names = [name for name, _ in shown]
    stages = (
        ("before", "held_out_before", "tone:bad"),
        ("after", "held_out_after", "tone:good"),
        ("expected without any effect", "noise_floor", "tone:quiet"),
    )
    return {
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "legend": {"data": [label for label, _, _ in stages], "top": 0},
        "grid": {"left": 8, "right": 48, "top": 30, "bottom": 44, "containLabel": True},
        "xAxis": {**value_axis("median partial eta squared, held out"), "min": 0},
        "yAxis": {
            **rows_axis(names),
            "axisLabel": {"interval": 0, "width": 240, "overflow": "truncate"},
        },
        "series": [
            {
                "type": "bar",
                "name": label,
                "barMaxWidth": 14,
                "label": {"show": True, "position": "right", "fontSize": 10},
                "data": [None if held[key] is None else round(held[key], 3) for _, held in shown],
                "itemStyle": {"color": colour},
            }
            for label, key, colour in stages
        ],
    }

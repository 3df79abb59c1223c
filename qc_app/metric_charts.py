"""Options of the charts of metrics: boxes by scanner, values over time, control charts (see `qc_app.charts`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from qc_app.charts import AXIS_HEAD, AXIS_NAME, LEGEND, TOOLTIP, Options
from qc_app.selectors.charts import AlertPoint, Bounds
from qc_app.selectors.control import ControlChart
from qc_app.selectors.distribution import ScannerDistribution

_CROSS = "path://M2 5L5 2 8 5.5 11 2 14 5 10.5 8 14 11 11 14 8 10.5 5 14 2 11 5.5 8z"
OUTCOME_MARKS = {
    "pass": ("circle", "tone:good", 6),
    "warn": ("triangle", "tone:warn", 9),
    "fail": (_CROSS, "tone:bad", 10),
    "not_evaluable": ("diamond", "tone:unknown", 9),
}
_BOUND_TONES = {"warn": "tone:warn", "fail": "tone:bad"}
_TICKS = 5


def boxes(
    scanners: Sequence[ScannerDistribution], axis: str, bounds: Bounds, links: Mapping[UUID, str]
) -> Options:
    """Return one box per scanner: quartiles, whiskers from the 5th to the 95th percentile."""
    shown = list(reversed(scanners))
    data = [
        {
            "value": [item.quantiles[percent] for percent in (5, 25, 50, 75, 95)],
            "name": _box_text(item),
            "href": links.get(item.scanner_id, ""),
        }
        for item in shown
    ]
    low, high = _extent([value for item in shown for value in item.quantiles.values()])
    return {
        "grid": {"left": 8, "right": 24, "top": 28, "bottom": 36, "containLabel": True},
        "tooltip": TOOLTIP,
        "xAxis": {"type": "value", "name": axis, "nameGap": 26, "min": low, "max": high} | AXIS_NAME,
        "yAxis": {
            "type": "category",
            "data": [_short_name(item) for item in shown],
            "axisLabel": {"width": 150, "overflow": "truncate"},
        },
        "series": [
            {
                "type": "boxplot",
                "boxWidth": [8, 22],
                "itemStyle": {"color": "transparent", "borderColor": "tone:active", "borderWidth": 2},
                "data": data,
                "markLine": _bound_lines(bounds, "xAxis", low, high),
            }
        ],
    }


def _box_text(item: ScannerDistribution) -> str:
    low, median, high = (f"{item.quantiles[percent]:.4g}" for percent in (5, 50, 95))
    return f"{item.site_code} · {item.scanner}\nmedian {median}, 5 to 95 %: {low} to {high}, {len(item.points)} series"


def _short_name(item: ScannerDistribution) -> str:
    """Return site and serial number, which end the scanner's name; the whole name does not fit an axis."""
    return f"{item.site_code} · {item.scanner.rpartition(' ')[2]}"


def over_time(
    item: ScannerDistribution,
    axis: str,
    bounds: Bounds,
    alerts: Iterable[AlertPoint],
    extent: tuple[float, float],
    links: Mapping[UUID, str],
) -> Options:
    """Return one scanner's values by time of receipt, with QC bounds, software changes and drift alerts."""
    by_outcome: dict[str, list[Options]] = {outcome: [] for outcome in OUTCOME_MARKS}
    for point in item.points:
        outcome = point.outcome if point.outcome in by_outcome else "not_evaluable"
        name = f"{point.received_at:%Y-%m-%d}: {point.value:.4g}, {outcome.replace('_', ' ')}"
        by_outcome[outcome].append(
            _mark(point.received_at, point.value, name, links.get(point.series_id, ""))
        )
    series = [
        _scatter(outcome.replace("_", " "), *OUTCOME_MARKS[outcome], data)
        for outcome, data in by_outcome.items()
        if data
    ]
    values = {point.series_id: point.value for point in item.points}
    raised = [
        _mark(
            alert.received_at,
            values[alert.series_id],
            f"drift alert ({alert.state})\n{_wrapped(alert.detail)}",
            "",
        )
        for alert in alerts
        if alert.series_id in values
    ]
    lines = _bound_lines(bounds, "yAxis", *extent)
    lines["data"] += [_change_line(when) for when, _ in item.changes]
    series.append(
        _scatter("drift alert", "circle", "tone:bad", 16, raised)
        | {
            "markLine": lines,
            "itemStyle": {"color": "transparent", "borderColor": "tone:bad", "borderWidth": 2},
        }
    )
    return {
        "grid": {"left": 8, "right": 20, "top": 38, "bottom": 24, "containLabel": True},
        "tooltip": TOOLTIP,
        "xAxis": {
            "type": "time",
            "name": "received",
            "nameGap": 24,
            "splitNumber": 4,
            "axisLabel": {"hideOverlap": True},
        }
        | AXIS_NAME,
        "yAxis": {"type": "value", "name": axis, "min": extent[0], "max": extent[1]} | AXIS_HEAD,
        "series": series,
    }


def extent_of(scanners: Iterable[ScannerDistribution]) -> tuple[float, float]:
    """Return the range that all scanners' charts share."""
    return _extent([point.value for item in scanners for point in item.points])


def _extent(values: Sequence[float]) -> tuple[float, float]:
    """Return a range around the values that ends at round numbers, so that the axis' labels do not collide."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / _TICKS)
    first, last = math.floor(low / step - 0.1), math.ceil(high / step + 0.1)
    return float(f"{first * step:.10g}"), float(f"{last * step:.10g}")


def _mark(when: datetime, value: float, name: str, href: str) -> Options:
    return {"value": [when.isoformat(), value], "name": name, "href": href}


def _scatter(name: str, symbol: str, colour: str, size: int, data: list[Options]) -> Options:
    return {
        "type": "scatter",
        "name": name,
        "symbol": symbol,
        "symbolSize": size,
        "itemStyle": {"color": colour, "opacity": 0.85},
        "data": data,
    }


def _bound_lines(bounds: Bounds, axis: str, low: float, high: float) -> Options:
    """Return the QC bounds that lie inside the drawn range, named by what lies beyond them."""
    data = [
        {
            axis: value,
            "name": f"QC {outcome} beyond {value:g}",
            "lineStyle": {"color": _BOUND_TONES[outcome], "type": "dashed", "width": 1.5},
            "label": {"formatter": f"{outcome} {value:g}", "color": _BOUND_TONES[outcome]},
        }
        for outcome, value in bounds.lines()
        if low <= value <= high
    ]
    label = {"position": "insideEndTop"} if axis == "yAxis" else {"position": "end"}
    return {"symbol": "none", "label": label, "data": data}


def _change_line(when: datetime | int, text: str = "software") -> Options:
    return {
        "xAxis": when.isoformat() if isinstance(when, datetime) else when,
        "name": "software changed",
        "lineStyle": {"color": "tone:active", "type": "solid", "width": 1.5},
        "label": {"formatter": text, "position": "end", "color": "tone:active"},
    }


def _wrapped(text: str, width: int = 56) -> str:
    lines: list[str] = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def control(chart: ControlChart, axis: str, links: Mapping[UUID, str]) -> Options:
    """Return a control chart: values, EWMA with its limits, baseline means, scanner changes, drift alerts."""
    values = [
        {
            "value": [point.number, point.value],
            "name": f"scan {point.number}, received {point.received_at:%Y-%m-%d}: {point.value:.4g}",
            "href": links.get(point.series_id, ""),
        }
        for point in chart.points
    ]
    signals = {signal.number: signal.alert for signal in chart.signals}
    raised = [
        {
            "value": [point.number, point.value],
            "name": f"drift alert ({signals[point.number].state})\n{_wrapped(signals[point.number].detail)}",
        }
        for point in chart.points
        if point.number in signals
    ]
    limit = {"color": "tone:bad", "type": "dashed", "width": 1.5}
    ewma = _line(
        "EWMA", [[point.number, point.ewma] for point in chart.points], {"color": "tone:active", "width": 2}
    )
    baseline = _line("baseline mean", _baseline(chart), {"color": "tone:good", "width": 1.5})
    changes = {
        "symbol": "none",
        "data": [_change_line(segment.first, f"epoch {segment.epoch}") for segment in chart.segments[1:]],
    }
    return {
        "grid": {"left": 8, "right": 24, "top": 40, "bottom": 72, "containLabel": True},
        "tooltip": TOOLTIP,
        "legend": LEGEND | {"data": ["value", "EWMA", "EWMA limits", "baseline mean", "drift alert"]},
        "xAxis": {"type": "value", "name": "scan, in order of epoch and receipt", "nameGap": 26, "minInterval": 1,
                  "min": 0} | AXIS_NAME,
        "yAxis": {"type": "value", "name": axis, "scale": True} | AXIS_HEAD,
        "series": [
            _scatter("value", "circle", "tone:quiet", 6, values),
            ewma,
            _line("EWMA limits", [[point.number, point.low] for point in chart.points], limit),
            _line("EWMA limits", [[point.number, point.high] for point in chart.points], limit),
            baseline | {"markLine": changes},
            _scatter("drift alert", "triangle", "tone:bad", 13, raised),
        ],
    }  # fmt: skip


def _baseline(chart: ControlChart) -> list[list[Any]]:
    points: list[list[Any]] = []
    for segment in chart.segments:
        points += [[segment.first, segment.mean], [segment.last, segment.mean], [segment.last, None]]
    return points


def _line(name: str, data: list[list[Any]], style: Mapping[str, Any]) -> Options:
    return {
        "type": "line",
        "name": name,
        "symbol": "none",
        "connectNulls": False,
        "silent": True,
        "itemStyle": {"color": style["color"]},
        "lineStyle": dict(style),
        "data": data,
    }

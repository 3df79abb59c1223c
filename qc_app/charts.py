"""Options of the pages' charts (ECharts): what is drawn, in colours named by tone; no numbers are made here.

The Content-Security-Policy forbids inline styles, so tooltips are drawn ("richText"), not written as HTML.
Text of a mark's tooltip is its `name`; a click on a mark with `href` follows it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from qc_app.selectors.charts import AlertPoint, Bounds, SubmissionWeek
from qc_app.selectors.control import ControlChart
from qc_app.selectors.distribution import ScannerDistribution
from qc_app.selectors.scorecard import ParetoBar, SiteScorecard

Options = dict[str, Any]
# Okabe and Ito 2008: eight colours that people with colour vision deficiency can tell apart; black is left out.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")
OTHERS_COLOUR = "#8A939B"
MAX_BARS = 15
SEVERITY_TONES = {"critical": "tone:bad", "major": "tone:warn", "minor": "tone:active", "info": "tone:quiet"}
_CROSS = "path://M2 5L5 2 8 5.5 11 2 14 5 10.5 8 14 11 11 14 8 10.5 5 14 2 11 5.5 8z"
OUTCOME_MARKS = {
    "pass": ("circle", "tone:good", 6),
    "warn": ("triangle", "tone:warn", 9),
    "fail": (_CROSS, "tone:bad", 10),
    "not_evaluable": ("diamond", "tone:unknown", 9),
}
_BOUND_TONES = {"warn": "tone:warn", "fail": "tone:bad"}
_TOOLTIP = {"trigger": "item", "renderMode": "richText", "formatter": "{b}", "confine": True}
_TICKS = 5
_AXIS_NAME = {"nameLocation": "middle", "nameTextStyle": {"color": "tone:quiet"}}
# Above the axis, from its left edge: beside it, a long name would be cut off.
_AXIS_HEAD = {"nameLocation": "end", "nameGap": 12, "nameTextStyle": {"color": "tone:quiet", "align": "left"}}
_LEGEND = {
    "bottom": 0,
    "left": "center",
    "itemWidth": 14,
    "itemHeight": 10,
    "textStyle": {"color": "tone:quiet"},
}


def pareto(bars: Sequence[ParetoBar]) -> Options:
    """Return deviations by parameter as horizontal bars, most first, stacked by site."""
    shown = list(reversed(bars[:MAX_BARS]))
    sites = _stacked_sites(bars)
    series = [
        _stack(
            site,
            colour,
            [(bar.label, _of_site(bar, site, sites)) for bar in shown],
            "{label}, {name}: {count} deviations",
        )
        for site, colour in sites.items()
    ]
    totals = [(bar.count, f"{bar.count} ({bar.cumulative_percent:.0f} %)") for bar in shown]
    return _bars([bar.label for bar in shown], "deviations (share of all, running)", series, totals)


def _stacked_sites(bars: Sequence[ParetoBar]) -> dict[str, str]:
    """Return the sites that get a colour of their own: those with most deviations; the rest are one."""
    counts: Counter[str] = Counter()
    for bar in bars:
        counts.update(bar.by_site)
    named = [site for site, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    own = sorted(named[: len(PALETTE)])
    colours = dict(zip(own, PALETTE, strict=False))
    return colours | ({"other sites": OTHERS_COLOUR} if len(named) > len(own) else {})


def _of_site(bar: ParetoBar, site: str, sites: Mapping[str, str]) -> int:
    if site in bar.by_site:
        return bar.by_site[site]
    others = sum(count for code, count in bar.by_site.items() if code not in sites)
    return others if site == "other sites" else 0


def open_by_site(cards: Sequence[SiteScorecard], links: Mapping[UUID, str]) -> Options:
    """Return the open deviations of each site as horizontal bars, stacked by severity, most first."""
    ordered = sorted(cards, key=lambda card: (-card.open_deviation_count, card.site_code))
    shown = list(reversed([card for card in ordered if card.open_deviation_count][:MAX_BARS]))
    hrefs = [links.get(card.site_id, "") for card in shown]
    series = [
        _stack(
            severity,
            colour,
            [(card.site_code, card.open_deviations.get(severity, 0)) for card in shown],
            "{label}: {count} {name}",
            hrefs,
        )
        for severity, colour in SEVERITY_TONES.items()
    ]
    totals = [(card.open_deviation_count, str(card.open_deviation_count)) for card in shown]
    return _bars([card.site_code for card in shown], "open deviations", series, totals)


def _stack(
    name: str, colour: str, counts: Sequence[tuple[str, int]], text: str, hrefs: Sequence[str] = ()
) -> Options:
    data = [
        {"value": count, "name": text.format(label=label, name=name, count=count)}
        | ({"href": hrefs[place]} if hrefs else {})
        for place, (label, count) in enumerate(counts)
    ]
    return {
        "type": "bar",
        "name": name,
        "stack": "all",
        "barMaxWidth": 22,
        "itemStyle": {"color": colour},
        "data": data,
    }


def _bars(
    categories: list[str], axis: str, series: list[Options], totals: Sequence[tuple[int, str]]
) -> Options:
    label = {
        "show": True,
        "position": "right",
        "formatter": "{b}",
        "color": "tone:quiet",
    }
    ends = {
        "type": "scatter",
        "name": "total",
        "symbolSize": 1,
        "silent": True,
        "label": label,
        "data": [{"value": [count, place], "name": text} for place, (count, text) in enumerate(totals)],
    }
    return {
        "grid": {"left": 8, "right": 76, "top": 8, "bottom": 64, "containLabel": True},
        "tooltip": _TOOLTIP,
        "legend": _LEGEND | {"data": [item["name"] for item in series]},
        "xAxis": {"type": "value", "name": axis, "nameGap": 26, "minInterval": 1} | _AXIS_NAME,
        "yAxis": {
            "type": "category",
            "data": categories,
            "axisLabel": {"width": 120, "overflow": "break"},
            "axisTick": {"show": False},
        },
        "series": [*series, ends],
    }


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
        "tooltip": _TOOLTIP,
        "xAxis": {"type": "value", "name": axis, "nameGap": 26, "min": low, "max": high} | _AXIS_NAME,
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
        "tooltip": _TOOLTIP,
        "xAxis": {
            "type": "time",
            "name": "received",
            "nameGap": 24,
            "splitNumber": 4,
            "axisLabel": {"hideOverlap": True},
        }
        | _AXIS_NAME,
        "yAxis": {"type": "value", "name": axis, "min": extent[0], "max": extent[1]} | _AXIS_HEAD,
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
        "tooltip": _TOOLTIP,
        "legend": _LEGEND | {"data": ["value", "EWMA", "EWMA limits", "baseline mean", "drift alert"]},
        "xAxis": {"type": "value", "name": "scan, in order of epoch and receipt", "nameGap": 26, "minInterval": 1,
                  "min": 0} | _AXIS_NAME,
        "yAxis": {"type": "value", "name": axis, "scale": True} | _AXIS_HEAD,
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


SUBMISSION_TONES = {
    "accepted": "tone:good",
    "accepted_with_rejections": "tone:warn",
    "quarantined": "tone:bad",
    "failed": "tone:bad",
    "under way": "tone:active",
    "cancelled": "tone:quiet",
}


def weeks(found: Sequence[SubmissionWeek]) -> Options:
    """Return a site's submissions by week, stacked by state."""
    names = [f"{week.monday:%Y-%m-%d}" for week in found]
    counts = [_grouped_states(week) for week in found]
    series = [
        _stack(
            state.replace("_", " "),
            colour,
            [(name, count[state]) for name, count in zip(names, counts, strict=True)],
            "week of {label}: {count} {name}",
        )
        for state, colour in SUBMISSION_TONES.items()
        if any(count[state] for count in counts)
    ]
    return {
        "grid": {"left": 8, "right": 16, "top": 32, "bottom": 84, "containLabel": True},
        "tooltip": _TOOLTIP,
        "legend": _LEGEND,
        "xAxis": {"type": "category", "data": names, "name": "week", "nameGap": 26} | _AXIS_NAME,
        "yAxis": {"type": "value", "name": "submissions", "minInterval": 1} | _AXIS_HEAD,
        "series": series,
    }


def _grouped_states(week: SubmissionWeek) -> Counter[str]:
    grouped: Counter[str] = Counter()
    for state, count in week.states.items():
        grouped[state if state in SUBMISSION_TONES else "under way"] += count
    return grouped

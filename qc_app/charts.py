"""Options of the pages' charts (ECharts): what is drawn, in colours named by tone; no numbers are made here.

The Content-Security-Policy forbids inline styles, so tooltips are drawn ("richText"), not written as HTML.
Text of a mark's tooltip is its `name`; a click on a mark with `href` follows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from qc_app.selectors.charts import SubmissionWeek
from qc_app.selectors.scorecard import ParetoBar, SiteScorecard

Options = dict[str, Any]
# After Okabe and Ito 2008, for people with colour vision deficiency; yellow is darker, to show on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800")
OTHERS_COLOUR = "#8A939B"
MAX_BARS = 15
SEVERITY_TONES = {"critical": "tone:bad", "major": "tone:warn", "minor": "tone:active", "info": "tone:quiet"}
TOOLTIP = {"trigger": "item", "renderMode": "richText", "formatter": "{b}", "confine": True}
AXIS_NAME = {"nameLocation": "middle", "nameTextStyle": {"color": "tone:quiet"}}
# Above the axis, from its left edge: beside it, a long name would be cut off.
AXIS_HEAD = {"nameLocation": "end", "nameGap": 12, "nameTextStyle": {"color": "tone:quiet", "align": "left"}}
LEGEND = {
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
        "tooltip": TOOLTIP,
        "legend": LEGEND | {"data": [item["name"] for item in series]},
        "xAxis": {"type": "value", "name": axis, "nameGap": 26, "minInterval": 1} | AXIS_NAME,
        "yAxis": {
            "type": "category",
            "data": categories,
            "axisLabel": {"width": 120, "overflow": "break"},
            "axisTick": {"show": False},
        },
        "series": [*series, ends],
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
        "tooltip": TOOLTIP,
        "legend": LEGEND,
        "xAxis": {"type": "category", "data": names, "name": "week", "nameGap": 26} | AXIS_NAME,
        "yAxis": {"type": "value", "name": "submissions", "minInterval": 1} | AXIS_HEAD,
        "series": series,
    }


def _grouped_states(week: SubmissionWeek) -> Counter[str]:
    grouped: Counter[str] = Counter()
    for state, count in week.states.items():
        grouped[state if state in SUBMISSION_TONES else "under way"] += count
    return grouped

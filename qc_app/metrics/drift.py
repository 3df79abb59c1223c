"""Drift of one metric on one scanner: baselines that end at scanner changes, control charts, alerts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from scipy import stats

from qc_app.metrics import charts
from qc_app.metrics.charts import Values

BASELINE_SCANS = 20
PREDICTION_SCANS = 5
CONFIDENCE = 0.95
WESTGARD_TEXT = {
    "2_2s": "two consecutive values beyond 2 sd on one side",
    "R_4s": "consecutive values beyond 2 sd on opposite sides",
    "4_1s": "four consecutive values beyond 1 sd on one side",
    "10_x": "ten consecutive values on one side of the baseline",
}

Method = Literal["charts", "prediction", "learning", "constant"]


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A scanner change (software, coil, hardware): the first scan at or after `time` opens a new segment."""

    time: datetime
    label: str = ""


@dataclass(frozen=True, slots=True)
class DriftAlert:
    """One signal. `index` is the value's place in the caller's sequence.

    `rule` is 1_3s, 2_2s, R_4s, 4_1s, 10_x, ewma, cusum or prediction; `statistic` and `limit` are in
    baseline sd.
    """

    index: int
    time: datetime
    value: float
    rule: str
    statistic: float
    limit: float
    segment: int
    detail: str


@dataclass(frozen=True, slots=True)
class Segment:
    """Scans between two scanner changes, and the baseline that later scans are judged by.

    `method` is "charts" (at least 20 baseline scans and later ones), "prediction" (each scan against those
    before it, from the sixth), "learning" (too few to judge) or "constant" (the baseline does not vary).
    """

    number: int
    label: str
    start: datetime
    end: datetime
    indices: tuple[int, ...]
    median: float
    baseline_count: int
    baseline_mean: float | None
    baseline_sd: float | None
    method: Method


@dataclass(frozen=True, slots=True)
class LevelChange:
    """The difference of the medians of two neighbouring segments with its 95 % confidence interval.

    The interval is None, with a reason, when a side has fewer than five scans.
    """

    time: datetime
    label: str
    before_count: int
    after_count: int
    delta: float
    low: float | None
    high: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class DriftAssessment:
    """All that the charts say about one series of values.

    `breaks` are places where the level changes by the values alone (retrospective), labelled change or not.
    `skipped` are places without a finite value.
    """

    segments: tuple[Segment, ...]
    alerts: tuple[DriftAlert, ...]
    changes: tuple[LevelChange, ...]
    breaks: tuple[int, ...]
    skipped: tuple[int, ...]


def assess(
    values: Sequence[float | None], times: Sequence[datetime], change_points: Sequence[ChangePoint] = ()
) -> DriftAssessment:
    """Assess one metric of one scanner over time; values may come in any order of time.

    A scanner change closes the baseline: charts never compare across it, the change is reported as a
    difference instead. Within a segment the first 20 scans are the baseline and later ones are charted;
    before that each scan is held against the prediction limit of those before it, because charts on a short
    baseline alarm falsely (23 % of runs of 20 scans at 10 baseline scans).

    Raises ValueError when values and times differ in number.
    """
    if len(values) != len(times):
        raise ValueError(f"{len(values)} values and {len(times)} times: each value needs its time.")
    usable = [i for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    skipped = tuple(sorted(set(range(len(values))) - set(usable)))
    order = sorted(usable, key=lambda i: (times[i], i))
    series = np.array([float(values[i]) for i in order])  # type: ignore[arg-type]
    segments: list[Segment] = []
    alerts: list[DriftAlert] = []
    for label, places in _split(order, times, change_points):
        segment, found = _assess_segment(len(segments), label, places, series, order, times)
        segments.append(segment)
        alerts += found
    changes = tuple(
        _level_change(before, after, values)
        for before, after in zip(segments[:-1], segments[1:], strict=True)
    )
    breaks = tuple(order[place] for place in charts.level_breaks(series))
    return DriftAssessment(tuple(segments), tuple(alerts), changes, breaks, skipped)


def _split(
    order: Sequence[int], times: Sequence[datetime], change_points: Sequence[ChangePoint]
) -> list[tuple[str, list[int]]]:
    """Return (label, places in time order) of every segment that has scans; changes without scans between merge."""
    parts: list[tuple[str, list[int]]] = []
    changes = sorted(change_points, key=lambda change: change.time)
    passed = -1
    for place, index in enumerate(order):
        reached = sum(change.time <= times[index] for change in changes)
        if reached != passed:
            label = "; ".join(change.label for change in changes[max(passed, 0) : reached] if change.label)
            parts.append((label, []))
            passed = reached
        parts[-1][1].append(place)
    return parts


def _assess_segment(
    number: int,
    label: str,
    places: Sequence[int],
    series: Values,
    order: Sequence[int],
    times: Sequence[datetime],
) -> tuple[Segment, list[DriftAlert]]:
    values = series[places[0] : places[-1] + 1]
    indices = tuple(order[place] for place in places)
    baseline = values[:BASELINE_SCANS]
    mean = sd = None
    signals = _prediction_signals(baseline)
    method: Method = "prediction" if len(values) > PREDICTION_SCANS else "learning"
    if len(baseline) >= BASELINE_SCANS:
        mean, sd = float(baseline.mean()), float(baseline.std(ddof=1))
        method = "charts"
        if sd > 1e-12 * max(1.0, abs(mean)):
            signals += _chart_signals((values[BASELINE_SCANS:] - mean) / sd, BASELINE_SCANS)
        else:
            method = "constant"
    start, end, median = times[indices[0]], times[indices[-1]], float(np.median(values))
    segment = Segment(number, label, start, end, indices, median, len(baseline), mean, sd, method)
    alerts = [
        DriftAlert(
            indices[place],
            times[indices[place]],
            float(values[place]),
            rule,
            statistic,
            limit,
            number,
            detail,
        )
        for place, rule, statistic, limit, detail in sorted(signals)
    ]
    return segment, alerts


_Signal = tuple[int, str, float, float, str]


def _prediction_signals(baseline: Values) -> list[_Signal]:
    """Hold each baseline scan from the sixth against the limit of those before it that did not signal themselves."""
    signals: list[_Signal] = []
    accepted = list(baseline[:PREDICTION_SCANS])
    for place in range(PREDICTION_SCANS, len(baseline)):
        mean, sd = float(np.mean(accepted)), float(np.std(accepted, ddof=1))
        value = float(baseline[place])
        limit = charts.prediction_limit(len(accepted))
        distance = (value - mean) / sd if sd > 0 else 0.0
        if abs(distance) > limit:
            detail = f"{abs(distance):.1f} sd from the {len(accepted)} scans before; the limit is {limit:.1f}"
            signals.append((place, "prediction", distance, limit, detail))
        else:
            accepted.append(value)
    return signals


def _chart_signals(z: Values, offset: int) -> list[_Signal]:
    """Return every Shewhart signal and the onset of every run of EWMA, CUSUM and Westgard signals."""
    signals: list[_Signal] = [
        (
            offset + place,
            "1_3s",
            float(z[place]),
            charts.SHEWHART_LIMIT,
            f"{abs(z[place]):.1f} sd from the baseline",
        )
        for place in np.flatnonzero(charts.shewhart(z)).tolist()
    ]
    smooth = charts.ewma(z)
    for place in _onsets(smooth.signals):
        detail = "the exponentially weighted mean left its limits: a lasting shift"
        signals.append(
            (offset + place, "ewma", float(smooth.statistic[place]), float(smooth.limit[place]), detail)
        )
    sums = charts.cusum(z)
    for place in _onsets(sums.signals):
        up = sums.upper[place] > charts.CUSUM_LIMIT
        statistic = float(sums.upper[place] if up else -sums.lower[place])
        detail = f"the cumulative sum left its limit: a lasting shift {'upwards' if up else 'downwards'}"
        signals.append((offset + place, "cusum", statistic, charts.CUSUM_LIMIT, detail))
    for rule, flags in charts.westgard(z).items():
        bound = {"2_2s": 2.0, "R_4s": 2.0, "4_1s": 1.0, "10_x": 0.0}[rule]
        signals += [
            (offset + place, rule, float(z[place]), bound, WESTGARD_TEXT[rule]) for place in _onsets(flags)
        ]
    return signals


def _onsets(flags: charts.Flags) -> list[int]:
    earlier = np.concatenate([[False], flags[:-1]])
    return [int(place) for place in np.flatnonzero(flags & ~earlier)]


def _level_change(before: Segment, after: Segment, values: Sequence[float | None]) -> LevelChange:
    first, second = (
        np.array([values[i] for i in side.indices], dtype=np.float64) for side in (before, after)
    )
    delta = after.median - before.median
    low = high = None
    reason = None
    if min(len(first), len(second)) < PREDICTION_SCANS:
        reason = f"fewer than {PREDICTION_SCANS} scans on one side of the change"
    else:
        half = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(
            _median_variance(first) + _median_variance(second)
        )
        low, high = delta - half, delta + half
    return LevelChange(after.start, after.label, len(first), len(second), delta, low, high, reason)


def _median_variance(values: Values) -> float:
    """Return the variance of a sample median from two order statistics (Price and Bonett 2001, 2002)."""
    ordered = np.sort(values)
    count = len(ordered)
    rank = max(1, round((count + 1) / 2 - math.sqrt(count)))
    z = float(stats.norm.ppf(1.0 - stats.binom.cdf(rank - 1, count, 0.5)))
    return float(((ordered[count - rank] - ordered[rank - 1]) / (2.0 * z)) ** 2)

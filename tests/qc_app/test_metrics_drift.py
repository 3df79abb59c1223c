"""Control charts against published run lengths, and assessments of constructed histories."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from qc_app.metrics import charts
from qc_app.metrics.drift import ChangePoint, assess

START = datetime(2025, 1, 6, tzinfo=UTC)


def _times(count: int) -> list[datetime]:
    return [START + timedelta(weeks=k) for k in range(count)]


def _history(count: int, *, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(100.0, 2.0, count)


def _first(flags: np.ndarray) -> int | None:
    return int(np.argmax(flags)) + 1 if flags.any() else None


@pytest.mark.reference
@pytest.mark.parametrize("name", ["stable", "step_minus2_sw", "step_plus1", "ramp3", "spike6", "variance_x3"])
def test_charts_signal_where_the_reference_says(reference_data: Path, name: str) -> None:
    folder = reference_data / "qc" / "drift"
    wanted = json.loads((folder / "expected.json").read_text())["series"][name]
    with (folder / "scanner_series.csv").open() as lines:
        values = np.array([float(row["value"]) for row in csv.DictReader(lines) if row["series"] == name])
    z = (values - wanted["in_control_mean"]) / wanted["in_control_sd"]
    sums, smooth, rules = charts.cusum(z), charts.ewma(z, exact=False), charts.westgard(z)

    found = {
        "shewhart_1_3s": _first(charts.shewhart(z)),
        "ewma_asymptotic": _first(smooth.signals),
        "ewma_exact": _first(charts.ewma(z).signals),
        "cusum": _first(sums.signals),
        "ewma_last": pytest.approx(smooth.statistic[-1], abs=1e-9),
        "cusum_hi_last": pytest.approx(sums.upper[-1], abs=1e-9),
        "cusum_lo_last": pytest.approx(sums.lower[-1], abs=1e-9),
        "westgard_2_2s": _first(rules["2_2s"]),
        "westgard_R_4s": _first(rules["R_4s"]),
        "westgard_4_1s": _first(rules["4_1s"]),
        "westgard_10x": _first(rules["10_x"]),
    }
    assert wanted["first_signal_1based_known_mean_sd"] == found
    assert list(charts.level_breaks(values)) == wanted["kernelcpd_linear_pen3logn_minsize5_breaks_0based"]
    assert charts.robust_sd_from_differences(values) == pytest.approx(
        wanted["robust_sd_from_diffs"], rel=1e-9
    )


# Average run lengths by Markov chain (EWMA, CUSUM) and exactly (Shewhart); 1,500 simulated runs each.
@pytest.mark.parametrize(
    ("chart", "shift", "expected"),
    [
        ("shewhart", 2.0, 6.303),
        ("shewhart", 3.0, 2.000),
        ("ewma", 1.0, 10.542),
        ("ewma", 2.0, 3.743),
        ("cusum", 1.0, 10.376),
        ("cusum", 2.0, 4.009),
    ],
)
def test_average_run_length_after_a_shift(chart: str, shift: float, expected: float) -> None:
    rng = np.random.default_rng(20250106)
    flags = {
        "shewhart": charts.shewhart,
        "ewma": lambda z: charts.ewma(z, exact=False).signals,
        "cusum": lambda z: charts.cusum(z).signals,
    }[chart]

    lengths = np.array([_first(flags(rng.normal(shift, 1.0, 80))) or 80 for _ in range(1500)])

    assert lengths.mean() == pytest.approx(expected, abs=4 * lengths.std() / math.sqrt(1500))


@pytest.mark.parametrize(("count", "limit"), [(5, 7.25), (10, 4.29), (20, 3.53), (30, 3.33)])
def test_the_prediction_limit_is_wide_for_few_scans(count: int, limit: float) -> None:
    assert charts.prediction_limit(count) == pytest.approx(limit, abs=0.005)


def test_westgard_rules_on_hand_made_values() -> None:
    def met(rule: str, *z: float) -> list[int]:
        return np.flatnonzero(charts.westgard(np.array(z))[rule]).tolist()

    assert met("2_2s", 2.1, 2.1, 0, 2.1, -2.1) == [1]
    assert met("R_4s", 2.1, -2.1, 0, -2.1, 0, 2.1) == [1]
    assert met("4_1s", 1.1, 1.1, 1.1, 1.1, 1.1, -1.1, -1.1, -1.1) == [3, 4]
    assert met("10_x", *([0.1] * 9), -0.1, *([0.1] * 10)) == [19]


def test_a_stable_scanner_raises_no_alert() -> None:
    result = assess(list(_history(60)), _times(60))

    assert result.alerts == ()
    assert result.breaks == ()
    assert [segment.method for segment in result.segments] == ["charts"]
    assert result.segments[0].baseline_count == 20


def test_a_lasting_shift_is_found_soon_after_it_starts() -> None:
    values = _history(60)
    values[40:] += 4.0

    result = assess(list(values), _times(60))

    first = result.alerts[0]
    assert 40 <= first.index <= 46
    assert first.time == _times(60)[first.index]
    assert {"ewma", "cusum"} <= {alert.rule for alert in result.alerts}
    assert any(abs(place - 40) <= 2 for place in result.breaks)


def test_one_outlier_is_a_shewhart_alert_at_its_place() -> None:
    values = _history(40)
    values[30] = 112.0

    result = assess(list(values), _times(40))

    assert [(alert.index, alert.rule) for alert in result.alerts if alert.rule == "1_3s"] == [(30, "1_3s")]


def test_a_scanner_change_closes_the_baseline_and_its_step_is_reported_not_alarmed() -> None:
    values = np.concatenate([_history(30), _history(30) + 10.0])
    change = ChangePoint(_times(60)[30], "software B")

    without = assess(list(values), _times(60))
    with_change = assess(list(values), _times(60), [change])

    assert without.alerts
    assert with_change.alerts == ()
    assert [segment.indices[0] for segment in with_change.segments] == [0, 30]
    (level,) = with_change.changes
    assert level.label == "software B"
    assert (level.before_count, level.after_count) == (30, 30)
    assert level.delta == pytest.approx(10.0)
    assert level.low is not None and level.high is not None and 0 < level.low < 10.0 < level.high


def test_a_label_later_than_the_step_shows_in_the_retrospective_break() -> None:
    values = _history(60)
    values[30:] += 10.0

    result = assess(list(values), _times(60), [ChangePoint(_times(60)[45], "software B")])

    assert result.breaks == (30,)
    assert {alert.index for alert in result.alerts if alert.rule == "1_3s"} == set(range(30, 45))


def test_a_young_baseline_uses_the_prediction_limit() -> None:
    values = list(_history(12))
    values[8] = 100.0 + 40.0

    result = assess(values, _times(12))

    (alert,) = result.alerts
    assert (alert.index, alert.rule) == (8, "prediction")
    assert alert.limit == pytest.approx(charts.prediction_limit(8))
    assert result.segments[0].method == "prediction"


def test_too_few_scans_are_learning_and_give_no_interval() -> None:
    result = assess([1.0, 9.0, 5.0, 2.0], _times(4), [ChangePoint(_times(4)[2], "coil")])

    assert [segment.method for segment in result.segments] == ["learning", "learning"]
    assert result.alerts == ()
    assert (result.changes[0].low, result.changes[0].high) == (None, None)
    assert "fewer than 5" in str(result.changes[0].reason)


def test_order_of_time_rules_and_missing_values_are_listed() -> None:
    values: list[float | None] = list(_history(40))
    values[30] = 120.0
    values[3], values[7] = None, math.nan
    times = _times(40)

    forward = assess(values, times)
    backward = assess(values[::-1], times[::-1])

    assert forward.skipped == (3, 7)
    assert backward.skipped == (32, 36)
    assert [39 - alert.index for alert in backward.alerts] == [alert.index for alert in forward.alerts]


def test_no_values_give_an_empty_assessment() -> None:
    result = assess([None], _times(1))

    assert (result.segments, result.alerts, result.changes, result.breaks) == ((), (), (), ())


def test_a_constant_baseline_is_named_so() -> None:
    assert assess([5.0] * 30, _times(30)).segments[0].method == "constant"


def test_values_and_times_must_pair() -> None:
    with pytest.raises(ValueError, match="3 values and 2 times"):
        assess([1.0, 2.0, 3.0], _times(2))


def test_the_interval_of_the_median_difference_covers_the_truth() -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(400):
        values = np.concatenate([rng.normal(0, 1, 12), rng.normal(1, 1, 15)])
        (change,) = assess(list(values), _times(27), [ChangePoint(_times(27)[12])]).changes
        assert change.low is not None and change.high is not None
        covered += change.low <= 1.0 <= change.high

    assert 0.92 <= covered / 400 <= 0.98

"""Phantom calibration: planted lines by scanner and date, chained before ComBat, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.phantom import PhantomCalibration, fit_lines
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.methods.phantom import make_measured
from harmonization_app.algorithms.verification.suite import make_input

MEASURED, VALUES, TRUTH = make_measured(make_input({"A": 20, "B": 20}, seed=3), seed=2)
PLAN = Specification(eb=False, time="scanned", options={"measurements": VALUES})
ONE = {"batch": "A", "feature": "f", "first_day": "2024-01-01", "last_day": "2024-02-01"}


def test_planted_lines_are_taken_out_to_rounding() -> None:
    result = PhantomCalibration().harmonize(MEASURED, PLAN)

    assert max_difference_sd(MEASURED.values, TRUTH, TRUTH) > 0.5
    assert max_difference_sd(result.values, TRUTH, TRUTH) < 1e-12
    assert result.flags == {"not_calibrated": ("region_11",)}
    assert result.facts["lines"][0]["last_day"] == "2024-06-30"


def test_noise_of_the_phantom_is_in_the_facts() -> None:
    _, noisy, _ = make_measured(make_input({"A": 20, "B": 20}, seed=3), seed=2, noise=0.05)

    spreads = [line.spread for line in fit_lines(noisy)]

    assert np.sqrt(np.mean(np.square(spreads))) == pytest.approx(0.05, rel=0.2)


def test_calibration_comes_before_combat() -> None:
    calibrated = PhantomCalibration().harmonize(MEASURED, PLAN)

    chained = Combat().harmonize(MEASURED.with_values(calibrated.values), Specification()).values
    direct = Combat().harmonize(MEASURED.with_values(TRUTH), Specification()).values

    assert max_difference_sd(chained, direct, TRUTH) < 1e-10


def test_one_scanner_alone_can_be_calibrated() -> None:
    own = MEASURED.select(np.flatnonzero(np.array(MEASURED.batches) == "A"))

    result = PhantomCalibration().harmonize(own, PLAN)

    assert max_difference_sd(result.values, TRUTH[np.array(MEASURED.batches) == "A"], TRUTH) < 1e-12


def test_single_known_value_gives_an_offset() -> None:
    (line,) = fit_lines([{**ONE, "known": [2.0], "measured": [2.3]}])

    assert (line.slope, line.offset) == (1.0, pytest.approx(0.3))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"known": [1.0, 2.0], "measured": [1.0]}, "differ in number"),
        ({"known": [1.0, 2.0], "measured": [2.0, 1.0]}, "do not rise"),
        ({"known": [1.0], "measured": [1.0], "last_day": "2023-01-01"}, "no dates in order"),
        ({"known": [1.0], "measured": [1.0], "first_day": "2024-13-01"}, "no dates in order"),
    ],
)
def test_faulty_measurements_are_refused(item, message) -> None:
    with pytest.raises(HarmonizationRefused, match=message):
        fit_lines([{**ONE, **item}])


def test_days_with_two_lines_are_refused() -> None:
    item = {**ONE, "known": [1.0], "measured": [1.0]}

    with pytest.raises(HarmonizationRefused, match="share days"):
        fit_lines([item, {**item, "first_day": "2024-02-01", "last_day": "2024-03-01"}])


def test_scan_outside_every_range_is_refused_by_row() -> None:
    days = ("2026-01-01", *MEASURED.covariates["scanned"][1:])

    with pytest.raises(HarmonizationRefused, match=f"covers the scanner and date of {MEASURED.rows[0]}"):
        PhantomCalibration().harmonize(replace(MEASURED, covariates={"scanned": days}), PLAN)


@pytest.mark.parametrize("day", [None, "yesterday", "2024-02-30", 20240301])
def test_scan_without_a_date_is_refused_by_row(day) -> None:
    days = (day, *MEASURED.covariates["scanned"][1:])

    with pytest.raises(HarmonizationRefused, match=f"no date .* in {MEASURED.rows[0]}"):
        PhantomCalibration().harmonize(replace(MEASURED, covariates={"scanned": days}), PLAN)


def test_measurement_of_an_unknown_feature_is_refused() -> None:
    strange = [*VALUES, {**ONE, "known": [1.0], "measured": [1.0]}]

    with pytest.raises(HarmonizationRefused, match="given for f, which"):
        PhantomCalibration().harmonize(MEASURED, replace(PLAN, options={"measurements": strange}))

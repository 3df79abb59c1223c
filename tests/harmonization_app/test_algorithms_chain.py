"""Phantom calibration before another method: equal to both by hand, each gate and each refusal named by its step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.chain import apply_chain, calibrate_then, check_chain
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.phantom import PhantomCalibration
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.crosscheck import cross_check_chain
from harmonization_app.algorithms.verification.methods.phantom import make_measured
from harmonization_app.algorithms.verification.suite import make_input

RAW = make_input({"A": 25, "B": 25, "C": 25}, seed=3)
DRIFTED, VALUES, TRUTH = make_measured(RAW, seed=2)
DATASET = replace(DRIFTED, covariates={**DRIFTED.covariates, **RAW.covariates})
CALIBRATION = Specification(eb=False, time="scanned", options={"measurements": VALUES})
PLAN = Specification(covariates=(Covariate("age", "continuous"),))


def _drift(values):
    """Return the largest SD over scanners of what differs between the early and the late scans of one scanner."""
    late = np.array([day >= "2024-07-01" for day in DATASET.covariates["scanned"]])
    residual = values - TRUTH
    own = [np.array(DATASET.batches) == batch for batch in "ABC"]
    gaps = [residual[rows & late].mean(axis=0) - residual[rows & ~late].mean(axis=0) for rows in own]
    return np.abs(np.stack(gaps) / TRUTH.std(axis=0)).max()


def test_planted_drift_within_a_scanner_is_removed_before_combat() -> None:
    alone = calibrate_then(None, Combat(), DATASET, PLAN)
    chained = calibrate_then(CALIBRATION, Combat(), DATASET, PLAN)
    without_drift = Combat().harmonize(DATASET.with_values(TRUTH), PLAN)

    assert _drift(alone.values) > 0.5
    assert _drift(chained.dataset.values) < 1e-10
    assert max_difference_sd(chained.values, without_drift.values, TRUTH) < 1e-10
    assert max_difference_sd(alone.values, without_drift.values, TRUTH) > 0.5


def test_chain_is_both_steps_by_hand_bit_for_bit() -> None:
    first = PhantomCalibration().harmonize(DATASET, CALIBRATION)
    second = Combat().harmonize(DATASET.with_values(first.values), PLAN)

    chained = calibrate_then(CALIBRATION, Combat(), DATASET, PLAN)

    assert np.array_equal(chained.values, second.values)
    assert {step: save_model(model) for step, model in chained.models.items()} == {
        "calibration": save_model(first.model),
        "main": save_model(second.model),
    }


def test_without_calibration_the_method_is_left_as_it_is() -> None:
    chained = calibrate_then(None, Combat(), DATASET, PLAN)

    assert chained.dataset is DATASET
    assert list(chained.models) == ["main"]
    assert np.array_equal(chained.values, Combat().harmonize(DATASET, PLAN).values)


def test_stored_models_correct_new_scans_as_the_chain_did() -> None:
    chained = calibrate_then(CALIBRATION, Combat(), DATASET, PLAN)
    first, main = (load_model(save_model(model)) for model in chained.models.values())
    rows = np.arange(0, 75, 4)

    applied = apply_chain(first, Combat(), main, DATASET.select(rows))

    assert max_difference_sd(applied.values, chained.values[rows], TRUTH) < 1e-12


def test_both_steps_are_computed_a_second_time() -> None:
    chained = calibrate_then(CALIBRATION, Combat(), DATASET, PLAN)

    checks = cross_check_chain(DATASET, chained)

    assert {step: check.passed for step, check in checks.items()} == {"calibration": True, "main": True}


@pytest.mark.parametrize("step", ["calibration", "main"])
def test_a_wrong_step_fails_its_own_check(step) -> None:
    chained = calibrate_then(CALIBRATION, Combat(), DATASET, PLAN)
    result = chained.calibration if step == "calibration" else chained.main
    result.values[4, 2] += 1e-6 * TRUTH[:, 2].std()

    checks = cross_check_chain(DATASET, chained)

    assert [name for name, check in checks.items() if not check.passed] == [step]


def test_features_outside_the_plan_are_neither_calibrated_nor_named() -> None:
    own = DATASET.features[:4]
    measured = [item for item in VALUES if item["feature"] in own]
    calibration = replace(CALIBRATION, options={"measurements": measured})

    chained = calibrate_then(calibration, Combat(), DATASET, replace(PLAN, features=own))

    assert chained.main.model.features == own
    assert np.array_equal(chained.dataset.values[:, 4:], DATASET.values[:, 4:])
    assert not any(finding.code == "not_calibrated" for finding in chained.findings)


def test_merged_batches_of_the_plan_keep_their_own_scanner_lines() -> None:
    plan = replace(PLAN, merge_batches={"B": "A"})

    chained = calibrate_then(CALIBRATION, Combat(), DATASET, plan)

    assert chained.models["main"].batches == ("A", "C")
    assert max_difference_sd(chained.dataset.values, TRUTH, TRUTH) < 1e-12


def test_uncovered_scans_are_refused_by_the_calibration() -> None:
    short = [{**item, "last_day": "2024-09-02"} if item["last_day"] > "2024-09" else item for item in VALUES]
    calibration = replace(CALIBRATION, options={"measurements": short})

    findings = check_chain(calibration, Combat(), DATASET, PLAN)
    with pytest.raises(HarmonizationRefused, match="No phantom measurement of region_00"):
        calibrate_then(calibration, Combat(), DATASET, PLAN)

    stopping = [item for item in findings if item.severity == "stop"]
    assert [(item.code, item.step) for item in stopping] == [("scan_not_covered", "calibration")]
    assert {item.step for item in findings} == {"calibration"}
    assert stopping[0].to_json()["step"] == "calibration"


def test_main_gate_judges_calibrated_values() -> None:
    own = np.array([batch == "A" for batch in DATASET.batches])
    late = np.array([str(day) >= "2024-07-01" for day in DATASET.covariates["scanned"]])
    values = RAW.values.copy()
    values[own, 3] = np.where(late, 2.25, 2.5)[own]
    line = {"batch": "A", "feature": "region_03", "known": [2.0]}
    measured = [
        {**line, "first_day": "2024-01-01", "last_day": "2024-06-30", "measured": [2.5]},
        {**line, "first_day": "2024-07-01", "last_day": "2024-12-31", "measured": [2.25]},
    ]
    measured += [{**measured[0], "batch": b, "last_day": "2024-12-31", "measured": [2.0]} for b in "BC"]
    table = DATASET.with_values(values)
    calibration = replace(CALIBRATION, options={"measurements": measured})

    raw_codes = {item.code for item in check_chain(None, Combat(), table, PLAN)}
    findings = check_chain(calibration, Combat(), table, PLAN)

    assert "constant_in_batch" not in raw_codes
    assert [item.step for item in findings if item.code == "constant_in_batch"] == ["main"]


def test_refusal_of_the_main_method_is_marked() -> None:
    with pytest.raises(HarmonizationRefused) as refusal:
        calibrate_then(CALIBRATION, Combat(), DATASET, replace(PLAN, reference_batch="nowhere"))

    assert {item.step for item in refusal.value.findings if item.severity == "stop"} == {"main"}

"""Site classification, leave-one-batch-out, spike-in, changes within subjects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.baselines import ZScore
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.longcombat import LongCombat
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.methods.longcombat import make_longitudinal
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics.classification import classify_batches
from harmonization_app.diagnostics.effects import compare
from harmonization_app.diagnostics.stability import measure_stability
from harmonization_app.diagnostics.within_subject import measure_within_subject

PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))
NONE = np.empty((150, 0))


def _noise(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(150, 15))


CODES = np.repeat(np.arange(3), 50)


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_classified_at_chance(seed) -> None:
    found = classify_batches(_noise(seed), CODES, NONE, seed)

    assert found.chance == pytest.approx(1 / 3, abs=0.03)
    assert abs(found.accuracy - 1 / 3) < 0.12
    assert found.p > 0.02


def test_planted_batch_effect_is_classified() -> None:
    own_features = np.repeat(np.eye(3), 5, axis=1)
    found = classify_batches(_noise() + own_features[CODES], CODES, NONE, 1)

    assert found.accuracy > 0.8
    assert found.p == pytest.approx(1 / 41)


def test_covariates_that_differ_between_batches_do_not_count() -> None:
    random = np.random.default_rng(3)
    age = random.normal(CODES * 10.0, 10.0)[:, None]

    values = _noise() + 0.1 * age
    assert classify_batches(values, CODES, NONE, 1).p < 0.05
    assert classify_batches(values, CODES, age, 1).accuracy < 0.5


def test_small_batches_count_as_much_as_large_ones() -> None:
    codes = np.repeat([0, 1], [130, 20])

    found = classify_batches(_noise(), codes, NONE, 2)

    assert found.chance == pytest.approx(0.5, abs=0.06)


def test_too_small_batches_are_not_classified() -> None:
    found = classify_batches(_noise()[:53], CODES[:53], NONE[:53], 1)

    assert not found.evaluable
    assert "fewer than 5 scans" in found.reason
    assert found.accuracy is None


def test_batch_that_moves_the_others_is_seen() -> None:
    dataset = make_input({"A": 40, "B": 40, "C": 40, "D": 40}, seed=3)
    values = dataset.values.copy()
    values[np.array(dataset.batches) == "C"] += 3.0

    stability = measure_stability(Combat(), dataset.with_values(values), PLAN)

    moves = {item.batch: item.median_move_sd for item in stability.left_out}
    assert max(moves, key=lambda batch: moves[batch]) == "C"
    assert moves["C"] > 2 * max(move for batch, move in moves.items() if batch != "C")


def test_spike_comes_through_combat() -> None:
    dataset = make_input({"A": 40, "B": 40, "C": 40}, seed=3)

    spike = measure_stability(Combat(), dataset, PLAN).spike_in

    assert spike.recovered == pytest.approx(1.0, abs=0.1)


def test_spike_is_shortened_by_a_method_that_forces_the_spread() -> None:
    dataset = make_input({"A": 40, "B": 40}, seed=3)

    stability = measure_stability(ZScore(), dataset, Specification(eb=False, options={"unit_free": True}))

    assert stability.left_out == ()
    assert "two batches" in stability.reason
    assert stability.spike_in.recovered > 2


def test_batch_that_cannot_be_left_out_says_why() -> None:
    dataset = make_input({"A": 40, "B": 40, "C": 40}, seed=3)

    stability = measure_stability(Combat(), dataset, replace(PLAN, reference_batch="B"))

    refused = {item.batch: item.reason for item in stability.left_out if item.median_move_sd is None}
    assert list(refused) == ["B"]
    assert "reference batch B" in refused["B"]


def test_scanner_changes_show_within_subjects_before_and_not_after() -> None:
    dataset = make_longitudinal(60, seed=5)
    plan = Specification(
        covariates=(Covariate("age", "continuous"), Covariate("years", "continuous")),
        subject="subject",
        time="years",
    )

    found = measure_within_subject(dataset, plan, LongCombat().harmonize(dataset, plan).values)

    assert found.subjects == 60
    assert found.pairs_same_batch + found.pairs_other_batch == 180
    assert found.excess_before > 1.25
    assert found.excess_after == pytest.approx(1.0, abs=0.1)
    assert found.rank_order > 0.9


def test_order_of_rows_does_not_matter_within_subjects() -> None:
    dataset = make_longitudinal(20, seed=5)
    plan = Specification(subject="subject", time="years")
    order = np.random.default_rng(1).permutation(len(dataset.rows))

    direct = measure_within_subject(dataset, plan, dataset.values)
    shuffled = measure_within_subject(dataset.select(order), plan, dataset.values[order])

    assert direct.rank_order == pytest.approx(1.0)
    assert shuffled.excess_before == pytest.approx(direct.excess_before)


def test_plan_without_subjects_has_no_changes() -> None:
    dataset = make_input({"A": 10, "B": 10}, seed=3)

    assert measure_within_subject(dataset, PLAN, dataset.values) is None
    lacking = measure_within_subject(dataset, replace(PLAN, subject="who"), dataset.values)
    assert not lacking.evaluable


def test_report_holds_the_evidence() -> None:
    dataset = make_input({"A": 40, "B": 40, "C": 40}, seed=3)

    report = compare(Combat(), dataset, PLAN, Combat().harmonize(dataset, PLAN)).to_json()

    assert report["classification"]["before"]["accuracy"] > report["classification"]["after"]["accuracy"]
    assert {item["batch"] for item in report["stability"]["left_out"]} == {"A", "B", "C"}
    assert report["within_subject"] is None

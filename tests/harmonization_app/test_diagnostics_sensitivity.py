"""Sensitivity analyses: beside the main run, with planted differences, refusals that say why."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.longcombat import LongCombat
from harmonization_app.algorithms.neurocombat import NeuroCombat
from harmonization_app.algorithms.specification import Covariate, OverlapPolicy, Specification
from harmonization_app.algorithms.verification.methods.longcombat import make_longitudinal
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics import sensitivity
from harmonization_app.diagnostics.sensitivity import SensitivityAnalysis, analyse

PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))
UNHARMONIZED = SensitivityAnalysis("unharmonized", "unharmonized")
LEFT_OUT = SensitivityAnalysis("leave_one_batch_out", "leave_one_batch_out")


@pytest.fixture(scope="module")
def dataset():
    return make_input({"A": 40, "B": 40, "C": 40, "D": 40}, seed=3)


def _run(analyses, dataset, plan=PLAN, algorithm=Combat()):
    return analyse(analyses, algorithm, dataset, plan, algorithm.harmonize(dataset, plan))


def test_unharmonized_takes_batch_into_the_model(dataset) -> None:
    found = _run([UNHARMONIZED], dataset)[0]

    assert (found["state"], found["rows"], found["algorithm"]) == ("done", 160, None)
    age = found["covariate_effects"]["by_covariate"][0]
    assert set(age["stages"]) == {"before", "before_batch_adjusted"}
    labels = np.array(dataset.batches)
    design = np.column_stack(
        [
            *(labels == batch for batch in "ABCD"),
            dataset.covariates["age"],
            np.array(dataset.covariates["sex"]) == "M",
        ]
    ).astype(float)
    expected = np.linalg.lstsq(design, dataset.values, rcond=None)[0][4]
    columns = found["covariate_effects"]["columns"]["covariates"]["age"]["before_batch_adjusted"]["value"]
    np.testing.assert_allclose(columns, expected, rtol=1e-5)
    assert found["batch_effects"]["analysis"]["mean_effect"] == 12
    assert found["batch_effects"]["main"]["mean_effect"] == 0
    agreed = found["against_main"]["covariates"][0]
    assert (agreed["covariate"], agreed["covered"], agreed["same_sign"]) == ("age", 1.0, 1.0)


def test_effect_that_the_method_takes_away_is_seen(dataset) -> None:
    age = np.array(dataset.covariates["age"])
    steep = dataset.with_values(dataset.values + 0.02 * (age - 60)[:, None])
    without_age = Combat().harmonize(steep, Specification())
    flat = replace(without_age, values=without_age.values - 0.015 * (age - 60)[:, None])

    found = analyse([UNHARMONIZED], Combat(), steep, PLAN, flat)[0]

    assert found["against_main"]["covariates"][0]["covered"] < 0.2


def test_the_same_method_gives_no_difference_and_another_one_its_own(dataset) -> None:
    same = SensitivityAnalysis("algorithm", "combat", Combat(), PLAN)
    mean_only = SensitivityAnalysis("algorithm", "mean only", Combat(), replace(PLAN, mean_only=True))

    first, second = _run([same, mean_only], dataset)

    assert first["against_main"]["values"]["greatest_sd"] == 0.0
    assert first["against_main"]["covariates"][0]["greatest_difference_in_errors"] < 1e-9
    assert 0.02 < second["against_main"]["values"]["median_sd"] < 0.3
    assert second["algorithm"] == "combat"
    assert second["name"] == "mean only"
    expected = Combat().harmonize(dataset, replace(PLAN, mean_only=True)).values
    gap = np.abs(expected - Combat().harmonize(dataset, PLAN).values) / dataset.values.std(axis=0)
    assert second["against_main"]["values"]["greatest_sd"] == pytest.approx(gap.max())
    top = second["against_main"]["values"]["largest"][0]
    assert gap[dataset.rows.index(top["row"]), dataset.features.index(top["feature"])] == gap.max()


def test_batch_that_moves_the_rest_is_seen_when_left_out(dataset) -> None:
    values = dataset.values.copy()
    own = np.array(dataset.batches) == "C"
    values[own] += 0.08 * (np.array(dataset.covariates["age"])[own, None] - 60)

    found = _run([LEFT_OUT], dataset.with_values(values))[0]

    signs = {item["batch"]: item["covariates"][0]["same_sign"] for item in found["left_out"]}
    moves = {item["batch"]: item["median_move_sd"] for item in found["left_out"]}
    assert signs == {"A": 1.0, "B": 1.0, "C": 0.0, "D": 1.0}
    assert max(moves, key=lambda batch: moves[batch]) == "C"
    assert [item["rows"] for item in found["left_out"]] == [120] * 4
    age = found["covariate_effects"]["by_covariate"][0]
    assert age["range"]["lowest"] < age["stages"]["after"]["median"] < age["range"]["highest"]


def test_what_cannot_be_carried_out_says_why(dataset) -> None:
    holes = dataset.values.copy()
    holes[4, 2] = np.nan
    other = SensitivityAnalysis("algorithm", "neurocombat", NeuroCombat(), PLAN)

    refused, done = _run([other, UNHARMONIZED], dataset.with_values(holes))

    assert refused["state"] == "refused"
    assert dataset.rows[4] in refused["reason"]
    assert done["state"] == "done"
    two = make_input({"A": 40, "B": 40}, seed=3)
    assert "two batches" in _run([LEFT_OUT], two)[0]["reason"]
    nameless = SensitivityAnalysis("algorithm", "nothing")
    assert _run([nameless], dataset)[0]["state"] == "refused"


def test_batch_that_cannot_be_left_out_is_named_and_the_rest_goes_on(dataset) -> None:
    found = _run([LEFT_OUT], dataset, replace(PLAN, reference_batch="B"))[0]

    states = {item["batch"]: item["state"] for item in found["left_out"]}
    assert states == {"A": "done", "B": "refused", "C": "done", "D": "done"}
    assert found["state"] == "done"


def test_errors_are_clustered_where_scans_repeat_subjects() -> None:
    dataset = make_longitudinal(60, seed=5)
    plan = Specification(
        covariates=(Covariate("age", "continuous"), Covariate("years", "continuous")),
        subject="subject",
        time="years",
        overlap=OverlapPolicy(10.0, 0.0),
    )

    found = _run([UNHARMONIZED], dataset, plan, LongCombat())[0]
    hidden = _run([UNHARMONIZED], dataset, replace(plan, subject=None))[0]

    errors = [
        item["covariate_effects"]["by_covariate"][0]["stages"]["before_batch_adjusted"]["median_error"]
        for item in (found, hidden)
    ]
    assert "clustered by subject" in found["covariate_effects"]["errors"]
    assert hidden["covariate_effects"]["errors"] == "ordinary"
    assert errors[0] > 1.3 * errors[1]


def test_large_tables_are_analysed_on_drawn_features(dataset, monkeypatch) -> None:
    monkeypatch.setattr(sensitivity, "MOST_CELLS", 0)
    wide = replace(
        dataset,
        values=np.hstack([dataset.values] * 4) + np.random.default_rng(1).normal(0, 0.05, (160, 48)),
        features=tuple(f"f{i:02d}" for i in range(48)),
        units=("mm",) * 48,
    )

    found = _run([UNHARMONIZED, LEFT_OUT, SensitivityAnalysis("algorithm", "x", Combat(), PLAN)], wide)

    assert [(item["features"], item["of_features"]) for item in found] == [(20, 48)] * 3
    assert {item["state"] for item in found} == {"done"}
    # Priors estimated from fewer features move the values, but little.
    assert 0 < found[2]["against_main"]["values"]["median_sd"] < 0.02


def test_everything_is_plain_json(dataset) -> None:
    found = _run([UNHARMONIZED, LEFT_OUT, SensitivityAnalysis("algorithm", "x", Combat(), PLAN)], dataset)

    json.dumps(found, allow_nan=False)
    without = _run([UNHARMONIZED, LEFT_OUT], dataset, Specification())
    assert without[0]["covariate_effects"]["by_covariate"] == []
    json.dumps(without, allow_nan=False)

"""The document of the diagnostics: headline, scope, limits and flags, its size, and every key it promises."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.baselines import GlobalScaling
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.longcombat import LongCombat
from harmonization_app.algorithms.neurocombat import NeuroCombat
from harmonization_app.algorithms.specification import Covariate, OverlapPolicy, Specification
from harmonization_app.algorithms.verification.methods.longcombat import make_longitudinal
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics import effects, scope
from harmonization_app.diagnostics.heldout import evaluate_held_out
from harmonization_app.diagnostics.scope import draw, narrowed

PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))


def _diagnosed(dataset: Dataset, plan: Specification = PLAN, algorithm=Combat()) -> dict:
    return algorithm.diagnose(dataset, plan, algorithm.harmonize(dataset, plan)).to_json()


@pytest.fixture(scope="module")
def report() -> dict:
    return _diagnosed(make_input({"A": 40, "B": 30, "C": 50}, seed=8))


def _wide(features: int) -> Dataset:
    dataset = make_input({"A": 40, "B": 30, "C": 50}, seed=8)
    random = np.random.default_rng(2)
    values = dataset.values[:, random.integers(0, 12, features)] + random.normal(0, 0.1, (120, features))
    names = tuple(f"f{i:05d}" for i in range(features))
    return replace(dataset, values=values, features=names, units=("mm",) * features)


def test_every_documented_key_is_there(report) -> None:
    documented = {
        name.strip()
        for line in str(effects.__doc__).splitlines()
        if line[:1].isalpha() and "  " in line and "{" not in line.split("  ")[0]
        for name in line.split("  ")[0].split(",")
    }

    assert documented >= {"headline", "scope", "limits", "flags", "travelling_subjects"}
    assert set(report) == documented - {"sensitivity"}
    stage = {"tests", "columns", "distributions", "summary", "projection", "covariance", "bhattacharyya"}
    assert set(report["in_sample"]["after"]) == stage
    assert report["in_sample"]["noise_floor"] == pytest.approx(stats.beta.median(1, 115 / 2))
    json.dumps(report, allow_nan=False)


def test_headline_rests_on_held_out_scans_and_calls_in_sample_by_its_name(report) -> None:
    evidence = {item["kind"]: item for item in report["headline"]["evidence"]}

    split = evidence["repeated_split"]
    assert report["headline"]["sentence"] == split["sentence"]
    assert split["held_out"]
    assert (split["before"], split["after"], split["expected"]) == (
        report["held_out"]["held_out_before"],
        report["held_out"]["held_out_after"],
        report["held_out"]["noise_floor"],
    )
    assert "Most of the batch effect is gone" in split["sentence"]
    assert evidence["in_sample"]["label"] == "in-sample: always looks perfect"
    assert not evidence["in_sample"]["held_out"]
    assert report["headline"]["evidence"][-1]["kind"] == "in_sample"
    classified = evidence["held_out_classification"]
    assert classified["before"] > 0.7 > 0.6 > classified["after"]
    assert classified["expected"] == pytest.approx(1 / 3, abs=0.08)


def test_headline_says_that_a_method_without_effect_left_the_batches_apart(monkeypatch) -> None:
    dataset = make_input({"A": 40, "B": 30, "C": 50}, seed=8)

    def unchanged(self, model, data, findings):
        return replace(original(self, model, data, findings), values=data.values)

    original = Combat.correct
    monkeypatch.setattr(Combat, "correct", unchanged)
    report = _diagnosed(dataset)

    assert "The batch effect remains" in report["headline"]["sentence"]


def test_headline_says_where_there_is_no_held_out_evidence() -> None:
    report = _diagnosed(make_input({"A": 40, "B": 30, "C": 50}, seed=8), PLAN, NeuroCombat())

    assert report["headline"]["sentence"].startswith("There is no held-out evidence")
    assert "cannot correct scans it was not fitted on" in report["headline"]["sentence"]
    assert {item["kind"] for item in report["headline"]["evidence"]} == {"leave_one_batch_out", "in_sample"}


def test_longitudinal_tables_are_told_as_such_and_refitted_on_few_features() -> None:
    dataset = make_longitudinal(60, seed=5)
    plan = Specification(covariates=(Covariate("age", "continuous"),), subject="subject", time="years")

    report = _diagnosed(dataset, plan, LongCombat())

    assert report["repeated"] == {"subjects": 60, "scans": 240, "source": "column subject"}
    assert "take them as independent" in report["in_sample"]["note"]
    assert report["within_subject"]["by_batch"]
    assert report["held_out"]["split_by"] == "subject"
    assert report["scope"]["parts"]["held_out"]["features"] <= 8


def test_held_out_covariance_and_classification_are_of_unseen_scans(report) -> None:
    held_out = report["held_out"]

    assert held_out["covariance"]["evaluable"]
    assert held_out["covariance"]["after"] < held_out["covariance"]["before"]
    assert held_out["classification"]["before"]["scans"] == 60
    assert held_out["split_by"] == "scan"


def test_whole_subjects_are_held_out_where_scans_repeat_them() -> None:
    dataset = make_input({"A": 60, "B": 60}, seed=8)
    rows = tuple(f"S{i // 3:02d}|V{i % 3}" for i in range(120))
    order = np.argsort(dataset.batches, kind="stable")
    repeated = replace(dataset.select(order), rows=rows)

    assert evaluate_held_out(Combat(), repeated, PLAN).split_by == "subject"
    assert evaluate_held_out(Combat(), dataset, PLAN).split_by == "scan"


def test_limits_and_flags_of_the_method_are_told() -> None:
    dataset = make_input({"A": 40, "B": 30}, seed=8)
    values = dataset.values.copy()
    values[:, 4] = 2.0
    holed = dataset.with_values(values)

    report = _diagnosed(holed)

    assert report["limits"] == list(Combat.limits)
    assert report["flags"]["constant"]["listed"] == ["region_04"]
    assert report["flags"]["constant"]["features"] == 1
    assert "unchanged" in report["flags"]["constant"]["meaning"]
    assert report["facts"]["scans"] == 70
    assert "findings" not in report["facts"]
    assert _diagnosed(dataset, Specification(eb=False), GlobalScaling())["limits"]


def test_singular_fits_are_flagged_with_what_they_mean() -> None:
    dataset = make_longitudinal(40, seed=5)
    random = np.random.default_rng(1)
    values = dataset.values.copy()
    values[:, 0] = random.normal(2.5, 0.1, len(values))
    plan = Specification(
        covariates=(Covariate("age", "continuous"), Covariate("years", "continuous")),
        subject="subject",
        time="years",
        overlap=OverlapPolicy(10.0, 0.0),
        options={"random_slope": True},
    )

    report = _diagnosed(dataset.with_values(values), plan, LongCombat())

    assert dataset.features[0] in report["flags"]["singular_fit"]["listed"]
    assert "no variance left" in report["flags"]["singular_fit"]["meaning"]


def test_size_is_bounded_and_what_was_drawn_is_said(monkeypatch) -> None:
    for module in (scope, effects):
        monkeypatch.setattr(module, "RANK_CELLS", 60 * 120, raising=False)
        monkeypatch.setattr(module, "REFIT_CELLS", 30 * 120, raising=False)

    sizes, reports = [], []
    for features in (2100, 4200):
        report = _diagnosed(_wide(features))
        reports.append(report)
        sizes.append(len(json.dumps(report)))

    assert abs(sizes[1] - sizes[0]) < 0.02 * sizes[0]
    report = reports[0]
    parts = report["scope"]["parts"]
    assert report["scope"]["listed"] == len(report["in_sample"]["before"]["tests"]) == 400
    assert report["in_sample"]["before"]["columns"] is None
    assert report["covariate_effects"]["columns"] is None
    assert (parts["partial_f"]["features"], parts["partial_f"]["chosen"]) == (2100, "all")
    assert (parts["rank_and_scale_tests"]["features"], parts["held_out"]["features"]) == (60, 30)
    assert parts["held_out"]["chosen"] == f"drawn by the seed {PLAN.seed}"
    assert report["in_sample"]["before"]["summary"]["tested"] == 2100
    assert report["held_out"]["features"] == 30


def test_listed_features_are_those_with_the_largest_batch_effect(monkeypatch) -> None:
    dataset = _wide(450)
    values = dataset.values.copy()
    own = np.array(dataset.batches) == "A"
    values[own, 17] += 5.0

    report = _diagnosed(dataset.with_values(values))

    listed = [item["feature"] for item in report["in_sample"]["before"]["tests"]]
    assert len(listed) == 400
    assert "f00017" in listed
    sizes = report["in_sample"]["before"]["columns"]
    etas = dict(zip(sizes["feature"], sizes["partial_eta_squared"], strict=True))
    left_out = set(etas) - set(listed)
    assert max(etas[name] for name in left_out) <= min(etas[name] for name in listed) + 1e-5
    assert [item["feature"] for item in report["in_sample"]["after"]["tests"]] == listed
    assert {item["feature"] for item in report["covariates"]} == set(listed)


def test_drawing_follows_the_seed() -> None:
    assert draw(5, 5, 1).tolist() == [0, 1, 2, 3, 4]
    first = draw(1000, 10, 1)
    assert np.array_equal(first, draw(1000, 10, 1))
    assert not np.array_equal(first, draw(1000, 10, 2))
    assert np.array_equal(first, np.sort(first))


def test_narrowed_plan_keeps_features_that_the_method_names() -> None:
    dataset = _wide(30)
    plan = replace(PLAN, options={"controls": ["f00003", "f00029"]})

    own, narrow = narrowed(dataset, plan, np.array([0, 5]))

    assert own.features == ("f00000", "f00003", "f00005", "f00029")
    assert narrow.features == own.features

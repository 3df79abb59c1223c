"""The gate on repeated scans, residuals, counts, ranges and blinding: planted faults are named, sound tables pass."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.design import build_design
from harmonization_app.algorithms.specification import Covariate, OverlapPolicy, Specification
from harmonization_app.diagnostics.blinding import arm_like_names, check_blinding
from harmonization_app.diagnostics.gate import check
from harmonization_app.diagnostics.gate_plausible import check_plausible
from harmonization_app.diagnostics.gate_products import batch_products
from harmonization_app.diagnostics.gate_slopes import interaction_f, interaction_score
from harmonization_app.diagnostics.subjects import find_subjects, repeated_subjects

COVARIATES = (Covariate("age", "continuous"), Covariate("sex", "categorical"))
PLAN = Specification(covariates=COVARIATES, overlap=OverlapPolicy(10.0, 0.0))


def _repeated(seed: int = 1, subjects: int = 80, visits: int = 4, features: int = 60) -> Dataset:
    """Return scans of subjects who vary more than their scans do, mostly seen in one batch each."""
    random = np.random.default_rng(seed)
    subject = np.repeat(np.arange(subjects), visits)
    visit = np.tile(np.arange(visits), subjects)
    home = np.arange(subjects) % 4
    batch = np.where(random.random(len(subject)) < 0.1, random.integers(0, 4, len(subject)), home[subject])
    age, sex = random.uniform(55, 85, subjects)[subject], random.integers(0, 2, subjects)[subject]
    values = 50 + random.normal(0, 1.5, (subjects, features))[subject]
    values += random.normal(0, 1, (len(subject), features)) + random.normal(0, 1, (4, features))[batch]
    return Dataset(
        values,
        tuple(f"f{i:02d}" for i in range(features)),
        tuple(f"S{s:03d}|V{v}" for s, v in zip(subject, visit, strict=True)),
        tuple("abcd"[i] for i in batch),
        {
            "age": tuple(age.tolist()),
            "sex": tuple("FM"[i] for i in sex),
            "who": tuple(f"S{s:03d}" for s in subject),
        },
        ("mm3",) * features,
    )


def _codes(dataset: Dataset, plan: Specification = PLAN) -> set[str]:
    return {finding.code for finding in check(dataset, plan)}


def test_subjects_come_from_the_plan_or_from_the_row_keys() -> None:
    dataset = _repeated()

    by_column = find_subjects(dataset, replace(PLAN, subject="who"))
    by_key = find_subjects(dataset, PLAN)

    assert (by_column.source, by_key.source) == ("column who", "row keys")
    assert by_column.count == by_key.count == 80
    assert np.array_equal(by_column.codes, by_key.codes)
    assert by_key.scans_per_subject == 4.0
    once = dataset.select(np.arange(0, 320, 4))
    assert repeated_subjects(once, PLAN) is None
    assert find_subjects(replace(once, rows=tuple(f"r{i}" for i in range(80))), PLAN) is None


def test_scan_without_a_subject_is_one_of_its_own() -> None:
    dataset = _repeated()
    who = [None, None, *dataset.covariates["who"][2:]]

    subjects = find_subjects(replace(dataset, covariates={"who": tuple(who)}), replace(PLAN, subject="who"))

    assert subjects.count == 82


@pytest.mark.parametrize("seed", range(4))
def test_repeated_scans_of_alike_slopes_give_no_warning(seed) -> None:
    assert not {"unlike_slopes", "influential_batch", "covariate_distribution"} & _codes(_repeated(seed))


def test_score_test_keeps_the_level_where_the_f_test_does_not() -> None:
    rates = []
    for seed in range(6):
        dataset = _repeated(seed)
        design = build_design(dataset, PLAN)
        score = interaction_score(dataset.values, design, repeated_subjects(dataset, PLAN))
        f = interaction_f(batch_products(dataset.values, design))
        rates.append(((score < 0.05).mean(), (f < 0.05).mean()))

    by_score, by_f = np.mean(rates, axis=0)
    assert 0.02 < by_score < 0.08
    assert by_f > 0.2


def test_f_test_keeps_the_level_on_independent_scans() -> None:
    rates = []
    for seed in range(6):
        dataset = _repeated(seed, subjects=240, visits=1)
        rates.append(
            (interaction_f(batch_products(dataset.values, build_design(dataset, PLAN))) < 0.05).mean()
        )

    assert 0.02 < np.mean(rates) < 0.08


def test_f_test_is_that_of_nested_models() -> None:
    dataset = _repeated(2, subjects=120, visits=1, features=5)
    design = build_design(dataset, PLAN)
    indicators = np.eye(4)[design.codes]
    null = np.hstack([indicators, design.covariates])
    full = np.hstack([indicators, *(indicators[:, [b]] * design.covariates for b in range(4))])

    squares = [
        np.sum((dataset.values - part @ np.linalg.lstsq(part, dataset.values, rcond=None)[0]) ** 2, axis=0)
        for part in (null, full)
    ]
    expected = stats.f.sf((squares[0] - squares[1]) / 6 / (squares[1] / 108), 6, 108)
    np.testing.assert_allclose(interaction_f(batch_products(dataset.values, design)), expected, rtol=1e-7)


def test_unlike_slope_in_repeated_scans_is_found_and_its_batch_named() -> None:
    dataset = _repeated(subjects=160)
    own = np.array(dataset.batches) == "b"
    values = dataset.values + np.where(own, 0.3 * (np.array(dataset.covariates["age"]) - 70), 0.0)[:, None]

    found = {finding.code: finding for finding in check(dataset.with_values(values), PLAN)}["unlike_slopes"]

    assert found.batches == ("b",)
    assert "score test by subject" in found.message


def test_too_few_subjects_are_said_not_to_be_comparable() -> None:
    dataset = _repeated(subjects=11, visits=8)

    assert "slopes_not_compared" in _codes(dataset)


def test_outlying_scan_and_value_are_named() -> None:
    dataset = _repeated(subjects=240, visits=1)
    values = dataset.values.copy()
    values[17] += np.where(np.arange(60) % 2 == 0, 15.0, -15.0)
    values[33, 4] += 40.0

    found = {finding.code: finding for finding in check(dataset.with_values(values), PLAN)}

    assert found["outlying_scan"].rows == (dataset.rows[17],)
    assert found["outlying_value"].rows == (dataset.rows[33],)
    assert found["outlying_value"].columns == ("f04",)


def test_skewed_features_and_uneven_spread_are_named() -> None:
    dataset = _repeated(subjects=240, visits=1)
    random = np.random.default_rng(4)
    age = np.array(dataset.covariates["age"])
    values = dataset.values.copy()
    values[:, 7] = random.lognormal(0, 1, len(age))
    values[:, 20:] += random.normal(0, 1, (240, 40)) * ((age - 55) / 6)[:, None]

    found = {finding.code: finding for finding in check(dataset.with_values(values), PLAN)}

    assert found["skewed_residuals"].columns == ("f07",)
    assert found["uneven_spread"].columns == ("age",)


@pytest.mark.parametrize("seed", range(4))
def test_sound_residuals_and_batches_of_unlike_scale_give_no_warning(seed) -> None:
    dataset = _repeated(seed, subjects=240, visits=1)
    scale = np.array([0.6, 1.0, 1.4, 2.0])[["abcd".index(batch) for batch in dataset.batches]]
    found = _codes(dataset.with_values((dataset.values - 50) * scale[:, None] + 50))

    assert not {"outlying_scan", "outlying_value", "skewed_residuals", "uneven_spread"} & found


def test_counts_are_by_batch_and_by_level() -> None:
    dataset = _repeated(subjects=80)
    counts = {finding.code: finding.message for finding in check(dataset, PLAN)}
    own = np.array(dataset.batches) == "a"
    women = sum(own & (np.array(dataset.covariates["sex"]) == "F"))
    people = len(set(np.array(dataset.covariates["who"])[own]))

    assert f"a {own.sum()} of {people} subject(s)" in counts["batch_counts"]
    assert f"a F {women}, M {own.sum() - women}" in counts["level_counts"]


def test_level_of_one_batch_and_level_that_a_batch_lacks_are_named() -> None:
    dataset = _repeated(subjects=240, visits=1)
    batch, random = np.array(dataset.batches), np.random.default_rng(1)
    group = np.where(random.random(240) < 0.5, "HC", "MCI").astype(object)
    group[(batch == "c") & (np.arange(240) % 3 == 0)] = "AD"
    group[(batch == "d") & (group == "MCI")] = "HC"
    plan = replace(PLAN, covariates=(Covariate("group", "categorical", reference="HC"),))
    table = replace(dataset, covariates={"group": tuple(group)})

    found = {finding.code: finding for finding in check(table, plan)}

    assert found["level_in_one_batch"].batches == ("c",)
    assert found["level_absent_in_batch"].batches == ("d",)


def test_values_outside_planned_ranges_stop_and_are_named() -> None:
    dataset = _repeated(subjects=20, visits=1)
    values = dataset.values.copy()
    values[3, 2], values[5, 4], values[6, 6] = -1.0, 900.0, np.nan
    table = dataset.with_values(values)

    found = check_plausible(table, {"mm3": (0.0, 500.0)})

    assert [(finding.severity, finding.columns) for finding in found] == [("stop", ("f02", "f04"))]
    assert found[0].rows == (table.rows[3], table.rows[5])
    assert "2 value(s), in 2 row(s) and 2 feature(s)" in found[0].message
    assert f"{table.rows[3]}, f02: -1 mm3" in found[0].message
    assert [finding.code for finding in check_plausible(table, {"mm": (0.0, 1.0)})] == [
        "plausible_range_unknown"
    ]
    assert check_plausible(table, {"mm3": (0.0, 500.0)}, features=("f00", "f01")) == []
    assert check_plausible(table, {"mm3": (None, None)}) == []
    assert check_plausible(table, {"mm3": (0.0, 1000.0), "f02": (-5.0, None)}) == []


def test_a_wide_table_is_judged_by_blocks_and_names_a_bounded_number() -> None:
    values = np.full((400, 20_000), 1.0)
    values[7, 10_000:], values[8, 3] = 9.0, -9.0
    names, rows = tuple(f"f{i}" for i in range(20_000)), tuple(f"s{i}|v" for i in range(400))
    table = Dataset(values, names, rows, ("a",) * 400, {}, ("mm",) * 20_000)

    tracemalloc.start()
    found = check_plausible(table, {"mm": (0.0, 5.0)})[0]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found.rows == ("s7|v", "s8|v")
    assert found.columns == ("f3", *names[10_000:10_999])
    assert "10001 value(s), in 2 row(s) and 10001 feature(s)" in found.message
    assert found.message.count("f1000") == 9
    assert "and 9991 more" in found.message
    # The truth of one comparison on the whole table would take an eighth of it.
    assert peak_bytes < values.nbytes / 16


@pytest.mark.parametrize(
    "name", ["arm", "ARMCD", "actual_arm", "TreatmentGroup", "trt-code", "randomised to"]
)
def test_names_that_tell_the_arm(name) -> None:
    assert arm_like_names([name]) == (name,)


@pytest.mark.parametrize("name", ["age", "left_arm_length", "harmony", "pharmacy", "alarm", "warm", "group"])
def test_names_that_tell_no_arm(name) -> None:
    assert arm_like_names([name]) == ()


def test_columns_that_tell_the_arm_are_refused() -> None:
    subjects = [f"S{i % 20}" for i in range(60)]
    arms = {f"S{i}": "active" if i % 2 else "control" for i in range(20)}
    covariates = {
        "colour": ["blue" if arms[subject] == "active" else "green" for subject in subjects],
        "kit": [f"{arms[subject][:2]}{int(subject[1:]) % 4}" for subject in subjects],
        "code": [arms[subject].upper() for subject in subjects],
        "secret": list("ab") * 30,
        "sex": list("ffm") * 20,
        "subject": subjects,
    }

    found = check_blinding(
        covariates, ["secret"], subjects=subjects, arms=arms, arm_codes=["active", "control"]
    )

    assert [finding.columns[0] for finding in found] == ["colour", "kit", "code", "secret"]
    assert {finding.severity for finding in found} == {"stop"}
    assert "blue" not in found[0].message


def test_without_known_arms_only_names_and_codes_tell() -> None:
    covariates = {"colour": list("ab") * 5, "code": ["X", "Y"] * 5, "one": ["X"] * 10}

    found = check_blinding(covariates, arm_codes=["x", "y", "z"])

    assert [finding.columns for finding in found] == [("code",)]


@pytest.mark.parametrize("seed", range(4))
def test_covariates_that_tell_a_batch_together_are_named_and_balanced_ones_are_not(seed) -> None:
    dataset = _repeated(seed, subjects=240, visits=1)
    random = np.random.default_rng(seed)
    own = np.array(dataset.batches) == "c"
    first = random.normal(0, 1, 240)
    second = first + np.where(own, 0.8, 0.0) + random.normal(0, 0.4, 240)
    plan = replace(PLAN, covariates=(Covariate("iq", "continuous"), Covariate("score", "continuous")))
    table = replace(dataset, covariates={"iq": tuple(first.tolist()), "score": tuple(second.tolist())})

    found = {finding.code: finding for finding in check(table, plan)}

    assert found["covariates_tell_batch"].batches == ("c",)
    assert "covariates_tell_batch" not in _codes(dataset)


def test_subjects_that_do_not_go_with_the_scans_are_no_proof_of_blinding() -> None:
    with pytest.raises(ValueError, match="shorter"):
        check_blinding({"colour": list("ab") * 5}, subjects=["S1"], arms={"S1": "active"})

"""The gate: the eighteen pathological inputs of the reference set, and each check by itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    FeaturePool,
    OverlapPolicy,
    Specification,
)
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics.gate import check

AGE_AND_SEX = (Covariate("age", "continuous"), Covariate("sex", "categorical"))
SPECIFICATION = Specification(covariates=AGE_AND_SEX)
SITES = {"A": 30, "B": 25, "C": 40, "D": 22}


@pytest.fixture
def dataset() -> Dataset:
    return make_input(SITES, seed=3)


def _stops(dataset: Dataset, specification: Specification = SPECIFICATION) -> dict:
    return {finding.code: finding for finding in check(dataset, specification) if finding.severity == "stop"}


def _with(dataset: Dataset, **covariates) -> Dataset:
    return replace(dataset, covariates={**dataset.covariates, **covariates})


def _changed(dataset: Dataset, rows, column: int, value: float) -> Dataset:
    values = dataset.values.copy()
    values[rows, column] = value
    return dataset.with_values(values)


def _of(dataset: Dataset, batch: str) -> np.ndarray:
    return np.flatnonzero(np.array(dataset.batches, dtype=object) == batch)


def _cut(dataset: Dataset, batch: str, keep: int) -> Dataset:
    dropped = set(_of(dataset, batch)[keep:].tolist())
    return dataset.select([row for row in range(len(dataset.rows)) if row not in dropped])


def _refused(dataset: Dataset, specification: Specification = SPECIFICATION) -> HarmonizationRefused:
    with pytest.raises(HarmonizationRefused) as refusal:
        Combat().harmonize(dataset, specification)
    return refusal.value


def test_sound_data_pass_without_stop_or_warning_of_values(dataset) -> None:
    findings = check(dataset, SPECIFICATION)

    assert {finding.severity for finding in findings} <= {"warn", "info"}
    notes = {"batch_counts", "level_counts", "design_condition"}
    assert {finding.code for finding in findings} <= {"covariate_imbalance", *notes}


def test_constant_feature_is_flagged_and_passed_through(dataset) -> None:
    constant = _changed(dataset, slice(None), 2, 1.0)

    findings = {finding.code: finding for finding in check(constant, SPECIFICATION)}
    result = Combat().harmonize(constant, SPECIFICATION)

    assert findings["constant_feature"].columns == ("region_02",)
    assert np.array_equal(result.values[:, 2], constant.values[:, 2])
    assert np.isfinite(result.values).all()


def test_feature_constant_in_one_site_is_flagged(dataset) -> None:
    constant = _changed(dataset, _of(dataset, "B"), 2, 1.0)

    finding = {finding.code: finding for finding in check(constant, SPECIFICATION)}["constant_in_batch"]

    assert (finding.severity, finding.columns, finding.batches) == ("warn", ("region_02",), ("B",))
    assert Combat().harmonize(constant, SPECIFICATION).flags["constant_in_batch"] == ("region_02",)


@pytest.mark.parametrize(
    ("rows", "batches"),
    [
        (lambda dataset: np.arange(len(dataset.rows)), ("A", "B", "C", "D")),
        (lambda dataset: _of(dataset, "B"), ("B",)),
        (lambda dataset: _of(dataset, "B")[1:], ("B",)),
    ],
    ids=["all_NA_feature", "NA_whole_site", "NA_all_but_one_in_site"],
)
def test_feature_without_scans_in_a_site_is_refused_or_passed_through(dataset, rows, batches) -> None:
    lacking = _changed(dataset, rows(dataset), 5, np.nan)

    stop = _stops(lacking)["feature_lacks_batch"]
    passing = Combat().harmonize(lacking, replace(SPECIFICATION, unusable_features="pass_through"))

    assert (stop.columns, stop.batches) == (("region_05",), batches)
    assert passing.flags["unusable"] == ("region_05",)
    assert np.array_equal(passing.values[:, 5], lacking.values[:, 5], equal_nan=True)
    others = [column for column in range(12) if column != 5]
    assert np.isfinite(passing.values[:, others]).all()
    alone = Combat().harmonize(
        dataset, replace(SPECIFICATION, features=tuple(dataset.features[i] for i in others))
    )
    assert max_difference_sd(passing.values[:, others], alone.values, dataset.values[:, others]) < 1e-12


def test_site_with_one_scan_is_refused(dataset) -> None:
    stop = _stops(_cut(dataset, "D", 1))["batch_too_small"]

    assert stop.batches == ("D",)
    assert "D (1)" in stop.message


def test_site_with_one_scan_is_taken_by_a_mean_only_plan(dataset) -> None:
    small = _cut(dataset, "D", 1)
    plan = replace(SPECIFICATION, mean_only=True, overlap=OverlapPolicy(minimum_overlap=0.0))

    result = Combat().harmonize(small, plan)

    assert np.isfinite(result.values).all()
    findings = {finding["code"]: finding for finding in result.facts["findings"]}
    assert findings["small_batch"]["batches"] == ["D"]


def test_covariate_that_is_a_function_of_site_is_named(dataset) -> None:
    field = {"A": 1.5, "B": 3.0, "C": 3.0, "D": 7.0}
    confounded = _with(dataset, field_t=tuple(field[str(batch)] for batch in dataset.batches))

    stops = _stops(
        confounded, replace(SPECIFICATION, covariates=(*AGE_AND_SEX, Covariate("field_t", "continuous")))
    )

    assert list(stops) == ["confounded_with_batch"]
    assert stops["confounded_with_batch"].columns == ("field_t",)
    assert "field_t is determined by batch" in stops["confounded_with_batch"].message


def test_categorical_function_of_site_is_named(dataset) -> None:
    maker = {"A": "X", "B": "Y", "C": "Y", "D": "Z"}
    confounded = _with(dataset, maker=tuple(maker[str(batch)] for batch in dataset.batches))

    findings = check(confounded, Specification(covariates=(Covariate("maker", "categorical"),)))

    named = {finding.columns for finding in findings if finding.code == "confounded_with_batch"}
    assert named == {("maker[Y]",), ("maker[Z]",)}


@pytest.mark.parametrize("twin", [lambda age: 12 * age, lambda age: 2024 - age])
def test_collinear_covariates_are_named(dataset, twin) -> None:
    collinear = _with(dataset, twin=tuple(twin(age) for age in dataset.covariates["age"]))

    stops = _stops(
        collinear, replace(SPECIFICATION, covariates=(*AGE_AND_SEX, Covariate("twin", "continuous")))
    )

    assert list(stops) == ["collinear_covariates"]
    assert stops["collinear_covariates"].columns == ("twin", "age")


def test_covariate_determined_by_batch_and_another_names_both(dataset) -> None:
    offset = {"A": 0.0, "B": 1.0, "C": 2.0, "D": 5.0}
    sums = tuple(
        age + offset[str(b)] for age, b in zip(dataset.covariates["age"], dataset.batches, strict=True)
    )
    plan = replace(SPECIFICATION, covariates=(*AGE_AND_SEX, Covariate("sum", "continuous")))

    stop = _stops(_with(dataset, sum=sums), plan)["confounded_with_batch"]

    assert stop.columns == ("sum", "age")
    assert "batch and age" in stop.message


def test_nearly_confounded_covariate_is_refused(dataset) -> None:
    noise = np.random.default_rng(1).normal(0, 1e-4, len(dataset.rows))
    near = tuple(ord(str(batch)) + e for batch, e in zip(dataset.batches, noise, strict=True))
    plan = Specification(
        covariates=(Covariate("near", "continuous"),), overlap=OverlapPolicy(minimum_overlap=0.0)
    )

    stop = _stops(_with(dataset, near=near), plan)["nearly_confounded"]

    assert stop.columns == ("near",)


@pytest.mark.parametrize("value", [None, np.nan, "", "unknown", np.inf])
def test_missing_covariate_is_named_by_row(dataset, value) -> None:
    ages = list(dataset.covariates["age"])
    ages[4] = value

    stop = _stops(_with(dataset, age=tuple(ages)))["missing_covariate"]

    assert (stop.rows, stop.columns) == (("S004",), ("age",))


def test_missing_level_is_named_by_row(dataset) -> None:
    sexes = list(dataset.covariates["sex"])
    sexes[9] = " "

    stop = _stops(_with(dataset, sex=tuple(sexes)))["missing_covariate"]

    assert (stop.rows, stop.columns) == (("S009",), ("sex",))


@pytest.mark.parametrize("label", [None, ""])
def test_missing_site_is_named_by_row(dataset, label) -> None:
    batches = list(dataset.batches)
    batches[6] = label

    stop = _stops(replace(dataset, batches=tuple(batches)))["missing_batch"]

    assert stop.rows == ("S006",)


def test_one_feature_with_empirical_bayes_is_refused(dataset) -> None:
    stop = _stops(dataset, replace(SPECIFICATION, features=("region_03",)))["too_few_features_for_eb"]

    assert "eb off" in stop.message


def test_one_feature_without_empirical_bayes_is_taken(dataset) -> None:
    plan = replace(SPECIFICATION, features=("region_03",), eb=False)

    assert np.isfinite(Combat().harmonize(dataset, plan).values).all()


def test_one_site_only_is_refused(dataset) -> None:
    assert "one_batch" in _stops(dataset.select(_of(dataset, "A")))


def test_unknown_reference_batch_names_the_known_ones(dataset) -> None:
    stop = _stops(dataset, replace(SPECIFICATION, reference_batch="Z"))["unknown_reference_batch"]

    assert "A, B, C, D" in stop.message


def test_site_with_two_scans_is_refused_unless_the_plan_lowers_the_limit(dataset) -> None:
    small = _cut(dataset, "D", 2)
    lowered = replace(
        SPECIFICATION, batch_size=BatchSizePolicy(2, 2, 20), overlap=OverlapPolicy(minimum_overlap=0.0)
    )

    assert _stops(small)["batch_too_small"].batches == ("D",)
    assert not _stops(small, lowered)
    assert np.isfinite(Combat().harmonize(small, lowered).values).all()


def test_more_effects_than_scans_is_refused(dataset) -> None:
    few = dataset.select([row for site in SITES for row in _of(dataset, site)[:2]])
    extra = {f"c{i}": tuple(np.random.default_rng(i).normal(size=8).tolist()) for i in range(5)}
    plan = Specification(
        covariates=tuple(Covariate(name, "continuous") for name in extra), batch_size=BatchSizePolicy(2, 2, 2)
    )

    assert "more_effects_than_scans" in _stops(_with(few, **extra), plan)


def test_infinite_value_is_named_by_row_and_column(dataset) -> None:
    stop = _stops(_changed(dataset, 8, 4, -np.inf))["infinite_value"]

    assert (stop.rows, stop.columns) == (("S008",), ("region_04",))


def test_every_refusal_reaches_the_caller_as_one_error(dataset) -> None:
    refusal = _refused(_changed(dataset, 8, 4, np.inf), replace(SPECIFICATION, reference_batch="Z"))

    assert {error["field"] for error in refusal.errors} == {"infinite_value", "unknown_reference_batch"}
    assert refusal.http_status == 422


@pytest.mark.parametrize(
    ("size", "plan", "code"),
    [
        (4, {}, "batch_too_small"),
        (5, {}, "batch_too_small_for_scale"),
        (9, {}, "batch_too_small_for_scale"),
        (10, {}, None),
        (19, {"eb": False}, "batch_too_small"),
        (20, {"eb": False}, None),
        (4, {"mean_only": True}, None),
        (4, {"mean_only": True, "eb": False}, "batch_too_small"),
    ],
)
def test_batch_sizes_at_the_limits(dataset, size, plan, code) -> None:
    plan = replace(SPECIFICATION, overlap=OverlapPolicy(minimum_overlap=0.0), **plan)

    assert list(_stops(_cut(dataset, "D", size), plan)) == ([code] if code else [])


@pytest.mark.parametrize(("size", "warned"), [(19, True), (20, False)])
def test_small_batches_are_warned_of(dataset, size, warned) -> None:
    codes = {finding.code for finding in check(_cut(dataset, "D", size), SPECIFICATION)}

    assert ("small_batch" in codes) is warned


def test_merging_heals_a_small_batch(dataset) -> None:
    small = _cut(dataset, "D", 3)

    assert not _stops(small, replace(SPECIFICATION, merge_batches={"D": "C"}))


def test_missing_cells_are_reported_or_refused(dataset) -> None:
    holes = _changed(dataset, [1, 2], 3, np.nan)

    allowed = {finding.code: finding for finding in check(holes, SPECIFICATION)}["missing_value"]
    refused = _stops(holes, replace(SPECIFICATION, missing_values="refuse"))["missing_value"]

    assert allowed.severity == "info"
    assert (refused.rows, refused.columns) == (("S001", "S002"), ("region_03",))


def test_duplicate_rows_and_features_are_refused(dataset) -> None:
    rows = ("S001", *dataset.rows[1:])
    features = ("region_01", *dataset.features[1:])

    assert _stops(replace(dataset, rows=rows))["duplicate_row"].rows == ("S001",)
    assert _stops(replace(dataset, features=features))["duplicate_feature"].columns == ("region_01",)


@pytest.mark.parametrize("policy", ["warn", "stop"])
def test_the_same_scan_twice_is_found(dataset, policy) -> None:
    values = dataset.values.copy()
    values[20] = values[3]

    findings = check(dataset.with_values(values), replace(SPECIFICATION, duplicate_values=policy))

    found = next(finding for finding in findings if finding.code == "duplicate_values")
    assert (found.severity, found.rows) == (policy, ("S020",))


@pytest.mark.parametrize(
    ("covariate", "code"),
    [
        (Covariate("weight", "continuous"), "covariate_lacking"),
        (Covariate("sex", "categorical", reference="X"), "unknown_level"),
        (Covariate("sex", "categorical", levels=("F",)), "unknown_level"),
        (Covariate("sex", "continuous"), "missing_covariate"),
    ],
)
def test_faulty_covariates_are_refused(dataset, covariate, code) -> None:
    assert list(_stops(dataset, Specification(covariates=(covariate,)))) == [code]


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_constant_covariate_is_refused(dataset, kind) -> None:
    constant = _with(dataset, arm=(1,) * len(dataset.rows))

    assert list(_stops(constant, Specification(covariates=(Covariate("arm", kind),)))) == [
        "constant_covariate"
    ]


def test_batch_outside_the_age_range_of_the_others_is_refused(dataset) -> None:
    ages = np.array(dataset.covariates["age"])
    ages[_of(dataset, "C")] -= 60

    findings = {f.code: f for f in check(_with(dataset, age=tuple(ages)), SPECIFICATION)}

    assert findings["no_covariate_overlap"].severity == "stop"
    assert "C (0%)" in findings["no_covariate_overlap"].message
    assert "C" in findings["covariate_imbalance"].batches


def test_standardized_mean_difference_is_that_of_its_definition() -> None:
    ages = [10.0, 12.0, 14.0] * 10 + [13.0, 15.0, 17.0] * 10
    dataset = Dataset(
        np.random.default_rng(0).normal(size=(60, 12)),
        tuple(f"f{i}" for i in range(12)),
        tuple(f"r{i}" for i in range(60)),
        ("A",) * 30 + ("B",) * 30,
        {"age": tuple(ages)},
    )
    plan = Specification(covariates=(Covariate("age", "continuous"),), overlap=OverlapPolicy(0.5, 0.0))

    finding = next(item for item in check(dataset, plan) if item.code == "covariate_imbalance")

    # Means differ by 3; each batch has variance 8 / 3, so SMD = 3 / sqrt(8 / 3) = 1.837.
    assert "A (1.84), B (1.84)" in finding.message


def test_pools_must_partition_the_features(dataset) -> None:
    plan = replace(SPECIFICATION, pools=(FeaturePool("half", dataset.features[:6]),))

    assert _stops(dataset, plan)["pools_do_not_fit"].columns == dataset.features[6:]


def test_unlike_units_in_one_pool_are_warned_of(dataset) -> None:
    mixed = replace(dataset, units=("mm",) * 6 + ("mm3",) * 6)
    pools = (FeaturePool("thickness", dataset.features[:6]), FeaturePool("volume", dataset.features[6:]))

    def codes(plan: Specification) -> set[str]:
        return {finding.code for finding in check(mixed, plan)}

    assert "mixed_units_in_pool" in codes(SPECIFICATION)
    assert "mixed_units_in_pool" not in codes(replace(SPECIFICATION, pools=pools))


def test_planned_feature_that_lacks_is_named(dataset) -> None:
    assert _stops(dataset, replace(SPECIFICATION, features=("region_01", "x")))[
        "unknown_feature"
    ].columns == ("x",)


def test_findings_are_sorted_and_plain_json(dataset) -> None:
    faulty = _changed(_changed(dataset, slice(None), 2, 1.0), 8, 4, np.inf)

    findings = check(faulty, SPECIFICATION)

    ranks = [["stop", "warn", "info"].index(finding.severity) for finding in findings]
    assert ranks == sorted(ranks)
    json.dumps([finding.to_json() for finding in findings])


@pytest.mark.parametrize(("policy", "severity"), [("refuse", "stop"), ("pass_through", "warn")])
def test_feature_seen_in_one_sex_only_is_named_by_the_gate(dataset, policy, severity) -> None:
    men = np.flatnonzero(np.array(dataset.covariates["sex"]) == "M")
    plan = replace(SPECIFICATION, unusable_features=policy, batch_size=BatchSizePolicy(2, 2, 2))

    holes = _changed(dataset, men, 4, np.nan)
    finding = next(item for item in check(holes, plan) if item.code == "feature_not_estimable")

    assert (finding.severity, finding.columns) == (severity, ("region_04",))
    if policy == "pass_through":
        assert Combat().harmonize(holes, plan).flags["unusable"] == ("region_04",)

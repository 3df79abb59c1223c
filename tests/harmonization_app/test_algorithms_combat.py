"""ComBat: agreement with published results and with a plain implementation, apply, pools, edge behaviour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms import empirical_bayes
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.empirical_bayes import (
    BatchMoments,
    Prior,
    shrink_nonparametric,
    shrink_parametric,
)
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    FeaturePool,
    OverlapPolicy,
    Specification,
)
from harmonization_app.algorithms.verification import cross_check, max_difference_sd, verify
from harmonization_app.algorithms.verification.plain import plain_combat
from harmonization_app.algorithms.verification.suite import MODES, load_suite, make_input

SITES = {"A": 30, "B": 25, "C": 40}
SPECIFICATION = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))


@pytest.fixture
def dataset() -> Dataset:
    return make_input(SITES, seed=3)


@pytest.mark.parametrize("case", load_suite(), ids=lambda case: case.name)
def test_packaged_suite_is_reproduced(case) -> None:
    model = Combat().fit(case.dataset, case.specification)
    result = Combat().apply(model, case.new or case.dataset)

    raw = (case.new or case.dataset).values
    assert max_difference_sd(result.values, case.expected, raw) < 1e-11


@pytest.mark.reference
def test_every_published_case_is_reproduced(reference_data) -> None:
    report = verify("combat", reference_data / "harmonization")

    published = [case for case in report.cases if case.case.startswith("reference/")]
    assert len(published) == 41
    assert {case.case.split("/")[1].split("_")[0] for case in published} == {
        "a", "a0", "b", "c", "c2", "d", "d2", "d3", "e", "g", "g2", "g3", "g4", "i3", "k",
    }  # fmt: skip
    assert max(case.max_difference_sd for case in published) < 1e-11
    assert report.passed


def test_verification_fails_when_one_number_is_wrong(monkeypatch) -> None:
    original = Combat.correct

    def wrong(self, model, dataset, findings):
        result = original(self, model, dataset, findings)
        result.values[0, 0] += 1e-6
        return result

    monkeypatch.setattr(Combat, "correct", wrong)

    report = verify("combat")

    assert not report.passed
    assert not any(case.passed for case in report.cases)


def test_suite_covers_every_mode() -> None:
    assert [case.name for case in load_suite()] == list(MODES)


def test_row_order_does_not_matter(dataset) -> None:
    order = np.random.default_rng(5).permutation(len(dataset.rows))

    direct = Combat().harmonize(dataset, SPECIFICATION).values
    shuffled = Combat().harmonize(dataset.select(order), SPECIFICATION).values

    assert max_difference_sd(shuffled, direct[order], dataset.values) < 1e-12


def test_blocks_of_features_share_their_prior() -> None:
    random = np.random.default_rng(9)
    sites = [site for site, size in SITES.items() for _ in range(size)]
    values = random.normal(3, 0.2, (len(sites), 5000)) + random.normal(0, 0.1, (1, 5000))
    wide = Dataset(
        values, tuple(f"f{i}" for i in range(5000)), tuple(f"r{i}" for i in range(len(sites))), tuple(sites)
    )

    result = Combat().harmonize(wide, Specification())

    plain = plain_combat(values, sites, np.empty((len(sites), 0)))
    assert max_difference_sd(result.values, plain.values, values) < 1e-11
    assert dict(result.iterations["all"]) == dict(plain.iterations)


def test_cross_check_agrees_and_counts_steps(dataset) -> None:
    result = Combat().harmonize(dataset, SPECIFICATION)

    check = cross_check(dataset, result)

    assert check.passed
    assert check.iterations_equal
    assert check.max_difference_sd < 1e-11


def test_cross_check_sees_a_changed_value(dataset) -> None:
    result = Combat().harmonize(dataset, SPECIFICATION)
    result.values[4, 2] += 1e-5

    assert not cross_check(dataset, result).passed


def test_reference_batch_comes_back_bit_for_bit(dataset) -> None:
    result = Combat().harmonize(dataset, replace(SPECIFICATION, reference_batch="B"))

    own = np.array(dataset.batches) == "B"
    assert np.array_equal(result.values[own], dataset.values[own])
    assert not np.allclose(result.values[~own], dataset.values[~own])


def test_missing_cells_stay_missing_and_nothing_else(dataset) -> None:
    values = dataset.values.copy()
    values[3, 2] = values[50, 7] = np.nan

    result = Combat().harmonize(dataset.with_values(values), SPECIFICATION)

    assert np.argwhere(np.isnan(result.values)).tolist() == [[3, 2], [50, 7]]
    assert result.facts["missing_cells"] == 2


def test_covariates_collinear_among_the_observed_scans_of_a_feature_are_refused(dataset) -> None:
    values = dataset.values.copy()
    male = np.array(dataset.covariates["sex"]) == "M"
    values[male, 4] = np.nan

    with pytest.raises(HarmonizationRefused) as refusal:
        Combat().harmonize(
            dataset.with_values(values), replace(SPECIFICATION, batch_size=BatchSizePolicy(2, 2, 2, 2, 1))
        )

    assert refusal.value.findings[0].code == "feature_not_estimable"
    assert refusal.value.findings[0].columns == ("region_04",)


def test_feature_that_covariates_explain_exactly_is_refused(dataset) -> None:
    values = dataset.values.copy()
    values[:, 5] = 7.0 + 0.3 * np.array(dataset.covariates["age"])

    with pytest.raises(HarmonizationRefused) as refusal:
        Combat().harmonize(dataset.with_values(values), SPECIFICATION)

    assert refusal.value.findings[0].columns == ("region_05",)


def test_constant_feature_passes_through_and_leaves_the_others_alone(dataset) -> None:
    with_constant = dataset.values.copy()
    with_constant[:, 0] = 2.5

    result = Combat().harmonize(dataset.with_values(with_constant), SPECIFICATION)
    without = Combat().harmonize(dataset, replace(SPECIFICATION, features=dataset.features[1:]))

    assert np.array_equal(result.values[:, 0], with_constant[:, 0])
    assert max_difference_sd(result.values[:, 1:], without.values, dataset.values[:, 1:]) < 1e-12
    assert result.flags["constant"] == ("region_00",)


def test_feature_constant_in_a_batch_keeps_that_scale(dataset) -> None:
    values = dataset.values.copy()
    own = np.array(dataset.batches) == "A"
    values[own, 3] = 2.0

    result = Combat().harmonize(dataset.with_values(values), SPECIFICATION)

    assert np.ptp(result.values[own, 3]) < 1e-12
    assert result.flags["constant_in_batch"] == ("region_03",)
    assert cross_check(dataset.with_values(values), result).passed


def test_planted_site_effect_goes_and_age_effect_stays() -> None:
    random = np.random.default_rng(12)
    sites = np.repeat(["A", "B", "C", "D"], 100)
    age = random.uniform(50, 80, 400)
    shift = dict(zip("ABCD", (0.0, 0.3, -0.3, 0.5), strict=True))
    planted = np.array([shift[site] for site in sites])
    values = 3 - 0.01 * age[:, None] + planted[:, None] + random.normal(0, 0.1, (400, 30))
    dataset = Dataset(
        values,
        tuple(f"f{i}" for i in range(30)),
        tuple(map(str, range(400))),
        tuple(sites),
        {"age": tuple(age)},
    )

    result = Combat().harmonize(dataset, Specification(covariates=(Covariate("age", "continuous"),)))

    residual = result.values + 0.01 * age[:, None]
    means = np.array([residual[sites == site].mean(axis=0) for site in "ABCD"])
    slopes = np.polyfit(age, result.values, 1)[0]
    assert np.abs(means - means.mean(axis=0)).max() < 0.02
    assert abs(slopes.mean() + 0.01) < 2e-4


def test_apply_uses_frozen_parameters_and_own_covariates(dataset) -> None:
    model = Combat().fit(dataset, SPECIFICATION)
    part = dataset.select(range(10))

    whole = Combat().apply(model, dataset).values[:10]

    assert max_difference_sd(Combat().apply(model, part).values, whole, dataset.values) < 1e-12


def test_apply_refuses_an_unknown_batch_by_name(dataset) -> None:
    model = Combat().fit(dataset, SPECIFICATION)
    other = replace(dataset.select([0, 1]), batches=("A", "Z"))

    with pytest.raises(HarmonizationRefused, match="no batch Z"):
        Combat().apply(model, other)


def test_apply_flags_covariates_out_of_range(dataset) -> None:
    model = Combat().fit(dataset, SPECIFICATION)
    old = dataset.select([0])
    old = replace(old, covariates={**old.covariates, "age": (120.0,)})

    findings = Combat().apply(model, old).findings

    assert [(finding.code, finding.severity, finding.columns) for finding in findings] == [
        ("covariate_out_of_range", "warn", ("age",))
    ]


@pytest.mark.parametrize(
    ("covariates", "code"),
    [
        ({"age": (None,), "sex": ("M",)}, "missing_covariate"),
        ({"age": ("sixty",), "sex": ("M",)}, "missing_covariate"),
        ({"age": (60.0,), "sex": (None,)}, "missing_covariate"),
        ({"age": (60.0,), "sex": ("X",)}, "unknown_level"),
        ({"age": (60.0,)}, "covariate_lacking"),
    ],
)
def test_apply_refuses_faulty_covariates(dataset, covariates, code) -> None:
    model = Combat().fit(dataset, SPECIFICATION)
    one = replace(dataset.select([0]), covariates=covariates)

    with pytest.raises(HarmonizationRefused) as refusal:
        Combat().apply(model, one)

    assert [finding.code for finding in refusal.value.findings] == [code]


def test_apply_refuses_other_units(dataset) -> None:
    model = Combat().fit(dataset, SPECIFICATION)

    with pytest.raises(HarmonizationRefused, match="region_00"):
        Combat().apply(model, replace(dataset, units=("cm",) * 12))


def test_pools_are_shrunk_apart(dataset) -> None:
    first, second = dataset.features[:5], dataset.features[5:]
    pooled = replace(SPECIFICATION, pools=(FeaturePool("first", first), FeaturePool("second", second)))

    result = Combat().harmonize(dataset, pooled)

    for names, columns in ((first, slice(0, 5)), (second, slice(5, 12))):
        alone = Combat().harmonize(dataset, replace(SPECIFICATION, features=names))
        assert max_difference_sd(result.values[:, columns], alone.values, dataset.values[:, columns]) < 1e-12
    assert set(result.iterations) == {"first", "second"}
    assert cross_check(dataset, result).passed


def test_merged_batches_are_one_batch(dataset) -> None:
    merged = Combat().harmonize(dataset, replace(SPECIFICATION, merge_batches={"B": "A"}))
    relabelled = replace(dataset, batches=tuple("A" if label == "B" else label for label in dataset.batches))

    assert merged.model.batches == ("A", "C")
    assert np.array_equal(merged.values, Combat().harmonize(relabelled, SPECIFICATION).values)


def test_features_are_taken_in_the_planned_order(dataset) -> None:
    names = dataset.features[::-1]

    result = Combat().harmonize(dataset, replace(SPECIFICATION, features=names))

    assert result.model.features == names
    whole = Combat().harmonize(dataset, SPECIFICATION).values
    assert max_difference_sd(result.values, whole[:, ::-1], dataset.values[:, ::-1]) < 1e-12


def test_fit_refuses_what_the_gate_stops(dataset) -> None:
    values = dataset.values.copy()
    values[2, 1] = np.inf

    with pytest.raises(HarmonizationRefused) as refusal:
        Combat().fit(dataset.with_values(values), SPECIFICATION)

    assert refusal.value.code == "harmonization_refused"
    assert "S002" in refusal.value.detail
    assert "region_01" in refusal.value.detail


def test_large_values_with_small_spread_keep_their_digits(dataset) -> None:
    far = dataset.with_values(dataset.values + 1e6)

    near = Combat().harmonize(dataset, SPECIFICATION).values
    result = Combat().harmonize(far, SPECIFICATION).values

    assert max_difference_sd(result - 1e6, near, dataset.values) < 1e-7


def test_parametric_shrinkage_stops_as_published() -> None:
    shift, scale = np.array([0.5, 0.1, -0.3]), np.array([1.2, 0.8, 1.0])
    counts = np.full(3, 20.0)
    moments = BatchMoments(shift, scale, (counts - 1) * scale, counts)
    prior = Prior(0.1, 0.16, 27.0, 26.0)

    own_shift, own_scale, steps = shrink_parametric("A", moments, prior)

    # One step from the estimates by hand: (20 * .16 * .5 + 1.2 * .1) / (20 * .16 + 1.2) = 1.72 / 4.4.
    first = (20 * 0.16 * 0.5 + 1.2 * 0.1) / (20 * 0.16 + 1.2)
    assert first == pytest.approx(0.390909, abs=1e-6)
    assert 2 <= steps <= 10
    squares = moments.squares + 20 * (shift - own_shift) ** 2
    assert own_scale == pytest.approx((0.5 * squares + 26.0) / (10 + 26.0), rel=1e-12)


def test_shrinkage_that_cannot_settle_is_refused() -> None:
    moments = BatchMoments(np.array([0.1]), np.array([1.0]), np.array([1.0]), np.array([5.0]))

    with pytest.raises(HarmonizationRefused, match="did not settle"):
        shrink_parametric("A", moments, Prior(np.nan, np.nan, np.nan, np.nan))


@pytest.mark.parametrize("chunk_features", [1, 2])
def test_a_number_that_is_lost_behind_settled_ones_does_not_settle(monkeypatch, chunk_features) -> None:
    monkeypatch.setattr(empirical_bayes, "CHUNK_FEATURES", chunk_features)
    counts = np.full(2, 20.0)
    moments = BatchMoments(np.array([0.5, 0.5]), np.array([1.0, 1.0]), np.array([19.0, np.nan]), counts)

    with pytest.raises(HarmonizationRefused, match="did not settle"):
        shrink_parametric("A", moments, Prior(0.1, 0.16, 27.0, 26.0))


def _published_steps(moments: BatchMoments, prior: Prior) -> tuple[np.ndarray, np.ndarray, int]:
    """Return what the published loop gives: all features stop together, by |new - old| / old."""
    shift, scale, counts = moments.shift, moments.scale, moments.counts
    for step in range(1, 1000):
        new_shift = (counts * prior.variance * moments.shift + scale * prior.mean) / (
            counts * prior.variance + scale
        )
        squares = moments.squares + counts * (moments.shift - new_shift) ** 2
        new_scale = (0.5 * squares + prior.rate) / (counts / 2 + prior.shape - 1)
        with np.errstate(invalid="ignore"):
            changes = np.concatenate([abs(new_shift - shift) / shift, abs(new_scale - scale) / scale])
        shift, scale = new_shift, new_scale
        if np.nanmax(changes) <= 1e-4:
            return shift, scale, step
    raise AssertionError("did not settle")


@pytest.mark.parametrize("seed", range(12))
def test_shrinkage_takes_the_published_steps(seed) -> None:
    random = np.random.default_rng(seed)
    features = int(random.integers(3, 3_000))
    counts = random.integers(4, 60, features).astype(float)
    scale = random.gamma(8, 1 / 8, features)
    shift = random.normal(0.0, 0.4, features)
    prior = Prior(random.choice([0.0, 0.2, -0.3]), 0.16, random.uniform(3, 40), random.uniform(3, 40))
    if prior.mean == 0.0:
        shift[1] = 0.0  # stays so at every step, and has not changed
    moments = BatchMoments(shift, scale, (counts - 1) * scale, counts)

    own_shift, own_scale, steps = shrink_parametric("A", moments, prior)

    expected_shift, expected_scale, expected_steps = _published_steps(moments, prior)
    assert steps == expected_steps
    assert own_shift == pytest.approx(expected_shift, rel=1e-12, abs=1e-15)
    assert own_scale == pytest.approx(expected_scale, rel=1e-12)
    assert moments.shift is shift and np.isfinite(shift).all()


def test_nonparametric_shrinkage_does_not_underflow_at_five_thousand_scans() -> None:
    random = np.random.default_rng(1)
    counts = np.full(40, 5000.0)
    scale = random.uniform(0.9, 1.1, 40)
    moments = BatchMoments(random.normal(0, 0.2, 40), scale, (counts - 1) * scale, counts)

    shift, own_scale = shrink_nonparametric(moments)

    assert np.isfinite(shift).all()
    assert np.isfinite(own_scale).all()
    assert moments.shift.min() <= shift.min()
    assert shift.max() <= moments.shift.max()


def test_equal_input_gives_equal_bits(dataset) -> None:
    first = Combat().harmonize(dataset, SPECIFICATION).values
    second = Combat().harmonize(dataset, SPECIFICATION).values

    assert first.tobytes() == second.tobytes()


def test_missing_cells_without_covariates(dataset) -> None:
    values = dataset.values.copy()
    values[[3, 50], [2, 7]] = np.nan

    result = Combat().harmonize(dataset.with_values(values), Specification())

    assert cross_check(dataset.with_values(values), result).passed


@pytest.mark.parametrize("seed", range(24))
def test_random_tables_agree_with_the_plain_implementation(seed) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(3, 30, random.integers(2, 7))
    sites = random.permutation(np.repeat([f"b{i}" for i in range(len(sizes))], sizes))
    scans, features = len(sites), int(random.integers(2, 40))
    values = random.normal(random.choice([0, 3, 1e3]), 1, (scans, features)) * random.choice(
        [1e-3, 1, 1e4], features
    )
    if seed % 2:
        values[random.random(values.shape) < 0.03] = np.nan
    table = Dataset(
        values,
        tuple(f"f{i}" for i in range(features)),
        tuple(f"r{i}" for i in range(scans)),
        tuple(sites.tolist()),
        {"age": tuple(random.normal(50, 10, scans)), "sex": tuple(random.choice(list("xyz"), scans))},
    )
    plan = Specification(
        covariates=SPECIFICATION.covariates[: seed % 3],
        eb=seed % 5 > 0,
        parametric=seed % 4 > 0,
        mean_only=seed % 6 == 0,
        reference_batch="b1" if seed % 7 == 0 else None,
        batch_size=BatchSizePolicy(2, 2, 2, 2, 1),
        overlap=OverlapPolicy(minimum_overlap=0.0),
        unusable_features="refuse",
    )
    try:
        result = Combat().harmonize(table, plan)
    except HarmonizationRefused as refusal:
        assert {error["field"] for error in refusal.errors} == {"feature_lacks_batch"}
        return

    check = cross_check(table, result)

    assert check.max_difference_sd < 1e-10
    assert check.iterations_equal is (True if plan.eb else None)


@pytest.mark.parametrize("mode", [{}, {"mean_only": True}, {"parametric": False}])
def test_one_feature_left_after_pass_through_is_refused(dataset, mode) -> None:
    men = np.array(dataset.covariates["sex"]) == "M"
    values = dataset.values[:, :2].copy()
    values[men, 0] = np.nan
    pair = Dataset(values, ("a", "b"), dataset.rows, dataset.batches, dataset.covariates)
    plan = replace(
        SPECIFICATION, unusable_features="pass_through", batch_size=BatchSizePolicy(2, 2, 2), **mode
    )

    with pytest.raises(HarmonizationRefused) as refusal:
        Combat().harmonize(pair, plan)

    assert [error["field"] for error in refusal.value.errors] == ["too_few_features_for_eb"]

"""Definitions that a wrong sign, divisor or limit would break, computed here anew from the published formulas."""

from __future__ import annotations

import numpy as np
import pytest

from harmonization_app.algorithms.add_batch import add_batch
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.hidden_grouping import find_grouping
from harmonization_app.algorithms.mixed_model import fit_random_slope
from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    OverlapPolicy,
    Specification,
)
from harmonization_app.algorithms.surrogate import count_factors
from harmonization_app.algorithms.verification import max_difference_sd

SCANS, FEATURES, CONTROLS = 90, 40, 8
NAMES = tuple(f"region_{i}" for i in range(FEATURES))
CONTROL_NAMES = tuple(f"csf_{i}" for i in range(CONTROLS))
# Part of the mean square of what was planted that pairwise leaves: the error of means and SDs of 60 scans.
PAIRWISE_LEFT = 0.027
GROUPING = {"feature": None, "minimum_share": 0.25, "minimum_gain": 10.0}


def _with_controls(seed: int, unit_of_controls: np.ndarray | float = 1.0) -> Dataset:
    """Return features and controls (in other units, if wanted) that follow the same two drifts."""
    random = np.random.default_rng(seed)
    drift = random.normal(0, 1, (SCANS, 2))
    level = np.sort(random.uniform(1.5, 4, FEATURES))
    values = level + 0.1 * drift[:, :1] + 0.05 * drift[:, 1:] * (level - 2.7)
    values += random.normal(0, 0.05, values.shape)
    controls = 10 + drift @ random.normal(0, 1, (2, CONTROLS)) + random.normal(0, 0.4, (SCANS, CONTROLS))
    return Dataset(
        np.hstack([values, controls * unit_of_controls]),
        NAMES + CONTROL_NAMES,
        tuple(f"r{i}" for i in range(SCANS)),
        tuple("AB"[i % 2] for i in range(SCANS)),
        {},
        ("mm",) * (FEATURES + CONTROLS),
    )


def _plan(factors: int, controls=CONTROL_NAMES, **options) -> Specification:
    return Specification(eb=False, options={**options, "controls": list(controls), "factors": factors})


def _scores(controls: np.ndarray, factors: int) -> np.ndarray:
    """Return the first principal component scores of the controls in SD, as R's prcomp(scale(controls))."""
    standard = (controls - controls.mean(axis=0)) / controls.std(axis=0, ddof=1)
    vectors = np.linalg.eigh(standard.T @ standard)[1][:, ::-1]
    return standard @ vectors[:, :factors]


@pytest.mark.parametrize("seed", [0, 1])
def test_functional_normalization_by_controls_is_that_of_minfi(seed) -> None:
    dataset = _with_controls(seed)
    values, controls = dataset.values[:, :FEATURES], dataset.values[:, FEATURES:]

    result = ALGORITHMS["functional-normalization"].harmonize(dataset, _plan(2, factors_from="controls"))

    quantiles = np.sort(values, axis=1)
    design = np.column_stack([np.ones(SCANS), _scores(controls, 2)])
    mean = quantiles.mean(axis=0)
    left = quantiles - mean
    residuals = left - design @ np.linalg.solve(design.T @ design, design.T @ left)
    rising = np.maximum.accumulate(mean + residuals, axis=1)
    expected = np.take_along_axis(rising, values.argsort(axis=1).argsort(axis=1), axis=1)
    assert max_difference_sd(result.values[:, :FEATURES], expected, values) < 1e-12


def test_control_removal_is_regression_on_the_controls_components_and_an_intercept() -> None:
    dataset = _with_controls(2)
    values, scores = dataset.values[:, :FEATURES], _scores(dataset.values[:, FEATURES:], 1)

    result = ALGORITHMS["control-features"].harmonize(dataset, _plan(1))

    slopes = scores.T @ (values - values.mean(axis=0)) / (scores**2).sum()
    assert max_difference_sd(result.values[:, :FEATURES], values - scores @ slopes, values) < 1e-12


@pytest.mark.parametrize("name", ["control-features", "functional-normalization"])
def test_units_of_the_controls_do_not_matter(name) -> None:
    units = np.geomspace(1e-5, 1e5, CONTROLS)
    options = {"factors_from": "controls"} if name == "functional-normalization" else {}

    results = [
        ALGORITHMS[name].harmonize(_with_controls(3, unit), _plan(2, **options)).values[:, :FEATURES]
        for unit in (1.0, units)
    ]

    assert max_difference_sd(results[1], results[0], results[0]) < 1e-10


@pytest.mark.parametrize("name", ["control-features", "functional-normalization"])
def test_controls_that_others_determine_but_for_rounding_give_no_further_factor(name) -> None:
    dataset = _with_controls(4)
    values = dataset.values.copy()
    noise = np.random.default_rng(4).normal(0, 1e-10, SCANS)
    values[:, FEATURES + 2] = values[:, FEATURES] + values[:, FEATURES + 1] + noise
    options = {"factors_from": "controls"} if name == "functional-normalization" else {}

    with pytest.raises(HarmonizationRefused, match=r"at most 2 factor\(s\)"):
        ALGORITHMS[name].fit(dataset.with_values(values), _plan(3, CONTROL_NAMES[:3], **options))


def test_no_more_factors_than_scans_leave_free() -> None:
    dataset = _with_controls(5).select(range(8))
    plan = Specification(
        eb=False,
        batch_size=BatchSizePolicy(2, 2, 2, 2, 1),
        overlap=OverlapPolicy(10.0, 0.0),
        options={"factors_from": "controls", "controls": list(CONTROL_NAMES), "factors": 7},
    )

    with pytest.raises(HarmonizationRefused, match=r"at most 6 factor\(s\)"):
        ALGORITHMS["functional-normalization"].fit(dataset, plan)


def _two_modes(share_upper: float, seed: int = 6, scans: int = 200) -> tuple[Dataset, np.ndarray]:
    """Return five features of which the last two have two modes, the last one wider apart."""
    random = np.random.default_rng(seed)
    upper = np.arange(scans) < share_upper * scans
    values = 50 + 3 * random.normal(0, 1, (scans, 5))
    values[:, 3] += 3 * 4 * upper
    values[:, 4] += 3 * 6 * upper
    names = tuple(f"f{i}" for i in range(5))
    rows = tuple(f"r{i}" for i in range(scans))
    return Dataset(values, names, rows, tuple("AB"[i % 2] for i in range(scans)), {}), upper


def test_a_scan_is_of_the_component_that_more_probably_gave_it() -> None:
    dataset, _ = _two_modes(0.5)
    grouping = find_grouping(dataset, GROUPING)
    one = grouping.mixture
    low, high = (float(one.means[i, 0] * one.scale[0] + one.centre[0]) for i in range(2))
    steps = np.linspace(low, high, 2001)
    probability = one.upper(steps[:, None])[:, 0]
    between = np.flatnonzero((probability > 0.5) & (probability < 0.75))
    scans = dataset.select(range(len(between)))
    moved = scans.values.copy()
    moved[:, 4] = steps[between]

    assert len(between) > 0
    assert set(grouping.labels(scans.with_values(moved))) == {"upper"}
    assert grouping.facts["share_upper"] == np.mean(one.upper(dataset.values[:, [4]]) > 0.5)


def test_a_grouping_is_told_in_the_features_own_units_and_best_first() -> None:
    dataset, upper = _two_modes(0.4)

    facts = find_grouping(dataset, GROUPING).facts

    own = [dataset.values[~upper, 4], dataset.values[upper, 4]]
    assert facts["feature"] == "f4"
    assert facts["means"] == pytest.approx([part.mean() for part in own], abs=0.2)
    assert facts["standard_deviations"] == pytest.approx([part.std() for part in own], abs=0.2)
    gains = [candidate["aic_gain"] for candidate in facts["candidates"]]
    assert gains == sorted(gains, reverse=True)
    assert [candidate["feature"] for candidate in facts["candidates"][:2]] == ["f4", "f3"]


@pytest.mark.parametrize("share_upper", [0.15, 0.85])
def test_a_grouping_with_few_scans_on_either_side_is_none(share_upper) -> None:
    dataset, _ = _two_modes(share_upper)

    assert find_grouping(dataset, GROUPING).code == "no_hidden_grouping"


def test_a_component_counts_while_fewer_permutations_than_planned_exceed_it() -> None:
    random = np.random.default_rng(3)
    hidden = random.normal(0, 0.155, 60)
    values = np.outer(hidden, random.normal(0, 1, 40)) + random.normal(0, 1, (60, 40))
    age = random.normal(0, 1, (60, 1))

    found = {level: count_factors(values, age, 100, level, (2, 0)) for level in (0.001, 0.5)}

    # Some permutations of a weak factor exceed it, and not all.
    assert found == {0.001: 0, 0.5: 1}


def _three_sites() -> Dataset:
    random = np.random.default_rng(9)
    sites = np.repeat(["A", "B", "C"], 30)
    age = random.uniform(40, 80, 90)
    values = 2.5 - 0.01 * age[:, None] + random.normal(0, 0.2, (90, 12))
    values[sites == "B"] = 0.3 + 1.2 * values[sites == "B"]
    rows = tuple(f"r{i}" for i in range(90))
    return Dataset(values, NAMES[:12], rows, tuple(sites.tolist()), {"age": tuple(age.tolist())})


PAIRS = Specification(covariates=(Covariate("age", "continuous"),), reference_batch="A")


def test_pairwise_is_combat_with_a_reference_batch_pair_by_pair() -> None:
    dataset = _three_sites()
    sites = np.array(dataset.batches)

    result = ALGORITHMS["pairwise"].harmonize(dataset, PAIRS).values

    assert np.array_equal(result[sites == "A"], dataset.values[sites == "A"])
    for site in "BC":
        pair = np.flatnonzero((sites == "A") | (sites == site))
        alone = ALGORITHMS["combat"].harmonize(dataset.select(pair), PAIRS).values
        assert max_difference_sd(result[sites == site], alone[sites[pair] == site], dataset.values) < 1e-12


def test_an_added_pair_knows_its_own_size() -> None:
    dataset = _three_sites()
    model = ALGORITHMS["pairwise"].fit(dataset.select(range(60)), PAIRS)

    added = add_batch(model, dataset.select([*range(30), *range(60, 90)]))

    assert dict(zip(added.batches, added.batch_sizes, strict=True)) == {"A": 30, "B": 30, "C": 30}


@pytest.mark.parametrize("reference", [None, "s2"])
def test_travelling_subjects_who_missed_scanners_count_as_in_a_linear_model(reference) -> None:
    random = np.random.default_rng(12)
    scanned = [(s, b) for s in range(9) for b in range(4) if random.random() > 0.3]
    scanned += [(s, s % 4) for s in range(9, 109)]
    subjects, scanners = (np.array(part) for part in zip(*scanned, strict=True))
    values = random.normal(2.5, 0.5, (109, 5))[subjects] + random.normal(0, 0.3, (4, 5))[scanners]
    values += random.normal(0, 0.1, values.shape)
    dataset = Dataset(
        values,
        NAMES[:5],
        tuple(f"r{i}" for i in range(len(values))),
        tuple(f"s{b}" for b in scanners),
        {"subject": tuple(f"p{s}" for s in subjects)},
    )
    plan = Specification(eb=False, mean_only=True, subject="subject", reference_batch=reference)

    effects = ALGORITHMS["travelling-subject"].fit(dataset, plan).arrays["effect"]

    design = np.hstack([np.eye(109)[subjects], np.eye(4)[scanners]])
    solved = np.linalg.lstsq(design, values, rcond=None)[0][109:]
    expected = solved - (solved.mean(axis=0) if reference is None else solved[2])
    assert np.abs(effects - expected).max() < 1e-12


def test_slopes_that_fall_where_levels_are_high_are_not_singular() -> None:
    random = np.random.default_rng(7)
    subjects, years = np.repeat(np.arange(80), 5), np.tile(np.arange(5.0), 80)
    level = random.normal(0, 1, 80)
    slope = -0.3 * level + random.normal(0, 0.1, 80)
    values = (level + 5)[subjects] + slope[subjects] * years + random.normal(0, 0.2, 400)

    fit = fit_random_slope(values[:, None], np.column_stack([np.ones(400), years]), subjects, years)

    intercept, cross, own = fit.factor[0] * fit.deviation[0]
    assert fit.singular.tolist() == [False]
    assert intercept == pytest.approx(np.std(level), rel=0.15)
    assert cross / intercept == pytest.approx(-0.3, abs=0.05)
    assert own == pytest.approx(0.1, abs=0.03)


def test_one_value_in_all_observed_scans_of_a_batch_keeps_its_scale() -> None:
    dataset = _three_sites()
    sites, values = np.array(dataset.batches), dataset.values.copy()
    values[sites == "B", 3] = 2.7
    values[31, 3] = values[2, 5] = np.nan
    plan = Specification(covariates=PAIRS.covariates)

    result = ALGORITHMS["combat"].harmonize(dataset.with_values(values), plan)

    assert result.flags["constant_in_batch"] == ("region_3",)
    assert result.model.arrays["delta_star"][1, 3] == 1.0
    assert np.nanstd(result.values[sites == "B", 3]) < 1e-12
    assert result.facts["missing_cells"] == 2
    told = [finding["message"] for finding in result.facts["findings"] if finding["code"] == "missing_value"]
    assert len(told) == 1
    assert told[0].startswith("2 ")


def test_two_sites_are_enough_for_federated_combat() -> None:
    dataset = _three_sites().select(range(60))

    values = [ALGORITHMS[name].harmonize(dataset, PAIRS).values for name in ("dcombat", "combat")]

    assert max_difference_sd(*values, dataset.values) < 1e-12


def test_an_added_batch_with_one_value_among_missing_ones_is_refused() -> None:
    dataset = _three_sites()
    plan = Specification(covariates=PAIRS.covariates)
    model = ALGORITHMS["combat"].fit(dataset.select(range(60)), plan)
    values = dataset.values.copy()
    values[60:, 7], values[65, 7] = 2.7, np.nan

    with pytest.raises(HarmonizationRefused, match="region_7"):
        add_batch(model, dataset.with_values(values).select(range(60, 90)))


def test_pairwise_brings_planted_sites_to_the_reference() -> None:
    left = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        site, age = np.repeat(np.arange(4), 60), random.uniform(40, 80, 240)
        shift, scale = random.normal(0, 1, (4, 40)), np.exp(random.normal(0, 0.2, (4, 40)))
        noise = random.normal(0, 1, (240, 40))
        true = 10 - 0.03 * (age - 60)[:, None] + shift[0] + noise * scale[0]
        measured = 10 - 0.03 * (age - 60)[:, None] + shift[site] + noise * scale[site]
        dataset = Dataset(
            measured,
            NAMES,
            tuple(f"r{i}" for i in range(240)),
            tuple("ABCD"[i] for i in site),
            {"age": tuple(age.tolist())},
        )
        moved = site > 0
        result = ALGORITHMS["pairwise"].harmonize(dataset, PAIRS).values
        left.append(np.mean((result - true)[moved] ** 2) / np.mean((measured - true)[moved] ** 2))

    assert np.median(left) == pytest.approx(PAIRWISE_LEFT, rel=0.05)
    assert max(left) < 1.5 * PAIRWISE_LEFT


def test_z_scores_miss_planted_means_and_spreads_by_their_sampling_error_alone() -> None:
    scans, features = 40, 60
    missed = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        site = np.repeat(np.arange(3), scans)
        shift, scale = random.normal(0, 1, (3, features)), np.exp(random.normal(0, 0.3, (3, features)))
        values = 5 + shift[site] + scale[site] * random.normal(0, 1, (3 * scans, features))
        names = tuple(f"f{i}" for i in range(features))
        rows = tuple(f"r{i}" for i in range(3 * scans))
        dataset = Dataset(values, names, rows, tuple("ABC"[i] for i in site))
        arrays = ALGORITHMS["z-score"].fit(dataset, Specification(eb=False)).arrays
        means = (arrays["mean"] - 5 - shift) / (scale / np.sqrt(scans))
        spreads = (arrays["spread"] / scale - 1) * np.sqrt(2 * scans)
        missed.append([np.mean(means**2), np.mean(spreads**2)])

    assert np.sqrt(np.mean(missed, axis=0)) == pytest.approx([1, 1], abs=0.05)

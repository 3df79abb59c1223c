"""Diagnostics on simulated tables whose truth is known: no alarm for nothing, the right word else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import ledoit_wolf

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import build_design
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    OverlapPolicy,
    Specification,
)
from harmonization_app.diagnostics.bhattacharyya import bhattacharyya
from harmonization_app.diagnostics.classification import classify_batches
from harmonization_app.diagnostics.covariance import _shrunk
from harmonization_app.diagnostics.gate import check
from harmonization_app.diagnostics.gate_covariates import _inflation
from harmonization_app.diagnostics.headline import _verdict, headline
from harmonization_app.diagnostics.heldout import evaluate_held_out
from harmonization_app.diagnostics.relabelling import Relabelling
from harmonization_app.diagnostics.repeatability import _agreement, _ratios_of_chance
from harmonization_app.diagnostics.stability import SpikeIn, Stability

PLAN = Specification(covariates=(Covariate("age", "continuous"),), overlap=OverlapPolicy(0.5, 0.0))
NO_STABILITY = Stability((), "", SpikeIn(False, ""))


def _table(seed: int, sizes: tuple[int, ...], features: int, *, age_gap: float = 0.0, shift: float = 0.0):
    """Return values that follow age, batch codes and ages; the first batch is `age_gap` SD older."""
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    age = random.normal(size=len(codes)) + age_gap * (codes == 0)
    values = random.normal(size=(len(codes), features)) + 0.3 * age[:, None]
    values += shift * random.normal(size=(len(sizes), features))[codes]
    return values, codes, age[:, None]


@pytest.mark.parametrize(("sizes", "age_gap"), [((30, 30), 2.0), ((5, 5, 5, 5), 0.0), ((12, 30), 1.0)])
def test_classifier_seldom_tells_batches_that_do_not_differ(sizes, age_gap) -> None:
    found = [classify_batches(*_table(seed, sizes, 20, age_gap=age_gap), seed) for seed in range(40)]

    assert sum(item.accuracy > item.chance_95 for item in found) <= 6
    assert np.mean([item.accuracy - item.chance for item in found]) == pytest.approx(0.0, abs=0.05)


def test_classifier_tells_batches_that_differ_though_their_ages_do_as_well() -> None:
    found = [
        classify_batches(*_table(seed, (30, 30), 20, age_gap=1.5, shift=0.6), seed) for seed in range(10)
    ]

    assert sum(item.accuracy > item.chance_95 for item in found) >= 9


def test_labels_are_drawn_within_blocks_and_keep_their_tie_with_the_covariates() -> None:
    _, codes, age = _table(3, (40, 40), 2, age_gap=2.0)
    blocks = np.arange(80) % 4

    drawn = [Relabelling(codes, age, blocks, np.random.default_rng(i)).draw() for i in range(30)]

    for labels in drawn:
        for block in range(4):
            assert np.bincount(labels[blocks == block]).tolist() == [10, 10]
    gaps = [age[labels == 0].mean() - age[labels == 1].mean() for labels in drawn]
    assert np.mean(gaps) == pytest.approx(age[codes == 0].mean() - age[codes == 1].mean(), abs=0.3)
    assert min(np.mean(labels != codes) for labels in drawn) > 0.05


def _batch_table(seed: int, sizes: tuple[int, ...], features: int, scales: np.ndarray) -> Dataset:
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    values = 3 + 0.3 * random.normal(size=(len(sizes), features))[codes]
    values += np.sqrt(scales[codes]) * random.normal(size=(len(codes), features))
    names = tuple(f"f{i:03d}" for i in range(features))
    rows = tuple(f"r{i:03d}" for i in range(len(codes)))
    return Dataset(values, names, rows, tuple("ABCDE"[code] for code in codes), {}, ("mm",) * features)


def _unfit(dataset: Dataset) -> list[str]:
    found = [finding for finding in check(dataset, Specification()) if finding.code == "priors_do_not_fit"]
    return [batch for finding in found for batch in finding.batches]


def test_priors_drawn_as_assumed_give_no_warning_in_small_batches() -> None:
    for seed in range(10):
        scales = 1 / np.random.default_rng(50 + seed).gamma(20, 1 / 19, (4, 400))
        assert _unfit(_batch_table(seed, (10, 12, 15, 60), 400, scales)) == []


def test_scales_of_two_kinds_are_seen_in_a_batch_of_usual_size() -> None:
    scales = np.ones((4, 200))
    scales[1, ::2] = 8.0

    assert "B" in _unfit(_batch_table(2, (40, 40, 40, 40), 200, scales))
    assert _unfit(_batch_table(2, (40, 40, 40, 40), 200, np.ones((4, 200)))) == []


def test_covariance_is_shrunk_by_the_published_weight() -> None:
    random = np.random.default_rng(4)
    values = random.normal(size=(25, 12)) @ random.normal(size=(12, 12))

    np.testing.assert_allclose(_shrunk(values), ledoit_wolf(values)[0] * 25 / 24, rtol=1e-10)


def _repeated(travelling: bool) -> Dataset:
    """Return 8 subjects of 4 scans: each in one of two batches, or all scans but one of a subject in the first."""
    random = np.random.default_rng(1)
    person = np.repeat(np.arange(8), 4)
    batch = np.where(np.isin(person, [0, 1]), 1, 0) if travelling else person % 2
    values = random.normal(size=(8, 20))[person] + random.normal(size=(32, 20))
    names = tuple(f"f{i:02d}" for i in range(20))
    rows = tuple(f"S{p}|V{i % 4}" for i, p in enumerate(person))
    return Dataset(values, names, rows, tuple("AB"[code] for code in batch))


def test_split_of_scans_says_that_subjects_are_in_both_halves() -> None:
    dataset = _repeated(True)
    few = dataset.select([i for i in range(32) if not (4 <= i < 8 and i % 4 > 1)])
    plan = Specification(batch_size=BatchSizePolicy(2, 2, 2, 2, 1))

    found = evaluate_held_out(Combat(), few, plan)
    sentence = headline(found, NO_STABILITY, None, *[found.splits[0].fitted_after] * 2)["sentence"]

    assert (found.split_by, found.subjects_in_both) == ("scan", True)
    assert "but on other scans of the same subjects" in sentence


def test_split_by_subjects_is_called_so() -> None:
    found = evaluate_held_out(
        Combat(), _repeated(False), Specification(batch_size=BatchSizePolicy(2, 2, 2, 2, 1))
    )

    assert (found.split_by, found.subjects_in_both) == ("subject", False)


def test_chance_is_not_called_a_batch_effect() -> None:
    assert "hardly a batch effect" in _verdict(0.05, 0.01, 0.02, chance=0.06)
    assert _verdict(0.05, 0.01, 0.02, chance=0.04) == "Most of the batch effect is gone."
    assert "added one" in _verdict(0.02, 0.09, 0.02, chance=0.04)
    assert "added" not in _verdict(0.02, 0.022, 0.02, chance=0.04)


def test_headline_of_tables_without_batch_effect_claims_no_removal() -> None:
    claims = 0
    for seed in range(12):
        values, codes, age = _table(seed, (25, 25), 30)
        values += 1.5 * np.random.default_rng(seed).normal(size=(50, 1))
        dataset = Dataset(
            values,
            tuple(f"f{i:02d}" for i in range(30)),
            tuple(f"r{i:02d}" for i in range(50)),
            tuple("AB"[code] for code in codes),
            {"age": tuple(age[:, 0].tolist())},
        )
        found = evaluate_held_out(Combat(), dataset, PLAN)
        sentence = headline(found, NO_STABILITY, None, *[found.splits[0].fitted_after] * 2)["sentence"]
        claims += "hardly a batch effect" not in sentence

    assert claims <= 2


def _groups(reference: str) -> tuple[Dataset, Specification]:
    dataset = _batch_table(5, (60, 60, 60), 12, np.ones((3, 12)))
    random = np.random.default_rng(6)
    group = np.where(np.arange(180) % 45 == 0, "rare", np.where(random.random(180) < 0.5, "one", "two"))
    dataset = Dataset(
        dataset.values, dataset.features, dataset.rows, dataset.batches, {"group": tuple(group)}
    )
    return dataset, Specification(covariates=(Covariate("group", "categorical", reference),))


def test_variance_inflation_of_a_factor_does_not_hang_on_its_reference_level() -> None:
    inflation = []
    for reference in ("rare", "one"):
        dataset, plan = _groups(reference)
        design = build_design(dataset, plan)
        scaled = design.covariates - design.covariates.mean(axis=0)
        scaled /= scaled.std(axis=0)
        means = np.stack([scaled[design.codes == code].mean(axis=0) for code in range(3)])
        inflation.append(_inflation(scaled, scaled - means[design.codes], design.coding)["group"])
        assert "high_variance_inflation" not in {finding.code for finding in check(dataset, plan)}

    assert inflation[0] == pytest.approx(inflation[1], rel=1e-9)
    assert 1.0 < inflation[0] < 1.1


def test_bhattacharyya_distance_is_expected_larger_where_ages_lie_apart() -> None:
    ratios, expected = [], []
    for seed in range(20):
        found = bhattacharyya(*_table(seed, (40, 40), 30, age_gap=2.0), ("A", "B"))
        ratios.append(found["median"] / found["expected"])
        expected.append(found["expected"])

    assert np.median(ratios) == pytest.approx(1.0, abs=0.25)
    assert np.mean(expected) > 1.25 * 1.386294 / 8 * (1 / 40 + 1 / 40)


@pytest.mark.parametrize("alike", [0.0, 0.8])
def test_travelling_subjects_whose_batches_do_not_differ_seldom_exceed_chance(alike) -> None:
    exceeded, ratios = 0, []
    person, batch = np.repeat(np.arange(6), 2), np.tile(np.arange(2), 6)
    for seed in range(40):
        random = np.random.default_rng(seed)
        error = np.sqrt(1 - alike) * random.normal(size=(12, 40)) + np.sqrt(alike) * random.normal(
            size=(12, 1)
        )
        values = random.normal(size=(6, 40))[person] + 0.4 * error
        ratio = _agreement(values, person, batch, values.std(axis=0)).batch_ratio
        expected, upper = _ratios_of_chance(values, person, batch, seed)
        exceeded += ratio > upper
        ratios.append(ratio)

    assert expected == pytest.approx(stats.f.median(1, 5))
    assert exceeded <= 5
    if not alike:
        assert np.mean(ratios) == pytest.approx(expected, rel=0.15)

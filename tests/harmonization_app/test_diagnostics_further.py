"""Covariances, Bhattacharyya, contrasts, clustered errors, implausible values, changes, travelling subjects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import linalg, stats

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.longcombat import LongCombat
from harmonization_app.algorithms.model import CovariateCoding
from harmonization_app.algorithms.specification import Covariate, OverlapPolicy, Specification
from harmonization_app.algorithms.travelling import TravellingSubject
from harmonization_app.algorithms.verification.methods.longcombat import make_longitudinal
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics.batch_tests import measure_batch_effects
from harmonization_app.diagnostics.bhattacharyya import bhattacharyya
from harmonization_app.diagnostics.classification import classify_batches
from harmonization_app.diagnostics.covariance import covariance_distance
from harmonization_app.diagnostics.covariate_effects import (
    covariate_effects,
    estimate_effects,
    feature_spread,
)
from harmonization_app.diagnostics.effects import compare
from harmonization_app.diagnostics.group_contrast import group_contrasts
from harmonization_app.diagnostics.movers import EDGES_SD, find_movers
from harmonization_app.diagnostics.noise_floor import noise_floor, noise_upper
from harmonization_app.diagnostics.repeatability import measure_travelling
from harmonization_app.diagnostics.subjects import Subjects
from harmonization_app.diagnostics.within_subject import measure_within_subject

CODES = np.repeat(np.arange(3), 80)
NONE = np.empty((240, 0))
BATCHES = ("A", "B", "C")


def _noise(seed: int, features: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(240, features))


def test_alike_covariances_lie_as_far_apart_as_expected() -> None:
    p = [covariance_distance(_noise(seed), CODES, NONE, BATCHES, seed).p for seed in range(8)]

    assert min(p) > 0.02
    assert 0.15 < np.mean(p) < 0.85


def test_batch_with_another_covariance_is_found_though_means_and_variances_agree() -> None:
    values = _noise(1)
    shared = np.random.default_rng(5).normal(size=(80, 1))
    values[CODES == 1] = np.sqrt(0.5) * values[CODES == 1] + np.sqrt(0.5) * shared

    found = covariance_distance(values, CODES, NONE, BATCHES, 1)

    assert found.p == pytest.approx(1 / 61)
    assert found.distance > 2 * found.expected
    assert {pair.second for pair in found.pairs[:1]} | {pair.first for pair in found.pairs[:1]} >= {"B"}
    worst = {frozenset((pair.first, pair.second)): pair.distance / pair.expected for pair in found.pairs}
    assert worst[frozenset("AC")] < 1.3 < min(worst[frozenset("AB")], worst[frozenset("BC")])


def test_scale_of_a_batch_counts_as_covariance_and_combat_takes_it_off() -> None:
    values = _noise(2)
    values[CODES == 2] *= 1.8

    scaled = covariance_distance(values, CODES, NONE, BATCHES, 1)
    values[CODES == 2] /= 1.8

    assert scaled.distance > 1.5 * scaled.expected
    assert covariance_distance(values, CODES, NONE, BATCHES, 1).p > 0.05


def test_covariates_take_no_part_in_the_covariance() -> None:
    values, age = _noise(3), np.random.default_rng(4).normal(size=(240, 1))
    values[CODES == 0] += 3 * age[CODES == 0]
    values[CODES != 0] += 3 * age[CODES != 0]

    with_age = covariance_distance(values, CODES, age, BATCHES, 1)

    assert with_age.distance == pytest.approx(covariance_distance(_noise(3), CODES, age, BATCHES, 1).distance)


def test_too_small_batches_have_no_covariance() -> None:
    codes = np.repeat([0, 1], [231, 9])

    assert not covariance_distance(_noise(1), codes, NONE, BATCHES[:2], 1).evaluable


def test_bhattacharyya_is_that_of_two_normal_distributions() -> None:
    values = _noise(1, 1) * 2 + 5

    found = bhattacharyya(values, CODES, NONE, BATCHES, "A")

    own, reference = values[CODES == 1, 0], values[CODES == 0, 0]
    v, w = own.var(ddof=1), reference.var(ddof=1)
    expected = (own.mean() - reference.mean()) ** 2 / (v + w) / 4 + np.log((v + w) / (2 * np.sqrt(v * w))) / 2
    assert found["by_batch"]["B"] == pytest.approx(expected)
    assert set(found["by_batch"]) == {"B", "C"}
    assert found["against"] == "batch A"


def test_bhattacharyya_of_alike_batches_is_as_expected_and_of_a_shifted_one_is_not() -> None:
    values = _noise(1, 400)
    alike = bhattacharyya(values, CODES, NONE, BATCHES)
    values[CODES == 2] += 1.0
    shifted = bhattacharyya(values, CODES, NONE, BATCHES)

    assert alike["median"] == pytest.approx(alike["expected"], rel=0.25)
    assert shifted["by_batch"]["C"] > 10 * shifted["expected"]


def test_effect_sizes_of_rank_tests_grow_with_what_they_test() -> None:
    values = _noise(1, 3)
    values[CODES == 1, 1] += 1.5
    values[CODES == 2, 2] *= 3

    none, shift, scale = measure_batch_effects(values, CODES, NONE, ["none", "shift", "scale"])

    assert none.kruskal_epsilon_squared < 0.05
    assert shift.kruskal_epsilon_squared > 0.25
    assert scale.levene_eta_squared > 0.2 > 0.05 > shift.levene_eta_squared
    groups = [values[CODES == code, 1] for code in range(3)]
    assert shift.kruskal_epsilon_squared == pytest.approx(stats.kruskal(*groups).statistic / 239)


def _repeats(seed: int) -> tuple[np.ndarray, np.ndarray, Subjects]:
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(60), 4)
    age = random.normal(size=60)[codes]
    values = random.normal(size=(60, 200))[codes] + 0.5 * random.normal(size=(240, 200))
    return values, age[:, None], Subjects(codes, tuple(map(str, range(60))), "row keys")


def test_clustered_intervals_cover_and_ordinary_ones_do_not() -> None:
    covered = []
    for seed in range(10):
        values, age, subjects = _repeats(seed)
        codes = np.zeros(240, dtype=int)
        for people in (subjects, None):
            own = estimate_effects(values, codes, age, people, with_batch=False)
            covered.append(np.mean((own.low[0] < 0) & (own.high[0] > 0)))

    assert 0.92 < np.mean(covered[0::2]) < 0.98
    assert np.mean(covered[1::2]) < 0.8


def test_clustered_errors_are_the_adjusted_sandwich_with_missing_cells_too() -> None:
    values, age, subjects = _repeats(2)
    values = values[:, :3].copy()
    values[:7, 1] = np.nan

    errors = estimate_effects(values, np.zeros(240, dtype=int), age, subjects, with_batch=False).error[0]

    for column in range(3):
        seen = ~np.isnan(values[:, column])
        design = np.column_stack([np.ones(seen.sum()), age[seen]])
        inverse = np.linalg.inv(design.T @ design)
        residuals = values[seen, column] - design @ (inverse @ design.T @ values[seen, column])
        meat = np.zeros((2, 2))
        people = subjects.codes[seen]
        for person in np.unique(people):
            own = design[people == person]
            root = linalg.sqrtm(np.linalg.inv(np.eye(len(own)) - own @ inverse @ own.T)).real
            score = own.T @ root @ residuals[people == person]
            meat += np.outer(score, score)
        assert errors[column] == pytest.approx(np.sqrt((inverse @ meat @ inverse)[1, 1]))


def _group_table(confounded: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(6)
    chance = np.array([0.2, 0.5, 0.8])[CODES] if confounded else 0.5
    group = (random.random(240) < chance).astype(float)
    values = random.normal(size=(240, 50)) + 0.8 * group[:, None] + np.array([0.0, 1.0, 2.0])[CODES][:, None]
    return values, group[:, None]


def test_contrast_is_the_difference_in_residual_sd_and_batch_distorts_it_before() -> None:
    values, group = _group_table(confounded=True)
    after = values - np.array([0.0, 1.0, 2.0])[CODES][:, None]
    features = [f"f{i}" for i in range(50)]
    effects = covariate_effects(values, after, CODES, group, ["dx[AD]"], features)
    coding = CovariateCoding((("dx", "AD"),), {"dx": ("HC", "AD")}, {})

    (found,) = group_contrasts(effects, coding, [0, 1])

    assert (found["covariate"], found["level"], found["reference"]) == ("dx", "AD", "HC")
    assert found["stages"]["after"]["median"] == pytest.approx(0.8, abs=0.08)
    assert found["stages"]["before_batch_adjusted"]["median"] == pytest.approx(0.8, abs=0.08)
    assert found["stages"]["before"]["median"] > 1.1
    assert found["agreement"]["covered"] > 0.9
    assert [item["feature"] for item in found["listed"]] == ["f0", "f1"]
    one = found["listed"][0]["after"]
    assert one["low"] < one["value"] < one["high"]


def test_agreement_is_low_where_the_method_took_the_effect_away() -> None:
    values, group = _group_table(confounded=False)
    after = values - np.array([0.0, 1.0, 2.0])[CODES][:, None] - 0.7 * group

    effects = covariate_effects(values, after, CODES, group, ["dx[AD]"], [f"f{i}" for i in range(50)])

    agreement = effects.to_json()["by_covariate"][0]["agreement"]
    assert agreement["covered"] < 0.1
    assert agreement["median_difference_in_errors"] < -3


def test_effects_on_features_of_unlike_units_are_summed_up_in_sd_of_the_feature() -> None:
    values, group = _group_table(confounded=False)
    features = [f"f{i}" for i in range(50)]
    in_mm, in_um = values.copy(), values.copy()
    in_um[:, ::2] *= 1000.0

    summed = [
        covariate_effects(table, table, CODES, group, ["dx[AD]"], features).to_json()["by_covariate"][0]
        for table in (in_mm, in_um)
    ]

    assert summed[0]["unit"] == "feature SD"
    for stage, figures in summed[0]["stages"].items():
        assert summed[1]["stages"][stage] == pytest.approx(figures)
    slopes = np.linalg.lstsq(np.column_stack([np.ones(240), group]), values, rcond=None)[0][1]
    assert summed[0]["stages"]["before"]["median"] == pytest.approx(np.median(slopes / values.std(axis=0)))


def test_a_feature_without_spread_has_no_part_in_the_summary() -> None:
    values, group = _group_table(confounded=False)
    flat = values.copy()
    flat[:, 0], flat[:, 1] = 5.0, np.nan

    found = feature_spread(flat)

    assert np.isnan(found[:2]).all()
    assert found[2:] == pytest.approx(values[:, 2:].std(axis=0))


def test_implausible_values_are_told_by_kind_and_unit() -> None:
    before = np.abs(_noise(1, 4)) + 0.5
    before[:, 1] = before[:, 1] / before[:, 1].max()
    before[:5, 2] = 0.0
    after = before.copy()
    after[3, 0], after[4, 1], after[6, 2], after[8, 3] = -0.1, 1.2, -0.3, 9.0
    dataset = Dataset(
        before,
        ("volume", "fa", "lesions", "ratio free"),
        tuple(f"r{i}" for i in range(240)),
        ("A",) * 240,
        {},
        ("mm3", "fraction", "mm3", "mm"),
    )

    movers = find_movers(dataset, after)

    found = {item.code: item for item in movers.implausible}
    assert set(found) == {"turned_non_positive", "above_whole", "turned_negative"}
    assert (found["turned_non_positive"].listed[0].row, found["turned_non_positive"].cells) == ("r3", 1)
    assert (found["above_whole"].listed[0].feature, found["above_whole"].features) == ("fa", 1)
    assert found["turned_negative"].listed[0].row == "r6"
    assert sum(movers.distribution["cells"]) == before.size
    assert movers.distribution["cells"][0] == before.size - 4
    assert movers.distribution["edges_sd"] == list(EDGES_SD)


def test_movers_are_the_same_by_blocks(monkeypatch) -> None:
    dataset = make_input({"A": 40, "B": 40}, seed=3)
    after = dataset.values + np.random.default_rng(1).normal(0, 0.2, dataset.values.shape)
    whole = find_movers(dataset, after)

    monkeypatch.setattr("harmonization_app.diagnostics.movers.BLOCK_CELLS", 1)
    monkeypatch.setattr(
        "harmonization_app.diagnostics.movers.blocks",
        lambda columns, rows, cells: (slice(i, i + 5) for i in range(0, columns, 5)),
    )
    assert find_movers(dataset, after) == replace(
        whole, mean_shift_by_batch_sd=pytest.approx(whole.mean_shift_by_batch_sd)
    )


def test_change_of_one_batch_that_drifts_is_seen() -> None:
    dataset = make_longitudinal(60, seed=5)
    plan = Specification(subject="subject", time="years")
    years, labels = np.array(dataset.covariates["years"], dtype=float), np.array(dataset.batches)
    drifting = sorted(set(labels.tolist()))[0]
    spread = dataset.values.std(axis=0)
    after = dataset.values + np.where(labels == drifting, 0.5 * years, 0.0)[:, None] * spread

    found = measure_within_subject(dataset, plan, after)

    changes = {item.batch: item.change_after_sd - item.change_before_sd for item in found.by_batch}
    assert found.time == "years"
    assert changes.pop(drifting) == pytest.approx(0.5, abs=1e-9)
    assert list(changes.values()) == pytest.approx([0.0] * len(changes))
    assert sum(item.pairs for item in found.by_batch) <= found.pairs_same_batch


def _travellers(shift: float, error: float = 0.2, others: int = 40) -> Dataset:
    """Return 10 subjects scanned in three batches within days, and others scanned once in each."""
    random = np.random.default_rng(9)
    person = np.concatenate([np.repeat(np.arange(10), 3), 10 + np.arange(3 * others)])
    batch = np.concatenate([np.tile(np.arange(3), 10), np.repeat(np.arange(3), others)])
    features = 40
    values = 10 + random.normal(0, 1, (len(set(person.tolist())), features))[person]
    values += random.normal(0, error, (len(person), features))
    values += shift * random.normal(0, 1, (3, features))[batch]
    return Dataset(
        values,
        tuple(f"f{i:02d}" for i in range(features)),
        tuple(f"r{i:03d}" for i in range(len(person))),
        tuple(BATCHES[i] for i in batch),
        {
            "who": tuple(f"S{i:03d}" for i in person),
            "years": tuple((0.01 * batch).tolist()),
        },
        ("mm",) * features,
    )


TRAVEL = Specification(subject="who", time="years", overlap=OverlapPolicy(10.0, 0.0))


def test_travelling_subjects_agree_as_simulated_where_batches_do_not_differ() -> None:
    dataset = _travellers(0.0)

    found = measure_travelling(Combat(), dataset, TRAVEL, dataset.values)

    assert (found.subjects, found.scans, found.batches) == (10, 30, 3)
    assert found.before.icc == pytest.approx(1 / 1.04, abs=0.03)
    assert found.before.batch_ratio == pytest.approx(0.7, abs=0.3)
    assert found.before.within_subject_cv_percent == pytest.approx(2.0, abs=0.3)
    assert found.before.repeatability_sd == pytest.approx(2.77 * 0.2, abs=0.08)


def test_icc_is_the_textbook_one_in_a_balanced_table() -> None:
    dataset = _travellers(0.5).select(np.arange(30))
    plan = replace(TRAVEL, batch_size=replace(TRAVEL.batch_size, stop_below=2))

    found = measure_travelling(LongCombat(), dataset, plan, dataset.values)

    values = dataset.values.reshape(10, 3, -1)
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    whole = values.mean(axis=(0, 1))
    msr = 3 * ((rows - whole) ** 2).sum(axis=0) / 9
    msc = 10 * ((columns - whole) ** 2).sum(axis=0) / 2
    mse = ((values - rows[:, None] - columns[None] + whole) ** 2).sum(axis=(0, 1)) / 18
    icc = (msr - mse) / (msr + 2 * mse + 3 * (msc - mse) / 10)
    # The textbook form is the same where no variance component is negative.
    usable = (msr > mse) & (msc > mse)
    assert usable.all()
    assert found.before.icc == pytest.approx(np.median(icc))
    assert found.before.batch_ratio == pytest.approx(np.median(msc / mse))
    assert not found.held_out
    assert "in-sample" in found.note


def test_travelling_subjects_show_held_out_that_combat_took_the_batches_off() -> None:
    dataset = _travellers(0.8)

    found = measure_travelling(Combat(), dataset, TRAVEL, dataset.values * np.nan)

    assert found.held_out
    assert "other subjects" in found.note
    assert found.before.batch_ratio > 30
    assert found.after.batch_ratio < found.before.batch_ratio / 5
    assert found.after.icc > found.before.icc + 0.15
    assert len(found.pairs) == 3
    assert all(pair.bias_after < pair.bias_before for pair in found.pairs)
    assert all(pair.subjects == 10 for pair in found.pairs)


def test_travelling_subjects_need_scans_close_in_time() -> None:
    dataset = _travellers(0.5)
    years = tuple(2.0 * value for value in np.array(dataset.covariates["years"]) * 100)
    apart = replace(dataset, covariates={**dataset.covariates, "years": years})

    assert measure_travelling(Combat(), apart, TRAVEL, dataset.values) is None
    nameless = measure_travelling(Combat(), dataset, replace(TRAVEL, time=None), dataset.values)
    assert "names no time" in nameless.reason
    travelling = measure_travelling(TravellingSubject(), dataset, replace(TRAVEL, time=None), dataset.values)
    assert travelling.evaluable
    few = dataset.select([*range(9), *range(30, 150)])
    assert "Fewer than 5" in measure_travelling(Combat(), few, TRAVEL, few.values).reason
    single = make_input({"A": 20, "B": 20}, seed=1)
    assert measure_travelling(Combat(), single, Specification(), single.values) is None


def test_covariate_of_every_kind_is_in_the_json() -> None:
    dataset = make_input({"A": 40, "B": 30}, seed=8)
    plan = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))
    report = Combat().diagnose(dataset, plan, Combat().harmonize(dataset, plan)).to_json()

    assert [item["covariate"] for item in report["covariate_effects"]["by_covariate"]] == ["age", "sex[M]"]
    assert report["group_contrast"][0]["level"] == "M"
    women = sum(
        sex == "F" and batch == "A"
        for sex, batch in zip(dataset.covariates["sex"], dataset.batches, strict=True)
    )
    assert report["batches"][0]["levels"]["sex"]["F"] == women


def _without_batch_effect(seed: int) -> tuple[Dataset, np.ndarray, Subjects]:
    """Return 80 subjects of four scans each in their own batch, with no difference between batches."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(80), 4)
    values = random.normal(size=(80, 60))[person] + 0.5 * random.normal(size=(320, 60))
    batches = tuple("ABCD"[i % 4] for i in person)
    rows = tuple(f"S{p:02d}|V{i % 4}" for i, p in enumerate(person))
    dataset = Dataset(values, tuple(f"f{i:02d}" for i in range(60)), rows, batches)
    return dataset, person % 4, Subjects(person, rows[::4], "row keys")


def test_noise_floor_is_what_batches_without_effect_show() -> None:
    floors, found = [], []
    for seed in range(6):
        dataset, codes, subjects = _without_batch_effect(seed)
        age = np.random.default_rng(seed).normal(size=(80, 1))[subjects.codes]
        floors.append(noise_floor(codes, age, dataset.values, subjects.codes))
        tests = measure_batch_effects(dataset.values, codes, age, dataset.features, ranks_and_scales=False)
        found.append(float(np.median(tests.figures["partial_eta_squared"])))

    assert np.mean(found) == pytest.approx(np.mean(floors), rel=0.1)
    assert np.mean(found) > 3 * noise_floor(codes, age, dataset.values)
    assert noise_floor(codes, age, dataset.values) == pytest.approx(stats.beta.median(3 / 2, 315 / 2))


def _two_batches_without_effect(seed: int, alike: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    values = np.sqrt(1 - alike) * random.normal(size=(40, 60)) + np.sqrt(alike) * random.normal(size=(40, 1))
    return values, np.arange(40) % 2, random.normal(size=(40, 1))


def test_median_feature_of_two_batches_is_expected_at_half_the_mean() -> None:
    found, floors = [], []
    for seed in range(30):
        values, codes, age = _two_batches_without_effect(seed, 0.0)
        tests = measure_batch_effects(values, codes, age, ("f",) * 60, ranks_and_scales=False)
        found.append(np.median(tests.figures["partial_eta_squared"]))
        floors.append(noise_floor(codes, age, values))

    assert np.mean(found) == pytest.approx(np.mean(floors), rel=0.15)
    assert np.mean(floors) < 0.55 / 38


@pytest.mark.parametrize("alike", [0.0, 0.8])
def test_what_chance_reaches_allows_for_features_that_go_together(alike) -> None:
    exceeded = 0
    for seed in range(40):
        values, codes, age = _two_batches_without_effect(seed, alike)
        tests = measure_batch_effects(values, codes, age, ("f",) * 60, ranks_and_scales=False)
        upper = noise_upper(codes, age, values, None, np.random.default_rng(seed))
        exceeded += np.median(tests.figures["partial_eta_squared"]) > upper

    assert exceeded <= 5
    assert upper > (4 if alike else 1) * noise_floor(codes, age, values)


def test_subjects_are_not_taken_for_batches() -> None:
    dataset, codes, subjects = _without_batch_effect(1)
    leaking = classify_batches(dataset.values, codes, np.empty((320, 0)), 1)

    report = compare(Combat(), dataset, Specification(), Combat().harmonize(dataset, Specification()))

    assert leaking.accuracy > 0.5
    assert report.classified_before.scans == 80
    assert report.classified_before.accuracy < 0.4
    assert report.before.covariance.p > 0.02
    assert report.before.bhattacharyya["median"] < 2 * report.before.bhattacharyya["expected"]
    assert report.held_out.split_by == "subject"
    assert "hardly a batch effect" in report.to_json()["headline"]["sentence"]


def test_batch_without_a_scan_has_no_bhattacharyya_distance() -> None:
    found = bhattacharyya(_noise(1)[:160], CODES[:160], NONE[:160], BATCHES)

    assert found["by_batch"]["C"] is None
    assert found["by_batch"]["A"] == pytest.approx(found["by_batch"]["B"])

"""Functional normalization: planted curves go, biology stays, pools are apart, mixed units are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.functional_normalization import FunctionalNormalization
from harmonization_app.algorithms.model import load_model, save_model
from harmonization_app.algorithms.specification import Covariate, FeaturePool, Specification

SITES, SCANS_PER_SITE, FEATURES, CONTROLS = 4, 40, 60, 6
NAMES = tuple(f"region_{i}" for i in range(FEATURES))
PLAN = Specification(covariates=(Covariate("age", "continuous"),), eb=False)


def _planted(seed: int, sites: int = SITES) -> tuple[Dataset, np.ndarray]:
    """Return values bent by a rising curve of their site, and the values before that."""
    random = np.random.default_rng(seed)
    scans = SITES * SCANS_PER_SITE
    site = random.permutation(np.arange(scans) % sites)
    age = random.uniform(40, 80, scans)
    true = random.uniform(2, 4, FEATURES) - 0.005 * (age - 60)[:, None]
    true = true + random.normal(0, 0.05, scans)[:, None] + random.normal(0, 0.15, (scans, FEATURES))
    curves = random.normal(0, 1, (3, sites)) * np.array([[0.1], [0.08], [0.03]])
    shift, slope, bend = (curves - curves.mean(axis=1, keepdims=True))[:, site]
    from_middle = true - 3
    values = 3 + shift[:, None] + (1 + slope)[:, None] * from_middle + bend[:, None] * from_middle**2
    dataset = Dataset(
        values,
        NAMES,
        tuple(f"r{i}" for i in range(scans)),
        tuple("ABCD"[i] for i in site),
        {"age": tuple(age.tolist())},
        ("mm",) * FEATURES,
    )
    return dataset, true


def test_planted_curves_are_taken_off_and_the_age_effect_stays() -> None:
    left, slopes = [], []
    for seed in range(20):
        dataset, true = _planted(seed)
        values = FunctionalNormalization().harmonize(dataset, PLAN).values
        left.append(np.mean((values - true) ** 2) / np.mean((dataset.values - true) ** 2))
        age = np.array(dataset.covariates["age"])
        slopes.append(np.polyfit(age, values, 1)[0].mean() / np.polyfit(age, true, 1)[0].mean())

    assert np.median(left) < 0.025
    assert max(left) < 0.12
    assert np.mean(slopes) == pytest.approx(1, abs=0.01)


def test_quantiles_of_the_batches_agree_on_average() -> None:
    dataset, _ = _planted(3)
    plan = replace(PLAN, covariates=())

    result = np.sort(FunctionalNormalization().harmonize(dataset, plan).values, axis=1)

    batches = np.array(dataset.batches)
    common = np.sort(dataset.values, axis=1).mean(axis=0)
    for batch in "ABCD":
        np.testing.assert_allclose(result[batches == batch].mean(axis=0), common, atol=0.01)


def test_order_of_values_within_a_scan_is_kept() -> None:
    dataset, _ = _planted(4)

    values = FunctionalNormalization().harmonize(dataset, PLAN).values

    order = np.argsort(dataset.values, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(values, order, axis=1), axis=1) >= 0).all()


def test_equal_values_stay_equal() -> None:
    dataset, _ = _planted(5)
    rounded = dataset.with_values(dataset.values.round(1))

    values = FunctionalNormalization().harmonize(rounded, PLAN).values

    for before, after in zip(rounded.values[:20], values[:20], strict=True):
        assert len({(x, round(y, 9)) for x, y in zip(before, after, strict=True)}) == len(set(before))


def test_control_features_take_off_a_planted_drift_and_pass_through() -> None:
    random = np.random.default_rng(6)
    dataset, true = _planted(6, sites=2)
    drift = random.normal(0, 1, len(dataset.rows))
    weights = random.uniform(0.5, 1.5, CONTROLS)
    controls = np.outer(drift, weights) + random.normal(0, 0.1, (len(drift), CONTROLS))
    bent = true * (1 + 0.05 * drift)[:, None] + 0.1 * drift[:, None]
    names = tuple(f"phantom_{i}" for i in range(CONTROLS))
    whole = Dataset(
        np.hstack([bent, controls]),
        NAMES + names,
        dataset.rows,
        dataset.batches,
        dataset.covariates,
        ("mm",) * FEATURES + ("HU",) * CONTROLS,
    )
    plan = replace(PLAN, options={"factors_from": "controls", "controls": list(names), "factors": 1})

    result = FunctionalNormalization().harmonize(whole, plan)

    left = np.mean((result.values[:, :FEATURES] - true) ** 2) / np.mean((bent - true) ** 2)
    assert left < 0.02
    assert np.array_equal(result.values[:, FEATURES:], controls)
    assert result.flags == {"control_feature": names}


def test_new_scans_are_corrected_alone_as_together() -> None:
    dataset, _ = _planted(7)
    model = load_model(save_model(FunctionalNormalization().fit(dataset, PLAN)))

    whole = FunctionalNormalization().apply(model, dataset).values
    alone = FunctionalNormalization().apply(model, dataset.select([11])).values

    assert np.array_equal(alone, whole[[11]])


def test_pools_do_not_share_their_curves() -> None:
    dataset, _ = _planted(8)
    pools = (FeaturePool("first", NAMES[:30]), FeaturePool("second", NAMES[30:]))
    plan = replace(PLAN, pools=pools)
    changed = dataset.values.copy()
    changed[:, 30:] *= np.linspace(1, 9, len(dataset.rows))[:, None]

    before = FunctionalNormalization().harmonize(dataset, plan).values
    after = FunctionalNormalization().harmonize(dataset.with_values(changed), plan).values

    assert np.array_equal(before[:, :30], after[:, :30])


def test_seed_and_row_order_do_not_matter() -> None:
    dataset, _ = _planted(9)
    order = np.random.default_rng(2).permutation(len(dataset.rows))

    plain = FunctionalNormalization().harmonize(dataset, PLAN).values
    shuffled = FunctionalNormalization().harmonize(dataset.select(order), replace(PLAN, seed=3)).values

    np.testing.assert_allclose(shuffled, plain[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("units", [("mm3",), ("",)])
def test_pool_of_several_units_is_refused(units) -> None:
    dataset, _ = _planted(10)
    mixed = replace(dataset, units=units + dataset.units[1:])

    with pytest.raises(HarmonizationRefused, match="Pool all mixes"):
        FunctionalNormalization().fit(mixed, PLAN)


def test_units_apart_in_pools_are_accepted() -> None:
    dataset, _ = _planted(11)
    pools = (FeaturePool("thickness", NAMES[:30]), FeaturePool("volume", NAMES[30:]))
    mixed = replace(dataset, units=("mm",) * 30 + ("mm3",) * 30)

    assert FunctionalNormalization().fit(mixed, replace(PLAN, pools=pools)).features == NAMES


def _bent(seed: int, stretch: float) -> tuple[Dataset, str]:
    """Return a table in which one site's upper values are stretched, with a scan of that site that is nearly flat."""
    dataset, _ = _planted(seed)
    values = dataset.values.copy()
    own = np.flatnonzero(np.array(dataset.batches) == "A")
    values[own] = np.where(values[own] > 3, 3 + stretch * (values[own] - 3), values[own])
    values[own[0]] = np.linspace(2.9, 3.1, FEATURES)
    return dataset.with_values(values), dataset.rows[own[0]]


def test_scan_whose_values_change_their_order_is_told() -> None:
    dataset, flat = _bent(12, 1.5)

    result = FunctionalNormalization().harmonize(dataset, PLAN)

    crossing = [finding for finding in result.findings if finding.code == "quantiles_cross"]
    assert flat in crossing[0].rows
    assert crossing[0].severity == "warn"


def test_scan_whose_values_would_be_wrong_is_refused() -> None:
    dataset, flat = _bent(12, 3.0)

    with pytest.raises(HarmonizationRefused, match=rf"more than 2 SD of its feature: .*{flat}"):
        FunctionalNormalization().harmonize(dataset, PLAN)


def test_features_of_unlike_scale_are_refused_by_name() -> None:
    dataset, _ = _planted(12)
    values = dataset.values.copy()
    values[:, 5] *= 1000

    with pytest.raises(HarmonizationRefused, match="the SD of region_5 is more than 50 times"):
        FunctionalNormalization().fit(dataset.with_values(values), PLAN)


def test_constant_feature_passes_through_and_is_flagged() -> None:
    dataset, _ = _planted(12)
    values = dataset.values.copy()
    values[:, 5] = 3.0

    result = FunctionalNormalization().harmonize(dataset.with_values(values), PLAN)

    assert (result.values[:, 5] == 3.0).all()
    assert result.flags["constant"] == ("region_5",)


CONTROL_PLAN = {"factors_from": "controls", "controls": ["region_0", "region_1", "region_2"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors_from": "controls"}, r"at most 0 factor\(s\)"),
        ({**CONTROL_PLAN, "factors": 4}, r"at most 3 factor\(s\)"),
        ({**CONTROL_PLAN, "controls": ["air"]}, "air are not among the features"),
        ({"controls": ["region_0"]}, "takes the factors from the batches"),
        ({"factors_from": "subject"}, "factors_from"),
    ],
)
def test_faulty_options_are_refused(options, message) -> None:
    dataset, _ = _planted(13)

    with pytest.raises(HarmonizationRefused, match=message):
        FunctionalNormalization().fit(dataset, replace(PLAN, options=options))


def test_controls_that_follow_a_covariate_are_refused() -> None:
    dataset, _ = _planted(14)
    values = dataset.values.copy()
    values[:, :3] = np.outer(dataset.covariates["age"], [1.0, 2.0, 3.0])
    plan = replace(PLAN, options={**CONTROL_PLAN, "factors": 1})

    with pytest.raises(HarmonizationRefused, match="cannot be told apart"):
        FunctionalNormalization().fit(dataset.with_values(values), plan)


def test_few_features_are_refused() -> None:
    dataset, _ = _planted(15)

    with pytest.raises(HarmonizationRefused, match="Pool all has 9 feature"):
        FunctionalNormalization().fit(dataset, replace(PLAN, features=NAMES[:9]))


def test_constant_control_is_refused() -> None:
    dataset, _ = _planted(16)
    values = dataset.values.copy()
    values[:, 1] = 2.0

    with pytest.raises(HarmonizationRefused, match="region_1"):
        FunctionalNormalization().fit(dataset.with_values(values), replace(PLAN, options=CONTROL_PLAN))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("factor", [1e200, 1e-200])
def test_values_beyond_computing_are_refused(factor) -> None:
    dataset, _ = _planted(17)

    with pytest.raises(HarmonizationRefused, match="give them in another unit|residual variance"):
        FunctionalNormalization().fit(dataset.with_values(dataset.values * factor), PLAN)

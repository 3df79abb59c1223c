"""Published cases: not the corrected values alone, but every estimate given beside them, and every table of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harmonization_app.algorithms.base import FloatArray
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.nested import Nested
from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.reference import ReferenceCase, reference_cases

pytestmark = pytest.mark.reference

EFFECTS = ("gamma_hat", "delta_hat", "gamma_star", "delta_star")
SCALES = ("delta_hat", "delta_star")
COVARIATES = {"age", "age0", "time", "days"}


@pytest.fixture
def folder(reference_data) -> Path:
    return reference_data / "harmonization"


def _estimates(folder: Path, case: ReferenceCase, name: str) -> pd.DataFrame:
    path = folder / "cases" / case.name / f"est_{name}.csv"
    return pd.read_csv(path if path.exists() else path.with_name(f"{path.name}.gz"), index_col=0)


def _with_estimates(folder: Path, name: str) -> Iterator[tuple[ReferenceCase, Model]]:
    for case in reference_cases(folder, name):
        if case.kind != "k":
            yield case, ALGORITHMS[name].fit(case.dataset, case.specification)


def _effect_differences(folder: Path, case: ReferenceCase, model: Model) -> dict[str, float]:
    """Return the largest difference of each kind of batch effect: shifts in pooled SD, scales as a part of theirs."""
    found = {}
    for name in EFFECTS:
        published = _estimates(folder, case, name).loc[list(model.batches), list(model.features)].to_numpy()
        own = model.arrays[name]
        found[name] = float(np.abs(own / published - 1 if name in SCALES else own - published).max())
    return found


def _fit_differences(folder: Path, case: ReferenceCase, model: Model) -> dict[str, float]:
    """Return the largest difference of variances (relative), of grand means and of covariates' effects (pooled SD)."""
    arrays, features = model.arrays, list(model.features)
    scale = np.ravel(arrays["scale"])
    slopes = arrays["coefficients"] / scale[:, None]
    deviation = np.sqrt(arrays["pooled_variance"])
    pooled = _estimates(folder, case, "pooled").loc[features]
    terms = _estimates(folder, case, "beta_hat")[features].to_numpy()
    grand_mean = arrays["grand_mean"] - np.ravel(arrays["centre"]) @ slopes
    first = _first_intercepts(model, grand_mean, deviation)
    assert len(terms) == len(model.batches) + len(slopes)
    return {
        "variance": float(np.abs(arrays["pooled_variance"] / pooled["var_pooled"] - 1).max()),
        "grand_mean": float((np.abs(grand_mean - pooled["stand_mean"]) / deviation).max()),
        "intercepts": float((np.abs(first - terms[: len(model.batches)]) / deviation).max()),
        "slopes": float(
            (np.abs(slopes - terms[len(model.batches) :]) * scale[:, None] / deviation).max(initial=0.0)
        ),
    }


def _first_intercepts(model: Model, grand_mean: FloatArray, deviation: FloatArray) -> FloatArray:
    """Return the batches' coefficients as R codes them: means, or differences from the reference batch's mean."""
    means = grand_mean + model.arrays["gamma_hat"] * deviation
    reference = model.specification.reference_batch
    if reference is None:
        return means
    index = model.batches.index(reference)
    differences = means - means[index]
    differences[index] = means[index]
    return differences


def _prior_difference(folder: Path, case: ReferenceCase, model: Model) -> float:
    """Return the largest relative difference of the priors; mean-only has no prior of the scale, a reference none."""
    published = _estimates(folder, case, "priors").loc[list(model.batches)].to_numpy()
    own = model.arrays["priors"][0]
    expected = np.full(own.shape, True)
    if model.specification.mean_only:
        expected[:, 2:] = False
    if model.specification.reference_batch is not None:
        expected[model.batches.index(model.specification.reference_batch)] = False
    assert np.array_equal(np.isfinite(own), expected)
    return float(np.abs(own[expected] / published[expected] - 1).max())


@pytest.mark.parametrize("name", ["combat", "dcombat"])
def test_every_estimate_of_combat_is_the_published_one(name, folder) -> None:
    cases = priors = 0
    for case, model in _with_estimates(folder, name):
        found = _effect_differences(folder, case, model) | _fit_differences(folder, case, model)
        if case.specification.eb:
            found["priors"] = _prior_difference(folder, case, model)
            priors += 1
        cases += 1
        assert max(found.values()) < 1e-10, (case.name, found)

    assert (cases, priors) == (38, 27)


def test_estimates_on_a_spline_are_those_on_its_published_basis(folder) -> None:
    cases = 0
    for case, model in _with_estimates(folder, "combat-spline"):
        found = _effect_differences(folder, case, model) | {"priors": _prior_difference(folder, case, model)}
        cases += 1
        assert max(found.values()) < 1e-10, (case.name, found)

    assert cases == 3


def test_estimates_of_the_published_package_are_those_of_r(folder) -> None:
    cases = 0
    for case in reference_cases(folder, "neurocombat"):
        if case.kind not in {"a0", "a", "b", "c", "c2"}:
            continue
        model = ALGORITHMS["neurocombat"].fit(case.dataset, case.specification)
        published = _estimates(folder, case, "pooled").loc[list(model.features), "var_pooled"]
        found = _effect_differences(folder, case, model)
        found["variance"] = float(np.abs(model.arrays["pooled_variance"] / published - 1).max())
        cases += 1
        # The package holds continuous covariates in float32.
        assert max(found.values()) < 5e-6, (case.name, found)

    assert cases == 15


def test_every_estimate_of_the_mixed_models_is_the_published_one(folder) -> None:
    cases = 0
    for case, model in _with_estimates(folder, "longcombat"):
        tolerance = case.tolerance_sd
        for own, name in (("gamma_star", "gammastarhat"), ("delta_star", "delta2starhat")):
            published = _estimates(folder, case, name).loc[list(model.batches), list(model.features)]
            assert np.abs(model.arrays[own] - published.to_numpy()).max() < 10 * tolerance, (case.name, name)
        cases += 1
        if "REML" not in case.name:
            continue
        lmer = _estimates(folder, case, "lmer").loc[list(model.features)]
        sigma = model.arrays["residual_scale"]
        assert np.abs(sigma / lmer["sigma"] - 1).max() < tolerance
        if "slope" not in case.name:
            between = model.arrays["relative_factor"].reshape(-1) * sigma
            assert np.abs(between / lmer["tau_intercept"] - 1).max() < 10 * tolerance
        published = lmer[[column for column in lmer if column.startswith("scanner")]].to_numpy().T
        offsets = model.arrays["batch_offsets"]
        assert np.abs(offsets[1:] - offsets[0] - published).max() < tolerance * sigma.min() * 10

    assert cases == 4


def test_covbat_keeps_as_many_components_as_published(folder) -> None:
    cases = list(_with_estimates(folder, "covbat"))
    for case, model in cases:
        facts = json.loads((folder / "cases" / case.name / "case.json").read_text("utf-8"))
        assert model.facts["components"] == {"all": facts["n_pc"]}

    assert len(cases) == 3


def test_covbat_is_that_of_combatfamily_too(folder) -> None:
    cases = list(reference_cases(folder, "covbat"))
    for case in cases:
        path = folder / "cases" / case.name / "expected_ComBatFamily_covfam.csv.gz"
        second = pd.read_csv(path).set_index("subject").loc[list(case.dataset.rows)]
        values = ALGORITHMS["covbat"].harmonize(case.dataset, case.specification).values
        expected = second[list(case.dataset.features)].to_numpy()
        assert max_difference_sd(values, expected, case.dataset.values) < case.tolerance_sd

    assert len(cases) == 3


@pytest.mark.parametrize("name", ["combat", "dcombat"])
def test_scans_that_a_model_learnt_from_are_corrected_as_published(name, folder) -> None:
    cases = [case for case in reference_cases(folder, name) if case.kind == "k"]
    for case in cases:
        train = case.dataset.select(case.train)
        path = folder / "cases" / case.name / "expected_train.csv.gz"
        published = pd.read_csv(path, dtype={"subject": str}).set_index("subject").loc[list(train.rows)]
        values = ALGORITHMS[name].harmonize(train, case.specification).values
        expected = published[list(train.features)].to_numpy()
        assert max_difference_sd(values, expected, case.dataset.values) < 1e-10

    assert len(cases) == 3


def test_nested_results_that_went_through_float32_are_within_their_tolerance(folder) -> None:
    cases = [case for case in reference_cases(folder, "nested") if case.kind == "j"]
    for case in cases:
        path = folder / "cases" / case.name / "expected.csv.gz"
        published = (
            pd.read_csv(path, dtype={"subject": str}).set_index("subject").loc[list(case.dataset.rows)]
        )
        values = Nested().harmonize(case.dataset, case.specification).values
        expected = published[list(case.dataset.features)].to_numpy()
        assert max_difference_sd(values, expected, case.dataset.values) < 1e-5

    assert len(cases) == 2


def test_every_row_and_measurement_of_a_published_result_is_compared(folder) -> None:
    for name in ("combat", "covbat", "combat-gam", "combat-robust", "longcombat", "nested"):
        for case in reference_cases(folder, name):
            given = pd.read_csv(folder / "data" / case.name.split("/")[0].split("__")[1] / "input.csv.gz")
            measured = set(given.select_dtypes("float64").columns) - COVARIATES
            rows = len(case.test) if case.kind == "k" else len(given)
            assert case.expected.shape == (rows, len(case.dataset.features)), case.name
            assert len(case.dataset.rows) == len(given)
            assert measured <= set(case.dataset.features), (case.name, measured)

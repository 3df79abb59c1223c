"""The small verification suite inside the package: our own inputs, expected results stored as numbers.

The expected results were computed once by `plain.py` and are stored in `suite.json`; `build_suite` computes
them anew, so that a test can show that the stored numbers are those of the plain implementation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    OverlapPolicy,
    Specification,
)
from harmonization_app.algorithms.verification.plain import plain_apply, plain_combat

SEED = 41
SITE_SIZES = {"north": 14, "south": 11, "west": 17}
FEATURES = 12
NEW_SCANS = 9
# The cases test arithmetic on small batches, which a plan would have to justify.
SMALL_BATCHES = BatchSizePolicy(2, 2, 20, 2, 1)
NO_OVERLAP_LIMIT = OverlapPolicy(warn_smd_above=10.0, minimum_overlap=0.0)

MODES: dict[str, dict[str, Any]] = {
    "eb": {},
    "eb_without_covariates": {"covariates": False},
    "without_eb": {"eb": False},
    "mean_only": {"mean_only": True},
    "mean_only_without_eb": {"mean_only": True, "eb": False},
    "reference_batch": {"reference": "south"},
    "reference_batch_mean_only": {"reference": "south", "mean_only": True},
    "reference_batch_without_eb": {"reference": "south", "eb": False},
    "nonparametric": {"parametric": False},
    "missing_values": {"missing": True},
    "missing_values_without_eb": {"missing": True, "eb": False},
    "missing_values_reference_batch": {"missing": True, "reference": "south"},
    "apply_new_scans": {"apply": True},
}


@dataclass(frozen=True, slots=True, eq=False)
class SuiteCase:
    """One case: what goes in, what must come out. `new` holds scans to correct by the fitted model, if
    any.
    """

    name: str
    dataset: Dataset
    specification: Specification
    expected: FloatArray
    new: Dataset | None = None


def make_input(rows_per_site: dict[str, int], seed: int) -> Dataset:
    """Return simulated thickness-like values (mm) with age and sex effects and planted site shifts and
    scales.
    """
    random = np.random.default_rng(seed)
    sites = [site for site, size in rows_per_site.items() for _ in range(size)]
    order = random.permutation(len(sites))
    codes = np.array([list(rows_per_site).index(sites[i]) for i in order])
    age, sex = random.uniform(40, 85, len(order)).round(2), random.integers(0, 2, len(order))
    level = random.uniform(1.8, 3.4, FEATURES)
    shift = random.normal(0, 0.12, (len(rows_per_site), FEATURES))
    scale = random.uniform(0.7, 1.4, (len(rows_per_site), FEATURES))
    slopes = random.normal(-0.005, 0.001, FEATURES)
    noise = random.normal(0, 0.15, (len(order), FEATURES)) * scale[codes]
    values = level + np.outer(age - 60, slopes) + 0.04 * sex[:, None] + shift[codes] + noise
    return Dataset(
        values=values.round(4),
        features=tuple(f"region_{i:02d}" for i in range(FEATURES)),
        rows=tuple(f"S{i:03d}" for i in range(len(order))),
        batches=tuple(sites[i] for i in order),
        covariates={"age": tuple(age.tolist()), "sex": tuple("FM"[i] for i in sex)},
        units=("mm",) * FEATURES,
    )


def mode_specification(mode: dict[str, Any]) -> Specification:
    """Return the parameters of one mode of the suite."""
    covariates = (Covariate("age", "continuous"), Covariate("sex", "categorical", reference="F"))
    return Specification(
        covariates=covariates if mode.get("covariates", True) else (),
        eb=mode.get("eb", True),
        parametric=mode.get("parametric", True),
        mean_only=mode.get("mean_only", False),
        reference_batch=mode.get("reference"),
        batch_size=SMALL_BATCHES,
        overlap=NO_OVERLAP_LIMIT,
    )


def build_suite() -> dict[str, Any]:
    """Return the suite as JSON: inputs and, for each mode, the result of the plain implementation."""
    dataset, new = (
        make_input(SITE_SIZES, SEED),
        make_input(dict.fromkeys(SITE_SIZES, NEW_SCANS // 3), SEED + 1),
    )
    holes = np.random.default_rng(SEED + 2).random(dataset.values.shape) < 0.06
    expected = {}
    for name, mode in MODES.items():
        values = np.where(holes, np.nan, dataset.values) if mode.get("missing") else dataset.values
        covariates = _plain_covariates(dataset, mode)
        options = {key: mode[key] for key in ("eb", "parametric", "mean_only", "reference") if key in mode}
        result = plain_combat(values, [str(label) for label in dataset.batches], covariates, **options)
        corrected = result.values
        if mode.get("apply"):
            labels = [str(label) for label in new.batches]
            corrected = plain_apply(result, new.values, labels, _plain_covariates(new, mode))
        expected[name] = _cells(corrected)
    return {
        "dataset": _table(dataset),
        "new": _table(new),
        "missing": np.argwhere(holes).tolist(),
        "expected": expected,
    }


@cache
def load_suite() -> tuple[SuiteCase, ...]:
    """Return the stored cases. Raises ValueError where the stored file does not fit the modes."""
    content = resources.files(__package__).joinpath("suite.json").read_text("utf-8")
    document = json.loads(content)
    if set(document["expected"]) != set(MODES):
        raise ValueError("suite.json does not hold the modes of the suite; build it again.")
    dataset, new = _dataset(document["dataset"]), _dataset(document["new"])
    with_holes = dataset.values.copy()
    with_holes[tuple(np.array(document["missing"]).T)] = np.nan
    cases = []
    for name, mode in MODES.items():
        own = dataset.with_values(with_holes) if mode.get("missing") else dataset
        expected = np.array(document["expected"][name], dtype=np.float64)
        cases.append(
            SuiteCase(name, own, mode_specification(mode), expected, new if mode.get("apply") else None)
        )
    return tuple(cases)


def _plain_covariates(dataset: Dataset, mode: dict[str, Any]) -> FloatArray:
    if not mode.get("covariates", True):
        return np.empty((len(dataset.rows), 0))
    male = [float(value == "M") for value in dataset.covariates["sex"]]
    return np.column_stack([np.array(dataset.covariates["age"], dtype=np.float64), male])


def _cells(values: FloatArray) -> list[list[float | None]]:
    return [[None if np.isnan(cell) else float(cell) for cell in row] for row in values]


def _table(dataset: Dataset) -> dict[str, Any]:
    return {
        "values": _cells(dataset.values),
        "features": list(dataset.features),
        "rows": list(dataset.rows),
        "batches": list(dataset.batches),
        "covariates": {name: list(column) for name, column in dataset.covariates.items()},
        "units": list(dataset.units),
    }


def _dataset(table: dict[str, Any]) -> Dataset:
    return Dataset(
        np.array(table["values"], dtype=np.float64),
        tuple(table["features"]),
        tuple(table["rows"]),
        tuple(table["batches"]),
        {name: tuple(column) for name, column in table["covariates"].items()},
        tuple(table["units"]),
    )

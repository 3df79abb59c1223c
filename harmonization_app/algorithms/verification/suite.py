"""The small verification suite inside the package: our own inputs, expected results stored as numbers.

The expected results were computed once by `plain.py` and are stored in `suite.json`, those of other methods by
the modules of `methods` in `suites/`; `build_suite` and `build_method_suite` compute them anew, so that a test
can show that the stored numbers are those of the plain implementation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.inputs import (
    NO_OVERLAP_LIMIT,
    SEED,
    SMALL_BATCHES,
    case_input,
    make_input,
)
from harmonization_app.algorithms.verification.methods import has_plain_method, plain_method
from harmonization_app.algorithms.verification.plain import plain_apply, plain_combat

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


__all__ = ["SuiteCase", "build_method_suite", "build_suite", "load_suite", "make_input"]


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
    dataset, new = case_input()
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


def load_suite(algorithm_id: str = "combat") -> tuple[SuiteCase, ...]:
    """Return the stored cases of a method. Raises ValueError where the stored file does not fit the modes."""
    return _load_method_suite(algorithm_id) if has_plain_method(algorithm_id) else _load_combat_suite()


def build_method_suite(algorithm_id: str) -> dict[str, Any]:
    """Return the suite of a method other than ComBat as JSON, computed by its plain implementation."""
    method = plain_method(algorithm_id)
    tables: list[Dataset] = []
    cases = []
    for case in method.cases():
        new = case.dataset if case.new is None else case.new
        cases.append(
            {
                "name": case.name,
                "dataset": _position(tables, case.dataset),
                "new": None if case.new is None else _position(tables, case.new),
                "specification": case.specification.to_json(),
                "expected": _cells(method.correct(case.dataset, case.specification, new)),
            }
        )
    return {"tables": [_table(table) for table in tables], "cases": cases}


@cache
def _load_method_suite(algorithm_id: str) -> tuple[SuiteCase, ...]:
    content = resources.files(__package__).joinpath("suites", f"{algorithm_id}.json").read_text("utf-8")
    document = json.loads(content)
    tables = [_dataset(table) for table in document["tables"]]
    return tuple(
        SuiteCase(
            case["name"],
            tables[case["dataset"]],
            Specification.from_json(case["specification"]),
            np.array(case["expected"], dtype=np.float64),
            None if case["new"] is None else tables[case["new"]],
        )
        for case in document["cases"]
    )


def _position(tables: list[Dataset], dataset: Dataset) -> int:
    """Return where a dataset stands among the tables to store, adding it when it is new."""
    for index, table in enumerate(tables):
        if table is dataset:
            return index
    tables.append(dataset)
    return len(tables) - 1


@cache
def _load_combat_suite() -> tuple[SuiteCase, ...]:
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

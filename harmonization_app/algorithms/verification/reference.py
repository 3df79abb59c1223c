"""Published reference results (R neuroCombat and ComBatFamily) read from a folder given by the operator."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harmonization_app.algorithms.base import CovariateValue, Dataset, FloatArray
from harmonization_app.algorithms.design import level_text
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    OverlapPolicy,
    Specification,
)
from hub.core.errors import InvalidInput

# The reference cases hold batches that a plan would have to justify.
ANY_SIZE = BatchSizePolicy(2, 2, 2, 2, 1)
ANY_OVERLAP = OverlapPolicy(warn_smd_above=10.0, minimum_overlap=0.0)

# The searches do not store the order they took in every case; these follow from their published results.
SEARCHED_ORDERS: Mapping[str, tuple[str, ...]] = {
    "j2_nested__radiomics60": ("manufacturer", "contrast", "kernel"),
    "j2_nested__real_captk_nsclc": ("CE", "KernelResolution", "Manufacturer"),
}
IN_ORDER = "expected_float64_sequential_in_order.csv"
FLOAT64_TOLERANCE_SD = 1e-9

COMBAT_CASES = ("a0", "a", "b", "c", "c2", "d", "d2", "d3", "e", "g", "g2", "g3", "g4", "i3", "k")


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCase:
    """One published case. With `train` rows the model is fitted on those and applied to `test` rows."""

    name: str
    kind: str
    dataset: Dataset
    specification: Specification
    expected: FloatArray
    tolerance_sd: float
    train: tuple[int, ...] = ()
    test: tuple[int, ...] = ()


# Which published cases a method must reproduce; a method without an entry has no published result.
CASES_BY_METHOD: Mapping[str, tuple[str, ...]] = {
    "combat": COMBAT_CASES,
    "neurocombat": COMBAT_CASES,
    "covbat": ("h",),
    "combat-gam": ("i",),
    "combat-robust": ("a9",),
    "combat-spline": ("i3",),
    "dcombat": COMBAT_CASES,
    "longcombat": ("f",),
    "nested": ("j", "j2"),
    "nested-search": ("j", "j2"),
}


def reference_cases(folder: Path, algorithm_id: str = "combat") -> Iterator[ReferenceCase]:
    """Yield a method's cases below `folder` in order of name.

    Raises InvalidInput where the folder holds no index, or the index lacks a kind of case of this method.
    """
    index = folder / "INDEX.tsv"
    if not index.is_file():
        raise InvalidInput(
            f"The reference folder {folder.name} has no INDEX.tsv; give the folder that holds it."
        )
    kinds = CASES_BY_METHOD.get(algorithm_id, ())
    names = sorted(line.split("\t")[0] for line in index.read_text("utf-8").splitlines()[1:])
    cases = {name: name.split("_")[0] for name in names if name.split("_")[0] in kinds}
    lacking = [kind for kind in kinds if kind not in cases.values()]
    if lacking:
        raise InvalidInput(
            f"The index of the reference folder {folder.name} lacks the case(s) {', '.join(lacking)} of "
            f"{algorithm_id}; give the whole reference set."
        )
    for name, kind in cases.items():
        if algorithm_id == "combat-gam":
            yield from _smooth_cases(folder, name, kind)
        else:
            yield _LOADERS.get(algorithm_id, _case)(folder, name, kind)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path if path.exists() else path.with_name(path.name + ".gz"))


def _case(folder: Path, name: str, kind: str) -> ReferenceCase:
    directory = folder / "cases" / name
    facts: dict[str, Any] = json.loads((directory / "case.json").read_text("utf-8"))
    table = _read(folder / facts["dataset"])
    expected = _read(directory / ("expected_apply_known_sites.csv" if kind == "k" else "expected.csv"))
    features = [column for column in expected.columns if column != "subject"]
    covariates, columns = _covariates(directory, facts, table)
    reference = re.search(r"ref\.batch='?(\w+)'?", facts["call"])
    specification = Specification(
        covariates=covariates,
        eb="noeb" not in name,
        parametric="nonparametric" not in name,
        mean_only="meanonly" in name,
        reference_batch=reference.group(1) if reference else None,
        batch_size=ANY_SIZE,
        overlap=ANY_OVERLAP,
    )
    subjects = table["subject"].astype(str)
    dataset = Dataset(
        table[features].to_numpy(np.float64),
        tuple(features),
        tuple(subjects),
        tuple(table[facts["batch"]].astype(str)),
        columns,
    )
    case = ReferenceCase(name, kind, dataset, specification, np.empty((0, 0)), float(facts["tolerance_sd"]))
    return _with_expected(case, directory, expected, features)


def _with_expected(
    case: ReferenceCase, directory: Path, expected: pd.DataFrame, features: list[str]
) -> ReferenceCase:
    position = {row: index for index, row in enumerate(case.dataset.rows)}
    test = tuple(position[subject] for subject in expected["subject"].astype(str))
    values = expected[features].to_numpy(np.float64)
    if case.kind != "k":
        ordered = np.empty_like(values)
        ordered[list(test)] = values
        return replace(case, expected=ordered)
    roles = _read(directory / "roles.csv")
    train = tuple(position[subject] for subject in roles.loc[roles["role"] == "train", "subject"].astype(str))
    return replace(case, expected=values, train=train, test=test)


def _spline_case(folder: Path, name: str, kind: str) -> ReferenceCase:
    """Return the case of a ready-made basis as one of raw covariates, age by a spline of four columns."""
    case = _case(folder, name, kind)
    facts = json.loads((folder / "cases" / case.name / "case.json").read_text("utf-8"))
    covariates, columns = _named_covariates(facts, _read(folder / facts["dataset"]))
    dataset = replace(case.dataset, covariates=columns)
    changes: dict[str, Any] = {"covariates": covariates, "options": {"splines": {"age": 4}}}
    return replace(case, dataset=dataset, specification=replace(case.specification, **changes))


def _smooth_cases(folder: Path, name: str, kind: str) -> Iterator[ReferenceCase]:
    """Yield the case of a smooth of age for each criterion of its penalty, as mgcv's own search gives it."""
    directory = folder / "cases" / name
    facts: dict[str, Any] = json.loads((directory / "case.json").read_text("utf-8"))
    table = _read(folder / facts["dataset"])
    kinds = {"age": "continuous", "sex": "categorical", "dx": "categorical"}
    for criterion in ("gcv", "reml"):
        expected = _read(directory / f"expected_comfam_gam_{criterion.upper()}.csv")
        features = [column for column in expected.columns if column != "subject"]
        specification = Specification(
            covariates=tuple(Covariate(column, kind) for column, kind in kinds.items()),  # type: ignore[arg-type]
            batch_size=ANY_SIZE,
            overlap=ANY_OVERLAP,
            options={"smooths": {"age": {"basis_size": 10}}, "penalty": criterion, "search": "mgcv"},
        )
        dataset = Dataset(
            table[features].to_numpy(np.float64),
            tuple(features),
            tuple(table["subject"].astype(str)),
            tuple(table["site"].astype(str)),
            {column: tuple(table[column]) for column in kinds},
        )
        tolerance = float(facts["tolerance_sd"])
        case = ReferenceCase(f"{name}/{criterion}", kind, dataset, specification, np.empty((0, 0)), tolerance)
        yield _with_expected(case, directory, expected, features)


def _nested_case(folder: Path, name: str, kind: str) -> ReferenceCase:
    """Return the case of a searched order as one of an order fixed beforehand, in float64 where it is given."""
    directory = folder / "cases" / name
    facts: dict[str, Any] = json.loads((directory / "case.json").read_text("utf-8"))
    table = _read(folder / facts["dataset"])
    exact = (directory / f"{IN_ORDER}.gz").exists() or (directory / IN_ORDER).exists()
    expected = _read(directory / (IN_ORDER if exact else "expected.csv"))
    features = [column for column in expected.columns if column != "subject"]
    order = tuple(facts["chosen_order"] if "chosen_order" in facts else SEARCHED_ORDERS[name])
    covariates = [Covariate(column, "categorical") for column in facts["categorical_cols"]]
    covariates += [Covariate(column, "continuous") for column in facts["continuous_cols"]]
    columns = {column: tuple(table[column].tolist()) for column in (*order, *(c.name for c in covariates))}
    specification = Specification(
        covariates=tuple(covariates), batch_variables=order, batch_size=ANY_SIZE, overlap=ANY_OVERLAP
    )
    dataset = Dataset(
        table[features].to_numpy(np.float64),
        tuple(features),
        tuple(table["subject"].astype(str)),
        tuple(table[order[0]].astype(str)),
        columns,
    )
    tolerance = FLOAT64_TOLERANCE_SD if exact else float(facts["tolerance_sd"])
    case = ReferenceCase(name, kind, dataset, specification, np.empty((0, 0)), tolerance)
    return _with_expected(case, directory, expected, features)


def _search_case(folder: Path, name: str, kind: str) -> ReferenceCase:
    """Return the case with the batch variables in the sequence the published search was given them."""
    case = _nested_case(folder, name, kind)
    facts = json.loads((folder / "cases" / name / "case.json").read_text("utf-8"))
    options = {"search": "stepwise", "test": "kolmogorov_smirnov"} if kind == "j2" else {}
    plan = replace(case.specification, batch_variables=tuple(facts["batch_list"]), options=options)
    return replace(case, specification=plan)


def _case_with_levels(folder: Path, name: str, kind: str) -> ReferenceCase:
    """Return the case with the levels of every categorical covariate in the plan."""
    case = _case(folder, name, kind)
    covariates = tuple(
        replace(item, levels=tuple(sorted({level_text(v) or "" for v in case.dataset.covariates[item.name]})))
        if item.kind == "categorical"
        else item
        for item in case.specification.covariates
    )
    return replace(case, specification=replace(case.specification, covariates=covariates))


def _longitudinal_case(folder: Path, name: str, kind: str) -> ReferenceCase:
    """Return a case of the mixed model `age0 + sex + dx*time`; its rows are in the order of the input."""
    directory = folder / "cases" / name
    facts: dict[str, Any] = json.loads((directory / "case.json").read_text("utf-8"))
    table, expected = _read(folder / facts["dataset"]), _read(directory / "expected.csv")
    features = [column for column in table.columns if column.startswith("roi_")]
    kinds = {"age0": "continuous", "sex": "categorical", "dx": "categorical", "time": "continuous"}
    options: dict[str, Any] = {"interactions": [["dx", "time"]], "random_slope": "_slope" in name}
    options["residual_scale"] = "MSR" if "MSR" in name else "REML"
    specification = Specification(
        covariates=tuple(Covariate(column, kind) for column, kind in kinds.items()),  # type: ignore[arg-type]
        batch_size=ANY_SIZE,
        overlap=ANY_OVERLAP,
        subject="subject",
        time="time",
        options=options,
    )
    dataset = Dataset(
        table[features].to_numpy(np.float64),
        tuple(features),
        tuple(f"{row.subject}/{row.visit}" for row in table.itertuples()),
        tuple(table[facts["batch"]].astype(str)),
        {column: tuple(table[column].tolist()) for column in (*kinds, "subject")},
    )
    values = expected[features].to_numpy(np.float64)
    return ReferenceCase(name, kind, dataset, specification, values, float(facts["tolerance_sd"]))


def _covariates(
    directory: Path, facts: dict[str, Any], table: pd.DataFrame
) -> tuple[tuple[Covariate, ...], dict[str, tuple[CovariateValue, ...]]]:
    given = directory / "design_covariates.csv"
    if given.exists() or given.with_name(given.name + ".gz").exists():
        design = _read(given).set_index("subject").loc[table["subject"]]
        names = list(design.columns)
        return tuple(Covariate(name, "continuous") for name in names), {
            name: tuple(design[name]) for name in names
        }
    return _named_covariates(facts, table)


def _named_covariates(
    facts: dict[str, Any], table: pd.DataFrame
) -> tuple[tuple[Covariate, ...], dict[str, tuple[CovariateValue, ...]]]:
    names = [name.strip() for name in facts.get("design", "").replace("~", "").split("+") if name.strip()]
    kinds = {name: pd.api.types.is_numeric_dtype(table[name]) for name in names}
    covariates = tuple(Covariate(name, "continuous" if kinds[name] else "categorical") for name in names)
    return covariates, {name: tuple(table[name]) for name in names}


_LOADERS: Mapping[str, Callable[[Path, str, str], ReferenceCase]] = {
    "combat-spline": _spline_case,
    "dcombat": _case_with_levels,
    "longcombat": _longitudinal_case,
    "nested": _nested_case,
    "nested-search": _search_case,
}

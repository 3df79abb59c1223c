"""Batch labels and covariates of a dataset as the columns of a linear model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import BoolArray, CovariateValue, Dataset, FloatArray, IntArray
from harmonization_app.algorithms.model import CovariateCoding
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Examined, Labelled
from hub.core.errors import InvalidInput

MEMO = "design"


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Batches (sorted labels and one code per scan) and covariates [scans x columns] in their own units."""

    batches: tuple[str, ...]
    codes: IntArray
    covariates: FloatArray
    coding: CovariateCoding

    @property
    def batch_sizes(self) -> IntArray:
        return np.bincount(self.codes, minlength=len(self.batches)).astype(np.int64)


def level_text(value: CovariateValue) -> str | None:
    """Return a categorical value as its level, None when it is missing; 1.0 and 1 and "1" are one level."""
    if value is None:
        return None
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    text = str(value).strip()
    return text or None


def level_texts(values: Sequence[CovariateValue]) -> list[str | None]:
    """Return every value as its level, None where it is missing; each distinct value is read once."""
    known = {value: level_text(value) for value in set(values)}
    return [known[value] for value in values]


def as_number(value: CovariateValue) -> float:
    """Return a continuous value; NaN when it is missing, not a number or infinite."""
    if value is None or isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return math.nan
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def as_numbers(values: Sequence[CovariateValue]) -> FloatArray:
    """Return continuous values as an array; NaN as in `as_number`. A column of plain numbers is read at once."""
    if {type(value) for value in values} <= {float, int, np.float64}:
        numbers = np.array(values, dtype=np.float64)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    return np.array([as_number(value) for value in values], dtype=np.float64)


def merged_labels(dataset: Labelled, specification: Specification) -> list[str | None]:
    """Return one batch label per scan after the plan's merges; None where it is missing."""
    labels = level_texts(dataset.batches)
    merges = specification.merge_batches
    return [None if label is None else merges.get(label, label) for label in labels]


def batch_codes(dataset: Labelled, specification: Specification) -> tuple[tuple[str, ...], IntArray]:
    """Return the sorted batch labels and each scan's position among them. Raises InvalidInput on a missing
    label.
    """
    labels = merged_labels(dataset, specification)
    missing = [row for row, label in zip(dataset.rows, labels, strict=True) if label is None]
    if missing:
        raise InvalidInput(f"The batch label is missing in {len(missing)} row(s), first {missing[0]}.")
    levels = tuple(sorted({label for label in labels if label is not None}))
    position = {level: index for index, level in enumerate(levels)}
    return levels, np.fromiter((position[str(label)] for label in labels), np.int64, len(labels))


def known_codes(dataset: Labelled, specification: Specification, batches: Sequence[str]) -> IntArray:
    """Return the position of each scan's batch among `batches`, which the gate found to hold them all."""
    position = {batch: index for index, batch in enumerate(batches)}
    labels = merged_labels(dataset, specification)
    return np.fromiter((position[str(label)] for label in labels), np.int64, len(labels))


def learn_coding(dataset: Labelled, specification: Specification) -> CovariateCoding:
    """Return how the covariates of a specification become columns: treatment coding against the reference
    level.
    """
    columns: list[tuple[str, str | None]] = []
    levels: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for covariate in specification.covariates:
        values = _column(dataset, covariate.name)
        if covariate.kind == "continuous":
            numbers = as_numbers(values)
            columns.append((covariate.name, None))
            ranges[covariate.name] = (float(numbers.min()), float(numbers.max()))
            continue
        seen = sorted({text for text in level_texts(values) if text is not None})
        reference = covariate.reference if covariate.reference is not None else seen[0]
        ordered = (reference, *(level for level in seen if level != reference))
        levels[covariate.name] = ordered
        columns.extend((covariate.name, level) for level in ordered[1:])
    return CovariateCoding(tuple(columns), levels, ranges)


def code_covariates(dataset: Labelled, coding: CovariateCoding) -> FloatArray:
    """Return the covariates as [scans x columns]; NaN where a value is missing. Raises InvalidInput without
    a column.
    """
    matrix = np.empty((len(dataset.rows), len(coding.columns)))
    for position, (name, level) in enumerate(coding.columns):
        values = _column(dataset, name)
        if level is None:
            matrix[:, position] = as_numbers(values)
        else:
            texts = level_texts(values)
            matrix[:, position] = [math.nan if text is None else float(text == level) for text in texts]
    return matrix


def build_design(dataset: Labelled, specification: Specification) -> Design:
    """Return the design of a dataset that passed the gate; made once of an Examined one. Raises InvalidInput where a
    label or column lacks.
    """
    memo = dataset.memo if isinstance(dataset, Examined) else {}
    made_of = (specification, dataset.batches, dataset.covariates)
    known = memo.get(MEMO)
    if known is not None and all(old is new for old, new in zip(known[0], made_of, strict=True)):
        kept: Design = known[1]
        return kept
    batches, codes = batch_codes(dataset, specification)
    coding = learn_coding(dataset, specification)
    design = Design(batches, codes, code_covariates(dataset, coding), coding)
    memo[MEMO] = made_of, design
    return design


def feature_positions(dataset: Labelled, names: Sequence[str]) -> IntArray:
    """Return the columns of `names` in a dataset. Raises InvalidInput naming those it lacks."""
    position = {name: index for index, name in enumerate(dataset.features)}
    lacking = [name for name in names if name not in position]
    if lacking:
        raise InvalidInput(
            f"The dataset has no feature {', '.join(lacking[:10])}; {len(lacking)} lacking in all."
        )
    return np.array([position[name] for name in names], dtype=np.int64)


def pool_columns(
    table: Labelled, specification: Specification, usable: BoolArray | None = None
) -> dict[str, IntArray]:
    """Return the columns of each feature pool that are `usable`; one pool named "all" where the plan names none."""
    kept = np.ones(len(table.features), dtype=np.bool_) if usable is None else usable
    if not specification.pools:
        return {"all": np.flatnonzero(kept)}
    found = {pool.name: feature_positions(table, pool.features) for pool in specification.pools}
    return {name: columns[kept[columns]] for name, columns in found.items()}


def select_features(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Return the dataset with the features `names` in that order; itself when nothing changes or none are
    named.
    """
    if not names or tuple(names) == dataset.features:
        return dataset
    index = feature_positions(dataset, names)
    units = tuple(dataset.units[i] for i in index)
    return Dataset(
        dataset.values[:, index], tuple(names), dataset.rows, dataset.batches, dataset.covariates, units
    )


def _column(dataset: Labelled, name: str) -> Sequence[CovariateValue]:
    if name not in dataset.covariates:
        raise InvalidInput(
            f"The dataset has no covariate {name}; it has {', '.join(sorted(dataset.covariates)) or 'none'}."
        )
    return dataset.covariates[name]

"""How much scanner and age effect is in a table of features: what harmonization has to remove, and to keep."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hub.demo.cohort import DIAGNOSES
from hub.demo.features import KEY_COLUMNS, REFERENCE_AGE_YEARS, FeatureTable, feature_table


@dataclass(frozen=True, slots=True)
class Effects:
    """Per feature: partial eta squared of the batch, and the age slope relative to the planted one."""

    features: tuple[str, ...]
    batch_eta_squared: NDArray[np.float64]
    relative_age_slope: NDArray[np.float64]

    @property
    def mean_eta_squared(self) -> float:
        return float(self.batch_eta_squared.mean())

    @property
    def mean_relative_age_slope(self) -> float:
        return float(self.relative_age_slope.mean())


def measure_effects(values: NDArray[np.float64], table: FeatureTable | None = None) -> Effects:
    """Return the effects in `values` (rows x features), by least squares on age, sex, diagnosis and batch.

    Partial eta squared is the share of the variance left by the covariates that the batch explains. The age
    slope comes from the model with the batch, so that batches of unlike age do not bias it.
    """
    table = table or feature_table()
    covariates = _covariates(table)
    batches = np.eye(len(table.batches))[table.batch_of_row]
    full = np.column_stack([covariates[:, 1:], batches])
    reduced_error = _residual_sum(covariates, values)
    coefficients = np.linalg.lstsq(full, values, rcond=None)[0]
    full_error = ((values - full @ coefficients) ** 2).sum(axis=0)
    planted = np.array([feature.age_slope_per_year for feature in table.features])
    return Effects(
        features=tuple(feature.name for feature in table.features),
        batch_eta_squared=1 - full_error / reduced_error,
        relative_age_slope=coefficients[0] / planted,
    )


def _covariates(table: FeatureTable) -> NDArray[np.float64]:
    columns = {name: [row[index] for row in table.rows] for index, name in enumerate(KEY_COLUMNS)}
    age = np.array(columns["age"], dtype=float) - REFERENCE_AGE_YEARS
    male = np.array([item == "M" for item in columns["sex"]], dtype=float)
    levels = [
        np.array([item == level for item in columns["diagnosis"]], dtype=float) for level in DIAGNOSES[1:]
    ]
    return np.column_stack([np.ones(len(age)), age, male, *levels])


def _residual_sum(design: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    return np.asarray(((values - design @ coefficients) ** 2).sum(axis=0))


def without_rows(table: FeatureTable, left_out: Collection[str]) -> FeatureTable:
    """Return the table without some rows, each named subject|visit as a run names those that it leaves out."""
    kept = [index for index, row in enumerate(table.rows) if f"{row[0]}|{row[1]}" not in left_out]
    return replace(
        table,
        rows=tuple(table.rows[index] for index in kept),
        values=table.values[kept],
        without_scanner=table.without_scanner[kept],
    )


def read_values(text: str, table: FeatureTable | None = None) -> NDArray[np.float64]:
    """Return the features of a CSV in the order of a table's rows and features (default: the demonstration's).

    Raises ValueError naming the first row or column of the table that the CSV lacks.
    """
    table = table or feature_table()
    found = {(row.get("subject"), row.get("visit")): row for row in csv.DictReader(io.StringIO(text))}
    values = np.empty((len(table.rows), len(table.features)))
    for index, (subject, visit, *_) in enumerate(table.rows):
        row = found.get((subject, visit))
        if row is None:
            raise ValueError(f"The table has no row of subject {subject}, visit {visit}.")
        for column, feature in enumerate(table.features):
            if not row.get(feature.name):
                raise ValueError(f"The table has no {feature.name} for subject {subject}, visit {visit}.")
            values[index, column] = float(row[feature.name])
    return values

"""A table of cortical thicknesses and volumes with planted scanner, age, sex and diagnosis effects.

One row per subject's visit. A row's batch is the scanner with its software, so the upgraded scanner is two.
For feature f of subject s in batch b,

    y = mean + age_slope (age - 70) + sex + diagnosis + sd (gamma_b + delta_b (sqrt(r) u_s + sqrt(1 - r) e))

with u and e standard normal and r = 0.8 the repeatability: the location and scale model that ComBat assumes
(Johnson 2007, Biostatistics 8:118; Fortin 2018, NeuroImage 167:104).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hub.demo.cohort import DIAGNOSES, SEED, VISIT_DAYS, Subject, subjects
from hub.demo.scanners import scanner_of

REPEATABILITY = 0.8
REFERENCE_AGE_YEARS = 70.0
LOCATION_SD = 0.6
SCALE_RANGE = (0.75, 1.35)

_THICKNESS_MM: Mapping[str, tuple[float, float]] = {
    "entorhinal": (3.20, -0.016),
    "fusiform": (2.65, -0.009),
    "inferiortemporal": (2.70, -0.009),
    "middletemporal": (2.72, -0.011),
    "parahippocampal": (2.55, -0.012),
    "precuneus": (2.28, -0.008),
    "superiorfrontal": (2.58, -0.010),
}
_VOLUME_MM3: Mapping[str, tuple[float, float, float]] = {
    "hippocampus": (3800.0, 380.0, -32.0),
    "amygdala": (1550.0, 190.0, -12.0),
    "thalamus": (6600.0, 560.0, -38.0),
    "putamen": (4700.0, 520.0, -30.0),
    "lateral_ventricle": (14500.0, 4200.0, 420.0),
}
_THICKNESS_SD_MM = 0.13

KEY_COLUMNS = ("subject", "visit", "site", "scanner", "software_version", "batch", "age", "sex", "diagnosis")
COVARIATES = ("age", "sex", "diagnosis")


@dataclass(frozen=True, slots=True)
class FeatureTruth:
    """What was planted in one feature, in its unit; diagnosis effects are relative to CN."""

    name: str
    unit: str
    mean: float
    sd: float
    age_slope_per_year: float
    male_effect: float
    diagnosis_effects: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """The table `values` (rows x features) and its truth: `gamma`, `delta` (batches x features), in SD."""

    rows: tuple[tuple[str, ...], ...]
    features: tuple[FeatureTruth, ...]
    values: NDArray[np.float64]
    without_scanner: NDArray[np.float64]
    batches: tuple[str, ...]
    gamma: NDArray[np.float64]
    delta: NDArray[np.float64]

    @property
    def batch_of_row(self) -> NDArray[np.intp]:
        """Return the index into `batches` of every row."""
        column = KEY_COLUMNS.index("batch")
        return np.array([self.batches.index(row[column]) for row in self.rows])

    @property
    def units(self) -> dict[str, str]:
        return {feature.name: feature.unit for feature in self.features}


def feature_truths() -> tuple[FeatureTruth, ...]:
    """Return the 24 features with the effects planted in them."""
    truths = []
    for side in ("left", "right"):
        for region, (mean, slope) in _THICKNESS_MM.items():
            truths.append(_truth(f"thickness_{region}_{side}", "mm", mean, _THICKNESS_SD_MM, slope))
        for region, (mean, sd, slope) in _VOLUME_MM3.items():
            truths.append(_truth(f"volume_{region}_{side}", "mm3", mean, sd, slope))
    return tuple(truths)


def _truth(name: str, unit: str, mean: float, sd: float, slope: float) -> FeatureTruth:
    direction = 1.0 if slope > 0 else -1.0
    male = 0.0 if unit == "mm" else 0.6 * sd
    dementia = {"CN": 0.0, "MCI": direction * 0.4 * sd, "AD": direction * 0.9 * sd}
    return FeatureTruth(name, unit, mean, sd, slope, male, dementia)


def batch_name(serial: str, software_version: str) -> str:
    """Return the name of a batch: the scanner's serial number and its software."""
    return f"{serial} {software_version.split(chr(92))[-1]}"


def _row(person: Subject, visit: str) -> tuple[str, ...]:
    scanner = scanner_of(person.site, "MR")
    software = scanner.epoch(person.visit_dates[visit]).software_version
    return (
        person.code,
        visit,
        person.site,
        scanner.serial,
        software,
        batch_name(scanner.serial, software),
        f"{person.age_at(visit):.1f}",
        person.sex,
        person.diagnosis,
    )


@cache
def feature_table() -> FeatureTable:
    """Return the demonstration's feature table; always the same."""
    rng = np.random.default_rng(SEED)
    truths = feature_truths()
    people = subjects()
    rows = tuple(_row(person, visit) for person in people for visit in VISIT_DAYS)
    batches = tuple(sorted({row[KEY_COLUMNS.index("batch")] for row in rows}))
    gamma = rng.normal(0.0, LOCATION_SD, (len(batches), len(truths)))
    gamma += rng.normal(0.0, LOCATION_SD / 2, (len(batches), 1))
    delta = rng.uniform(*SCALE_RANGE, (len(batches), len(truths)))
    own = np.repeat(rng.standard_normal((len(people), len(truths))), len(VISIT_DAYS), axis=0)
    noise = rng.standard_normal((len(rows), len(truths)))
    spread = np.sqrt(REPEATABILITY) * own + np.sqrt(1 - REPEATABILITY) * noise
    sd = np.array([truth.sd for truth in truths])
    fixed = _fixed_effects(rows, truths)
    index = np.array([batches.index(row[KEY_COLUMNS.index("batch")]) for row in rows])
    return FeatureTable(
        rows=rows,
        features=truths,
        values=fixed + sd * (gamma[index] + delta[index] * spread),
        without_scanner=fixed + sd * spread,
        batches=batches,
        gamma=gamma,
        delta=delta,
    )


def _fixed_effects(
    rows: tuple[tuple[str, ...], ...], truths: tuple[FeatureTruth, ...]
) -> NDArray[np.float64]:
    age = np.array([float(row[KEY_COLUMNS.index("age")]) for row in rows]) - REFERENCE_AGE_YEARS
    male = np.array([row[KEY_COLUMNS.index("sex")] == "M" for row in rows], dtype=float)
    diagnosis = [row[KEY_COLUMNS.index("diagnosis")] for row in rows]
    columns = [
        truth.mean
        + truth.age_slope_per_year * age
        + truth.male_effect * male
        + np.array([truth.diagnosis_effects[item] for item in diagnosis])
        for truth in truths
    ]
    return np.column_stack(columns)


def as_csv() -> str:
    """Return the table as CSV: key columns and covariates, then the features; `metadata` has their units."""
    table = feature_table()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEY_COLUMNS, *(feature.name for feature in table.features)])
    for row, values in zip(table.rows, table.values, strict=True):
        writer.writerow([*row, *(f"{value:.6f}" for value in values)])
    return text.getvalue()


def pool_of(feature: FeatureTruth) -> str:
    """Return the pool of a feature: thicknesses and volumes do not share priors."""
    return "thickness" if feature.unit == "mm" else "volume"


def metadata() -> dict[str, Any]:
    """Return what the CSV does not say: units and pools of features, and kinds of covariates."""
    return {
        "name": "Cortical thickness and volume",
        "columns": [
            {"name": feature.name, "unit": feature.unit, "pool": pool_of(feature)}
            for feature in feature_truths()
        ],
        "covariates": covariates(),
        "batch": "batch",
    }


def covariates() -> list[dict[str, Any]]:
    """Return the effects to preserve, with the reference level of the categorical ones."""
    return [
        {"name": "age", "kind": "continuous"},
        {"name": "sex", "kind": "categorical", "reference": "F", "levels": ["F", "M"]},
        {"name": "diagnosis", "kind": "categorical", "reference": "CN", "levels": list(DIAGNOSES)},
    ]

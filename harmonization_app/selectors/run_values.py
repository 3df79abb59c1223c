"""The values of one feature before and after a run, scan by scan."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import FloatArray
from harmonization_app.diagnostics.feature_matrix import open_matrix
from harmonization_app.models import FeatureSet, HarmonizationRun
from harmonization_app.offline.tables import KEY_COLUMNS
from harmonization_app.selectors.feature_set import Distribution
from harmonization_app.services.feature_set import load_table
from harmonization_app.services.harmonized_table import KEYS
from hub.core.storage.blobs import blob_file, get_blob

# A CSV is read whole for one feature; of a larger one the page offers the download instead.
MOST_CSV_CELLS = 8_000_000

Key = tuple[str, str]


@dataclass(frozen=True, eq=False)
class FeatureValues:
    """One feature of the harmonized rows [rows], before and after, with the batch each row ran in."""

    feature: str
    unit: str
    batches: tuple[str, ...]
    before: FloatArray
    after: FloatArray


@dataclass(frozen=True)
class BeforeAfter:
    """Distributions by batch before and after, over the same range of values."""

    feature: str
    unit: str
    before: tuple[Distribution, ...]
    after: tuple[Distribution, ...]
    least: float
    greatest: float


def feature_names(run: HarmonizationRun) -> list[str]:
    """Return the features that the run harmonized, in the plan's order."""
    named = run.specification.get("parameters", {}).get("features") or []
    return list(named) or [column["name"] for column in run.feature_set.columns]


def before_after(run: HarmonizationRun, feature: str) -> BeforeAfter | str:
    """Return the distributions of a feature, or the reason why the page cannot show them."""
    found = feature_values(run, feature)
    if isinstance(found, str):
        return found
    both = np.concatenate([found.before, found.after])
    both = both[np.isfinite(both)]
    if not both.size:
        return f"{feature} has no observed value."
    margin = 0.02 * float(np.ptp(both)) or 1.0
    return BeforeAfter(
        found.feature,
        found.unit,
        _by_batch(found.batches, found.before),
        _by_batch(found.batches, found.after),
        float(both.min()) - margin,
        float(both.max()) + margin,
    )


def feature_values(run: HarmonizationRun, feature: str) -> FeatureValues | str:
    """Return the values of a feature, or the reason why they are not there."""
    unit = next((item["unit"] for item in run.feature_set.columns if item["name"] == feature), None)
    if unit is None:
        return f"The feature set has no feature {feature}."
    if not run.data_digest:
        return "This run has no result."
    matrix = KEYS in run.summary
    if not matrix and run.feature_set.row_count * run.feature_set.column_count > MOST_CSV_CELLS:
        return "The table is too large to be read for one feature. Download the data."
    keys, names, after = _harmonized(run, feature)
    if feature not in names:
        return f"The plan did not harmonize {feature}."
    before = _before(run.feature_set, feature)
    return FeatureValues(
        feature,
        unit,
        tuple(batch for _, _, batch in keys),
        np.array([before.get((subject, visit), math.nan) for subject, visit, _ in keys]),
        after,
    )


def _harmonized(
    run: HarmonizationRun, feature: str
) -> tuple[list[tuple[str, str, str]], list[str], FloatArray]:
    matrix = KEYS in run.summary
    content = get_blob(run.summary[KEYS] if matrix else run.data_digest)
    header, *lines = csv.reader(io.StringIO(content.decode()))
    names = header[len(KEY_COLUMNS) :]
    keys = [(line[0], line[1], line[2]) for line in lines]
    if feature not in names:
        return keys, names, np.full(len(keys), math.nan)
    at = names.index(feature)
    if matrix:
        column = open_matrix(blob_file(run.data_digest))[:, at]
        return keys, names, np.asarray(column, dtype=np.float64)
    cells = [line[len(KEY_COLUMNS) + at] for line in lines]
    return keys, names, np.array([float(cell) if cell else math.nan for cell in cells])


def _before(feature_set: FeatureSet, feature: str) -> dict[Key, float]:
    table = load_table(feature_set)
    column = np.asarray(table.values[:, table.features.index(feature)], dtype=np.float64)
    return dict(zip(zip(table.subjects, table.visits, strict=True), column.tolist(), strict=True))


def _by_batch(batches: tuple[str, ...], values: FloatArray) -> tuple[Distribution, ...]:
    labels = np.array(batches, dtype=object)
    groups = []
    for label in sorted(set(batches)):
        own = values[(labels == label) & np.isfinite(values)]
        if own.size:
            five = np.quantile(own, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
            groups.append(Distribution(label, tuple(own.tolist()), tuple(five)))
    return tuple(groups)

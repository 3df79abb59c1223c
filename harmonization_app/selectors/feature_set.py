"""Reading feature sets: rows by batch, distributions, and what a form can choose from."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.models import FeatureSet
from harmonization_app.services.feature_set import load_table
from qc_app.models import MetricValue
from sites_app.models import Trial

MOST_GROUPS = 60
PREFERRED_GROUPS = ("batch", "scanner", "site")


@dataclass(frozen=True)
class GroupCount:
    """Rows of one batch: how many scans and subjects, and how many cells are missing."""

    name: str
    rows: int
    subjects: int
    missing: int


@dataclass(frozen=True)
class Distribution:
    """The observed values of one feature in one batch, in the feature's unit, with quartiles and extremes."""

    name: str
    values: tuple[float, ...]
    five: tuple[float, float, float, float, float]


def visible_feature_sets(user: Any, trial: Trial) -> Any:
    return FeatureSet.objects.visible_to(user).filter(trial=trial)


def grouping_columns(feature_set: FeatureSet) -> list[str]:
    """Return the metadata columns that divide the rows into some, but not too many, groups; batch first."""
    names = [name for name in (feature_set.rows[0] if feature_set.rows else {}) if name != "row"]
    continuous = {item["name"] for item in feature_set.covariates if item.get("kind") == "continuous"}
    fitting = []
    for name in names:
        values = {row.get(name, "") for row in feature_set.rows}
        if name not in continuous and 1 <= len(values) <= MOST_GROUPS:
            fitting.append(name)
    return sorted(fitting, key=_preference)


def _preference(name: str) -> tuple[int, str]:
    if name in PREFERRED_GROUPS:
        return (PREFERRED_GROUPS.index(name), name)
    return (len(PREFERRED_GROUPS), name)


def rows_by_group(feature_set: FeatureSet, column: str) -> list[GroupCount]:
    """Return the scans of each value of a metadata column, in the order of its names."""
    table = load_table(feature_set)
    missing = np.isnan(table.values).sum(axis=1)
    labels = table.metadata[column]
    rows: Counter[str] = Counter(labels)
    subjects: dict[str, set[str]] = defaultdict(set)
    empty: Counter[str] = Counter()
    for label, subject, count in zip(labels, table.subjects, missing.tolist(), strict=True):
        subjects[label].add(subject)
        empty[label] += int(count)
    return [
        GroupCount(label or "(missing)", rows[label], len(subjects[label]), empty[label])
        for label in sorted(rows)
    ]


def distribution(feature_set: FeatureSet, feature: str, column: str) -> list[Distribution]:
    """Return the values of a feature by group; groups without an observed value are left out."""
    table = load_table(feature_set)
    if feature not in table.features or column not in table.metadata:
        return []
    values = table.values[:, table.features.index(feature)]
    labels = np.array(table.metadata[column], dtype=object)
    groups = []
    for label in sorted(set(labels.tolist())):
        own = values[(labels == label) & np.isfinite(values)]
        if own.size:
            five = np.quantile(own, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
            groups.append(Distribution(str(label or "(missing)"), tuple(own.tolist()), tuple(five)))
    return groups


def available_metrics(trial: Trial) -> dict[str, list[dict[str, Any]]]:
    """Return, by expected series, the QC metrics that have values: name, unit and number of series."""
    found: dict[str, dict[tuple[str, str], int]] = defaultdict(Counter)
    rows = MetricValue.objects.filter(trial=trial, value__isnull=False).exclude(expected_key="")
    for key, name, unit in rows.values_list("expected_key", "name", "unit"):
        found[key][(name, unit)] += 1
    return {
        key: [{"name": name, "unit": unit, "series": n} for (name, unit), n in sorted(metrics.items())]
        for key, metrics in sorted(found.items())
    }


def choices_of(feature_set: FeatureSet) -> dict[str, Any]:
    """Return what a plan can choose from a feature set: features with pools, metadata columns with levels."""
    columns = {}
    for name in feature_set.rows[0] if feature_set.rows else {}:
        if name != "row":
            levels = sorted({str(row.get(name, "")) for row in feature_set.rows})
            columns[name] = levels if len(levels) <= MOST_GROUPS else []
    return {
        "id": str(feature_set.pk),
        "name": feature_set.name,
        "features": feature_set.columns,
        "covariates": feature_set.covariates,
        "columns": columns,
    }

"""Reading feature sets: rows by batch, distributions, and what a form can choose from."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.models import FeatureSet
from harmonization_app.services.feature_set import KEYS, load_table
from qc_app.models import MetricValue
from sites_app.models import Trial

MOST_GROUPS = 60
# What one page computes at most: larger tables are shown by evenly spaced features, and say so.
MOST_CELLS = 4_000_000
MOST_PROFILE_FEATURES = 40
SUGGESTED = 50
PREFERRED_GROUPS = ("batch", "scanner", "site")


@dataclass(frozen=True)
class GroupCount:
    """Rows of one batch: scans, subjects, missing cells (None where too many to count), covariates in words."""

    name: str
    rows: int
    subjects: int
    missing: int | None
    covariates: tuple[str, ...] = ()


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
    """Return the scans of each value of a metadata column, in the order of its names, with their covariates."""
    table = load_table(feature_set)
    countable = table.values.size <= MOST_CELLS
    missing = np.isnan(table.values).sum(axis=1) if countable else np.zeros(len(table.subjects), int)
    members: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(table.metadata[column]):
        members[label].append(index)
    return [
        GroupCount(
            label or "(missing)",
            len(members[label]),
            len({table.subjects[index] for index in members[label]}),
            int(missing[members[label]].sum()) if countable else None,
            tuple(
                _covariate_in_words(item, [table.metadata[item["name"]][index] for index in members[label]])
                for item in _covariates_of(feature_set)
            ),
        )
        for label in sorted(members)
    ]


def _covariates_of(feature_set: FeatureSet) -> list[dict[str, Any]]:
    known = set(feature_set.rows[0]) if feature_set.rows else set()
    return [item for item in feature_set.covariates if item["name"] in known]


def covariate_names(feature_set: FeatureSet) -> list[str]:
    return [item["name"] for item in _covariates_of(feature_set)]


def _covariate_in_words(item: dict[str, Any], texts: list[str]) -> str:
    """Return mean, SD and range of numbers, or the count of each level."""
    lacking = sum(not text for text in texts)
    tail = f"; {lacking} missing" if lacking else ""
    if item.get("kind") == "continuous":
        try:
            values = np.array([float(text) for text in texts if text])
        except ValueError:
            return "not numbers"
        if not values.size:
            return "all missing"
        return f"{values.mean():.4g} ± {values.std():.3g} ({values.min():.4g} to {values.max():.4g}){tail}"
    counts = Counter(text for text in texts if text)
    shown = ", ".join(f"{level} {count}" for level, count in sorted(counts.items())[:6])
    return f"{shown}{', …' if len(counts) > 6 else ''}{tail}" if counts else "all missing"


@dataclass(frozen=True)
class BatchProfile:
    """Standardized batch means: how far each batch lies from the overall mean of each feature, in its SD.

    The features with the widest range between batches come first; `examined` of `of` were looked at.
    """

    features: tuple[str, ...]
    groups: tuple[str, ...]
    means_sd: tuple[tuple[float | None, ...], ...]
    examined: int
    of: int


def batch_profile(feature_set: FeatureSet, column: str) -> BatchProfile | None:
    """Return the profile by a metadata column; None where it divides into fewer than two groups."""
    table = load_table(feature_set)
    labels = np.array([label or "(missing)" for label in table.metadata[column]], dtype=object)
    groups = sorted(set(labels.tolist()))
    if len(groups) < 2:
        return None
    most = max(1, MOST_CELLS // max(len(labels), 1))
    at = np.unique(np.linspace(0, len(table.features) - 1, min(most, len(table.features))).astype(int))
    values = np.asarray(table.values[:, at], dtype=np.float64)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        spread = np.nanstd(values, axis=0)
        standard = (values - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, np.nan)
        means = np.stack([np.nanmean(standard[labels == group], axis=0) for group in groups])
        width = np.nan_to_num(np.nanmax(means, axis=0) - np.nanmin(means, axis=0), nan=-1.0)
    order = np.argsort(-width, kind="stable")[:MOST_PROFILE_FEATURES]
    return BatchProfile(
        tuple(table.features[at[index]] for index in order),
        tuple(groups),
        tuple(
            tuple(float(cell) if np.isfinite(cell) else None for cell in means[:, index]) for index in order
        ),
        len(at),
        len(table.features),
    )


def dictionary_rows(feature_set: FeatureSet) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield (column, role, kind, unit, pool) of every column of the table, in the order of its CSV."""
    kinds = {item["name"]: str(item.get("kind", "")) for item in feature_set.covariates}
    labels = sorted(key for key in (feature_set.rows[0] if feature_set.rows else {}) if key != "row")
    for name in KEYS:
        yield name, "key of the row", "", "", ""
    for name in labels:
        yield name, "covariate" if name in kinds else "label", kinds.get(name, ""), "", ""
    for column in feature_set.columns:
        yield column["name"], "feature", "continuous", column.get("unit", ""), column.get("pool", "")


def columns_matching(feature_set: FeatureSet, words: str) -> list[dict[str, Any]]:
    """Return the features whose name, unit or pool holds each of the words."""
    wanted = words.lower().split()
    return [
        column
        for column in feature_set.columns
        if all(
            word in f"{column['name']} {column.get('unit', '')} {column.get('pool', '')}".lower()
            for word in wanted
        )
    ]


def distribution(feature_set: FeatureSet, feature: str, column: str) -> list[Distribution]:
    """Return the values of a feature by group; groups without an observed value are left out."""
    table = load_table(feature_set)
    if feature not in table.features or column not in table.metadata:
        return []
    values = np.asarray(table.values[:, table.features.index(feature)], dtype=np.float64)
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
    """Return what a plan can choose from a feature set: metadata columns with levels, pools with their sizes.

    Feature names stay out of the page; they are asked for when somebody takes them into a plan.
    """
    columns = {}
    for name in feature_set.rows[0] if feature_set.rows else {}:
        if name != "row":
            levels = sorted({str(row.get(name, "")) for row in feature_set.rows})
            columns[name] = levels if len(levels) <= MOST_GROUPS else []
    return {
        "id": str(feature_set.pk),
        "name": feature_set.name,
        "features": feature_set.column_count,
        "pools": dict(Counter(column.get("pool", "") for column in feature_set.columns)),
        "covariates": feature_set.covariates,
        "columns": columns,
    }

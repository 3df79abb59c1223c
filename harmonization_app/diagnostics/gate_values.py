"""Checks of the feature table itself: names, keys, infinite, missing, constant and repeated values."""

from __future__ import annotations

from collections import Counter

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray
from harmonization_app.algorithms.kernel import Grouping, blocks, constant_columns
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.wording import listed

FEW_FEATURES_FOR_EB = 10
PREFIX_FEATURES = 8


def check_features(dataset: Dataset, specification: Specification) -> list[Finding]:
    """Return the findings on names: features planned, pools, units, row keys."""
    findings = _repeated("duplicate_feature", "feature name", dataset.features)
    findings += _repeated("duplicate_row", "row key", dataset.rows)
    planned = specification.features or dataset.features
    present = set(dataset.features)
    lacking = tuple(name for name in planned if name not in present)
    if lacking:
        message = f"The table lacks features the plan names: {listed(lacking)}."
        findings.append(Finding("unknown_feature", "stop", message, columns=lacking))
    if not planned or not dataset.rows:
        findings.append(Finding("empty_table", "stop", "The table has no scans or no features."))
    findings += _pools(dataset, specification, planned)
    return findings


def check_values(
    dataset: Dataset, specification: Specification, batches: tuple[str, ...], grouping: Grouping | None
) -> list[Finding]:
    """Return the findings on cells; those by batch only where `grouping` is given."""
    suspects = suspect_blocks(dataset.values)
    findings = infinite_cells(dataset, suspects)
    missing = _columns_with_nan(dataset.values, suspects)
    findings += _missing_cells(dataset, missing, refused=specification.missing_values == "refuse")
    uniform = _uniform_columns(dataset.values)
    if uniform:
        names = tuple(dataset.features[i] for i in uniform)
        message = (
            f"These features have one value in all scans and are passed through unchanged: {listed(names)}."
        )
        findings.append(Finding("constant_feature", "warn", message, columns=names))
    if grouping is not None:
        constant = set(uniform)
        lacking = _sparse(
            dataset, specification, batches, grouping, [i for i in missing if i not in constant]
        )
        findings += lacking
        findings += _constant_in_batch(dataset, batches, grouping, constant)
        left_out = {name for finding in lacking for name in finding.columns}
        left_out |= {dataset.features[i] for i in uniform}
        findings += _features_for_eb(dataset, specification, left_out)
    findings += _repeated_values(dataset, specification)
    return findings


def suspect_blocks(values: FloatArray) -> list[slice]:
    """Return the blocks of features that hold a cell that is not finite, in one pass of sums."""
    return [
        block for block in blocks(values.shape[1], len(values)) if not np.isfinite(values[:, block].sum())
    ]


def infinite_cells(dataset: Dataset, suspects: list[slice]) -> list[Finding]:
    """Return a stop that names the rows and columns of infinite cells."""
    rows: set[int] = set()
    columns: set[int] = set()
    for block in suspects:
        at_rows, at_columns = np.nonzero(np.isinf(dataset.values[:, block]))
        rows.update(at_rows.tolist())
        columns.update((at_columns + block.start).tolist())
    if not rows:
        return []
    row_names = tuple(dataset.rows[i] for i in sorted(rows))
    names = tuple(dataset.features[i] for i in sorted(columns))
    message = f"Infinite values in row(s) {listed(row_names)}, feature(s) {listed(names)}. Correct or empty the cells."
    return [Finding("infinite_value", "stop", message, rows=row_names, columns=names)]


def _columns_with_nan(values: FloatArray, suspects: list[slice]) -> list[int]:
    found: list[int] = []
    for block in suspects:
        found += (np.flatnonzero(np.isnan(values[:, block]).any(axis=0)) + block.start).tolist()
    return found


def _uniform_columns(values: FloatArray) -> list[int]:
    found: list[int] = []
    for block in blocks(values.shape[1], values.shape[0]):
        part = values[:, block]
        first = part[0]
        candidates = np.flatnonzero((first == part[-1]) | np.isnan(first) | np.isnan(part[-1]))
        for column in candidates.tolist():
            observed = part[:, column][~np.isnan(part[:, column])]
            if observed.size and np.all(observed == observed[0]):
                found.append(block.start + column)
    return found


def missing_cells(dataset: Dataset, suspects: list[slice]) -> list[Finding]:
    """Return a stop that names the rows and columns of empty cells, for methods that take none."""
    columns = _columns_with_nan(dataset.values, suspects)
    return _missing_cells(dataset, columns, refused=True)


def _missing_cells(dataset: Dataset, columns: list[int], *, refused: bool) -> list[Finding]:
    if not columns:
        return []
    absent = np.isnan(dataset.values[:, columns])
    rows = tuple(dataset.rows[i] for i in np.flatnonzero(absent.any(axis=1)))
    names = tuple(dataset.features[i] for i in columns)
    message = (
        f"{int(absent.sum())} cell(s) are missing, in {len(rows)} row(s) of feature(s) {listed(names)}"
        + (
            "; this plan or method takes none. Complete them, or leave the rows or features out."
            if refused
            else "; each feature uses the scans it has, and missing cells stay missing."
        )
    )
    return [Finding("missing_value", "stop" if refused else "info", message, rows=rows, columns=names)]


def _sparse(
    dataset: Dataset,
    specification: Specification,
    batches: tuple[str, ...],
    grouping: Grouping,
    columns: list[int],
) -> list[Finding]:
    """Return the features with too few observed scans in some batch."""
    if not columns:
        return []
    observed = ~np.isnan(dataset.values[:, columns])[grouping.order]
    counts = np.stack([observed[start:stop].sum(axis=0) for _, start, stop in grouping.spans()])
    least = specification.minimum_scans
    too_few = counts < np.minimum(least, grouping.counts)[:, None]
    at = np.flatnonzero(too_few.any(axis=0))
    if not at.size:
        return []
    names = tuple(dataset.features[columns[i]] for i in at)
    where = tuple(batches[b] for b in np.flatnonzero(too_few.any(axis=1)))
    passing = specification.unusable_features == "pass_through"
    message = (
        f"These features have fewer than {least} observed scans in a batch: {listed(names)}; batch(es) "
        f"{listed(where)}. "
        + (
            "They are passed through unharmonized."
            if passing
            else "Leave the features or the batches out of the plan."
        )
    )
    return [
        Finding("feature_lacks_batch", "warn" if passing else "stop", message, columns=names, batches=where)
    ]


def _constant_in_batch(
    dataset: Dataset, batches: tuple[str, ...], grouping: Grouping, uniform: set[int]
) -> list[Finding]:
    columns: set[int] = set()
    where: list[str] = []
    for batch, start, stop in grouping.spans():
        rows = slice(start, stop) if grouping.sorted_already else grouping.order[start:stop]
        if stop - start < 2:
            continue
        first = dataset.values[grouping.order[start]] == dataset.values[grouping.order[start + 1]]
        candidates = np.flatnonzero(first)
        found = set(candidates[constant_columns(dataset.values[:, candidates][rows])].tolist()) - uniform
        if found:
            columns |= found
            where.append(batches[batch])
    if not columns:
        return []
    names = tuple(dataset.features[i] for i in sorted(columns))
    message = (
        f"These features have one value in all scans of a batch: {listed(names)}; batch(es) "
        f"{listed(where)}. Their scale "
        "there is left as it is. Ask the site whether the measurement failed."
    )
    return [Finding("constant_in_batch", "warn", message, columns=names, batches=tuple(where))]


def _features_for_eb(dataset: Dataset, specification: Specification, left_out: set[str]) -> list[Finding]:
    if not specification.eb:
        return []
    pools = {pool.name: pool.features for pool in specification.pools} or {"all": dataset.features}
    findings = []
    for pool, features in pools.items():
        usable = [name for name in features if name not in left_out]
        if len(usable) < 2:
            message = (
                f"Pool {pool} has {len(usable)} usable feature(s); empirical Bayes borrows strength over "
                "features and "
                "needs at least two. Plan eb off, or join pools of like features."
            )
            findings.append(Finding("too_few_features_for_eb", "stop", message, columns=tuple(usable)))
        elif len(usable) < FEW_FEATURES_FOR_EB:
            message = f"Pool {pool} has {len(usable)} features; the prior estimated from them is uncertain."
            findings.append(Finding("few_features_for_eb", "warn", message, columns=tuple(usable)))
    return findings


def _repeated_values(dataset: Dataset, specification: Specification) -> list[Finding]:
    """Return scans whose values all equal another scan's: most likely one scan entered twice."""
    bits = dataset.values.view(np.int64)
    seen: dict[bytes, list[int]] = {}
    repeated: list[int] = []
    for row, prefix in enumerate(np.ascontiguousarray(bits[:, :PREFIX_FEATURES])):
        earlier = seen.setdefault(prefix.tobytes(), [])
        if any(np.array_equal(bits[row], bits[other]) for other in earlier):
            repeated.append(row)
        else:
            earlier.append(row)
    if not repeated or dataset.values.shape[1] < PREFIX_FEATURES:
        return []
    names = tuple(dataset.rows[i] for i in repeated)
    message = (
        f"All values of these rows equal those of an earlier row: {listed(names)}. Is one scan entered twice?"
    )
    return [Finding("duplicate_values", specification.duplicate_values, message, rows=names)]


def _repeated(code: str, what: str, names: tuple[str, ...]) -> list[Finding]:
    repeated = tuple(sorted(name for name, count in Counter(names).items() if count > 1))
    if not repeated:
        return []
    message = f"The {what} occurs more than once: {listed(repeated)}. Keep one of each."
    at_rows = what == "row key"
    return [
        Finding(code, "stop", message, rows=repeated if at_rows else (), columns=() if at_rows else repeated)
    ]


def _pools(dataset: Dataset, specification: Specification, planned: tuple[str, ...]) -> list[Finding]:
    findings: list[Finding] = []
    units = dict(zip(dataset.features, dataset.units, strict=True))
    if specification.pools:
        pooled = Counter(name for pool in specification.pools for name in pool.features)
        twice = tuple(sorted(name for name, count in pooled.items() if count > 1))
        unknown = tuple(sorted(set(pooled) - set(planned)))
        without = tuple(sorted(set(planned) - set(pooled)))
        for names, what in (
            (twice, "are in two pools"),
            (unknown, "are in a pool but not planned"),
            (without, "are in no pool"),
        ):
            if names:
                message = f"These features {what}: {listed(names)}. Put every planned feature in one pool."
                findings.append(Finding("pools_do_not_fit", "stop", message, columns=names))
    for name, features in {pool.name: pool.features for pool in specification.pools}.items() or {
        "all": planned
    }.items():
        kinds = sorted({units[feature] for feature in features if units.get(feature)})
        if len(kinds) > 1 and specification.eb:
            message = (
                f"Pool {name} mixes features in {listed(kinds)}; unlike measurements should not share a "
                "prior "
                "(it moves results by 0.05 to 0.12 SD). Plan one pool for each kind."
            )
            findings.append(Finding("mixed_units_in_pool", "warn", message))
    return findings

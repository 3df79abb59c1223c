"""Checks of the feature table itself: names, keys, infinite, missing, constant and repeated values."""

from __future__ import annotations

from collections import Counter

import numpy as np

from harmonization_app.algorithms.base import Finding
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.kernel import Cells, Statistics
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled
from harmonization_app.diagnostics.gate_summary import PREFIX_FEATURES, Summary
from harmonization_app.diagnostics.wording import listed

FEW_FEATURES_FOR_EB = 10


def check_features(table: Labelled, specification: Specification) -> list[Finding]:
    """Return the findings on names: features planned, pools, units, row keys."""
    findings = _repeated("duplicate_feature", "feature name", table.features)
    findings += _repeated("duplicate_row", "row key", table.rows)
    planned = specification.features or table.features
    present = set(table.features) if specification.features else set()
    lacking = tuple(name for name in specification.features if name not in present)
    if lacking:
        message = f"The table lacks features the plan names: {listed(lacking)}."
        findings.append(Finding("unknown_feature", "stop", message, columns=lacking))
    if not planned or not table.rows:
        findings.append(Finding("empty_table", "stop", "The table has no scans or no features."))
    findings += _pools(table, specification, planned)
    return findings


def check_values(
    table: Labelled, specification: Specification, summary: Summary, design: Design | None
) -> list[Finding]:
    """Return the findings on cells; those by batch only where `design` is given, which `summary` is then by."""
    cells, statistics = summary.cells, summary.statistics
    findings = infinite_cells(table, cells)
    findings += _overflowing(table, cells, statistics)
    findings += missing_cells(table, cells, refused=specification.missing_values == "refuse")
    uniform = np.flatnonzero(statistics.uniform)
    if uniform.size:
        names = tuple(table.features[i] for i in uniform)
        message = (
            f"These features have one value in all scans and are passed through unchanged: {listed(names)}."
        )
        findings.append(Finding("constant_feature", "warn", message, columns=names))
    if design is not None:
        lacking = _sparse(table, specification, design, summary)
        findings += lacking
        findings += _constant_in_batch(table, design, statistics)
        left_out = {name for finding in lacking for name in finding.columns}
        left_out |= {table.features[i] for i in uniform}
        findings += _features_for_eb(table, specification, left_out)
    findings += _repeated_values(table, specification, summary)
    return findings


def infinite_cells(table: Labelled, cells: Cells) -> list[Finding]:
    """Return a stop that names the rows and columns of infinite cells."""
    if not cells.infinite_columns.size:
        return []
    rows = tuple(table.rows[i] for i in np.flatnonzero(cells.infinite_rows))
    names = tuple(table.features[i] for i in cells.infinite_columns)
    message = (
        f"Infinite values in row(s) {listed(rows)}, feature(s) {listed(names)}. Correct or empty the cells."
    )
    return [Finding("infinite_value", "stop", message, rows=rows, columns=names)]


def _overflowing(table: Labelled, cells: Cells, statistics: Statistics) -> list[Finding]:
    """Return a stop that names the features of finite cells whose squares are beyond the range of numbers."""
    overflowing = ~np.isfinite(statistics.residual_squares).all(axis=0) & ~statistics.unusable
    overflowing[cells.infinite_columns] = False
    if not overflowing.any():
        return []
    names = tuple(table.features[i] for i in np.flatnonzero(overflowing))
    message = f"The values of {listed(names)} are too large to compute with; give them in another unit."
    return [Finding("spread_not_computable", "stop", message, columns=names)]


def missing_cells(table: Labelled, cells: Cells, *, refused: bool) -> list[Finding]:
    """Return what rows and columns have empty cells; a stop for plans and methods that take none."""
    if not cells.missing_columns.size:
        return []
    rows = tuple(table.rows[i] for i in np.flatnonzero(cells.missing_rows))
    names = tuple(table.features[i] for i in cells.missing_columns)
    message = (
        f"{cells.missing} cell(s) are missing, in row(s) {listed(rows)} of feature(s) {listed(names)}"
        + (
            "; this plan or method takes none. Complete them, or leave the rows or features out."
            if refused
            else "; each feature uses the scans it has, and missing cells stay missing."
        )
    )
    return [Finding("missing_value", "stop" if refused else "info", message, rows=rows, columns=names)]


def _sparse(table: Labelled, specification: Specification, design: Design, summary: Summary) -> list[Finding]:
    """Return the features with too few observed scans in some batch."""
    columns = summary.cells.missing_columns
    columns = columns[~summary.statistics.uniform[columns]]
    least = specification.minimum_scans
    too_few = summary.statistics.counts[:, columns] < np.minimum(least, design.batch_sizes)[:, None]
    at = np.flatnonzero(too_few.any(axis=0))
    if not at.size:
        return []
    names = tuple(table.features[columns[i]] for i in at)
    where = tuple(design.batches[b] for b in np.flatnonzero(too_few.any(axis=1)))
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


def _constant_in_batch(table: Labelled, design: Design, statistics: Statistics) -> list[Finding]:
    at_batches, at_columns = np.nonzero(statistics.constant)
    partly = ~statistics.uniform[at_columns]
    columns = np.unique(at_columns[partly])
    if not columns.size:
        return []
    names = tuple(table.features[i] for i in columns)
    where = tuple(design.batches[i] for i in np.unique(at_batches[partly]))
    message = (
        f"These features have one value in all scans of a batch: {listed(names)}; batch(es) "
        f"{listed(where)}. The ComBat family moves their mean and leaves their scale there. Ask the site whether the "
        "measurement failed."
    )
    return [Finding("constant_in_batch", "warn", message, columns=names, batches=where)]


def _features_for_eb(table: Labelled, specification: Specification, left_out: set[str]) -> list[Finding]:
    if not specification.eb:
        return []
    pools = {pool.name: pool.features for pool in specification.pools} or {"all": table.features}
    findings = []
    for pool, features in pools.items():
        usable = [name for name in features if name not in left_out] if left_out else features
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


def _repeated_values(table: Labelled, specification: Specification, summary: Summary) -> list[Finding]:
    """Return scans whose values all equal another scan's: most likely one scan entered twice."""
    repeated = np.flatnonzero(summary.same_as != np.arange(len(summary.same_as)))
    if not repeated.size or len(table.features) < PREFIX_FEATURES:
        return []
    names = tuple(table.rows[i] for i in repeated)
    message = (
        f"All values of these rows equal those of an earlier row: {listed(names)}. Is one scan entered twice?"
    )
    return [Finding("duplicate_values", specification.duplicate_values, message, rows=names)]


def _repeated(code: str, what: str, names: tuple[str, ...]) -> list[Finding]:
    if len(set(names)) == len(names):
        return []
    repeated = tuple(sorted(name for name, count in Counter(names).items() if count > 1))
    message = f"The {what} occurs more than once: {listed(repeated)}. Keep one of each."
    at_rows = what == "row key"
    return [
        Finding(code, "stop", message, rows=repeated if at_rows else (), columns=() if at_rows else repeated)
    ]


def _pools(table: Labelled, specification: Specification, planned: tuple[str, ...]) -> list[Finding]:
    findings: list[Finding] = []
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
    for name, kinds in _units_by_pool(table, specification).items():
        if len(kinds) > 1 and specification.eb:
            message = (
                f"Pool {name} mixes features in {listed(kinds)}; unlike measurements should not share a "
                "prior "
                "(it moves results by 0.05 to 0.12 SD). Plan one pool for each kind."
            )
            findings.append(Finding("mixed_units_in_pool", "warn", message))
    return findings


def _units_by_pool(table: Labelled, specification: Specification) -> dict[str, list[str]]:
    """Return the units, without the empty one, of the features of each pool."""
    if not specification.pools and not specification.features:
        return {"all": sorted(set(table.units) - {""})}
    units = dict(zip(table.features, table.units, strict=True))
    pools = {pool.name: pool.features for pool in specification.pools} or {"all": specification.features}
    return {
        name: sorted({units[feature] for feature in features if units.get(feature)})
        for name, features in pools.items()
    }

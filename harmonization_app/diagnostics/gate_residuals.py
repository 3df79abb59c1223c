"""Whether what batch and covariates leave over is fit for a linear model: outliers, skewness, uneven spread.

Judged on at most 200 complete features (fewer in large tables). A residual is divided by its feature's spread and by
its batch's (median absolute deviations), so that batches which differ in scale are not taken for outliers.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import Finding, FloatArray
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.least_squares import centre_within, covariate_basis, group_rows
from harmonization_app.diagnostics.gate_products import scaled_covariates
from harmonization_app.diagnostics.subjects import Subjects
from harmonization_app.diagnostics.wording import listed

MOST_FEATURES, MOST_CELLS, FEWEST_SCANS = 200, 200_000, 20
MAD_TO_SD = 1.4826
# A normal value beyond 8 SD does not occur; half of a scan's values beyond 3 SD neither.
OUTLYING_VALUE, OUTLYING_SCAN = 8.0, 3.0
FEWEST_FEATURES_OF_SCAN = 5
SKEWNESS = 1.5
# Correlation of the residuals' size with a covariate that is more than chance and matters.
UNEVEN_CORRELATION, UNEVEN_SHARE, SIGNIFICANCE = 0.25, 0.1, 0.05


def check_residuals(
    values: FloatArray,
    names: tuple[str, ...],
    rows: tuple[str, ...],
    design: Design,
    subjects: Subjects | None,
) -> list[Finding]:
    """Return the warnings on the residuals of `values` [scans x features], complete and varying."""
    if len(values) < FEWEST_SCANS:
        return []
    most = min(MOST_FEATURES, max(20, MOST_CELLS // len(values)), len(names))
    at = np.unique(np.linspace(0, len(names) - 1, most).astype(int))
    names = tuple(names[i] for i in at)
    residuals, names = _standardized(values[:, at], names, design)
    if not names:
        return []
    size = np.abs(residuals)
    findings = _outlying_scans(size, rows)
    named = {row for finding in findings for row in finding.rows}
    findings += _outlying_values(residuals, size, names, rows, named)
    np.clip(residuals, -OUTLYING_VALUE, OUTLYING_VALUE, out=residuals)
    np.minimum(size, OUTLYING_VALUE, out=size)
    findings += _skewed(residuals, names)
    return findings + _uneven(size, names, design, subjects)


def _standardized(
    values: FloatArray, names: tuple[str, ...], design: Design
) -> tuple[FloatArray, tuple[str, ...]]:
    """Return residuals given batch and covariates over their robust spread, of the features that have one."""
    grouping = group_rows(design.codes, len(design.batches))
    basis = covariate_basis(design.covariates, grouping).vectors
    residuals, _ = centre_within(values[grouping.order], grouping)
    residuals -= basis @ (basis.T @ residuals)
    size = np.abs(residuals)
    spread = MAD_TO_SD * _medians(size.T)
    # Most values of such a feature are one and the same: it has no spread to measure outliers by.
    kept = spread > 1e-12 * np.maximum(values.max(axis=0), -values.min(axis=0))
    if not kept.all():
        residuals, size = residuals[:, kept], size[:, kept]
        names = tuple(name for name, keep in zip(names, kept, strict=True) if keep)
    size /= spread[kept]
    residuals /= spread[kept]
    for _, start, stop in grouping.spans() if names else ():
        typical = float(_medians(size[start:stop].reshape(1, -1))[0]) * MAD_TO_SD
        residuals[start:stop] /= max(typical, 0.5)
    return residuals[np.argsort(grouping.order)], names


def _medians(values: FloatArray) -> FloatArray:
    """Return the median of each row; one partition takes a tenth of the time of np.median's."""
    middle = values.shape[1] // 2
    parted = np.partition(values, middle, axis=1)
    if values.shape[1] % 2:
        return np.asarray(parted[:, middle])
    return np.asarray((parted[:, :middle].max(axis=1) + parted[:, middle]) / 2.0)


def _outlying_scans(size: FloatArray, rows: tuple[str, ...]) -> list[Finding]:
    if size.shape[1] < FEWEST_FEATURES_OF_SCAN:
        return []
    typical = _medians(size)
    if not (typical > OUTLYING_SCAN).any():
        return []
    found = [i for i in np.argsort(-typical, kind="stable") if typical[i] > OUTLYING_SCAN]
    shown = listed([f"{rows[i]} ({typical[i]:.1f})" for i in found])
    message = (
        f"Half of the values of these rows lie further than {OUTLYING_SCAN:g} SD from what batch and covariates tell "
        f"(median robust z): {shown}. Look at the images and units; exclude the rows in the plan, with the reason."
    )
    return [Finding("outlying_scan", "warn", message, rows=tuple(rows[i] for i in found))]


def _outlying_values(
    residuals: FloatArray, size: FloatArray, names: tuple[str, ...], rows: tuple[str, ...], named: set[str]
) -> list[Finding]:
    outlying = size > OUTLYING_VALUE
    outlying[[row in named for row in rows]] = False
    at_rows, at_columns = np.nonzero(outlying)
    if not at_rows.size:
        return []
    order = np.argsort(-size[at_rows, at_columns], kind="stable")
    shown = [
        f"{rows[at_rows[i]]}, {names[at_columns[i]]} (z {residuals[at_rows[i], at_columns[i]]:.1f})"
        for i in order
    ]
    message = (
        f"{len(order)} value(s) lie further than {OUTLYING_VALUE:g} SD from what batch and covariates tell: "
        f"{'; '.join(shown[:10])}{f' and {len(shown) - 10} more' if len(shown) > 10 else ''}. They pull their batch's "
        "effect; correct or empty the cells, or exclude the rows in the plan."
    )
    return [
        Finding(
            "outlying_value",
            "warn",
            message,
            rows=tuple(rows[i] for i in np.unique(at_rows)),
            columns=tuple(names[i] for i in np.unique(at_columns)),
        )
    ]


def _skewed(clipped: FloatArray, names: tuple[str, ...]) -> list[Finding]:
    centred = clipped - clipped.mean(axis=0)
    squares = centred * centred
    cubes = np.einsum("sf,sf->f", squares, centred) / len(centred)
    skewness = cubes / np.maximum(squares.mean(axis=0), np.finfo(float).tiny) ** 1.5
    found = [i for i in np.argsort(-np.abs(skewness), kind="stable") if abs(skewness[i]) > SKEWNESS]
    if not found:
        return []
    shown = listed([f"{names[i]} ({skewness[i]:.1f})" for i in found])
    message = (
        f"The residuals of these features are far from normal (skewness beyond {SKEWNESS:g}): {shown}. Harmonize their "
        "logarithm or another transform, in a pool of its own."
    )
    return [Finding("skewed_residuals", "warn", message, columns=tuple(names[i] for i in found))]


def _uneven(
    size: FloatArray, names: tuple[str, ...], design: Design, subjects: Subjects | None
) -> list[Finding]:
    """Return the continuous covariates with which the residuals' `size` grows or shrinks (Glejser, JASA 64:316)."""
    free = (len(size) if subjects is None else subjects.count) - 2
    if free < FEWEST_SCANS:
        return []
    size = size - size.mean(axis=0)
    size /= np.sqrt(np.maximum(np.einsum("sf,sf->f", size, size) / len(size), np.finfo(float).tiny))
    scaled, findings = scaled_covariates(design), []
    for column, (name, level) in enumerate(design.coding.columns):
        if level is not None:
            continue
        correlation = scaled[:, column] @ size / len(size)
        limited = np.clip(correlation, -0.999999, 0.999999)
        p = 2 * stats.t.sf(np.abs(limited) * np.sqrt(free / (1 - limited**2)), free)
        uneven = (stats.false_discovery_control(p) < SIGNIFICANCE) & (
            np.abs(correlation) > UNEVEN_CORRELATION
        )
        if uneven.mean() > UNEVEN_SHARE:
            order = [i for i in np.argsort(-np.abs(correlation), kind="stable") if uneven[i]]
            shown = listed([f"{names[i]} (r {correlation[i]:.2f})" for i in order])
            message = (
                f"The spread of the residuals changes with {name} in {uneven.mean():.0%} of {len(names)} features "
                f"looked at: {shown}. A batch's scale then stands for its {name} as well; consider a transform, or "
                "mean-only."
            )
            findings.append(Finding("uneven_spread", "warn", message, columns=(name,)))
    return findings

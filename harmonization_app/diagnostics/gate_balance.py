"""Checks of how alike the batches are in their covariates: standardized differences, ranges, and all of them together.

Needed sample sizes grow with the Mahalanobis distance of a batch from the others (Parekh et al., NeuroImage 264:119768
(2022)); it is told here as the chance that the covariates alone tell which batch a scan is of.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from harmonization_app.algorithms.base import Finding, FloatArray
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.wording import listed

CENTRAL_QUANTILES = (0.025, 0.975)
# Area under the curve of telling a batch by all covariates together, above which it is warned.
TELLING_AREA = 0.8


def check_balance(design: Design, specification: Specification) -> list[Finding]:
    """Return the findings on covariates that batches do not share alike, each by itself and all together."""
    findings: list[Finding] = []
    for index, (name, level) in enumerate(design.coding.columns):
        column = design.covariates[:, index]
        findings += _standardized_differences(
            design, design.coding.column_names[index], column, specification
        )
        if level is None:
            findings += _ranges(design, name, column, specification)
    return findings + _joint(design)


def _standardized_differences(
    design: Design, name: str, column: FloatArray, specification: Specification
) -> list[Finding]:
    differences: dict[str, float] = {}
    for code, batch in enumerate(design.batches):
        inside, outside = column[design.codes == code], column[design.codes != code]
        spread = np.sqrt((inside.var() + outside.var()) / 2)
        gap = inside.mean() - outside.mean()
        difference = abs(gap) / spread if spread > 0 else (0.0 if gap == 0 else float("inf"))
        if difference > specification.overlap.warn_smd_above:
            differences[batch] = difference
    if not differences:
        return []
    shown = listed([f"{batch} ({value:.2f})" for batch, value in differences.items()])
    message = (
        f"{name} is distributed otherwise in some batches than in the rest (standardized mean difference "
        f"above {specification.overlap.warn_smd_above:g}): {shown}. The result rests on its effect being linear and "
        "alike: name leave_one_batch_out and unharmonized among the sensitivity analyses."
    )
    return [Finding("covariate_imbalance", "warn", message, columns=(name,), batches=tuple(differences))]


def _ranges(design: Design, name: str, column: FloatArray, specification: Specification) -> list[Finding]:
    """Return a stop for batches whose values lie mostly outside the central 95 % of the others'.

    In simulation a gap of 30 years with a misspecified age effect left more bias than no harmonization.
    """
    shares: dict[str, float] = {}
    for code, batch in enumerate(design.batches):
        inside, outside = column[design.codes == code], column[design.codes != code]
        low, high = np.quantile(outside, CENTRAL_QUANTILES)
        share = float(np.mean((inside >= low) & (inside <= high)))
        if share < specification.overlap.minimum_overlap:
            shares[batch] = share
    if not shares:
        return []
    shown = listed([f"{batch} ({share:.0%})" for batch, share in shares.items()])
    message = (
        f"Too few values of {name} in these batches lie within the central 95 % of the other batches: "
        f"{shown}; the plan "
        f"asks for {specification.overlap.minimum_overlap:.0%}. Leave the batch out, or set the limit in "
        "the plan and say why."
    )
    return [Finding("no_covariate_overlap", "stop", message, columns=(name,), batches=tuple(shares))]


def _joint(design: Design) -> list[Finding]:
    """Return a warning for batches that several covariates together tell from the rest, though each alone may not."""
    columns = design.covariates.shape[1]
    if columns < 2:
        return []
    areas: dict[str, float] = {}
    for code, batch in enumerate(design.batches):
        own = design.codes == code
        inside, outside = design.covariates[own], design.covariates[~own]
        free = len(design.codes) - 2
        if len(inside) < 2 or free <= columns:
            continue
        within = [part - part.mean(axis=0) for part in (inside, outside)]
        spread = sum(part.T @ part for part in within) / free
        gap = inside.mean(axis=0) - outside.mean(axis=0)
        squared = float(gap @ np.linalg.pinv(spread, hermitian=True) @ gap)
        # What chance alone adds to the squared distance.
        squared -= columns * (1 / len(inside) + 1 / len(outside))
        area = float(special.ndtr(np.sqrt(max(squared, 0.0) / 2)))
        if area > TELLING_AREA:
            areas[batch] = area
    if not areas:
        return []
    shown = listed([f"{batch} ({area:.2f})" for batch, area in areas.items()])
    names = design.coding.column_names
    message = (
        f"{listed(names)} together tell scans of these batches from the rest (area under the curve above "
        f"{TELLING_AREA:g}): {shown}. Batch effect and covariates are then hard to tell apart: look for alike subjects "
        "or leave the batch out in a sensitivity analysis."
    )
    return [Finding("covariates_tell_batch", "warn", message, columns=names, batches=tuple(areas))]

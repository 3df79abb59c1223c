"""Plain ComBat over the feature pools of a plan: feature by feature, or by blocks where the table is large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches
from harmonization_app.algorithms.verification.plain import (
    Array,
    Bools,
    Columns,
    Modes,
    PlainFit,
    batch_effects,
    plain_correct,
    plain_fit,
    plain_fitted,
)
from harmonization_app.algorithms.verification.plain_blocks import block_fit, blocks

# Above this many cells, or pairs of features by batch where each is weighed against each, the plain computation goes by
# blocks of features.
FEATURE_BY_FEATURE_CELLS = 1_000_000
FEATURE_BY_FEATURE_PAIRS = 500_000


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """What a plain method computed: values [scans x features], steps by pool and batch, which features it did not
    compute (None: all were), and a sentence on anything else that was not computed anew.
    """

    values: Array
    iterations: Mapping[str, Mapping[str, int]] | None = None
    unchecked: Bools | None = None
    scope: str = ""


def pool_columns(table: Dataset, specification: Specification) -> dict[str, Columns]:
    """Return the columns of each pool; one pool named "all" where the plan names none."""
    if not specification.pools:
        return {"all": np.arange(len(table.features))}
    position = {name: index for index, name in enumerate(table.features)}
    return {pool.name: np.array([position[name] for name in pool.features]) for pool in specification.pools}


def fit_pools(
    table: Dataset,
    batches: Sequence[str],
    covariates: Array,
    specification: Specification,
    reference: str | None = None,
    measured: Dataset | None = None,
) -> PlainFit:
    """Return plain ComBat's parameters on all features of `table`, priors by the pools of the plan.

    A feature with one value in a batch keeps its scale there, also where it has it in the table as `measured` only.
    """
    modes = _modes(specification, reference)
    small = table.values.size <= FEATURE_BY_FEATURE_CELLS
    if specification.eb and not specification.parametric:
        small = small and len(set(batches)) * len(table.features) ** 2 <= FEATURE_BY_FEATURE_PAIRS
    compute = plain_fit if small else block_fit
    marks = None if measured is None else one_valued(measured.values, batches)
    pools = pool_columns(table, specification)
    return compute(table.values, batches, covariates, pools, modes, one_valued=marks)


def one_valued(values: Array, batches: Sequence[str]) -> Bools:
    """Return where all observed values of a feature in a batch are one, of two at least [sorted batches x features]."""
    labels = np.array(batches)
    own = [values[labels == level] for level in sorted(set(batches))]
    lowest = np.stack([np.fmin.reduce(part, axis=0) for part in own])
    counts = np.stack([(~np.isnan(part)).sum(axis=0) for part in own])
    return np.asarray((lowest == np.stack([np.fmax.reduce(part, axis=0) for part in own])) & (counts > 1))


def add_plain_batch(
    fit: PlainFit, scans: Dataset, covariates: Array, specification: Specification
) -> PlainFit:
    """Return the fit with the one batch of `scans`: standardized by the fit as it is, shrunk by its own prior."""
    (batch,) = set(plain_batches(scans, specification))
    standard = (scans.values - plain_fitted(fit, covariates)) / fit.sd
    shift, scale = np.zeros(len(fit.sd)), np.ones(len(fit.sd))
    iterations = {name: dict(steps) for name, steps in fit.iterations.items()}
    for name, columns in pool_columns(scans, specification).items():
        own = columns[~fit.left_out[columns]].tolist()
        observed = [standard[~np.isnan(standard[:, column]), column] for column in own]
        nothing = np.zeros(len(own), dtype=bool)
        modes = _modes(specification, None)
        shift[own], scale[own], iterations[name][batch] = batch_effects(observed, nothing, modes)
    return replace(
        fit,
        batches=(*fit.batches, batch),
        shift=np.vstack([fit.shift, shift]),
        scale=np.vstack([fit.scale, scale]),
        iterations=iterations,
    )


def _modes(specification: Specification, reference: str | None) -> Modes:
    return Modes(
        eb=specification.eb,
        parametric=specification.parametric,
        mean_only=specification.mean_only,
        reference=reference,
        minimum=specification.minimum_scans,
        seed=specification.seed,
    )


def correct_pools(fit: PlainFit, values: Array, batches: Sequence[str], covariates: Array) -> Array:
    """Return `values` [scans x features] corrected, by blocks, so that one copy of them is all that is needed."""
    corrected = np.empty(values.shape)
    for block in blocks(len(values), values.shape[1]):
        corrected[:, block] = plain_correct(fit, values[:, block], batches, covariates, block)
    return corrected


def named_iterations(fit: PlainFit, name: str) -> dict[str, Mapping[str, int]]:
    """Return the steps by pool, each pool named after the step of a method it belongs to."""
    return {f"{name}: {pool}": steps for pool, steps in fit.iterations.items()}

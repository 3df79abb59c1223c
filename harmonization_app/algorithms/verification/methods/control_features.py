"""Control-feature removal by eigenvectors of the controls' correlation, feature by feature (Fortin et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input
from harmonization_app.algorithms.verification.plain_blocks import BLOCK_CELLS


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` less what follows the factors of the controls in `fitted`."""
    names = specification.options["controls"]
    position = {name: column for column, name in enumerate(fitted.features)}
    controls = [position[name] for name in names]
    learnt, own = fitted.values[:, controls], scans.values[:, controls]
    middle, spread = learnt.mean(axis=0), learnt.std(axis=0, ddof=1)
    eigenvalues, vectors = np.linalg.eigh(np.corrcoef(learnt.T))
    first = vectors[:, np.argsort(eigenvalues)[::-1][: specification.options.get("factors", 1)]]
    factors, others = ((learnt - middle) / spread) @ first, ((own - middle) / spread) @ first
    design = np.hstack([np.ones((len(factors), 1)), factors, plain_covariates(fitted, specification)])
    corrected = scans.values.copy()
    rest = np.setdiff1d(np.arange(len(fitted.features)), controls)
    for columns in np.array_split(rest, max(1, fitted.values.size // BLOCK_CELLS)):
        weights = np.linalg.lstsq(design, fitted.values[:, columns], rcond=None)[0]
        corrected[:, columns] -= others @ weights[1 : 1 + factors.shape[1]]
    return corrected


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = (_with_factor(table, seed) for table, seed in zip(case_input(), (4, 5), strict=True))
    options = {"controls": list(dataset.features[:4])}
    plan = replace(PLAIN_SPECIFICATION, eb=False, options=options)
    yield Input("one_factor", dataset, plan)
    yield Input("two_factors", dataset, replace(plan, options={**options, "factors": 2}))
    yield Input("without_covariates", dataset, replace(plan, covariates=()))
    yield Input("apply_new_scans", dataset, plan, new)


def _with_factor(dataset: Dataset, seed: int) -> Dataset:
    factor = np.random.default_rng(seed).normal(0, 0.2, len(dataset.rows))
    weights = np.linspace(0.5, 1.5, dataset.values.shape[1])
    return dataset.with_values((dataset.values + np.outer(factor, weights)).round(4))

"""Functional normalization scan by scan and rank by rank (Fortin et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import FeaturePool, Specification
from harmonization_app.algorithms.verification.coding import plain_batches, plain_covariates
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` less what the unwanted factors explain of the quantile functions in `fitted`."""
    factors, own = _factors(fitted, specification, scans)
    one = np.ones((len(factors), 1))
    design = np.hstack([one, factors, plain_covariates(fitted, specification)])
    constant = [
        name for name, column in zip(fitted.features, fitted.values.T, strict=True) if np.ptp(column) == 0
    ]
    kept = {*specification.options.get("controls", []), *constant}
    pools = [pool.features for pool in specification.pools] or [fitted.features]
    corrected = scans.values.copy()
    for features in pools:
        columns = [fitted.features.index(name) for name in features if name not in kept]
        quantiles = np.array([sorted(row[columns]) for row in fitted.values])
        removed = np.empty((len(scans.rows), len(columns)))
        for rank in range(len(columns)):
            weights = np.linalg.lstsq(design, quantiles[:, rank], rcond=None)[0]
            removed[:, rank] = own @ weights[1 : 1 + own.shape[1]]
        for row, values in enumerate(scans.values):
            corrected[row, columns] = _mapped(values[columns], removed[row])
    return corrected


def _factors(fitted: Dataset, specification: Specification, scans: Dataset) -> tuple[FloatArray, FloatArray]:
    """Return the unwanted factors of both datasets, of mean zero over `fitted`."""
    options = specification.options
    if options.get("factors_from", "batch") == "batch":
        labels, others = (np.array(plain_batches(table, specification)) for table in (fitted, scans))
        levels = sorted(set(labels.tolist()))[1:]
        shares = [float(np.mean(labels == level)) for level in levels]
        codes = [
            np.column_stack([(own == level) - share for level, share in zip(levels, shares, strict=True)])
            for own in (labels, others)
        ]
        return codes[0], codes[1]
    controls = [fitted.features.index(name) for name in options["controls"]]
    learnt = fitted.values[:, controls]
    middle, spread = learnt.mean(axis=0), learnt.std(axis=0, ddof=1)
    eigenvalues, vectors = np.linalg.eigh(np.corrcoef(learnt.T))
    first = vectors[:, np.argsort(eigenvalues)[::-1][: options.get("factors", 2)]]
    return ((learnt - middle) / spread) @ first, ((scans.values[:, controls] - middle) / spread) @ first


def _mapped(values: FloatArray, removed: FloatArray) -> FloatArray:
    """Return the values of one scan, each at the corrected quantile of its rank; equal ones stay equal."""
    ranked = sorted(values)
    targets: list[float] = []
    for value, change in zip(ranked, removed, strict=True):
        targets.append(max([*targets[-1:], value - change]))
    return np.array(
        [
            np.mean([target for other, target in zip(ranked, targets, strict=True) if other == value])
            for value in values
        ]
    )


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, new = (
        _with_more_features(table, seed) for table, seed in zip(case_input(), (11, 12), strict=True)
    )
    plan = replace(PLAIN_SPECIFICATION, eb=False)
    controls = {"factors_from": "controls", "controls": list(dataset.features[:4])}
    pools = (FeaturePool("left", dataset.features[:12]), FeaturePool("right", dataset.features[12:]))
    yield Input("batches", dataset, plan)
    yield Input("without_covariates", dataset, replace(plan, covariates=()))
    yield Input("two_pools", dataset, replace(plan, pools=pools))
    yield Input("control_features", dataset, replace(plan, options=controls))
    yield Input("one_control_factor", dataset, replace(plan, options={**controls, "factors": 1}))
    yield Input("merged_batches", dataset, replace(plan, merge_batches={"south": "north"}))
    yield Input("apply_new_scans", dataset, plan, new)
    yield Input("apply_control_features", dataset, replace(plan, options=controls), new)


def _with_more_features(dataset: Dataset, seed: int) -> Dataset:
    """Return the dataset with as many features again, some values equal, and a curve by site."""
    random = np.random.default_rng(seed)
    second = dataset.values[:, ::-1] + random.normal(0, 0.1, dataset.values.shape)
    values = np.hstack([dataset.values, second])
    sites = {"north": 0.0, "south": 0.1, "west": -0.05}
    bend = np.array([sites[str(batch)] for batch in dataset.batches])[:, None]
    values = (values + bend * values**2 / 3).round(2)
    names = tuple(f"region_{i:02d}" for i in range(values.shape[1]))
    return replace(dataset, values=values, features=names, units=("mm",) * len(names))

"""Tests of batch effects per feature: partial F given the covariates, Kruskal-Wallis, Brown-Forsythe, with FDR.

The tests take scans as independent: where scans repeat subjects their p are too small and only the effect sizes are to
be read. FDR: Benjamini and Hochberg, JRSS B 57:289 (1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from harmonization_app.algorithms.base import FloatArray, IntArray
from harmonization_app.algorithms.kernel import blocks
from harmonization_app.diagnostics.rank_tests import brown_forsythe, kruskal, one_way
from harmonization_app.diagnostics.regression import regress
from harmonization_app.diagnostics.scope import COLUMNS_UP_TO, column, distribution, median

SIGNIFICANCE = 0.05
TEST_CELLS = 1 << 22
LINEAR = ("partial_f", "p", "partial_eta_squared", "variance_explained")
RANKS = ("kruskal_epsilon_squared", "kruskal_p", "levene_eta_squared", "levene_p")
ADJUSTED = (("q", "p"), ("kruskal_q", "kruskal_p"), ("levene_q", "levene_p"))


@dataclass(frozen=True, slots=True)
class BatchTest:
    """Batch effect on one feature; every figure is None where it was not or cannot be computed.

    `partial_f` tests batch in a linear model with the covariates; `partial_eta_squared` is its effect size;
    `variance_explained` the share of all variance between batches, covariates aside; `q` are FDR-adjusted p.
    Kruskal-Wallis takes residuals given the covariates, Brown-Forsythe (Levene about the median) residuals given batch
    and covariates; `kruskal_epsilon_squared` and `levene_eta_squared` are their effect sizes, 0 to 1.
    """

    feature: str
    partial_f: float | None
    p: float | None
    q: float | None
    partial_eta_squared: float | None
    variance_explained: float | None
    kruskal_p: float | None
    kruskal_q: float | None
    kruskal_epsilon_squared: float | None
    levene_p: float | None
    levene_q: float | None
    levene_eta_squared: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


FIGURES = tuple(name for name in BatchTest.__dataclass_fields__ if name != "feature")


@dataclass(frozen=True, slots=True, eq=False)
class BatchTests:
    """The tests of all features, one array [features] per figure; a sequence of BatchTest."""

    features: tuple[str, ...]
    figures: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> BatchTest:
        cells = {name: float(values[index]) for name, values in self.figures.items()}
        known = {name: cell if math.isfinite(cell) else None for name, cell in cells.items()}
        return BatchTest(self.features[index], **known)

    def __iter__(self) -> Iterator[BatchTest]:
        return (self[index] for index in range(len(self)))

    def listed(self, features: Iterable[int]) -> list[dict[str, Any]]:
        """Return the tests of the features at these positions, written out."""
        return [self[int(index)].to_json() for index in features]

    def columns(self) -> dict[str, Any] | None:
        """Return all figures as arrays; None beyond 2,000 features."""
        if len(self) > COLUMNS_UP_TO:
            return None
        return {
            "feature": list(self.features),
            **{name: column(self.figures[name]) for name in FIGURES},
        }

    def distributions(self) -> dict[str, dict[str, float] | None]:
        """Return the quantiles of each figure over the features it was computed for."""
        return {name: distribution(self.figures[name]) for name in FIGURES}


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """Over all features: how many tested, how many with q below 0.05 (None where not tested), median effect sizes."""

    tested: int
    mean_effect: int | None
    rank_effect: int | None
    scale_effect: int | None
    median_partial_eta_squared: float | None
    median_variance_explained: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_batch_effects(
    values: FloatArray,
    codes: IntArray,
    covariates: FloatArray,
    features: Sequence[str],
    *,
    ranks_and_scales: bool | IntArray = True,
) -> BatchTests:
    """Return the tests of each column of `values` [scans x features]; `codes` number the batches from 0.

    `ranks_and_scales` may name the features (their positions) that get the two rank tests too, which are slow.
    """
    ranked = np.full(len(features), bool(ranks_and_scales is True))
    if not isinstance(ranks_and_scales, bool):
        ranked[ranks_and_scales] = True
    parts = [
        _block(values[:, block], codes, covariates, ranked[block])
        for block in blocks(len(features), len(values), TEST_CELLS)
    ]
    figures = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name, p in ADJUSTED:
        figures[name] = _adjusted(figures[p])
    return BatchTests(tuple(features), figures)


def summarize(tests: BatchTests) -> BatchSummary:
    """Return the counts and medians over features."""
    sizes = tests.figures["partial_eta_squared"]
    return BatchSummary(
        tested=int(np.isfinite(sizes).sum()),
        mean_effect=_significant(tests.figures["q"]),
        rank_effect=_significant(tests.figures["kruskal_q"]),
        scale_effect=_significant(tests.figures["levene_q"]),
        median_partial_eta_squared=median(sizes),
        median_variance_explained=median(tests.figures["variance_explained"]),
    )


def _significant(adjusted: FloatArray) -> int | None:
    known = adjusted[np.isfinite(adjusted)]
    return int((known < SIGNIFICANCE).sum()) if known.size else None


def _block(
    values: FloatArray, codes: IntArray, covariates: FloatArray, ranked: FloatArray
) -> dict[str, FloatArray]:
    batches = int(codes.max()) + 1
    indicators = np.eye(batches)[codes]
    centred = covariates - covariates.mean(axis=0)
    design = np.hstack([indicators, centred])
    without = np.hstack([np.ones((len(values), 1)), centred])
    full, reduced = regress(design, values), regress(without, values)
    constant = np.fmax.reduce(values, axis=0) == np.fmin.reduce(values, axis=0)
    between = reduced.residual_squares - full.residual_squares
    with np.errstate(invalid="ignore", divide="ignore"):
        f = between / (batches - 1) / (full.residual_squares / full.degrees)
        p = stats.f.sf(f, batches - 1, full.degrees)
        partial = between / reduced.residual_squares
        share = one_way(values, codes, batches)[0]
    result = dict(zip(LINEAR, (f, p, partial, share), strict=True))
    result |= {name: np.full(values.shape[1], np.nan) for name in RANKS}
    if ranked.any():
        own = values[:, ranked]
        left = own - without @ reduced.coefficients[:, ranked]
        within = own - design @ full.coefficients[:, ranked]
        found = (*kruskal(left, codes, batches), *brown_forsythe(within, codes, batches))
        for name, cells in zip(RANKS, found, strict=True):
            result[name][ranked] = cells
    return {name: np.where(constant, np.nan, cells) for name, cells in result.items()}


def _adjusted(p: FloatArray) -> FloatArray:
    known = np.isfinite(p)
    q = np.full_like(p, np.nan)
    if known.any():
        q[known] = stats.false_discovery_control(np.clip(p[known], 0.0, 1.0))
    return q

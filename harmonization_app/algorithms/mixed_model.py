"""Linear mixed models with one random intercept, or intercept and slope, per subject, by profile REML.

Fixed effects and the residual variance are profiled out; what is searched is the random effects' covariance
relative to the residual variance, of all features at once for the intercept (one parameter), feature by feature
for intercept and slope (three). Formulas: Bates et al., J Stat Softw 67:1 (2015), section 3; Lindstrom and Bates,
JASA 83:1014 (1988).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from harmonization_app.algorithms.base import FloatArray, IntArray

# Relative standard deviations of the random intercept searched, and steps of the golden section between them.
LEAST_LOG_RATIO, GREATEST_LOG_RATIO = -12.0, 12.0
GRID_POINTS = 49
GOLDEN_STEPS = 60
GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
SLOPE_STARTS = ((1.0, 0.0, 0.5), (2.0, 0.0, 0.05), (0.5, 0.2, 0.2))
# A relative factor below this is called singular, as lme4's isSingular does.
SINGULAR_BELOW = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class MixedFit:
    """Fixed effects [columns x features], fitted values with the random effects [scans x features], residual SD
    [features], relative factor of the random effects [features x 1 or 3] and which features are singular.
    """

    coefficients: FloatArray
    fitted: FloatArray
    deviation: FloatArray
    factor: FloatArray
    singular: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class FrozenFit:
    """What a prediction needs of a fit: fixed effects [columns x features], relative factor [features x 1 or 3]."""

    coefficients: FloatArray
    factor: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Products:
    """Cross products of design X, random-effects design Z and values Y, whole and by subject."""

    xx: FloatArray
    xy: FloatArray
    yy: FloatArray
    zz: FloatArray
    zx: FloatArray
    zy: FloatArray
    scans: int


def fit_random_intercept(values: FloatArray, design: FloatArray, subjects: IntArray) -> MixedFit:
    """Return the REML fit with a random intercept of each column of `values` [scans x features]."""
    centre = values.mean(axis=0)
    products = _products(values - centre, design, np.ones((len(values), 1)), subjects)
    factor = _search_intercepts(products)[:, None]
    return _complete(values, centre, design, np.ones((len(values), 1)), subjects, products, factor)


def fit_random_slope(
    values: FloatArray, design: FloatArray, subjects: IntArray, time: FloatArray
) -> MixedFit:
    """Return the REML fit with correlated random intercept and slope over `time` of each column of `values`."""
    centre = values.mean(axis=0)
    random = np.column_stack([np.ones(len(values)), time])
    products = _products(values - centre, design, random, subjects)
    factor = np.stack([_search_slope(products, feature) for feature in range(values.shape[1])])
    return _complete(values, centre, design, random, subjects, products, factor)


def predict(
    values: FloatArray, design: FloatArray, random: FloatArray, subjects: IntArray, fit: FrozenFit
) -> FloatArray:
    """Return fixed effects and best linear unbiased predictions of `values` [scans x features], parameters frozen.

    A subject's random effects D Z'(I + Z D Z')^-1 (y - X b) come from those of its scans that are given (Robinson,
    Stat Sci 6:15 (1991)), for a subject that was fitted and one that was not alike.
    """
    marginal = design @ fit.coefficients
    products = _products(values - marginal, design, random, subjects)
    predicted = np.empty_like(marginal)
    identity = np.eye(random.shape[1])
    for feature, covariance in enumerate(_covariances(fit.factor, random.shape[1])):
        gain = covariance @ np.linalg.inv(identity + products.zz @ covariance)
        effects = np.einsum("sab,sb->sa", gain, products.zy[:, :, feature])
        predicted[:, feature] = np.einsum("na,na->n", random, effects[subjects])
    return marginal + predicted


def _covariances(factor: FloatArray, effects: int) -> FloatArray:
    """Return the relative covariances [features x effects x effects] of lower factors written row by row."""
    lower = np.zeros((len(factor), effects, effects))
    lower[:, *np.tril_indices(effects)] = factor
    return np.asarray(lower @ lower.transpose(0, 2, 1))


def _products(values: FloatArray, design: FloatArray, random: FloatArray, subjects: IntArray) -> _Products:
    order = np.argsort(subjects, kind="stable")
    starts = np.flatnonzero(np.diff(subjects[order], prepend=-1))

    def by_subject(left: FloatArray, right: FloatArray) -> FloatArray:
        whole = left[order][:, :, None] * right[order][:, None, :]
        return np.asarray(np.add.reduceat(whole, starts, axis=0))

    zy = np.stack(
        [
            np.add.reduceat(random[order, i : i + 1] * values[order], starts, axis=0)
            for i in range(random.shape[1])
        ],
        axis=1,
    )
    return _Products(
        xx=design.T @ design,
        xy=design.T @ values,
        yy=np.einsum("sf,sf->f", values, values),
        zz=by_subject(random, random),
        zx=by_subject(random, design),
        zy=zy,
        scans=len(values),
    )


def _intercept_deviance(products: _Products, ratio: FloatArray) -> FloatArray:
    """Return -2 log REML of every feature at its own relative SD `ratio` [features], up to a constant.

    Subjects with as many scans share their weight, so that their sums of squares are added up once.
    """
    sizes = products.zz[:, 0, 0]
    distinct, group = np.unique(sizes, return_inverse=True)
    variance = ratio**2
    weights = variance[:, None] / (1.0 + variance[:, None] * distinct)
    zx, zy = products.zx[:, 0, :], products.zy[:, 0, :]
    xx, xy, yy = [], [], []
    for index in range(len(distinct)):
        own = group == index
        xx.append(zx[own].T @ zx[own])
        xy.append(zx[own].T @ zy[own])
        yy.append((zy[own] ** 2).sum(axis=0))
    gram = products.xx - np.einsum("fg,gcd->fcd", weights, np.stack(xx))
    right = products.xy - np.einsum("fg,gcf->cf", weights, np.stack(xy))
    square = products.yy - np.einsum("fg,gf->f", weights, np.stack(yy))
    coefficients = np.linalg.solve(gram, right.T[:, :, None])[:, :, 0]
    residual = square - np.einsum("fc,cf->f", coefficients, right)
    degrees = products.scans - products.xx.shape[0]
    determinant = np.log1p(variance[:, None] * distinct) @ np.bincount(group)
    return np.asarray(determinant + np.linalg.slogdet(gram)[1] + degrees * np.log(residual))


def _search_intercepts(products: _Products) -> FloatArray:
    """Return the relative SD of the random intercept of each feature: a grid, then golden sections; or zero."""
    features = products.xy.shape[1]
    grid = np.linspace(LEAST_LOG_RATIO, GREATEST_LOG_RATIO, GRID_POINTS)
    deviances = np.stack([_intercept_deviance(products, np.full(features, np.exp(point))) for point in grid])
    best = np.clip(deviances.argmin(axis=0), 1, GRID_POINTS - 2)
    low, high = grid[best - 1], grid[best + 1]
    inner, outer = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_inner = _intercept_deviance(products, np.exp(inner))
    at_outer = _intercept_deviance(products, np.exp(outer))
    for _ in range(GOLDEN_STEPS):
        left = at_inner < at_outer
        low, high = np.where(left, low, inner), np.where(left, outer, high)
        former_inner, former_outer = inner, outer
        inner = np.where(left, high - GOLDEN * (high - low), former_outer)
        outer = np.where(left, former_inner, low + GOLDEN * (high - low))
        fresh = _intercept_deviance(products, np.exp(np.where(left, inner, outer)))
        at_inner, at_outer = np.where(left, fresh, at_outer), np.where(left, at_inner, fresh)
    ratio = np.exp((low + high) / 2)
    at_zero = _intercept_deviance(products, np.zeros(features))
    return np.where(at_zero <= _intercept_deviance(products, ratio), 0.0, ratio)


def _search_slope(products: _Products, feature: int) -> FloatArray:
    """Return the relative Cholesky factor (intercept, cross, slope) of one feature, the best of several starts."""
    objective = _SlopeObjective(products, feature)
    bounds = [(0.0, None), (None, None), (0.0, None)]
    options = {"ftol": 1e-15, "gtol": 1e-7, "maxiter": 500, "maxcor": 20}
    found = [
        optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for start in SLOPE_STARTS
    ]
    return np.asarray(min(found, key=lambda item: float(item.fun)).x)


class _SlopeObjective:
    """-2 log REML of one feature and its gradient as functions of the relative factor, up to a constant."""

    def __init__(self, products: _Products, feature: int) -> None:
        self.products = products
        self.zy = products.zy[:, :, feature]
        self.xy, self.yy = products.xy[:, feature], products.yy[feature]

    def __call__(self, factor: npt.ArrayLike) -> tuple[float, FloatArray]:
        first, cross, second = np.asarray(factor, dtype=np.float64)
        lower = np.array([[first, 0.0], [cross, second]])
        products, covariance = self.products, lower @ lower.T
        shrink, determinants = _shrinkages(products.zz, covariance)
        # Z'V^-1 times Z, X and Y of every subject, with V = I + Z D Z'.
        zz = shrink @ products.zz
        zx = shrink @ products.zx
        zy = np.einsum("sab,sb->sa", shrink, self.zy)
        effects, columns = covariance @ products.zx, len(self.xy)
        gram = products.xx - effects.reshape(-1, columns).T @ zx.reshape(-1, columns)
        right = self.xy - effects.reshape(-1, columns).T @ zy.ravel()
        square = self.yy - (self.zy @ covariance).ravel() @ zy.ravel()
        inverse = np.linalg.inv(gram)
        coefficients = inverse @ right
        residual = square - right @ coefficients
        degrees = products.scans - columns
        value = np.log(determinants).sum() + np.linalg.slogdet(gram)[1] + degrees * np.log(residual)
        left = zy - zx @ coefficients
        slope = (
            zz.sum(axis=0) - np.einsum("sac,sbc->ab", zx @ inverse, zx) - degrees / residual * left.T @ left
        )
        gradient = 2 * slope @ lower
        return float(value), np.array([gradient[0, 0], gradient[1, 0], gradient[1, 1]])


def _shrinkages(crosses: FloatArray, covariance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (I + Z'Z D)^-1 and the determinant of I + Z'Z D of each subject, for 2 x 2 relative covariance D."""
    inner = np.eye(2) + crosses @ covariance
    determinants = inner[:, 0, 0] * inner[:, 1, 1] - inner[:, 0, 1] * inner[:, 1, 0]
    adjugate = np.empty_like(inner)
    adjugate[:, 0, 0], adjugate[:, 1, 1] = inner[:, 1, 1], inner[:, 0, 0]
    adjugate[:, 0, 1], adjugate[:, 1, 0] = -inner[:, 0, 1], -inner[:, 1, 0]
    return adjugate / determinants[:, None, None], determinants


def _complete(
    values: FloatArray,
    centre: FloatArray,
    design: FloatArray,
    random: FloatArray,
    subjects: IntArray,
    products: _Products,
    factor: FloatArray,
) -> MixedFit:
    """Return estimates and predictions at the relative factor [features x 1 or 3]."""
    features = values.shape[1]
    coefficients = np.empty((design.shape[1], features))
    fitted, deviation = np.empty_like(values), np.empty(features)
    degrees = len(values) - design.shape[1]
    identity = np.eye(random.shape[1])
    for feature, covariance in enumerate(_covariances(factor, random.shape[1])):
        # Predictor of the random effects: D Z'(I + Z D Z')^-1 r = D (I + Z'Z D)^-1 Z'r.
        gain = covariance @ np.linalg.inv(identity + products.zz @ covariance)
        zy = products.zy[:, :, feature]
        gram = products.xx - np.einsum("sac,sab,sbd->cd", products.zx, gain, products.zx)
        right = products.xy[:, feature] - np.einsum("sac,sab,sb->c", products.zx, gain, zy)
        own = np.linalg.solve(gram, right)
        effects = np.einsum("sab,sb->sa", gain, zy - products.zx @ own)
        predicted = design @ own + np.einsum("na,na->n", random, effects[subjects])
        residuals = values[:, feature] - centre[feature] - predicted
        squares = residuals @ (values[:, feature] - centre[feature] - design @ own)
        coefficients[:, feature], deviation[feature] = own, np.sqrt(squares / degrees)
        fitted[:, feature] = predicted + centre[feature]
    # Every design here spans the constant as its first column.
    coefficients[0] += centre
    singular = (factor[:, [0, -1]] if factor.shape[1] > 1 else factor).min(axis=1) < SINGULAR_BELOW
    return MixedFit(coefficients, fitted, deviation, factor, singular)

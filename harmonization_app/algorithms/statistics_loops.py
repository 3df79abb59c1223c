"""The least-squares summaries of `least_squares`, compiled.

Plain loops over features within loops over scans: they need no temporary of the table's size and read each cell from
memory once or twice. Every feature is computed by itself, in one order of operations and without fused or reordered
arithmetic, so that its bits depend neither on the features beside it, nor on threads, nor on the processor.
"""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import BoolArray, FloatArray, IntArray
from harmonization_app.algorithms.compiled import compiled

# Residual squares smaller than this part of the centred squares are summed from the residuals themselves: as the
# difference of two near numbers they would lose more than one digit.
CANCELLED_RATIO = 1.0 / 16.0


@compiled
def summarize(
    values: FloatArray,
    order: IntArray,
    starts: IntArray,
    stops: IntArray,
    vectors: FloatArray,
    back: FloatArray,
    products: FloatArray,
    batch_centres: FloatArray,
    first: int,
    last: int,
    width: int,
    intercepts: FloatArray,
    coefficients: FloatArray,
    squares: FloatArray,
    constant: BoolArray,
    uniform: BoolArray,
    unsummed: BoolArray,
) -> None:
    """Fill the last six arguments for the features from `first` to `last`, `width` of them at a time.

    The arguments are those of `least_squares.Grouping`, `Basis` and `Statistics`; `unsummed` [features] marks columns
    with a sum that is not finite.
    """
    batches, rank = len(starts), vectors.shape[1]
    away, weights = np.empty((4, width)), np.empty((rank, width))
    cross = np.empty((batches, rank, width))
    for begin in range(first, last, width):
        end = min(begin + width, last)
        for batch in range(batches):
            start, stop = starts[batch], stops[batch]
            _sum_batch(values, order, start, stop, begin, end, intercepts[batch])
            _sum_products(
                values,
                order,
                start,
                stop,
                vectors,
                begin,
                end,
                intercepts[batch],
                away,
                squares[batch],
                cross[batch],
            )
            _mark_constant(values, order, start, stop, begin, end, constant[batch])
        _mark_columns(values, order, starts, stops, begin, end, intercepts, constant, uniform, unsummed)
        _add_up(cross, weights)
        _leave_residuals(
            values,
            order,
            starts,
            stops,
            vectors,
            products,
            begin,
            end,
            intercepts,
            cross,
            weights,
            squares,
        )
        _solve(back, batch_centres, weights, begin, end, coefficients, intercepts)


@compiled
def sum_batches(
    values: FloatArray,
    order: IntArray,
    starts: IntArray,
    stops: IntArray,
    vectors: FloatArray,
    width: int,
    means: FloatArray,
    squares: FloatArray,
    cross: FloatArray,
) -> None:
    """Fill by batch the means and centred squares [batches x features] and, as `cross` [batches x columns x features],
    the products with `vectors` [scans x columns], which are centred within batches and in batch order.
    """
    features, columns = values.shape[1], vectors.shape[1]
    away, part = np.empty((4, width)), np.empty((columns, width))
    for begin in range(0, features, width):
        end = min(begin + width, features)
        for batch in range(len(starts)):
            start, stop = starts[batch], stops[batch]
            _sum_batch(values, order, start, stop, begin, end, means[batch])
            _sum_products(
                values, order, start, stop, vectors, begin, end, means[batch], away, squares[batch], part
            )
            for k in range(columns):
                for i in range(end - begin):
                    cross[batch, k, begin + i] = part[k, i]


@compiled
def _sum_batch(
    values: FloatArray, order: IntArray, start: int, stop: int, begin: int, end: int, means: FloatArray
) -> None:
    """Set the batch's means, four scans at a time."""
    mean = means[begin:end]
    for i in range(len(mean)):
        mean[i] = 0.0
    fours = start + (stop - start) // 4 * 4
    for at in range(start, fours, 4):
        one, two = values[order[at], begin:end], values[order[at + 1], begin:end]
        three, four = values[order[at + 2], begin:end], values[order[at + 3], begin:end]
        for i in range(len(mean)):
            mean[i] += (one[i] + two[i]) + (three[i] + four[i])
    for at in range(fours, stop):
        one = values[order[at], begin:end]
        for i in range(len(mean)):
            mean[i] += one[i]
    for i in range(len(mean)):
        mean[i] /= stop - start


@compiled
def _sum_products(
    values: FloatArray,
    order: IntArray,
    start: int,
    stop: int,
    vectors: FloatArray,
    begin: int,
    end: int,
    means: FloatArray,
    away: FloatArray,
    squares: FloatArray,
    cross: FloatArray,
) -> None:
    """Set the batch's centred squares and its products with the basis; `away` [4 x features] is for work."""
    mean, square = means[begin:end], squares[begin:end]
    size = end - begin
    for i in range(size):
        square[i] = 0.0
    for k in range(len(cross)):
        product = cross[k, :size]
        for i in range(size):
            product[i] = 0.0
    fours = start + (stop - start) // 4 * 4
    for at in range(start, fours, 4):
        _add_four(
            values[order[at], begin:end],
            values[order[at + 1], begin:end],
            values[order[at + 2], begin:end],
            values[order[at + 3], begin:end],
            vectors[at : at + 4],
            mean,
            away,
            square,
            cross,
        )
    for at in range(fours, stop):
        _add_one(values[order[at], begin:end], vectors[at], mean, away[0], square, cross)


@compiled
def _add_four(
    one: FloatArray,
    two: FloatArray,
    three: FloatArray,
    four: FloatArray,
    vectors: FloatArray,
    mean: FloatArray,
    away: FloatArray,
    square: FloatArray,
    cross: FloatArray,
) -> None:
    """Add the squares and products of four scans."""
    size = len(mean)
    a, b, c, d = away[0, :size], away[1, :size], away[2, :size], away[3, :size]
    for i in range(size):
        a[i] = one[i] - mean[i]
        b[i] = two[i] - mean[i]
        c[i] = three[i] - mean[i]
        d[i] = four[i] - mean[i]
        square[i] += (a[i] * a[i] + b[i] * b[i]) + (c[i] * c[i] + d[i] * d[i])
    for k in range(len(cross)):
        product = cross[k, :size]
        p, q, r, s = vectors[0, k], vectors[1, k], vectors[2, k], vectors[3, k]
        for i in range(size):
            product[i] += (p * a[i] + q * b[i]) + (r * c[i] + s * d[i])


@compiled
def _add_one(
    one: FloatArray,
    vector: FloatArray,
    mean: FloatArray,
    away: FloatArray,
    square: FloatArray,
    cross: FloatArray,
) -> None:
    """Add the squares and products of one scan."""
    size = len(mean)
    for i in range(size):
        away[i] = one[i] - mean[i]
        square[i] += away[i] * away[i]
    for k in range(len(cross)):
        product, p = cross[k, :size], vector[k]
        for i in range(size):
            product[i] += p * away[i]


@compiled
def _mark_constant(
    values: FloatArray, order: IntArray, start: int, stop: int, begin: int, end: int, constant: BoolArray
) -> None:
    """Mark features with one value in all of at least two scans; most are ruled out by the first two."""
    for feature in range(begin, end):
        value = values[order[start], feature]
        alike = stop - start > 1
        at = start + 1
        while alike and at < stop:
            alike = values[order[at], feature] == value
            at += 1
        constant[feature] = alike


@compiled
def _mark_columns(
    values: FloatArray,
    order: IntArray,
    starts: IntArray,
    stops: IntArray,
    begin: int,
    end: int,
    means: FloatArray,
    constant: BoolArray,
    uniform: BoolArray,
    unsummed: BoolArray,
) -> None:
    """Mark features with one value in the whole table, and those with a sum that is not finite."""
    for feature in range(begin, end):
        value = values[order[starts[0]], feature]
        alike, finite = len(order) > 1, True
        for batch in range(len(starts)):
            finite = finite and np.isfinite(means[batch, feature])
            lone = constant[batch, feature] or stops[batch] - starts[batch] < 2
            alike = alike and lone and values[order[starts[batch]], feature] == value
        uniform[feature] = alike
        unsummed[feature] = not finite


@compiled
def _add_up(cross: FloatArray, weights: FloatArray) -> None:
    """Set the basis' weights to the sums of the batches' products."""
    for k in range(len(weights)):
        weight = weights[k]
        for i in range(len(weight)):
            weight[i] = 0.0
        for batch in range(len(cross)):
            own = cross[batch, k]
            for i in range(len(weight)):
                weight[i] += own[i]


@compiled
def _leave_residuals(
    values: FloatArray,
    order: IntArray,
    starts: IntArray,
    stops: IntArray,
    vectors: FloatArray,
    products: FloatArray,
    begin: int,
    end: int,
    means: FloatArray,
    cross: FloatArray,
    weights: FloatArray,
    squares: FloatArray,
) -> None:
    """Turn centred squares into residual squares: what the basis explains is taken off."""
    size = end - begin
    explained, part = np.empty(size), np.empty(size)
    cancelled = np.zeros(size, dtype=np.int64)
    for batch in range(len(starts)):
        square = squares[batch, begin:end]
        _explain(cross[batch, :, :size], products[batch], weights[:, :size], part, explained)
        for i in range(size):
            left = square[i] - explained[i]
            cancelled[i] |= left < CANCELLED_RATIO * square[i]
            square[i] = left
    columns, count = np.empty(size, dtype=np.int64), 0
    for i in range(size):
        if cancelled[i]:
            columns[count] = i
            count += 1
    if count:
        for batch in range(len(starts)):
            _sum_residuals(
                values,
                order[starts[batch] : stops[batch]],
                vectors[starts[batch] : stops[batch]],
                begin,
                columns[:count],
                means[batch],
                weights,
                squares[batch],
            )


@compiled
def _explain(
    cross: FloatArray, products: FloatArray, weights: FloatArray, part: FloatArray, explained: FloatArray
) -> None:
    """Set the squares that the basis explains in one batch."""
    for i in range(len(explained)):
        explained[i] = 0.0
    for k in range(len(weights)):
        own, weight = cross[k], weights[k]
        for i in range(len(explained)):
            part[i] = 2.0 * own[i]
        for j in range(len(weights)):
            factor, other = products[k, j], weights[j]
            for i in range(len(explained)):
                part[i] -= factor * other[i]
        for i in range(len(explained)):
            explained[i] += part[i] * weight[i]


@compiled
def _sum_residuals(
    values: FloatArray,
    rows: IntArray,
    vectors: FloatArray,
    begin: int,
    columns: IntArray,
    means: FloatArray,
    weights: FloatArray,
    squares: FloatArray,
) -> None:
    """Set the squares of `columns`, counted from `begin`, to the sums of the squared residuals of one batch."""
    for column in columns:
        squares[begin + column] = 0.0
    for at in range(len(rows)):
        for column in columns:
            residual = values[rows[at], begin + column] - means[begin + column]
            for k in range(len(weights)):
                residual -= vectors[at, k] * weights[k, column]
            squares[begin + column] += residual * residual


@compiled
def _solve(
    back: FloatArray,
    batch_centres: FloatArray,
    weights: FloatArray,
    begin: int,
    end: int,
    coefficients: FloatArray,
    intercepts: FloatArray,
) -> None:
    """Set the coefficients and turn means into intercepts at the covariates' centre."""
    size = end - begin
    for column in range(len(back)):
        own = coefficients[column, begin:end]
        for i in range(size):
            own[i] = 0.0
        for k in range(len(weights)):
            factor, weight = back[column, k], weights[k, :size]
            for i in range(size):
                own[i] += factor * weight[i]
    for batch in range(len(intercepts)):
        intercept = intercepts[batch, begin:end]
        for column in range(len(back)):
            centre, own = batch_centres[batch, column], coefficients[column, begin:end]
            for i in range(size):
                intercept[i] -= centre * own[i]

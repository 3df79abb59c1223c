"""The one pass over the values, held against a plain least-squares solution of the whole design."""

from __future__ import annotations

import numpy as np
import pytest

from harmonization_app.algorithms.kernel import (
    BatchEffects,
    apply_affine,
    block_width,
    fit_statistics,
    group_rows,
)

SIZES = (30, 45, 21)


def _data(
    slope: float, features: int = 300, columns: int = 2, shuffled: bool = True, offset: float = 1_000.0
):
    random = np.random.default_rng(5)
    codes = np.repeat(np.arange(len(SIZES)), SIZES)
    if shuffled:
        codes = random.permutation(codes)
    covariates = random.normal(size=(len(codes), columns)) * 10 ** np.arange(columns) + codes[:, None]
    values = offset + random.normal(size=(len(codes), features))
    values += slope * covariates @ random.normal(size=(columns, features))
    return values, codes.astype(np.int64), covariates


def _plain(values, codes, covariates):
    """Return intercepts at the covariates' centre, coefficients per scaled column, and residual squares by batch."""
    scaled = (covariates - covariates.mean(axis=0)) / covariates.std(axis=0)
    design = np.hstack([np.eye(len(SIZES))[codes], scaled])
    weights = np.linalg.lstsq(design, values, rcond=None)[0]
    squares = (values - design @ weights) ** 2
    sums = np.stack([squares[codes == code].sum(axis=0) for code in range(len(SIZES))])
    return weights[: len(SIZES)], weights[len(SIZES) :], sums


@pytest.mark.parametrize("slope", [0.0, 0.3, 5.0, 1e3, 1e5])
@pytest.mark.parametrize("shuffled", [True, False])
def test_statistics_are_those_of_plain_least_squares(slope, shuffled) -> None:
    values, codes, covariates = _data(slope, shuffled=shuffled)

    found = fit_statistics(values, group_rows(codes, len(SIZES)), covariates)

    intercepts, coefficients, squares = _plain(values, codes, covariates)
    size = np.abs(values).max()
    assert np.abs(found.intercepts - intercepts).max() < 1e-13 * size
    assert np.abs(found.coefficients - coefficients).max() < 1e-13 * size
    # What least squares leaves over is known to rounding of the values themselves, at any slope.
    assert np.abs(found.residual_squares / squares - 1.0).max() < 1e-14 * max(size, 1e3)


def test_a_column_that_others_determine_takes_no_part_in_the_solution() -> None:
    values, codes, covariates = _data(0.3)
    doubled = np.hstack([covariates, covariates[:, :1] * 3.0 - 2.0])

    found = fit_statistics(values, group_rows(codes, len(SIZES)), doubled)

    _, _, squares = _plain(values, codes, covariates)
    assert np.abs(found.residual_squares / squares - 1.0).max() < 1e-10
    assert np.isfinite(found.coefficients).all()


def test_marks_of_constant_features() -> None:
    values, codes, covariates = _data(0.3, features=6)
    values[:, 1] = 4.0
    values[codes == 2, 2] = 5.0
    values[codes == 0, 3], values[codes == 1, 3], values[codes == 2, 3] = 1.0, 1.0, 2.0
    values[codes == 2, 4] = np.nan
    values[:, 5] = np.nan

    found = fit_statistics(values, group_rows(codes, len(SIZES)), covariates)

    assert found.uniform.tolist() == [False, True, False, False, False, False]
    assert found.constant.T.tolist()[1:4] == [[True] * 3, [False, False, True], [True] * 3]
    assert found.unusable.tolist() == [False, False, False, False, True, True]
    assert found.counts[:, 4].tolist() == [30.0, 45.0, 0.0]


def test_two_batches_of_one_scan_are_uniform_only_where_they_agree() -> None:
    values = np.array([[1.0, 1.0], [1.0, 2.0]])

    found = fit_statistics(values, group_rows(np.array([0, 1]), 2), np.empty((2, 0)))

    assert found.uniform.tolist() == [True, False]
    assert not found.constant.any()


@pytest.mark.parametrize("shuffled", [True, False])
def test_correction_is_the_formula_of_each_cell(shuffled) -> None:
    values, codes, covariates = _data(0.3, features=5_000, shuffled=shuffled, offset=0.0)
    random = np.random.default_rng(6)
    shape = (len(SIZES), values.shape[1])
    effects = BatchEffects(
        random.normal(size=shape),
        random.uniform(0.5, 2.0, shape),
        random.uniform(0.5, 2.0, shape[1]),
        random.normal(size=shape[1]),
        random.normal(size=(2, shape[1])),
    )

    found = apply_affine(values, group_rows(codes, len(SIZES)), covariates, effects)

    fitted = effects.grand_mean + covariates @ effects.coefficients
    expected = (values - fitted - (effects.shift * effects.deviation)[codes]) / np.sqrt(effects.scale)[
        codes
    ] + fitted
    assert np.abs(found - expected).max() < 1e-13 * np.abs(fitted).max()


def test_batch_without_shift_and_scale_comes_back_bit_for_bit() -> None:
    values, codes, covariates = _data(0.3)
    values[3, 4], values[5, 6] = np.nan, -0.0
    ones, zeros = np.ones((len(SIZES), 300)), np.zeros((len(SIZES), 300))
    effects = BatchEffects(zeros, ones, np.ones(300), np.full(300, 7.0), np.ones((2, 300)))

    found = apply_affine(values, group_rows(codes, len(SIZES)), covariates, effects)

    assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize(("largest", "width"), [(20, 1024), (200, 640), (5_000, 128)])
def test_chunks_are_narrower_for_larger_batches(largest, width) -> None:
    assert block_width(group_rows(np.zeros(largest, dtype=np.int64), 1)) == width

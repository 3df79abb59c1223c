"""The median, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from qc_app.metrics.order import median


@pytest.mark.parametrize("size", [1, 2, 3, 10, 11, 1000, 4097])
def test_median_equals_numpys_to_the_last_bit(size: int) -> None:
    generator = np.random.default_rng(size)
    spread = generator.normal(300.0, 90.0, size).astype(np.float32)
    repeated = (generator.integers(0, 7, size) * 1.37).astype(np.float32)
    for values in (spread, repeated, spread.reshape(1, -1)):
        assert median(values) == float(np.median(values))


def test_median_of_infinite_values_equals_numpys() -> None:
    values = np.array([1, np.inf, 3, np.inf], np.float32)
    assert median(values) == float(np.median(values)) == float("inf")


@pytest.mark.parametrize("values", [[], [1.0, np.nan, 3.0], [np.nan]])
def test_median_is_nan_without_a_value_or_with_one_that_is_nan(values: list[float]) -> None:
    assert np.isnan(median(np.array(values, np.float32)))


def test_median_leaves_its_argument_as_it_is() -> None:
    values = np.array([3, 1, 2], np.float32)
    assert median(values) == 2.0
    assert values.tolist() == [3, 1, 2]

"""The preview: window, inversion, aspect, layout, and nothing but pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from metrics_factories import make_series
from PIL import Image

from qc_app.metrics.pixels import load_series
from qc_app.metrics.preview import TILE_PX, render_preview


def _render(volume: np.ndarray, **attributes: object) -> np.ndarray:
    picture = Image.open(io.BytesIO(render_preview(load_series(make_series(volume, **attributes)))))
    assert (picture.format, picture.mode) == ("PNG", "L")
    assert picture.info == {}
    return np.asarray(picture)


def _flat(*levels: int) -> np.ndarray:
    return np.stack([np.full((32, 32), level, np.int16) for level in levels])


def _centre(mosaic: np.ndarray, tile: int) -> int:
    row, column = divmod(tile, 5)
    return int(mosaic[row * TILE_PX + TILE_PX // 2, column * TILE_PX + TILE_PX // 2])


@pytest.mark.parametrize("inverted", [False, True])
def test_the_linear_window_of_the_header_is_applied_in_hounsfield_units(inverted: bool) -> None:
    mosaic = _render(
        _flat(1024 - 1000, 1024 - 160, 1024 + 40, 1024 + 140, 1024 + 240), modality="CT",
        RescaleSlope="1", RescaleIntercept="-1024", WindowCenter="40", WindowWidth="400",
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
    )  # fmt: skip

    # PS3.3 C.11.2.1.2.1: y = ((x - (c - 0.5))/(w - 1) + 0.5) 255, clipped.
    expected = [0, 0, round((0.5 / 399 + 0.5) * 255), round((100.5 / 399 + 0.5) * 255), 255]
    if inverted:
        expected = [255 - grey for grey in expected]
    assert [_centre(mosaic, tile) for tile in range(5)] == expected


def test_without_a_window_percentiles_span_the_greys() -> None:
    volume = np.tile(np.arange(1000, dtype=np.int16).reshape(1, 25, 40), (3, 1, 1))

    mosaic = _render(volume)

    assert mosaic.min() == 0
    assert mosaic.max() == 255


def test_a_window_that_misses_the_values_is_not_used() -> None:
    volume = np.tile(np.arange(1024, dtype=np.int16).reshape(1, 32, 32), (2, 1, 1))

    assert np.array_equal(_render(volume), _render(volume, WindowCenter="90000", WindowWidth="10"))


def test_a_constant_image_renders() -> None:
    assert _render(_flat(7, 7)).max() == 0


def test_many_slices_become_twenty_tiles_from_first_to_last() -> None:
    volume = np.stack([np.full((16, 16), level, np.int16) for level in range(100)])

    mosaic = _render(volume, WindowCenter="50.5", WindowWidth="101")

    assert mosaic.shape == (4 * TILE_PX, 5 * TILE_PX)
    greys = [_centre(mosaic, tile) for tile in range(20)]
    assert greys == sorted(greys)
    assert greys[0] == 0
    assert greys[-1] == round(99 / 100 * 255)


def test_pixel_aspect_is_kept() -> None:
    volume = np.full((1, 64, 64), 100, np.int16)

    mosaic = _render(volume, PixelSpacing=[1.0, 2.0], WindowCenter="90", WindowWidth="30")

    lit = np.argwhere(mosaic > 0)
    height, width = lit.max(axis=0) - lit.min(axis=0) + 1
    assert (height, width) == (TILE_PX // 2, TILE_PX)


def test_the_picture_is_the_same_every_time() -> None:
    instances = make_series(np.random.default_rng(0).integers(0, 900, (6, 40, 40)).astype(np.uint16))

    assert render_preview(load_series(instances)) == render_preview(load_series(instances[::-1]))

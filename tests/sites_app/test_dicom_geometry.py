"""Slice geometry: gaps, duplicates, volumes and what cannot be judged."""

from __future__ import annotations

import math
import random

import pytest

from sites_app.dicom.geometry import Slice, normal_of, plane_of, slice_geometry

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def stack(*heights: float, volume: str = "") -> list[Slice]:
    return [Slice((-10.0, 5.0, height), AXIAL, volume) for height in heights]


def geometry(slices: list[Slice]):  # type: ignore[no-untyped-def]
    return slice_geometry(slices, len(slices))


def test_a_regular_stack_in_any_order() -> None:
    slices = stack(*(3.0 * index for index in range(20)))
    random.Random(1).shuffle(slices)

    found = geometry(slices)

    assert (found.evaluable, found.positions, found.frames, found.pitch_mm) == (True, 20, 20, 3.0)
    assert (found.gaps, found.missing_slices, found.duplicates, found.irregular) == ((), 0, 0, False)
    assert found.volumes == 1


def test_oblique_slices_are_measured_along_their_normal() -> None:
    angle = math.radians(30)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle))
    normal = (0.0, -math.sin(angle), math.cos(angle))
    slices = [Slice(tuple(2.5 * index * part + 7 for part in normal), orientation) for index in range(9)]

    assert geometry(slices).pitch_mm == 2.5


def test_a_missing_slice_is_a_gap_and_counted() -> None:
    found = geometry(stack(*(2.0 * index for index in range(12) if index not in (4, 8, 9))))

    assert found.gaps == ((3, 4.0), (6, 6.0))
    assert found.missing_slices == 3
    assert found.irregular is False


def test_one_displaced_slice_is_irregular() -> None:
    found = geometry(stack(0, 2, 4, 6.5, 8, 10))

    assert found.irregular is True
    assert found.missing_slices == 0


def test_rounding_of_positions_is_not_irregular() -> None:
    assert geometry(stack(0, 3.27, 6.5399, 9.81, 13.0801)).irregular is False


def test_volumes_at_the_same_positions() -> None:
    found = geometry([item for _ in range(5) for item in stack(0, 2, 4, 6)])

    assert (found.positions, found.volumes, found.frames) == (4, 5, 20)
    assert (found.missing_slices, found.duplicates) == (0, 0)


def test_a_slice_missing_in_one_volume() -> None:
    slices = stack(0, 2, 4, 6, volume="1") + stack(0, 2, 6, volume="2") + stack(0, 2, 4, 6, volume="3")

    found = geometry(slices)

    assert (found.volumes, found.missing_slices, found.duplicates) == (3, 1, 0)


def test_an_interrupted_last_volume_is_missing_and_not_duplicated() -> None:
    slices = stack(0, 2, 4, 6, 8, 10, 12, 14, volume="1") + stack(0, 2, volume="2")

    found = geometry(slices)

    assert (found.volumes, found.missing_slices, found.duplicates) == (2, 6, 0)


def test_slabs_with_their_own_labels_are_one_volume() -> None:
    found = geometry(stack(0, 2, 4, volume="1") + stack(6, 8, 10, volume="2"))

    assert (found.volumes, found.missing_slices, found.duplicates) == (1, 0, 0)


def test_a_duplicate_slice() -> None:
    found = geometry(stack(0, 2, 4, 4, 6))

    assert (found.duplicates, found.volumes, found.missing_slices) == (1, 1, 0)


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([], 3),
        (stack(0, 2), 3),
        ([Slice((0.0, 0.0, 0.0), ())], 1),
        ([Slice((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 1.0, 0.0, 0.0))], 1),
        ([*stack(0), Slice((0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0))], 2),
    ],
)
def test_what_has_no_common_geometry_is_not_evaluable(slices: list[Slice], expected: int) -> None:
    found = slice_geometry(slices, expected)

    assert found.evaluable is False
    assert found.reason
    assert found.pitch_mm is None


def test_a_single_slice_has_no_pitch() -> None:
    found = geometry(stack(5))

    assert (found.evaluable, found.positions, found.pitch_mm) == (True, 1, None)


def test_planes() -> None:
    assert plane_of(AXIAL) == "AXIAL"
    assert plane_of((0.0, 1.0, 0.0, 0.0, 0.0, -1.0)) == "SAGITTAL"
    assert plane_of((1.0, 0.0, 0.0, 0.0, 0.0, -1.0)) == "CORONAL"
    assert plane_of(()) == ""
    assert normal_of((1.0, 0.0)) is None

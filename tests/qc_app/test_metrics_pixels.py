"""Loading pixels: order, rescale, 4-D, padding, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest
from metrics_factories import make_dataset, make_series, to_bytes
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from qc_app.metrics.pixels import PixelsUnavailable, load_series


def _ramp(slices: int = 4, rows: int = 6, columns: int = 5) -> np.ndarray:
    return np.arange(slices * rows * columns, dtype=np.uint16).reshape(slices, rows, columns)


def test_slices_are_sorted_along_the_normal_whatever_the_instance_number() -> None:
    volume = _ramp()
    instances = [
        to_bytes(make_dataset(plane, number=10 - z, position=(0, 0, -3.0 * z)))
        for z, plane in enumerate(volume)
    ]

    pixels = load_series(instances)

    assert np.array_equal(pixels.values(), volume[::-1])
    assert pixels.geometry.positions_mm == (-9.0, -6.0, -3.0, 0.0)
    assert pixels.instance_of_frame == (3, 2, 1, 0)


def test_the_normal_and_not_z_orders_a_sagittal_stack() -> None:
    volume, sagittal = _ramp(3), [0, 1, 0, 0, 0, -1]
    instances = [
        to_bytes(make_dataset(plane, number=z + 1, position=(5.0 * z, 0, 0), ImageOrientationPatient=sagittal))
        for z, plane in enumerate(volume)
    ]  # fmt: skip

    pixels = load_series(instances)

    # (0,1,0) x (0,0,-1) = (-1,0,0): the slice with the largest x comes first.
    assert np.array_equal(pixels.values(), volume[::-1])
    assert pixels.geometry.pitch_mm == 5.0


def test_every_slice_uses_its_own_rescale() -> None:
    volume = _ramp(3)
    rescale = {z: {"RescaleSlope": str(z + 1.5), "RescaleIntercept": str(-z)} for z in range(3)}

    pixels = load_series(make_series(volume, per_slice=rescale))

    expected = volume * np.array([1.5, 2.5, 3.5])[:, None, None] - np.arange(3)[:, None, None]
    assert np.array_equal(pixels.values(), expected.astype(np.float32))
    assert pixels.extremes == (0.0, float(expected.max()))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_uncompressed_transfer_syntax_gives_the_same_pixels(syntax: str) -> None:
    volume = _ramp(1)
    swapped = volume[0].astype(">u2") if syntax == ExplicitVRBigEndian else volume[0]
    dataset = make_dataset(volume[0], syntax=syntax, RescaleSlope="2", RescaleIntercept="1")
    dataset.PixelData = swapped.tobytes()

    pixels = load_series([to_bytes(dataset)])

    assert np.array_equal(pixels.values(), volume * 2 + 1)


def test_twelve_stored_bits_are_sign_extended_and_foreign_bits_dropped() -> None:
    stored = np.array([[0x0FFF, 0x07FF], [0xF001, 0x0800]], dtype=np.uint16)
    dataset = make_dataset(stored, BitsStored=12, HighBit=11, PixelRepresentation=1)

    pixels = load_series([to_bytes(dataset)])

    assert pixels.values().tolist() == [[[-1.0, 2047.0], [1.0, -2048.0]]]


def test_volumes_over_time_are_separated() -> None:
    volume = _ramp(3)
    instances = [
        to_bytes(
            make_dataset(
                plane + np.uint16(1000 * t),
                number=3 * t + z + 1,
                position=(0, 0, z),
                TemporalPositionIdentifier=t + 1,
            )
        )
        for t in range(4)
        for z, plane in enumerate(volume)
    ]

    pixels = load_series(instances[::-1])

    assert (pixels.volume_count, pixels.slice_count) == (4, 3)
    assert pixels.complete_volumes == (0, 1, 2, 3)
    for t in range(4):
        assert np.array_equal(pixels.values(t), volume + 1000 * t)


def test_an_incomplete_volume_is_named_and_the_first_stays_whole() -> None:
    volume = _ramp(3)
    instances = [
        to_bytes(make_dataset(plane, number=3 * t + z + 1, position=(0, 0, z)))
        for t in range(3)
        for z, plane in enumerate(volume)
        if (t, z) != (2, 1)
    ]

    pixels = load_series(instances)

    assert pixels.complete_volumes == (0, 1)
    assert np.array_equal(pixels.values(0), volume)


def test_an_enhanced_multiframe_image_is_sorted_and_rescaled_per_frame() -> None:
    volume = _ramp(3)
    order = [2, 0, 1]
    dataset = make_dataset(
        volume[order], ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None
    )
    dataset.NumberOfFrames = 3
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = (
        Sequence([Dataset()]),
        Sequence([Dataset()]),
    )
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence[0].PixelSpacing = [2.0, 3.0]
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence()
    for z in order:
        item = Dataset()
        item.PlanePositionSequence, item.PixelValueTransformationSequence = (
            Sequence([Dataset()]),
            Sequence([Dataset()]),
        )
        item.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2.5 * z]
        item.PixelValueTransformationSequence[0].RescaleSlope = str(z + 1)
        item.PixelValueTransformationSequence[0].RescaleIntercept = "0"
        dataset.PerFrameFunctionalGroupsSequence.append(item)

    pixels = load_series([to_bytes(dataset)])

    assert np.array_equal(pixels.values(), volume * np.array([1, 2, 3])[:, None, None])
    assert pixels.geometry.positions_mm == (0.0, 2.5, 5.0)
    assert pixels.pixel_spacing_mm == (2.0, 3.0)


def test_gaps_and_repeats_are_found() -> None:
    volume = _ramp(8)
    instances = make_series(volume, spacing_mm=4.0)
    repeated = to_bytes(make_dataset(volume[5], number=99, position=(0, 0, 20.0)))

    pixels = load_series([*instances[:2], *instances[4:], repeated])

    assert pixels.geometry.missing_mm == (8.0, 12.0)
    assert pixels.geometry.duplicate_mm == (20.0,)
    assert pixels.slice_count == 6


def test_padding_is_known_in_stored_values() -> None:
    stored = np.array([[-2000, 5], [-1999, -2000]], dtype=np.int16)
    dataset = make_dataset(stored, modality="CT", RescaleSlope="1", RescaleIntercept="-1024")
    dataset.add_new(0x00280120, "SS", -2000)

    padded = load_series([to_bytes(dataset)]).padded()

    assert padded is not None
    assert padded.tolist() == [[[True, False], [False, True]]]


def test_monochrome1_is_mirrored_for_mr_and_kept_for_ct() -> None:
    stored = np.array([[10, 30], [20, 10]], dtype=np.uint16)

    mr = load_series([to_bytes(make_dataset(stored, PhotometricInterpretation="MONOCHROME1"))])
    ct = load_series([to_bytes(make_dataset(stored, modality="CT", PhotometricInterpretation="MONOCHROME1"))])

    assert mr.values().tolist() == [[[30.0, 10.0], [20.0, 30.0]]]
    assert ct.values().tolist() == [[[10.0, 30.0], [20.0, 10.0]]]


def test_slices_of_several_orientations_form_no_stack() -> None:
    axial = to_bytes(make_dataset(_ramp(1)[0]))
    sagittal = to_bytes(make_dataset(_ramp(1)[0], number=2, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]))

    problem = load_series([axial, sagittal]).geometry.problem

    assert problem is not None and "several orientations" in problem


def test_a_siemens_mosaic_forms_no_stack() -> None:
    mosaics = make_series(_ramp(3), ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])

    problem = load_series(mosaics).geometry.problem

    assert problem is not None and "mosaic" in problem


def test_frames_a_hundredth_of_a_millimetre_apart_share_a_position() -> None:
    volume = _ramp(4)
    places = [(1, 1.0049), (2, 4.0), (3, 1.0051), (4, 4.0)]
    instances = [
        to_bytes(
            make_dataset(
                plane, number=number, position=(0, 0, z), TemporalPositionIdentifier=1 + (number <= 2)
            )
        )
        for plane, (number, z) in zip(volume, places, strict=True)
    ]

    pixels = load_series(instances)

    assert np.array_equal(pixels.values(0), volume[[2, 3]])
    assert np.array_equal(pixels.values(1), volume[[0, 1]])


@pytest.mark.parametrize(
    ("code", "attributes"),
    [
        ("unsupported_pixels", {"SamplesPerPixel": 3}),
        ("unsupported_pixels", {"PhotometricInterpretation": "PALETTE COLOR"}),
        ("unsupported_pixels", {"Rows": None}),
        ("unsupported_pixels", {"BitsAllocated": 12}),
        ("unsupported_pixels", {"BitsStored": 17}),
        ("unsupported_pixels", {"NumberOfFrames": "0"}),
        ("wrong_length", {"Rows": 7}),
        ("too_large", {"Rows": 65535, "Columns": 65535}),
        ("bad_geometry", {"NumberOfFrames": "2"}),
        ("bad_geometry", {"ImagePositionPatient": [0, 0]}),
        ("bad_rescale", {"RescaleSlope": "0", "RescaleIntercept": "0"}),
        ("bad_rescale", {"RescaleSlope": "2"}),
        ("no_pixel_data", {"PixelData": None}),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_code(code: str, attributes: dict[str, object]) -> None:
    data = to_bytes(make_dataset(_ramp(1)[0], **attributes))

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([data])

    assert refused.value.code == code


@pytest.mark.parametrize("slope", [b"1e999", b"NaN  ", b"abc  "])
def test_a_rescale_that_is_no_finite_number_is_refused(slope: bytes) -> None:
    data = to_bytes(make_dataset(_ramp(1)[0], RescaleSlope="1.234", RescaleIntercept="0"))
    data = data.replace(b"1.234 ", slope.ljust(6))

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([data])

    assert refused.value.code == "bad_rescale"


def test_a_file_cut_inside_its_pixels_is_refused() -> None:
    data = to_bytes(make_dataset(_ramp(1)[0]))

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([data[:-10]])

    assert refused.value.code == "truncated"
    assert "50 of 60 bytes" in refused.value.detail


@pytest.mark.parametrize(
    "data", [b"", b"x" * 400, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 300]
)
def test_what_is_no_dicom_is_refused(data: bytes) -> None:
    with pytest.raises(PixelsUnavailable) as refused:
        load_series([data])

    assert refused.value.code in ("unreadable", "no_pixel_data", "unsupported_pixels")


def test_instances_that_do_not_belong_together_are_refused() -> None:
    first = to_bytes(make_dataset(_ramp(1)[0]))
    other_matrix = to_bytes(make_dataset(_ramp(1, 8)[0], number=2, position=(0, 0, 3)))
    other_modality = to_bytes(make_dataset(_ramp(1)[0], modality="CT", number=2, position=(0, 0, 3)))

    with pytest.raises(PixelsUnavailable) as matrix:
        load_series([first, other_matrix])
    with pytest.raises(PixelsUnavailable) as modality:
        load_series([first, other_modality])
    with pytest.raises(PixelsUnavailable) as nothing:
        load_series([])

    assert (matrix.value.code, modality.value.code, nothing.value.code) == (
        "mixed_matrix", "mixed_modality", "no_instances",
    )  # fmt: skip


def test_memoryviews_are_accepted() -> None:
    volume = _ramp(2)

    pixels = load_series([memoryview(data) for data in make_series(volume)])

    assert np.array_equal(pixels.values(), volume)

"""Simulated series are valid, deterministic and full of planted identifiers."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pydicom
import pytest

from hub.demo import phantom, simulator
from hub.demo.encoding import encode_element, make_uid
from hub.demo.identifiers import PLANTED_MARK
from hub.demo.phantom import ScannerEffect
from hub.demo.simulator import Changes

MAKERS = {
    "mr": simulator.simulate_mr,
    "enhanced": simulator.simulate_enhanced_mr,
    "ct": simulator.simulate_ct,
    "pet": simulator.simulate_pet,
    "capture": simulator.simulate_secondary_capture,
}


def read(file: simulator.SimulatedFile) -> pydicom.Dataset:
    """Read a file with every warning an error, and every element converted."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = pydicom.dcmread(io.BytesIO(file.data))
        list(dataset.iterall())
    return dataset


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_is_read_by_pydicom_without_a_warning(kind):
    series = MAKERS[kind]()

    for file in series.files:
        dataset = read(file)
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == file.sop_instance_uid
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID
        assert dataset.SeriesInstanceUID == series.series_uid
        assert dataset.Modality == series.modality
        frames = int(dataset.get("NumberOfFrames", 1))
        assert len(dataset.PixelData) == 2 * frames * dataset.Rows * dataset.Columns


@pytest.mark.parametrize("kind", MAKERS)
def test_elements_are_in_order_of_their_tags(kind):
    dataset = read(MAKERS[kind]().files[0])

    tags = list(dataset.keys())

    assert tags == sorted(tags)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_arguments_give_the_same_bytes(kind):
    first, second, other = MAKERS[kind](seed=3), MAKERS[kind](seed=3), MAKERS[kind](seed=4)

    assert [file.data for file in first.files] == [file.data for file in second.files]
    assert first.files[0].data != other.files[0].data


def test_a_classic_header_is_as_long_as_a_scanner_writes_it():
    assert len(read(simulator.simulate_mr().files[0])) >= 90


@pytest.mark.parametrize("kind", MAKERS)
def test_identifiers_are_planted_in_every_file(kind):
    series = MAKERS[kind]()
    acquisition = simulator.default_acquisition(0)

    for file in series.files:
        assert all(text.encode() in file.data for text in acquisition.identity.texts())
    assert all(PLANTED_MARK in text for text in acquisition.identity.texts())


def test_planted_identifiers_do_not_hold_the_subject_code():
    from hub.demo.cohort import subjects

    for person in subjects():
        assert not any(person.code in text or person.site in text for text in person.identity.texts())


def test_noise_in_air_is_that_of_the_scanner():
    effect = ScannerEffect(gain=1.2, noise=25.0, bias=0.1)

    series = simulator.simulate_mr(slices=8, rows=128, columns=128, effect=effect)

    corners = np.stack([read(file).pixel_array[:12, :12] for file in series.files]).astype(float)
    # Rayleigh: the mean of magnitude noise is sqrt(pi/2) sigma.
    assert corners.mean() == pytest.approx(1.2533 * 30.0, rel=0.03)
    assert corners.std() == pytest.approx(0.6551 * 30.0, rel=0.05)


def test_ct_numbers_of_water_and_air():
    series = simulator.simulate_ct(slices=2, water=True, effect=ScannerEffect(1.0, 5.0))

    dataset = read(series.files[0])
    hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    assert hu[56:72, 56:72].mean() == pytest.approx(0.0, abs=1.5)
    assert hu[56:72, 56:72].std() == pytest.approx(5.0, rel=0.2)
    assert hu[:10, :10].mean() == pytest.approx(-1000.0, abs=1.0)


def test_pet_gives_back_the_uptake_of_the_phantom():
    series = simulator.simulate_pet(noise=0.0, dose_bq=3.0e8, uptake_minutes=60)

    labels = phantom.head_labels(16, 64, 64)
    wanted = phantom.pet_volume(labels, 0.0, np.random.default_rng(0))[8]
    dataset = read(series.files[8])
    activity = dataset.pixel_array * float(dataset.RescaleSlope)
    information = dataset.RadiopharmaceuticalInformationSequence[0]
    decayed = float(information.RadionuclideTotalDose) * 2 ** (
        -3600 / float(information.RadionuclideHalfLife)
    )
    suv = activity * float(dataset.PatientWeight) * 1000 / decayed
    assert np.abs(suv - wanted).max() < 1e-3
    assert wanted.max() > 3.0
    assert len({read(file).RescaleSlope for file in series.files}) > 1


def test_slices_lie_one_pitch_apart_and_a_dropped_one_leaves_a_gap():
    series = simulator.simulate_mr(slices=6, changes=Changes(dropped=(2,)))

    heights = [float(read(file).ImagePositionPatient[2]) for file in series.files]

    assert np.diff(heights).tolist() == pytest.approx([5.0, 10.0, 5.0, 5.0])


def test_changes_reach_the_slices_they_name():
    changes = Changes(values={"EchoTime": 7.5}, at={1: {"FlipAngle": 30.0}}, removed=("InversionTime",))

    series = simulator.simulate_mr(slices=3, changes=changes)

    datasets = [read(file) for file in series.files]
    assert [float(item.EchoTime) for item in datasets] == [7.5, 7.5, 7.5]
    assert [float(item.FlipAngle) for item in datasets] == [9.0, 30.0, 9.0]
    assert not any("InversionTime" in item for item in datasets)


def test_enhanced_frames_hold_their_own_positions_and_shared_parameters():
    changes = Changes(values={"RepetitionTime": 2000.0}, removed=("InversionTime",), dropped=(3,))

    dataset = read(simulator.simulate_enhanced_mr(slices=5, changes=changes).files[0])

    shared = dataset.SharedFunctionalGroupsSequence[0]
    heights = [
        float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert dataset.NumberOfFrames == 4
    assert heights == [-10.0, -5.0, 0.0, 10.0]
    assert shared.MRTimingAndRelatedParametersSequence[0].RepetitionTime == 2000.0
    assert "InversionTimes" not in shared.MRModifierSequence[0]


def test_uids_are_valid_and_differ():
    uids = {make_uid("series", number) for number in range(200)}

    assert len(uids) == 200
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)


def test_an_unknown_keyword_is_named():
    with pytest.raises(ValueError, match="NoSuchKeyword"):
        encode_element("NoSuchKeyword", 1)


def test_a_value_too_long_for_its_vr_is_refused():
    with pytest.raises(ValueError, match="65,535"):
        encode_element("PatientName", "x" * 70_000)

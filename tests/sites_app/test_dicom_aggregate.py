"""A series' observation: every instance counts, in any order and over any number of uploads."""

from __future__ import annotations

import json
import random

import pytest
from dicom_files import KEY, PET_IMAGE, enhanced_dataset, item, mr_dataset, mr_file, part10

from sites_app.deid.engine import Deidentifier
from sites_app.deid.profile import DEFAULT_PROFILE
from sites_app.dicom.aggregate import aggregate
from sites_app.dicom.columns import facts_from_columns, facts_to_columns
from sites_app.dicom.observations import InstanceFacts, SeriesObservation


def facts(*files: bytes) -> list[InstanceFacts]:
    engine = Deidentifier(DEFAULT_PROFILE, KEY, "S-1", -10, "T")
    return [engine.process(data).facts for data in files]


def stack(count: int = 10) -> list[InstanceFacts]:
    return facts(*(mr_file(number) for number in range(1, count + 1)))


def test_a_constant_parameter_has_one_value_for_all() -> None:
    observed = aggregate(stack()).parameters["RepetitionTime"]

    assert [(item.value, item.count) for item in observed.values] == [(2300.0, 10)]
    assert len(observed.values[0].instances) == 5
    assert (observed.unit, observed.source) == ("ms", "(0018,0080)")
    assert (observed.missing, observed.unparsable) == (0, 0)


def test_one_odd_instance_is_named() -> None:
    files = [mr_file(number, EchoTime="3.5" if number == 7 else "2.98") for number in range(1, 11)]
    instances = facts(*files)

    observation = aggregate(instances)

    observed = observation.parameters["EchoTime"]
    assert [(item.value, item.count) for item in observed.values] == [(2.98, 9), (3.5, 1)]
    assert observed.values[1].instances == (instances[6].sop_instance_uid,)
    assert observation.value("EchoTime") is None


def test_missing_and_unparsable_are_counted_apart() -> None:
    bad = mr_file(2).replace(b"2300", b"abcd")

    observed = aggregate(facts(mr_file(1), bad, mr_file(3, RepetitionTime=None))).parameters["RepetitionTime"]

    assert (observed.values[0].count, observed.missing, observed.unparsable) == (1, 1, 1)


def test_the_order_and_the_number_of_uploads_do_not_matter() -> None:
    instances = stack()
    shuffled = random.Random(3).sample(instances, len(instances))
    merged = facts_from_columns(facts_to_columns(shuffled[:4])) + facts_from_columns(
        facts_to_columns(shuffled[4:] + shuffled[:1])
    )

    assert aggregate(merged) == aggregate(instances)


def test_columns_give_back_exactly_what_they_were_given() -> None:
    instances = [*stack(3), *facts(part10(enhanced_dataset((2.4, 4.8))), mr_file(9, RepetitionTime=None))]
    instances.append(
        InstanceFacts("c", "u", "s", "t", "MR", "x", None, None, None, 1, {"a": 1, "b": True, "c": 1.0})
    )
    instances.append(
        InstanceFacts("c", "v", "s", "t", "MR", "x", 1, 2, 3, 1, {"a": 1.0, "b": 1, "c": (1, 1.0)})
    )

    document = json.loads(json.dumps(facts_to_columns(instances)))
    restored = facts_from_columns(document)

    assert restored == instances
    assert [type(value) for value in restored[-1].parameters.values()] == [float, int, tuple]
    assert [type(value) for value in restored[-2].parameters.values()] == [int, bool, float]
    assert facts_from_columns(facts_to_columns([])) == []
    with pytest.raises(ValueError):
        facts_from_columns({"format": 99})


def test_columns_of_a_long_series_are_small() -> None:
    instances = stack(200)

    assert len(json.dumps(facts_to_columns(instances))) < 100 * len(instances) + 10_000


def test_an_observation_survives_json() -> None:
    observation = aggregate(stack())

    assert SeriesObservation.from_json(json.loads(json.dumps(observation.to_json()))) == observation


def test_derived_parameters_of_a_stack() -> None:
    observation = aggregate(stack())

    assert observation.value("VoxelSize") == (1.0, 1.0, 3.0)
    assert observation.value("SlicePitch") == 3.0
    assert observation.value("NumberOfPositions") == 10
    assert observation.value("NumberOfInstances") == 10
    assert observation.value("SlabCoverage") == 30.0
    assert observation.value("FieldOfView") == (8.0, 8.0)
    assert observation.value("PlaneOrientation") == "AXIAL"
    assert observation.value("MissingSlices") == 0


def test_a_derived_parameter_without_its_inputs_is_missing() -> None:
    observation = aggregate(facts(mr_file(1), mr_file(2, ImagePositionPatient=None)))

    assert observation.geometry.evaluable is False
    assert observation.value("SlicePitch") is None
    assert observation.parameters["SlicePitch"].missing == 2
    assert observation.parameters["SlicePitch"].values == ()


def test_frames_of_an_enhanced_object_are_its_slices() -> None:
    observation = aggregate(facts(part10(enhanced_dataset((2.4, 4.8), positions=6))))

    assert (observation.instances, observation.frames) == (1, 12)
    assert (observation.geometry.positions, observation.geometry.volumes) == (6, 2)
    assert observation.value("SlicePitch") == 5.0
    assert observation.value("RepetitionTime") == 1800.0
    assert observation.value("EchoTime") is None
    assert [(entry.value, entry.count) for entry in observation.parameters["EchoTime"].values] == [
        (2.4, 6),
        (4.8, 6),
    ]


def test_a_mosaic_is_not_taken_for_a_slice() -> None:
    source = mr_dataset(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], SpacingBetweenSlices="3.6")
    source.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    source.add_new(0x0019100A, "US", 4)
    source.add_new(0x00191028, "FD", 20.0)

    observation = aggregate(facts(part10(source)))

    assert observation.geometry.evaluable is False
    assert observation.value("NumberOfPositions") == 4
    assert observation.value("FieldOfView") == (4.0, 4.0)
    assert observation.value("VoxelSize") == (1.0, 1.0, 3.6)
    assert observation.value("EffectiveEchoSpacing") == 1 / (20.0 * 4)


def test_uptake_time_across_midnight_and_activity_per_weight() -> None:
    source = mr_dataset(
        Modality="PT", SOPClassUID=PET_IMAGE, AcquisitionDateTime=None, AcquisitionTime="003000", Units="BQML"
    )
    source.RadiopharmaceuticalInformationSequence = item(
        RadiopharmaceuticalStartTime="233000", RadionuclideTotalDose="143000000"
    )

    observation = aggregate(facts(part10(source)))

    assert observation.value("UptakeTime") == 60.0
    assert observation.value("InjectedActivityPerWeight") == 2.0


def test_activity_in_megabecquerel_is_not_used() -> None:
    source = mr_dataset(Modality="PT", SOPClassUID=PET_IMAGE)
    source.RadiopharmaceuticalInformationSequence = item(RadionuclideTotalDose="143")

    assert aggregate(facts(part10(source))).value("InjectedActivityPerWeight") is None


def test_instances_of_two_series_are_refused() -> None:
    with pytest.raises(ValueError):
        aggregate(facts(mr_file(1), mr_file(2, SeriesInstanceUID="1.2.3")))
    with pytest.raises(ValueError):
        aggregate([])

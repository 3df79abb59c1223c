"""Reading what was received, and the scanners it came from."""

from __future__ import annotations

import io
import zipfile

import pytest
from pydicom import dcmread

from hub.core.audit.models import AuditEvent
from hub.core.events import subscribe
from hub.demo.headers import Equipment
from hub.demo.simulator import Changes, default_acquisition, simulate_ct, simulate_mr
from sites_app.dicom.archive import iterate_zip
from sites_app.events import ScannerChanged
from sites_app.ingest.pseudonyms import OFFSET_RANGE_DAYS, date_offset_days, trial_key
from sites_app.models import Instance, Scanner, ScannerEpoch, Series
from tests.factories.dicom_files import zipped
from tests.factories.sites_app import SubjectFactory, TrialFactory

pytestmark = pytest.mark.django_db

SMALL = {"slices": 3, "rows": 16, "columns": 16}


def received(receiving, files, **changes):  # type: ignore[no-untyped-def]
    submission = receiving.open(**changes)
    receiving.send(submission, zipped(files), "application/zip")
    receiving.complete(submission)
    receiving.work()
    assert receiving.read(submission)["state"] == "accepted"
    return submission


def get(receiving, path):  # type: ignore[no-untyped-def]
    answer = receiving.client.get(f"/api/v1/{path}")
    assert answer.status_code == 200, answer.content
    return answer


def test_lists_are_filtered_by_what_people_ask_for(receiving):
    mr = received(receiving, simulate_mr(**SMALL).files)
    other = SubjectFactory(site=receiving.site)
    received(
        receiving,
        simulate_ct(slices=2, rows=16, columns=16, seed=9).files,
        subject=other.code,
        visit=receiving.definition.code,
    )

    def modalities(query):  # type: ignore[no-untyped-def]
        return sorted(row["modality"] for row in get(receiving, f"series/?{query}").json()["results"])

    assert modalities("") == ["CT", "MR"]
    assert modalities(f"submission={mr}") == ["MR"]
    assert modalities(f"subject={other.pk}") == ["CT"]
    assert modalities("modality=MR") == ["MR"]
    assert modalities("state=checked") == []
    assert modalities(f"visit={receiving.visit.pk}&site={receiving.site.pk}") == ["MR"]
    assert receiving.client.get("/api/v1/series/?colour=red").status_code == 400
    assert len(get(receiving, "studies/").json()["results"]) == 2
    assert len(get(receiving, "instances/?limit=100").json()["results"]) == 5
    states = get(receiving, "submissions/?state=accepted&ordering=-created_at").json()["results"]
    assert [row["subject_code"] for row in states] == [other.code, receiving.subject.code]


def test_parameters_come_with_value_unit_and_source(receiving):
    received(receiving, simulate_mr(**SMALL, parameters=None).files)
    series = Series.objects.get()

    found = {row["keyword"]: row for row in get(receiving, f"series/{series.pk}/parameters/").json()}

    echo = found["EchoTime"]
    assert (echo["unit"], echo["source"], echo["missing"], echo["unparsable"]) == ("ms", "(0018,0081)", 0, 0)
    assert [(value["value"], value["count"]) for value in echo["values"]] == [(2.98, 3)]


def test_an_archive_holds_the_deidentified_instances(receiving):
    simulated = simulate_mr(**SMALL)
    received(receiving, simulated.files)
    series = Series.objects.get()

    answer = get(receiving, f"series/{series.pk}/archive/")

    content = b"".join(answer.streaming_content)
    members = list(iterate_zip(io.BytesIO(content)))
    assert answer["Content-Type"] == "application/zip"
    assert [member.name for member in members] == ["IM00001.dcm", "IM00002.dcm", "IM00003.dcm"]
    assert {info.compress_type for info in zipfile.ZipFile(io.BytesIO(content)).infolist()} == {
        zipfile.ZIP_STORED
    }
    datasets = [dcmread(io.BytesIO(member.data)) for member in members]
    stored = Instance.objects.order_by("instance_number")
    assert [item.SOPInstanceUID for item in datasets] == [row.sop_instance_uid for row in stored]
    assert {str(item.PatientID) for item in datasets} == {receiving.subject.code}
    assert datasets[0].pixel_array.shape == (16, 16)
    assert AuditEvent.objects.filter(action="series.downloaded").count() == 1
    header = {"HTTP_ACCEPT": "application/zip"}
    assert receiving.client.get(f"/api/v1/series/{series.pk}/archive/", **header).status_code == 200


def test_a_scanner_is_known_by_maker_and_serial_number(receiving):
    received(receiving, simulate_mr(**SMALL).files)

    scanner, series = Scanner.objects.get(), Series.objects.get()
    assert (series.scanner, series.scanner_epoch.number) == (scanner, 1)
    assert scanner.is_declared is False and scanner.modality == "MR"


def test_a_new_software_version_begins_an_epoch_and_is_announced_once(receiving):
    events = []
    subscribe(ScannerChanged, events.append)
    versions = ("VE11C", "XA30", "VE11C", "XA30")
    for seed, version in enumerate(versions):
        subject = SubjectFactory(site=receiving.site)
        equipment = Equipment("SIEMENS", "Prisma", "4711", version)
        files = simulate_mr(**SMALL, seed=seed, equipment=equipment).files
        received(receiving, files, subject=subject.code, visit=receiving.definition.code)

    first, second = ScannerEpoch.objects.order_by("number")
    mine = [event for event in events if event.scanner_id == first.scanner_id]
    assert (first.software_versions, second.software_versions) == ("VE11C", "XA30")
    assert [(event.previous_epoch_id, event.epoch_id) for event in mine] == [(first.pk, second.pk)]
    assert list(Series.objects.order_by("received_at").values_list("scanner_epoch__number", flat=True)) == [
        1,
        2,
        1,
        2,
    ]


@pytest.mark.parametrize("missing", ["DeviceSerialNumber", "Manufacturer"])
def test_a_series_that_does_not_name_its_scanner_has_none(receiving, missing):
    received(receiving, simulate_mr(**SMALL, changes=Changes(removed=(missing,))).files)

    series = Series.objects.get()
    assert (series.scanner, series.scanner_epoch) == (None, None)
    assert not Scanner.objects.exists()


def test_a_series_without_software_version_has_a_scanner_but_no_epoch(receiving):
    received(receiving, simulate_mr(**SMALL, changes=Changes(removed=("SoftwareVersions",))).files)

    series = Series.objects.get()
    assert series.scanner is not None and series.scanner_epoch is None


def test_dates_move_by_the_subjects_own_offset(receiving):
    received(receiving, simulate_mr(**SMALL).files)

    taken = default_acquisition(0).taken.date()
    offset = date_offset_days(receiving.subject.pk)
    assert OFFSET_RANGE_DAYS[0] <= offset <= OFFSET_RANGE_DAYS[1]
    assert (Series.objects.get().acquired_on - taken).days == offset


def test_keys_differ_between_trials_and_do_not_change(receiving):
    assert trial_key(receiving.trial.pk) == trial_key(receiving.trial.pk)
    assert trial_key(receiving.trial.pk) != trial_key(TrialFactory().pk)
    assert len(trial_key(receiving.trial.pk)) == 32

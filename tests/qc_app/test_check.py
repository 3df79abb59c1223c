"""Checking series and visits, end to end at the level of services."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict
from hub.core.events import publish
from hub.core.jobs.models import Job
from hub.core.storage.blobs import get_blob
from qc_app import tasks
from qc_app.models import (
    ChangeEvent,
    Deviation,
    DeviationState,
    MetricValue,
    Protocol,
    Query,
    QueryState,
    SeriesCheck,
    VisitCheck,
)
from qc_app.protocol.schema import parse_protocol
from qc_app.services import check as check_service
from qc_app.services.check import check_series, check_visit
from sites_app.events import ScannerChanged, SeriesReceived, SubmissionFinished
from sites_app.models import LockState, Series, SeriesState, Submission, SubmissionState, Trial
from tests.factories.qc_app import ProtocolFactory, protocol_document
from tests.factories.sites_app import (
    ScannerEpochFactory,
    ScannerFactory,
    SubmissionFactory,
    VisitDefinitionFactory,
    VisitFactory,
)


def current_check(series: Series) -> SeriesCheck:
    return SeriesCheck.objects.get(series=series, is_current=True)


def test_a_compliant_series_is_checked_with_metrics_and_preview(world):
    series = world.check(pixels=True)

    check = current_check(series)
    assert series.state == SeriesState.CHECKED
    assert check.protocol_outcome == "compliant"
    assert check.expected_key == "t1"
    assert check.protocol_digest == world.protocol.digest
    assert {verdict["rule"]: verdict["outcome"] for verdict in check.verdicts}["tr"] == "compliant"
    assert check.verdicts[0]["protocol"] == {
        "id": str(world.protocol.pk), "version": 1, "digest": world.protocol.digest,
    }  # fmt: skip
    assert get_blob(check.preview_digest).startswith(b"\x89PNG")
    assert MetricValue.objects.get(series=series, name="slice_count").value == 20
    assert check.qc_outcome in {"pass", "warn"}
    assert not Deviation.objects.exists()


def test_a_deviant_series_has_deviations_and_queries_by_severity(world):
    series = world.check(RepetitionTime=2400.0, PixelBandwidth=100.0)

    found = {row.rule: row for row in Deviation.objects.filter(series=series)}
    assert set(found) == {"tr", "bandwidth"}
    assert found["tr"].kind == "deviant"
    assert found["tr"].important
    assert found["tr"].verdict["observed"] == 2400.0
    assert not found["bandwidth"].important
    assert [query.deviation.rule for query in Query.objects.all()] == ["tr"]
    assert current_check(series).worst_severity == "critical"


def test_a_missing_value_is_not_evaluable_and_a_deviation(world):
    series = world.check(FlipAngle=None)

    assert current_check(series).protocol_outcome == "not_evaluable"
    assert Deviation.objects.get(series=series).kind == "not_evaluable"


def test_a_series_that_matches_nothing_is_named_and_not_evaluable(world):
    series = world.check(EchoTime=40.0)

    check = current_check(series)
    assert check.protocol_outcome == "not_evaluable"
    assert check.match["code"] == "no_match"
    deviation = Deviation.objects.get(series=series)
    assert (deviation.rule, deviation.severity) == ("series_not_expected", "minor")


def test_without_a_locked_protocol_nothing_is_compliant(make_world):
    world = make_world(locked=False)

    series = world.check(pixels=True)

    check = current_check(series)
    assert check.protocol_outcome == "not_evaluable"
    assert check.match["code"] == "no_protocol"
    assert check.qc_outcome == "not_evaluable"
    assert check.qc_reason == "The trial has no locked QC profile to judge by."
    assert {metric["outcome"] for metric in check.metrics} == {"not_evaluable"}
    assert check.metrics


def test_unreadable_pixels_leave_the_protocol_verdicts(world):
    series = world.check()

    check = current_check(series)
    assert check.protocol_outcome == "compliant"
    assert check.qc_outcome == "not_evaluable"
    assert check.qc_reason == "The series has no instances."


def test_checking_twice_changes_nothing(world):
    series = world.check(RepetitionTime=2400.0)

    check_series(series_id=series.pk)

    assert SeriesCheck.objects.count() == 1
    assert Deviation.objects.count() == 1
    assert Query.objects.count() == 1
    assert AuditEvent.objects.filter(action="series.checked").count() == 1


def test_a_series_that_grew_is_checked_again_and_its_findings_close(world):
    series = world.check(RepetitionTime=2400.0)
    good = world.receive().observation
    Series.objects.filter(pk=series.pk).update(state=SeriesState.RECEIVED, observation=good)

    check_series(series_id=series.pk)

    deviation = Deviation.objects.get(rule="tr")
    assert deviation.state == DeviationState.RESOLVED
    assert deviation.resolved_by_series is None
    assert Query.objects.get().state == QueryState.CLOSED
    assert SeriesCheck.objects.filter(series=series).count() == 2
    assert SeriesCheck.objects.filter(series=series, is_current=True).count() == 1


def test_a_compliant_series_resolves_the_deviations_of_the_one_it_replaces(world):
    deviant = world.check(RepetitionTime=2400.0)

    better = world.check(minutes=5)

    deviation = Deviation.objects.get(rule="tr")
    assert deviation.state == DeviationState.RESOLVED
    assert deviation.resolved_by_series == better
    assert current_check(deviant).replaced_by == better
    assert Query.objects.get().state == QueryState.CLOSED
    visit = VisitCheck.objects.get(visit=world.visit)
    assert visit.protocol_outcome == "compliant"


def test_an_earlier_compliant_series_replaces_nothing(world):
    world.check()

    world.check(minutes=5, RepetitionTime=2400.0)

    assert Deviation.objects.get(rule="tr").state == DeviationState.OPEN
    assert Deviation.objects.get(rule="visit.t1").verdict["observed"] == 2


def test_a_system_query_that_was_answered_stays_open_when_the_deviation_resolves(world):
    world.check(RepetitionTime=2400.0)
    Query.objects.update(state=QueryState.ANSWERED)

    world.check(minutes=5)

    assert Deviation.objects.get(rule="tr").state == DeviationState.RESOLVED
    assert Query.objects.get().state == QueryState.ANSWERED


def test_a_missing_series_is_a_deviation_only_once_a_submission_is_finished(world):
    submission = SubmissionFactory(visit=world.visit, state=SubmissionState.OPEN, profile__trial=world.trial)
    check_visit(visit_id=world.visit.pk)
    assert not Deviation.objects.exists()

    Submission.objects.filter(pk=submission.pk).update(state=SubmissionState.ACCEPTED)
    check_visit(visit_id=world.visit.pk)
    check_visit(visit_id=world.visit.pk)

    deviation = Deviation.objects.get()
    assert (deviation.rule, deviation.series, deviation.state) == ("visit.t1", None, "open")


def test_a_missing_series_that_arrives_resolves_its_deviation(world):
    SubmissionFactory(visit=world.visit, state=SubmissionState.ACCEPTED, profile__trial=world.trial)
    check_visit(visit_id=world.visit.pk)

    world.check()

    assert Deviation.objects.get(rule="visit.t1").state == DeviationState.RESOLVED
    assert Query.objects.get().state == QueryState.CLOSED
    assert VisitCheck.objects.get().protocol_outcome == "compliant"


def test_a_visit_waits_until_all_its_series_are_checked(world):
    world.receive()

    check_visit(visit_id=world.visit.pk)

    assert not VisitCheck.objects.exists()


def test_a_visit_outside_its_window_deviates_and_one_inside_does_not(world):
    world.check()
    definition = VisitDefinitionFactory(
        trial=world.trial,
        code="month-12",
        position=1,
        target_day=365,
        window_before_days=14,
        window_after_days=14,
    )
    late = VisitFactory(
        subject=world.visit.subject,
        definition=definition,
        performed_on=world.visit.performed_on + timedelta(days=380),
    )

    world.check(visit=late)

    deviation = Deviation.objects.get()
    assert (deviation.rule, deviation.verdict["observed"], deviation.severity) == (
        "visit_window",
        380,
        "minor",
    )
    late.performed_on = world.visit.performed_on + timedelta(days=379)
    late.save()
    check_visit(visit_id=late.pk)
    deviation.refresh_from_db()
    assert deviation.state == DeviationState.RESOLVED


def test_a_visit_without_a_first_visit_has_no_day(world):
    definition = VisitDefinitionFactory(trial=world.trial, code="month-12", position=1, target_day=365)
    world.visit.performed_on = None
    world.visit.save()
    late = VisitFactory(
        subject=world.visit.subject, definition=definition, performed_on=timezone.now().date()
    )

    world.check(visit=late)

    check = VisitCheck.objects.get(visit=late)
    assert check.protocol_outcome == "not_evaluable"
    assert not Deviation.objects.exists()


def test_the_sweeper_brings_back_a_series_without_a_job_once(world):
    series = world.receive()

    assert tasks.sweep_unchecked_series() == 1
    assert tasks.sweep_unchecked_series() == 0

    assert Job.objects.get(kind=tasks.CHECK_SERIES).key == str(series.pk)


def test_the_task_runs_twice_without_harm(world):
    series = world.receive(RepetitionTime=2400.0)

    tasks.check_series(None, series_id=str(series.pk))
    tasks.check_series(None, series_id=str(series.pk))
    tasks.check_visit(None, visit_id=str(world.visit.pk))
    tasks.check_visit(None, visit_id=str(world.visit.pk))

    assert SeriesCheck.objects.count() == 1
    assert VisitCheck.objects.count() == 1
    assert AuditEvent.objects.filter(action="visit.checked").count() == 1


def test_a_failed_job_leaves_the_series_failed_with_the_reason(world):
    series = world.receive()

    tasks._series_failed({"series_id": str(series.pk)}, "Given up after 3 attempts.")

    series.refresh_from_db()
    assert (series.state, series.reason) == ("failed", "Given up after 3 attempts.")
    assert Deviation.objects.get().rule == "visit.t1"


def test_a_series_that_grows_during_the_check_is_judged_anew(world, monkeypatch):
    series = world.receive()
    deviant = world.receive(RepetitionTime=2400.0).observation
    measure = check_service._measure
    rounds = []

    def grow_once(claimed, profile, expected_key):
        rounds.append(claimed.instance_count)
        if len(rounds) == 1:
            Series.objects.filter(pk=series.pk).update(
                state=SeriesState.RECEIVED, instance_count=2, observation=deviant
            )
        return measure(claimed, profile, expected_key)

    monkeypatch.setattr(check_service, "_measure", grow_once)

    check_series(series_id=series.pk)

    assert rounds == [1, 2]
    assert SeriesCheck.objects.get(series=series).protocol_outcome == "deviant"


def test_a_series_that_keeps_growing_is_given_back(world, monkeypatch):
    series = world.receive()
    measure = check_service._measure

    def grow(claimed, profile, expected_key):
        Series.objects.filter(pk=series.pk).update(state=SeriesState.RECEIVED)
        return measure(claimed, profile, expected_key)

    monkeypatch.setattr(check_service, "_measure", grow)

    with pytest.raises(Conflict):
        check_series(series_id=series.pk)

    assert not SeriesCheck.objects.exists()


def test_a_locked_trial_is_left_alone(world):
    series = world.receive()
    Trial.objects.filter(pk=world.trial.pk).update(lock_state=LockState.LOCKED)

    check_series(series_id=series.pk)
    check_visit(visit_id=world.visit.pk)

    assert tasks.sweep_unchecked_series() == 0
    assert not SeriesCheck.objects.exists()


def test_a_series_without_received_images_is_not_checked(world):
    series = world.receive()
    Series.objects.filter(pk=series.pk).update(instance_count=0)

    check_series(series_id=series.pk)

    assert tasks.sweep_unchecked_series() == 0
    assert not SeriesCheck.objects.exists()


def test_events_of_receipt_enqueue_the_checks_and_note_scanner_changes(world):
    scanner = ScannerFactory(site=world.visit.site)
    old, new = ScannerEpochFactory(scanner=scanner), ScannerEpochFactory(scanner=scanner)
    series = world.receive()

    for _ in range(2):
        publish(SeriesReceived(series_id=series.pk))
        publish(SubmissionFinished(submission_id=series.submission_id))
        publish(ScannerChanged(scanner.pk, new.pk, old.pk, series.pk))
        publish(ScannerChanged(scanner.pk, old.pk, None, series.pk))

    jobs = Job.objects.values_list("kind", "key", "queue", "scope")
    assert set(jobs) == {
        (tasks.CHECK_SERIES, str(series.pk), "check", world.trial.pk),
        (tasks.CHECK_VISIT, str(world.visit.pk), "check", world.trial.pk),
    }
    assert len(jobs) == 2
    event = ChangeEvent.objects.get()
    assert (event.old, event.new, event.first_series) == (
        old.software_versions,
        new.software_versions,
        series,
    )


def test_a_replacement_that_no_longer_complies_lets_the_replaced_stand_again(world):
    deviant = world.check(RepetitionTime=2400.0)
    better = world.check(minutes=5)
    worse = world.receive(RepetitionTime=2600.0).observation
    Series.objects.filter(pk=better.pk).update(state=SeriesState.RECEIVED, observation=worse)

    check_series(series_id=better.pk)

    assert current_check(deviant).replaced_by is None
    assert Deviation.objects.filter(series=deviant, rule="tr", state=DeviationState.OPEN).count() == 1
    assert Deviation.objects.filter(series=better, rule="tr", state=DeviationState.OPEN).count() == 1


def test_a_series_that_matches_two_expected_series_is_ambiguous(make_world):
    world = make_world(locked=False)
    document = protocol_document()
    document["series"].append({**document["series"][0], "key": "t1b", "title": "T1 again", "rules": []})
    parsed = parse_protocol(document)
    Protocol.objects.filter(pk=world.protocol.pk).delete()
    ProtocolFactory(trial=world.trial, locked=True, document=dict(parsed.document), digest=parsed.digest)

    series = world.check()

    deviation = Deviation.objects.get(series=series)
    assert (deviation.rule, deviation.severity, deviation.kind) == (
        "series_ambiguous",
        "major",
        "not_evaluable",
    )
    assert current_check(series).match["candidates"] == ["t1", "t1b"]


@pytest.mark.django_db(transaction=True)
def test_two_workers_on_one_series_write_one_result(make_world):
    world = make_world()
    series = world.receive(RepetitionTime=2400.0)
    errors = []

    def work():
        try:
            check_series(series_id=series.pk)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)

    assert errors == []
    assert SeriesCheck.objects.filter(series=series).count() == 1
    assert Deviation.objects.filter(series=series).count() == 1

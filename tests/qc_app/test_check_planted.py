"""Every deviation planted in the demonstration trial is found, and nothing else is."""

from __future__ import annotations

from datetime import date

import pytest

from hub.demo.cohort import BASELINE, MONTH_12
from hub.demo.plan import Submission as PlannedSubmission
from hub.demo.plan import uploads
from hub.demo.planted import DEVIATIONS, deviations_at
from hub.demo.protocol import protocol_document
from qc_app.models import Deviation, SeriesCheck, VisitCheck
from qc_app.protocol.schema import parse_protocol
from qc_app.services.check import check_series, check_visit
from sites_app.dicom.aggregate import aggregate
from sites_app.ingest.pseudonyms import current_profile, deidentifier_for
from sites_app.models import Series, Submission, Visit
from tests.factories.qc_app import ProtocolFactory, store_instances
from tests.factories.sites_app import (
    SeriesFactory,
    SiteFactory,
    StudyFactory,
    SubjectFactory,
    SubmissionFactory,
    TrialFactory,
    VisitDefinitionFactory,
    VisitFactory,
)

_PLANTED = sorted({(item.subject, item.visit) for item in DEVIATIONS} | {("S01-001", BASELINE)})


def planned_visit(subject: str, code: str) -> Visit:
    trial = TrialFactory()
    document = dict(parse_protocol(protocol_document()).document)
    ProtocolFactory(trial=trial, locked=True, document=document)
    row = SubjectFactory(site=SiteFactory(trial=trial), code=subject)
    baseline = VisitDefinitionFactory(trial=trial, code=BASELINE, position=0, target_day=0)
    month_12 = VisitDefinitionFactory(
        trial=trial, code=MONTH_12, position=1, target_day=365, window_before_days=14, window_after_days=14
    )
    first = VisitFactory(subject=row, definition=baseline, performed_on=date(2025, 1, 1))
    if code == BASELINE:
        return first
    return VisitFactory(subject=row, definition=month_12, performed_on=date(2026, 1, 1))


def receive(visit: Visit, planned: PlannedSubmission) -> list[Series]:
    """Store what the plan sends for a visit, as receipt does: de-identified, read, packed."""
    submission = SubmissionFactory(
        visit=visit, state=Submission.State.ACCEPTED, profile=current_profile(visit.trial)
    )
    engine = deidentifier_for(visit.subject, submission.profile)
    study = StudyFactory(visit=visit)
    received = []
    for upload in uploads(planned):
        if upload.key == "extra":
            continue
        files = [engine.process(file.data) for file in upload.files]
        seen = aggregate(file.facts for file in files)
        series = SeriesFactory(
            study=study,
            submission=submission,
            series_instance_uid=seen.series_instance_uid,
            modality=seen.modality,
            observation=seen.to_json(),
        )
        store_instances(series, [file.data for file in files])
        received.append(series)
    return received


@pytest.mark.django_db
@pytest.mark.parametrize(("subject", "code"), _PLANTED)
def test_what_is_planted_is_found_and_nothing_else(subject, code):
    visit = planned_visit(subject, code)

    for series in receive(visit, PlannedSubmission(subject.split("-")[0], subject, code)):
        check_series(series_id=series.pk)
    check_visit(visit_id=visit.pk)

    expected = {
        (rule, outcome) for item in deviations_at(subject, code) for rule, outcome in item.verdicts.items()
    }
    assert set(Deviation.objects.filter(visit=visit).values_list("rule", "kind")) == expected
    judged = SeriesCheck.objects.filter(series__visit=visit, is_current=True)
    assert all(check.preview_digest and check.metrics for check in judged)
    assert (VisitCheck.objects.get(visit=visit).protocol_outcome == "compliant") == (
        not any(rule.startswith("visit") for rule, _ in expected)
    )

"""Pages of receiving: the upload form, submissions, their files and the receipt."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from django.test import Client

from sites_app.ingest.names import store_names
from sites_app.models import Role, Site, Submission, SubmissionFile, Trial
from sites_app.services.submission import finish_submission
from tests.factories.sites_app import (
    MembershipFactory,
    SiteFactory,
    SubjectFactory,
    SubmissionFactory,
    TrialFactory,
    UploadFactory,
    VisitDefinitionFactory,
    VisitFactory,
)

pytestmark = pytest.mark.django_db
NAME = "folder/IM00001.dcm"


@dataclass
class World:
    trial: Trial
    site: Site
    submission: Submission

    def as_role(self, role: str, site: Site | None = None) -> Client:
        client = Client()
        client.force_login(MembershipFactory(trial=self.trial, site=site, role=role).user)
        return client

    def path(self, rest: str = "") -> str:
        return f"/t/{self.trial.code}/{rest}"

    def of_submission(self, rest: str = "") -> str:
        return self.path(f"submissions/{self.submission.pk}/{rest}")


@pytest.fixture
def world() -> World:
    """A completed submission with one file that was rejected."""
    trial = TrialFactory()
    site = SiteFactory(trial=trial)
    definition = VisitDefinitionFactory(trial=trial, code="baseline", title="Baseline")
    visit = VisitFactory(subject=SubjectFactory(site=site, code="SUB-1"), definition=definition)
    submission = SubmissionFactory(visit=visit, state=Submission.State.RECEIVED)
    upload = UploadFactory(submission=submission, state="processed")
    store_names(upload.pk, [NAME])
    SubmissionFile.objects.create(
        trial=trial,
        site=site,
        submission=submission,
        upload=upload,
        ordinal=0,
        sha256="ab" * 32,
        size=10,
        outcome="rejected",
        code="not_dicom_pdf",
        detail="This is a PDF document.",
        action="Send the original DICOM files.",
    )
    return World(trial, site, submission)


def test_an_unfinished_submission_renews_itself_and_a_final_one_does_not(world: World) -> None:
    client = world.as_role(Role.SITE_COORDINATOR, world.site)

    before = client.get(world.of_submission("progress/")).content.decode()
    finish_submission(submission_id=world.submission.pk)
    after = client.get(world.of_submission("progress/")).content.decode()

    assert 'hx-trigger="every 1s"' in before and 'data-final="no"' in before
    assert "every 1s" not in after and 'data-final="yes"' in after
    assert "This is a PDF document." in after and "Send the original DICOM files." in after


def test_names_of_files_are_shown_only_to_who_handles_them(world: World) -> None:
    coordinator = world.as_role(Role.SITE_COORDINATOR, world.site).get(world.of_submission("files/"))
    monitor = world.as_role(Role.MONITOR).get(world.of_submission("files/"))

    assert NAME in coordinator.content.decode()
    assert NAME not in monitor.content.decode()
    assert "file 1" in monitor.content.decode()


def test_files_are_kept_to_an_outcome(world: World) -> None:
    client = world.as_role(Role.SITE_COORDINATOR, world.site)

    assert NAME in client.get(world.of_submission("files/"), {"outcome": "rejected"}).content.decode()
    assert NAME not in client.get(world.of_submission("files/"), {"outcome": "accepted"}).content.decode()


def test_the_receipt_is_there_when_the_submission_is_final(world: World) -> None:
    client = world.as_role(Role.AUDITOR)

    before = client.get(world.of_submission("receipt/")).content.decode()
    finish_submission(submission_id=world.submission.pk)
    after = client.get(world.of_submission("receipt/")).content.decode()
    world.submission.refresh_from_db()

    assert "There is no receipt yet" in before
    assert world.submission.receipt_digest in after
    assert "ab" * 32 in after


def test_another_site_finds_nothing(world: World) -> None:
    client = world.as_role(Role.SITE_COORDINATOR, SiteFactory(trial=world.trial))

    for rest in ("", "progress/", "files/", "receipt/"):
        assert client.get(world.of_submission(rest)).status_code == 404
    assert client.post(world.of_submission("cancel/")).status_code == 404


def test_an_open_submission_is_cancelled_by_its_site_alone(world: World) -> None:
    Submission.objects.filter(pk=world.submission.pk).update(state=Submission.State.OPEN)

    refused = world.as_role(Role.MONITOR).post(world.of_submission("cancel/"))
    accepted = world.as_role(Role.SITE_COORDINATOR, world.site).post(world.of_submission("cancel/"))

    assert (refused.status_code, accepted.status_code) == (403, 302)
    assert Submission.objects.get(pk=world.submission.pk).state == Submission.State.CANCELLED


@pytest.mark.parametrize(
    ("role", "status"), [(Role.DATA_MANAGER, 200), (Role.SPONSOR, 403), (Role.MONITOR, 403)]
)
def test_the_upload_page_is_for_who_may_send(world: World, role: str, status: int) -> None:
    assert world.as_role(role).get(world.path("upload/")).status_code == status


def test_a_site_is_offered_its_own_subjects_and_every_planned_visit(world: World) -> None:
    other = SubjectFactory(site=SiteFactory(trial=world.trial), code="SUB-2")
    client = world.as_role(Role.SITE_COORDINATOR, world.site)

    page = client.get(world.path("upload/"), {"subject": "SUB-1", "visit": "baseline"}).content.decode()

    assert "SUB-1" in page
    assert other.code not in page
    assert '<option value="baseline" selected>Baseline – 1 sent before</option>' in page
    assert client.get(world.path("upload/visits/"), {"subject": other.code}).status_code == 404


def test_a_frozen_trial_takes_no_images_and_says_so(world: World) -> None:
    Trial.objects.filter(pk=world.trial.pk).update(lock_state="frozen")

    page = world.as_role(Role.SITE_COORDINATOR, world.site).get(world.path("upload/")).content.decode()

    assert "frozen for its data lock" in page
    assert "data-upload " not in page


def test_home_leads_to_the_only_trial_or_lists_them(world: World) -> None:
    client = world.as_role(Role.SITE_COORDINATOR, world.site)
    one = client.get("/")
    second = TrialFactory()
    MembershipFactory(user=client.get("/account/").wsgi_request.user, trial=second, role=Role.MONITOR)

    both = client.get("/").content.decode()

    assert one["Location"] == world.path()
    assert world.trial.code in both and second.code in both

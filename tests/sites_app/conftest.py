"""Fixtures of receiving: a site that sends, and a queue that works at once."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from rest_framework.test import APIClient

from hub.core.jobs import services as job_services
from hub.core.jobs.models import Job
from sites_app.models import Role
from tests.factories.sites_app import (
    MembershipFactory,
    SiteFactory,
    SubjectFactory,
    TrialFactory,
    UserFactory,
    VisitDefinitionFactory,
    VisitFactory,
)


class Receiving:
    """A trial with one site, one subject, one visit and its coordinator, logged in at the API."""

    def __init__(self) -> None:
        self.trial = TrialFactory()
        self.site = SiteFactory(trial=self.trial)
        self.subject = SubjectFactory(site=self.site)
        self.definition = VisitDefinitionFactory(trial=self.trial)
        self.visit = VisitFactory(subject=self.subject, definition=self.definition)
        self.coordinator = self.member(Role.SITE_COORDINATOR, self.site)
        self.client = self.client_of(self.coordinator)

    def member(self, role, site=None):  # type: ignore[no-untyped-def]
        user = UserFactory()
        MembershipFactory(user=user, trial=self.trial, site=site, role=role)
        return user

    def client_of(self, user) -> APIClient:  # type: ignore[no-untyped-def]
        client = APIClient()
        client.force_authenticate(user)
        return client

    def open(self, **changes):  # type: ignore[no-untyped-def]
        body = {
            "trial": str(self.trial.pk),
            "site": str(self.site.pk),
            "subject": str(self.subject.pk),
            "visit": str(self.visit.pk),
            **changes,
        }
        response = self.client.post("/api/v1/submissions/", body, format="json")
        assert response.status_code == 201, response.content
        return response.json()["id"]

    def send(self, submission, content, content_type="application/dicom", **headers):  # type: ignore[no-untyped-def]
        return self.client.generic(
            "POST", f"/api/v1/submissions/{submission}/files/", content, content_type=content_type, **headers
        )

    def complete(self, submission):  # type: ignore[no-untyped-def]
        return self.client.post(f"/api/v1/submissions/{submission}/complete/")

    def read(self, submission):  # type: ignore[no-untyped-def]
        response = self.client.get(f"/api/v1/submissions/{submission}/")
        assert response.status_code == 200, response.content
        return response.json()

    def work(self) -> int:
        """Run every queued job of this layer, as a worker would, until none is left."""
        count = 0
        queued = Job.objects.filter(state=Job.State.QUEUED, kind__startswith="sites.")
        while row := queued.order_by("created_at").first():
            job_services.run(str(row.pk))
            count += 1
            assert count < 200
        return count


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch):  # type: ignore[no-untyped-def]
    """Jobs are run by `Receiving.work`, so that a test says when."""
    monkeypatch.setattr(job_services, "_publish", lambda row: None)


@pytest.fixture
def receiving(db) -> Receiving:  # type: ignore[no-untyped-def]
    cache.clear()
    return Receiving()

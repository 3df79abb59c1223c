"""A trial with a locked protocol and profile, and helpers to receive and check series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from hub.demo.simulator import simulate_mr
from qc_app.models import Protocol, QCProfile
from qc_app.services.check import check_series
from sites_app.models import Series, Submission, Trial, Visit
from tests.factories.qc_app import ProtocolFactory, QCProfileFactory, observation, store_instances
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


@dataclass
class World:
    """One trial, one site, one subject at its first visit, judged by a locked protocol and profile."""

    trial: Trial
    visit: Visit
    protocol: Protocol
    profile: QCProfile

    def receive(
        self, *, visit: Visit | None = None, minutes: int = 0, pixels: bool = False, **values: Any
    ) -> Series:
        """A received series of a finished submission, as ingest leaves it."""
        visit = visit or self.visit
        extra = {key: values.pop(key) for key in ("scanner", "scanner_epoch") if key in values}
        submission = SubmissionFactory(
            visit=visit, state=Submission.State.ACCEPTED, profile__trial=self.trial
        )
        series = SeriesFactory(
            study=StudyFactory(visit=visit),
            submission=submission,
            observation=observation(**values),
            received_at=timezone.now() + timedelta(minutes=minutes),
            **extra,
        )
        if pixels:
            store_instances(series, [file.data for file in simulate_mr(seed=1).files])
        return Series.objects.get(pk=series.pk)

    def check(self, **values: Any) -> Series:
        """Receive a series and check it."""
        series = self.receive(**values)
        check_series(series_id=series.pk)
        series.refresh_from_db()
        return series


@pytest.fixture
def make_world(db: None) -> Callable[..., World]:
    def make(*, locked: bool = True) -> World:
        trial = TrialFactory()
        site = SiteFactory(trial=trial)
        definition = VisitDefinitionFactory(trial=trial, code="baseline", position=0, target_day=0)
        subject = SubjectFactory(site=site)
        visit = VisitFactory(subject=subject, definition=definition, performed_on=timezone.now().date())
        protocol = ProtocolFactory(trial=trial, locked=locked)
        profile = QCProfileFactory(trial=trial, locked=locked)
        return World(trial, visit, protocol, profile)

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()

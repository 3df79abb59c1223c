"""A trial with the demonstration's subjects, visits and features, and the people who harmonize it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from harmonization_app.models import FeatureSet
from harmonization_app.services import feature_set as feature_services
from hub.demo.features import as_csv, metadata
from hub.demo.trial import trial_document
from sites_app.models import Role, Trial
from sites_app.services.trial_file import apply_trial
from tests.factories.sites_app import MembershipFactory

SECTIONS = ("trial", "arms", "visit_definitions", "sites", "subjects")


@dataclass
class People:
    admin: Any
    second_admin: Any
    statistician: Any
    coordinator: Any
    auditor: Any


@pytest.fixture
def trial(db: None) -> Trial:
    document = {key: value for key, value in trial_document().items() if key in SECTIONS}
    trial, _ = apply_trial(actor=None, content=json.dumps(document), name="trial.json")
    assert trial is not None
    return trial


@pytest.fixture
def people(trial: Trial) -> People:
    site = trial.sites.first()
    return People(
        admin=MembershipFactory(trial=trial, role=Role.TRIAL_ADMINISTRATOR).user,
        second_admin=MembershipFactory(trial=trial, role=Role.TRIAL_ADMINISTRATOR).user,
        statistician=MembershipFactory(trial=trial, role=Role.STATISTICIAN).user,
        coordinator=MembershipFactory(trial=trial, site=site, role=Role.SITE_COORDINATOR).user,
        auditor=MembershipFactory(trial=trial, role=Role.AUDITOR).user,
    )


@pytest.fixture
def features(trial: Trial, people: People) -> FeatureSet:
    return feature_services.import_feature_set(
        actor=people.statistician,
        trial=trial,
        name="Features",
        content=as_csv().encode(),
        metadata=metadata(),
    )

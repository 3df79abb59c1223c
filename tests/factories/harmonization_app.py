"""Factories of algorithm versions, feature sets, plans, runs and data locks."""

from __future__ import annotations

import hashlib
from typing import Any

import factory
from django.utils import timezone
from factory.django import DjangoModelFactory

from harmonization_app.algorithms.registry import get_algorithm, source_digest
from harmonization_app.models import (
    AlgorithmVersion,
    DataLock,
    FeatureSet,
    HarmonizationPlan,
    HarmonizationRun,
)
from hub.core.canonical import digest
from hub.core.ids import uuid7
from qc_app.models import VersionState
from tests.factories.qc_app import SignatureFactory
from tests.factories.sites_app import TrialFactory, UserFactory


class AlgorithmVersionFactory(DjangoModelFactory):
    """A registered version; with `locked=True` a locked one."""

    class Meta:
        model = AlgorithmVersion

    class Params:
        locked = factory.Trait(
            state=AlgorithmVersion.State.LOCKED,
            verification=factory.LazyFunction(lambda: {"agrees": True, "cases": []}),
            signature=factory.SubFactory(
                SignatureFactory,
                object_type="harmonization_app.algorithmversion",
                object_id=factory.LazyAttribute(lambda made: str(made.factory_parent.id)),
            ),
            second_signature=factory.SubFactory(
                SignatureFactory,
                object_type="harmonization_app.algorithmversion",
                object_id=factory.LazyAttribute(lambda made: str(made.factory_parent.id)),
            ),
            verified_at=factory.LazyFunction(timezone.now),
            locked_at=factory.LazyFunction(timezone.now),
        )

    id = factory.LazyFunction(uuid7)
    algorithm = "combat"
    version = factory.LazyAttribute(lambda row: get_algorithm(row.algorithm).version)
    title = factory.LazyAttribute(lambda row: get_algorithm(row.algorithm).title)
    code_digest = factory.LazyAttribute(lambda row: source_digest(get_algorithm(row.algorithm)))


class FeatureSetFactory(DjangoModelFactory):
    class Meta:
        model = FeatureSet

    trial = factory.SubFactory(TrialFactory)
    name = factory.Sequence(lambda number: f"Features {number}")
    origin = FeatureSet.Origin.CSV
    columns = factory.LazyFunction(lambda: [{"name": "volume", "unit": "mm3", "pool": "volume"}])
    rows = factory.LazyFunction(list)
    row_count = 0
    column_count = 1
    data_digest = "0" * 64
    digest = factory.LazyAttribute(lambda row: hashlib.sha256(row.name.encode()).hexdigest())
    created_by = factory.SubFactory(UserFactory)


class PlanFactory(DjangoModelFactory):
    """A draft; with `locked=True` in force."""

    class Meta:
        model = HarmonizationPlan

    class Params:
        locked = factory.Trait(
            state=VersionState.LOCKED,
            algorithm_version=factory.SubFactory(AlgorithmVersionFactory, locked=True),
            signature=factory.SubFactory(
                SignatureFactory,
                object_type="harmonization_app.harmonizationplan",
                object_id=factory.LazyAttribute(lambda made: str(made.factory_parent.id)),
                object_digest=factory.LazyAttribute(lambda made: made.factory_parent.digest),
            ),
            locked_at=factory.LazyFunction(timezone.now),
        )

    id = factory.LazyFunction(uuid7)
    trial = factory.SubFactory(TrialFactory)
    name = factory.Sequence(lambda number: f"plan-{number}")
    version = 1
    title = factory.LazyAttribute(lambda row: f"Plan {row.name}")
    document: Any = factory.LazyFunction(dict)
    digest = factory.LazyAttribute(lambda row: digest(row.document))


class RunFactory(DjangoModelFactory):
    """A run that waits; name `state` for another."""

    class Meta:
        model = HarmonizationRun

    feature_set = factory.SubFactory(FeatureSetFactory)
    trial = factory.SelfAttribute("feature_set.trial")
    algorithm_version = factory.SubFactory(AlgorithmVersionFactory)
    specification: Any = factory.LazyFunction(dict)
    kind = HarmonizationRun.Kind.EXPLORATORY
    exploratory_reason = "Not under a locked plan."
    created_by = factory.SelfAttribute("feature_set.created_by")


class DataLockFactory(DjangoModelFactory):
    class Meta:
        model = DataLock

    trial = factory.SubFactory(TrialFactory)

"""Nobody reaches into another trial, and nobody acts above their role, whatever ids a call names."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from harmonization_cases import locked_combat, plan_document

from harmonization_app.models import Export, FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.services import comparison, data_lock, export, model_application, run_export
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from hub.core.audit.models import AuditEvent
from hub.core.errors import HubError, InvalidInput, NotAllowed, NotFound
from hub.demo.features import as_csv, metadata
from sites_app.models import Role
from tests.factories.harmonization_app import (
    AlgorithmVersionFactory,
    DataLockFactory,
    FeatureSetFactory,
    PlanFactory,
    RunFactory,
)
from tests.factories.sites_app import PASSWORD, ArmFactory, MembershipFactory

SIGNED = {"password": PASSWORD, "meaning": "I approve"}


def counts():
    models = (HarmonizationRun, HarmonizationPlan, FeatureSet, Export)
    return [model.objects.count() for model in models]


@pytest.fixture
def elsewhere(trial):
    """The same kinds of things in another trial, whose members have no part in the first."""
    features = FeatureSetFactory()
    return {
        "features": features,
        "plan": PlanFactory(trial=features.trial, document=plan_document()),
        "run": RunFactory(
            feature_set=features, state="succeeded", algorithm_version=AlgorithmVersionFactory()
        ),
        "lock": DataLockFactory(trial=features.trial),
    }


ACTS = {
    "start": lambda who, it: run_services.start_run(actor=who, feature_set=it["features"], plan=it["plan"]),
    "rerun": lambda who, it: run_services.rerun(actor=who, run=it["run"]),
    "cancel": lambda who, it: run_services.cancel_run(actor=who, run=it["run"]),
    "apply": lambda who, it: model_application.apply_model(
        actor=who, run=it["run"], feature_set=it["features"]
    ),
    "add-batch": lambda who, it: model_application.add_batch(
        actor=who, run=it["run"], feature_set=it["features"], batch="B", reason="new"
    ),
    "compare": lambda who, it: comparison.start_comparison(
        actor=who, feature_set=it["features"], candidates=[comparison.Candidate(plan=it["plan"])] * 2
    ),
    "draft": lambda who, it: plan_services.save_draft(
        actor=who, trial=it["plan"].trial, document=plan_document()
    ),
    "check": lambda who, it: plan_services.check_plan(actor=who, plan=it["plan"], feature_set=it["features"]),
    "lock plan": lambda who, it: plan_services.lock_plan(actor=who, plan=it["plan"], **SIGNED),
    "amend": lambda who, it: plan_services.amend_plan(actor=who, plan=it["plan"], reason="why"),
    "discard": lambda who, it: plan_services.discard_draft(actor=who, plan=it["plan"]),
    "freeze": lambda who, it: data_lock.freeze(actor=who, data_lock=it["lock"]),
    "unfreeze": lambda who, it: data_lock.unfreeze(actor=who, data_lock=it["lock"], reason="why"),
    "lock data": lambda who, it: data_lock.lock_data(actor=who, data_lock=it["lock"], **SIGNED),
    "export": lambda who, it: export.start_export(actor=who, trial=it["features"].trial),
    "import": lambda who, it: feature_services.import_feature_set(
        actor=who, trial=it["features"].trial, name="F", content=as_csv().encode(), metadata=metadata()
    ),
    "build": lambda who, it: feature_services.build_from_metrics(
        actor=who, trial=it["features"].trial, name="F", metrics=["snr"], expected_key="t1"
    ),
    "export run": lambda who, it: run_export.export_run(actor=who, run=it["run"]),
}


@pytest.mark.parametrize("act", ACTS)
def test_an_administrator_of_another_trial_may_do_nothing_here(people, elsewhere, act):
    before, events = counts(), AuditEvent.objects.count()

    with pytest.raises((NotAllowed, NotFound)):
        ACTS[act](people.admin, elsewhere)

    assert (counts(), AuditEvent.objects.count()) == (before, events)


@pytest.mark.parametrize("role", [Role.SPONSOR, Role.MONITOR, Role.IMAGING_REVIEWER, Role.AUDITOR])
@pytest.mark.parametrize("act", [act for act in ACTS if act not in ("export", "export run")])
def test_roles_that_only_read_change_nothing(elsewhere, act, role):
    reader = MembershipFactory(trial=elsewhere["features"].trial, role=role).user
    before, events = counts(), AuditEvent.objects.count()

    with pytest.raises(NotAllowed):
        ACTS[act](reader, elsewhere)

    assert (counts(), AuditEvent.objects.count()) == (before, events)


@pytest.mark.parametrize("act", ["lock plan", "freeze", "unfreeze", "lock data"])
def test_a_statistician_locks_nothing(elsewhere, act):
    statistician = MembershipFactory(trial=elsewhere["features"].trial, role=Role.STATISTICIAN).user

    with pytest.raises(NotAllowed):
        ACTS[act](statistician, elsewhere)


@pytest.mark.parametrize(
    ("act", "mixed"),
    [
        ("start", {"features": "here"}),
        ("check", {"features": "here"}),
        ("apply", {"features": "here"}),
        ("add-batch", {"features": "here"}),
        ("compare", {"features": "here"}),
    ],
)
def test_who_belongs_to_both_trials_cannot_mix_them(people, features, elsewhere, act, mixed):
    MembershipFactory(user=people.statistician, trial=elsewhere["features"].trial, role=Role.STATISTICIAN)
    before = counts()

    with pytest.raises(InvalidInput, match="trial"):
        ACTS[act](people.statistician, {**elsewhere, "features": features})

    assert counts() == before


def test_a_plan_takes_no_algorithm_version_that_is_not_locked(trial, people):
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())

    with pytest.raises(HubError, match="no locked version of the present code"):
        plan_services.lock_plan(actor=people.admin, plan=draft, **SIGNED)

    locked_combat(people.admin)
    locked = plan_services.lock_plan(actor=people.admin, plan=draft, **SIGNED)
    assert (locked.state, locked.algorithm_version.state) == ("locked", "locked")


def test_a_feature_that_is_called_the_arm_is_refused(trial, people):
    ArmFactory(trial=trial)
    header, *lines = as_csv().splitlines()
    content = "\n".join([f"{header},Treatment-Arm", *(f"{line},{n % 2}" for n, line in enumerate(lines))])
    given = metadata()
    given["columns"] = [*given["columns"], {"name": "Treatment-Arm", "unit": "1", "pool": ""}]

    with pytest.raises(InvalidInput, match="Treatment-Arm tells the treatment arm"):
        feature_services.import_feature_set(
            actor=people.statistician, trial=trial, name="F", content=content.encode(), metadata=given
        )

    assert FeatureSet.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_the_same_table_imported_twice_at_once_is_one_feature_set(trial, people):
    ready, made, faults = threading.Barrier(2), [], []

    def import_it():
        try:
            ready.wait(20)
            row = feature_services.import_feature_set(
                actor=people.statistician,
                trial=trial,
                name="F",
                content=as_csv().encode(),
                metadata=metadata(),
            )
            made.append(row.pk)
        except Exception as error:
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=import_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert faults == []
    assert len(made) == 2 and len(set(made)) == 1
    assert AuditEvent.objects.filter(action="feature_set.created").count() == 1

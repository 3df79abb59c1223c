"""What the services refuse, the database refuses too: to the application's own statements, whatever they are."""

from __future__ import annotations

import pytest
from django.db import InternalError, transaction
from harmonization_cases import lock_plan, plan_document

from harmonization_app.models import AlgorithmVersion, DataLock, HarmonizationPlan, HarmonizationRun
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import run as run_services
from tests.factories.harmonization_app import (
    AlgorithmVersionFactory,
    DataLockFactory,
    FeatureSetFactory,
    PlanFactory,
    RunFactory,
)
from tests.factories.qc_app import SignatureFactory

pytestmark = pytest.mark.django_db


def refused(words):
    """Expect the database's refusal in these words, in a savepoint of its own."""
    return pytest.raises(InternalError, match=words)


def change(row, **values):
    with transaction.atomic():
        type(row).objects.filter(pk=row.pk).update(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"specification": {"algorithm": "other"}},
        {"plan_digest": "f" * 64},
        {"mode": "fit", "step_reason": "another"},
        {"kind": "primary", "plan": None},
        {"exploratory_reason": ""},
    ],
)
def test_what_a_waiting_run_was_asked_cannot_be_changed(values):
    run = RunFactory()

    with refused("What a run was asked to do cannot be changed"):
        change(run, **values)


@pytest.mark.parametrize("field", ["feature_set", "trial", "algorithm_version", "created_by"])
def test_the_rows_a_waiting_run_names_cannot_be_changed(field):
    run, other = RunFactory(), RunFactory(algorithm_version=AlgorithmVersionFactory(version="9.9.9"))

    with refused("What a run was asked to do cannot be changed"):
        change(run, **{field: getattr(other, field)})


def test_a_run_cannot_take_features_a_plan_or_a_model_of_another_trial():
    here, elsewhere = FeatureSetFactory(), RunFactory()

    for made in (
        {"feature_set": here, "trial": elsewhere.trial},
        {"feature_set": here, "plan": PlanFactory(trial=elsewhere.trial)},
        {"feature_set": here, "rerun_of": elsewhere},
        {"feature_set": here, "mode": "apply", "model_of": elsewhere},
    ):
        with refused("belong to the trial of the run"), transaction.atomic():
            RunFactory(algorithm_version=elsewhere.algorithm_version, **made)


def test_a_primary_run_is_stored_only_under_the_plan_in_force_as_it_was_locked(trial, people, features):
    plan = lock_plan(trial, people)
    draft = PlanFactory(trial=trial, document=plan_document())
    right = {
        "trial": trial,
        "plan": plan,
        "plan_digest": plan.digest,
        "algorithm_version": plan.algorithm_version,
        "feature_set": features,
        "specification": plan.document,
        "kind": "primary",
        "created_by": people.statistician,
    }

    for wrong in (
        {"plan": draft, "plan_digest": draft.digest},
        {"plan_digest": "f" * 64},
        {"specification": {**plan.document, "seed": 1}},
        {"algorithm_version": AlgorithmVersionFactory(version="9.9.9")},
    ):
        with refused("needs the plan in force"), transaction.atomic():
            HarmonizationRun.objects.create(**right | wrong)

    assert HarmonizationRun.objects.create(**right).kind == "primary"


def test_no_primary_run_is_stored_once_its_algorithm_is_retired(trial, people, features):
    plan = lock_plan(trial, people)
    algorithm_services.retire_algorithm(actor=people.admin, version=plan.algorithm_version, reason="a fault")

    run = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    assert (run.kind, run.exploratory_reason) == (
        "exploratory",
        "the algorithm version is retired, not locked",
    )
    with refused("What a run was asked to do cannot be changed"):
        change(run, kind="primary", exploratory_reason="")


def test_a_superseded_plan_is_never_in_force_again():
    plan = PlanFactory(locked=True)
    change(plan, state="superseded")

    with refused("not in force again"):
        change(plan, state="locked")
    assert HarmonizationPlan.objects.get(pk=plan.pk).state == "superseded"


def test_a_plan_is_locked_only_by_a_signature_over_itself():
    plan = PlanFactory()
    version = AlgorithmVersionFactory(locked=True)
    own = {"object_id": str(plan.pk), "object_digest": plan.digest}

    for signature in (
        SignatureFactory(),
        SignatureFactory(**own | {"object_digest": "f" * 64}),
        SignatureFactory(**own | {"object_id": str(version.pk)}),
    ):
        with refused("A plan is locked by a signature over it"):
            change(plan, state="locked", signature=signature, algorithm_version=version)
    signed = SignatureFactory(**own)
    unlocked = AlgorithmVersionFactory(version="9.9.9")
    with refused("on a locked algorithm version"):
        change(plan, state="locked", signature=signed, algorithm_version=unlocked)

    change(plan, state="locked", signature=signed, algorithm_version=version)
    assert HarmonizationPlan.objects.get(pk=plan.pk).state == "locked"


def test_a_draft_is_not_superseded_and_a_reason_not_rewritten():
    version, signature = AlgorithmVersionFactory(locked=True), SignatureFactory()
    draft = PlanFactory(amendment_reason="a slip", algorithm_version=version, signature=signature)

    with refused("Only a plan that was in force is superseded"):
        change(draft, state="superseded")
    with refused("The reason of an amendment cannot be changed"):
        change(draft, amendment_reason="another")


def test_a_retired_algorithm_version_is_not_locked_again():
    version = AlgorithmVersionFactory(locked=True)
    change(version, state="retired")

    with refused("A locked algorithm version cannot be changed"):
        change(version, state="locked")
    assert AlgorithmVersion.objects.get(pk=version.pk).state == "retired"


def test_data_are_locked_only_after_a_freeze_by_a_signature_over_the_manifest():
    lock = DataLockFactory()
    signature = SignatureFactory(object_id=str(lock.pk), object_digest="a" * 64)

    with refused("Data are locked after a freeze"):
        change(lock, state="locked", manifest_digest="a" * 64, signature=signature)
    change(lock, state="frozen")
    with refused("by a signature over the manifest of this lock"):
        change(lock, state="locked", manifest_digest="b" * 64, signature=signature)
    change(lock, state="locked", manifest_digest="a" * 64, signature=signature)
    assert DataLock.objects.get(pk=lock.pk).state == "locked"

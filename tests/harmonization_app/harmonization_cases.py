"""What the harmonization tests make: plans, a locked algorithm, a job's context."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from harmonization_app.models import AlgorithmVersion, DataLock, HarmonizationPlan
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import data_lock as lock_services
from harmonization_app.services import plan as plan_services
from hub.core.jobs.heartbeat import JobContext
from hub.core.models import Job
from hub.demo.trial import harmonization_plan_document
from tests.factories.locked import lock_algorithm, lock_versions
from tests.factories.sites_app import PASSWORD


def plan_document(**changes: Any) -> dict[str, Any]:
    """The demonstration's plan without the analysis by another algorithm, which needs a lock of its own."""
    document = harmonization_plan_document()
    own = [item for item in document["sensitivity"] if item["kind"] != "algorithm"]
    return {**document, "sensitivity": own, **changes}


def locked_combat(admin: Any) -> AlgorithmVersion:
    version = next(row for row in algorithm_services.register_algorithms() if row.algorithm == "combat")
    return lock_algorithm(version, admin)


def lock_plan(trial: Any, people: Any, **changes: Any) -> HarmonizationPlan:
    locked_combat(people.admin)
    draft = plan_services.save_draft(
        actor=people.statistician, trial=trial, document=plan_document(**changes)
    )
    return plan_services.lock_plan(
        actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve this plan"
    )


def locked_trial(trial: Any, people: Any) -> DataLock:
    lock_versions(trial, people.admin)
    lock = lock_services.open_data_lock(actor=people.admin, trial=trial)
    lock_services.freeze(actor=people.admin, data_lock=lock)
    return lock_services.lock_data(actor=people.admin, data_lock=lock, password=PASSWORD, meaning="Final")


def job_context() -> JobContext:
    job = Job.objects.create(kind="test", queue="harmonize", key=uuid4().hex, state="running")
    return JobContext(job_id=job.pk, attempt=1)

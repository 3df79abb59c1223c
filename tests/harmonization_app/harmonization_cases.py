"""What the harmonization tests make: plans, a locked algorithm, a job's context."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from harmonization_app.models import AlgorithmVersion
from harmonization_app.services import algorithm as algorithm_services
from hub.core.jobs.heartbeat import JobContext
from hub.core.models import Job
from hub.demo.trial import harmonization_plan_document
from tests.factories.locked import lock_algorithm


def plan_document(**changes: Any) -> dict[str, Any]:
    """The demonstration's plan without the analysis by another algorithm, which needs a lock of its own."""
    document = harmonization_plan_document()
    own = [item for item in document["sensitivity"] if item["kind"] != "algorithm"]
    return {**document, "sensitivity": own, **changes}


def locked_combat(admin: Any) -> AlgorithmVersion:
    version = next(row for row in algorithm_services.register_algorithms() if row.algorithm == "combat")
    return lock_algorithm(version, admin)


def job_context() -> JobContext:
    job = Job.objects.create(kind="test", queue="harmonize", key=uuid4().hex, state="running")
    return JobContext(job_id=job.pk, attempt=1)

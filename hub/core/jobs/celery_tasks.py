"""The only Celery tasks: they carry ids, everything else is in the Job row."""

from celery import shared_task
from django.conf import settings

from hub.core.audit.anchor import write_anchor
from hub.core.jobs import services
from hub.core.jobs.sweepers import run_sweepers


@shared_task(name="hub.run_job")
def run_job(job_id: str) -> None:
    services.run(job_id)


@shared_task(name="hub.sweep")
def sweep() -> None:
    services.sweep()
    run_sweepers()


@shared_task(name="hub.anchor_audit")
def anchor_audit() -> None:
    write_anchor(settings.HUB_ANCHOR_FILE)

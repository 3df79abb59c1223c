"""Background work of this app."""

from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import export as export_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_blocks, run_execution, run_state
from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.registry import job


@job(
    name=run_services.JOB,
    queue="harmonize",
    soft_limit_s=6 * 3600,
    hard_limit_s=6 * 3600 + 60,
    on_failure=run_state.fail_run,
    on_cancel=run_state.follow_cancelled_job,
)
def run_harmonization(context: JobContext, *, run_id: str) -> None:
    run_execution.execute_run(context, run_id=run_id)


@job(name=run_blocks.HELP_JOB, queue="harmonize", soft_limit_s=6 * 3600, hard_limit_s=6 * 3600 + 60)
def help_run(context: JobContext, *, run_id: str, stage: run_blocks.Stage, attempt: int) -> None:
    run_blocks.help_run(context, run_id=run_id, stage=stage, attempt=attempt)


@job(name="harmonization.verify_algorithm", queue="harmonize", soft_limit_s=1800, hard_limit_s=1860)
def verify_algorithm(context: JobContext, *, version_id: str) -> None:
    algorithm_services.verify_algorithm(version_id=version_id)


@job(
    name=export_services.JOB,
    queue="harmonize",
    soft_limit_s=6 * 3600,
    hard_limit_s=6 * 3600 + 60,
    on_failure=export_services.fail_export,
    on_cancel=export_services.fail_export,
)
def export_trial(context: JobContext, *, export_id: str) -> None:
    export_services.execute_export(context, export_id=export_id)

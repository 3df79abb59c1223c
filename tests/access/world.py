"""Two trials of two sites each, with a row of everything, and one person for every role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.utils import timezone

from harmonization_app.models import AlgorithmVersion
from harmonization_app.services import algorithm as algorithm_services
from harmonization_app.services import export as export_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution
from hub.core.audit.models import AuditEvent
from hub.core.audit.services import record
from hub.core.jobs.heartbeat import JobContext
from hub.core.models import Job
from hub.demo.simulator import simulate_mr
from qc_app.metrics.default_profile import DEFAULT_PROFILE
from qc_app.models import ChangeEvent, Deviation, DriftAlert, MetricValue, QueryMessage
from qc_app.services.check import check_series
from qc_app.services.qc_profile import QC_PROFILE
from sites_app.models import QuarantinedFile, Role, Submission, SubmissionFile
from sites_app.services.receipt import issue_receipt
from tests.access import matrix
from tests.factories import harmonization_app as harmonization
from tests.factories import qc_app as qc
from tests.factories import sites_app as sites
from tests.factories.locked import lock_algorithm
from tests.factories.sites_app import PASSWORD

HERE, THERE, ABROAD, FAR = "HERE", "THERE", "ABROAD", "FAR"
_MEMBERS = {
    matrix.MONITOR: Role.MONITOR,
    matrix.DATA_MANAGER: Role.DATA_MANAGER,
    matrix.REVIEWER: Role.IMAGING_REVIEWER,
    matrix.SPONSOR: Role.SPONSOR,
    matrix.STATISTICIAN: Role.STATISTICIAN,
    matrix.ADMINISTRATOR: Role.TRIAL_ADMINISTRATOR,
    matrix.AUDITOR: Role.AUDITOR,
}
_OWN_APPS = ("core", "sites_app", "qc_app", "harmonization_app")
_ROWS_OF_FEATURES = 40


@dataclass
class World:
    """`rows` are the things of the first trial's first site, by the names that the matrix uses."""

    rows: dict[str, Any]
    users: dict[str, Any]
    hidden: dict[str, frozenset[str]]

    def __getattr__(self, name: str) -> Any:
        return self.rows[name]

    def hidden_from(self, role: str) -> frozenset[str]:
        """Return the ids of rows of a trial or a site that the role must not be shown anywhere."""
        return self.hidden.get(role, frozenset())


def make_world() -> World:
    trial, other = sites.TrialFactory(code="FIRST"), sites.TrialFactory(code="SECOND")
    here, there = _make_site(trial, HERE), _make_site(trial, THERE)
    abroad, far = _make_site(other, ABROAD), _make_site(other, FAR)
    users = _make_users(trial, other, here["site"], there["site"])
    for owner, parts in ((trial, (here, there)), (other, (abroad, far))):
        _make_versions(owner, parts[0])
        for part in parts:
            _make_findings(part)
        _make_drafts(owner, parts[0])
    _make_algorithms(here, users[matrix.SUPERUSER])
    _make_harmonization(here, users[matrix.ADMINISTRATOR])
    _make_harmonization(abroad, users[matrix.OUTSIDER], run=False)
    record(actor=users[matrix.OUTSIDER], action="world.made", obj=other)
    record(actor=users[matrix.ADMINISTRATOR], action="world.made", obj=trial)
    here["audit_event"] = AuditEvent.objects.filter(scope=trial.pk).first()
    return World(here, users, _hidden(trial, other, here["site"], there["site"]))


def every_model() -> list[Any]:
    return [model for name in _OWN_APPS for model in apps.get_app_config(name).get_models()]


def _make_users(trial: Any, other: Any, here: Any, there: Any) -> dict[str, Any]:
    def member(role: str, of: Any = trial, site: Any = None) -> Any:
        return sites.MembershipFactory(trial=of, role=role, site=site).user

    return {
        matrix.COORDINATOR: member(Role.SITE_COORDINATOR, site=here),
        matrix.OTHER_COORDINATOR: member(Role.SITE_COORDINATOR, site=there),
        matrix.OUTSIDER: member(Role.TRIAL_ADMINISTRATOR, of=other),
        matrix.SUPERUSER: sites.UserFactory(is_superuser=True),
        **{name: member(role) for name, role in _MEMBERS.items()},
    }


def _make_site(trial: Any, code: str) -> dict[str, Any]:
    """A site with a scanner, a subject with a visit, and submissions that are open, sent and finished."""
    site = sites.SiteFactory(trial=trial, code=code)
    definition = trial.visit_definitions.first() or sites.VisitDefinitionFactory(trial=trial, code="baseline")
    arm = trial.arms.first() or sites.ArmFactory(trial=trial)
    subject = sites.SubjectFactory(site=site, arm=arm)
    scanner = sites.ScannerFactory(site=site)
    rows = {
        "trial": trial,
        "site": site,
        "definition": definition,
        "arm": arm,
        "subject": subject,
        "new_subject": sites.SubjectFactory(site=site),
        "visit": sites.VisitFactory(
            subject=subject, definition=definition, performed_on=timezone.now().date()
        ),
        "scanner": scanner,
        "epoch": sites.ScannerEpochFactory(scanner=scanner),
        "membership": sites.MembershipFactory(trial=trial, role=Role.DATA_MANAGER, site=site),
        "newcomer": sites.UserFactory(),
        "job": Job.objects.create(
            kind="world.work", queue="check", key=code, scope=trial.pk, subscope=site.pk
        ),
    }
    rows |= _make_submissions(rows["visit"])
    return rows | _make_series(rows)


def _make_submissions(visit: Any) -> dict[str, Any]:
    profile = visit.trial.deidentification_profiles.first()
    profile = profile or sites.DeidentificationProfileFactory(trial=visit.trial)
    opened, sent = (sites.SubmissionFactory(visit=visit, profile=profile) for _ in range(2))
    sites.UploadFactory(submission=sent)
    now = timezone.now()
    finished = sites.SubmissionFactory(
        visit=visit, profile=profile, state=Submission.State.ACCEPTED, completed_at=now, finished_at=now
    )
    upload = sites.UploadFactory(submission=finished, state="processed")
    place = {"trial": visit.trial, "site": visit.site, "submission": finished}
    file = SubmissionFile.objects.create(
        **place, upload=upload, ordinal=0, sha256="0" * 64, size=1, outcome="quarantined", code="unreadable"
    )
    held = QuarantinedFile.objects.create(**place, file=file)
    finished.receipt_digest = issue_receipt(finished, [])
    finished.save()
    return {"submission": opened, "sent": sent, "finished": finished, "file": file, "held": held}


def _make_series(rows: dict[str, Any]) -> dict[str, Any]:
    study = sites.StudyFactory(visit=rows["visit"])
    series = sites.SeriesFactory(
        study=study,
        submission=rows["finished"],
        scanner=rows["scanner"],
        scanner_epoch=rows["epoch"],
        observation=qc.observation(RepetitionTime=2400.0),
    )
    qc.store_instances(series, [file.data for file in simulate_mr(seed=1).files])
    return {"study": study, "series": series, "instance": series.instances.first()}


def _make_versions(trial: Any, rows: dict[str, Any]) -> None:
    rows["protocol"] = qc.ProtocolFactory(trial=trial, locked=True, signature__scope=trial.pk)
    rows["profile"] = qc.QCProfileFactory(trial=trial, locked=True)
    rows["signature"] = rows["protocol"].signature


def _make_drafts(trial: Any, rows: dict[str, Any]) -> None:
    rows["protocol_draft"] = qc.ProtocolFactory(trial=trial, version=2, title="Draft")
    digest = QC_PROFILE.parse(DEFAULT_PROFILE, trial.pk).digest
    rows["profile_draft"] = qc.QCProfileFactory(trial=trial, version=2, title="Draft", digest=digest)


def _make_findings(rows: dict[str, Any]) -> None:
    series = rows["series"]
    check_series(series_id=series.pk)
    series.refresh_from_db()
    rows["deviation"] = deviation = Deviation.objects.filter(series=series, state="open", rule="tr").get()
    rows["query"] = qc.QueryFactory(deviation=deviation)
    rows["answered_query"] = qc.QueryFactory(deviation=deviation, state="answered")
    place = {"trial": series.trial, "site": series.site}
    QueryMessage.objects.create(
        **place, query=rows["answered_query"], author=rows["finished"].created_by, text="We set it."
    )
    rows["metric"] = MetricValue.objects.filter(series=series).first()
    rows["change_event"] = ChangeEvent.objects.create(
        **place, scanner=rows["scanner"], epoch=rows["epoch"], old="A", new="B"
    )
    rows["drift_alert"] = DriftAlert.objects.create(
        **place, scanner=rows["scanner"], metric="snr_residual", chart="shewhart", expected_key="t1",
        direction="down", signalled_by=series, detail="It went down.",
    )  # fmt: skip


def _make_algorithms(rows: dict[str, Any], superuser: Any) -> None:
    versions = {row.algorithm: row for row in algorithm_services.register_algorithms()}
    rows["new_algorithm"] = versions["neurocombat"]
    AlgorithmVersion.objects.filter(pk=rows["new_algorithm"].pk).update(
        state=AlgorithmVersion.State.VERIFIED, verification={"passed": True, "cases": []}
    )
    rows["algorithm"] = lock_algorithm(versions["combat"], superuser)


def features_csv(trial: Any) -> bytes:
    """A table of two batches, with as many subjects as it needs."""
    lines = ["subject,visit,batch,volume"]
    for number in range(_ROWS_OF_FEATURES):
        subject = f"F-{number:03d}"
        batch = "AB"[number % 2]
        lines.append(f"{subject},baseline,{batch},{100 + number * 1.5 + (20 if batch == 'B' else 0)}")
    return ("\n".join(lines) + "\n").encode()


FEATURES_METADATA = {"batch": "batch", "columns": [{"name": "volume", "unit": "mm3"}]}


def plan_document(name: str) -> dict[str, Any]:
    return {
        "schema": "hub.harmonization-plan/1",
        "name": name,
        "title": f"Plan {name}",
        "algorithm": "combat",
        "batch": "batch",
        "parameters": {"covariates": [], "eb": False, "seed": 1},
    }


def _make_harmonization(rows: dict[str, Any], admin: Any, *, run: bool = True) -> None:
    trial = rows["trial"]
    for number in range(_ROWS_OF_FEATURES):
        sites.SubjectFactory(site=rows["site"], code=f"F-{number:03d}")
    rows["feature_set"] = features = feature_services.import_feature_set(
        actor=admin, trial=trial, name="Volumes", content=features_csv(trial), metadata=FEATURES_METADATA
    )
    rows["plan_draft"] = plan_services.save_draft(actor=admin, trial=trial, document=plan_document("draft"))
    rows["plan_unused"] = plan_services.save_draft(actor=admin, trial=trial, document=plan_document("unused"))
    draft = plan_services.save_draft(actor=admin, trial=trial, document=plan_document("locked"))
    rows["data_lock"] = harmonization.DataLockFactory(trial=trial)
    rows["export"] = export_services.start_export(actor=admin, trial=trial)
    if not run:
        return
    rows["plan"] = plan = plan_services.lock_plan(
        actor=admin, plan=draft, password=PASSWORD, meaning="I approve this plan"
    )
    rows["waiting_run"] = run_services.start_run(actor=admin, feature_set=features, plan=rows["plan_draft"])
    rows["run"] = done = run_services.start_run(actor=admin, feature_set=features, plan=plan)
    job = Job.objects.get(pk=done.job_id)
    run_execution.execute_run(JobContext(job_id=job.pk, attempt=1), run_id=str(done.pk))
    Job.objects.filter(pk=job.pk).update(state=Job.State.SUCCEEDED)
    done.refresh_from_db()
    assert done.state == "succeeded", done.reason


def _hidden(trial: Any, other: Any, here: Any, there: Any) -> dict[str, frozenset[str]]:
    inside = _ids(trial_id=trial.pk) | {str(trial.pk)}
    abroad = _ids(trial_id=other.pk) | {str(other.pk)}
    of_members = abroad
    return {
        matrix.ANONYMOUS: inside | abroad,
        matrix.OUTSIDER: inside,
        matrix.COORDINATOR: abroad | _ids(site_id=there.pk) | {str(there.pk)},
        matrix.OTHER_COORDINATOR: abroad | _ids(site_id=here.pk) | {str(here.pk)},
        **dict.fromkeys(_MEMBERS, of_members),
    }


def _ids(**condition: Any) -> frozenset[str]:
    """Return the ids of every row of every model that has the column and the value."""
    (column,) = condition
    found: set[str] = set()
    for model in every_model():
        if any(field.attname == column for field in model._meta.concrete_fields):
            found |= {str(pk) for pk in model.objects.filter(**condition).values_list("pk", flat=True)}
    return frozenset(item for item in found if len(item) == 36)

"""QC profiles: draft, dry run, lock, amend."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

from hub.core.canonical import digest
from hub.core.errors import InvalidInput
from qc_app.metrics.default_profile import DEFAULT_PROFILE
from qc_app.metrics.profile import parse_profile
from qc_app.models import QCProfile, SeriesCheck
from qc_app.permissions import VERSION_DRAFTERS, require_trial_wide_role
from qc_app.services import versions
from qc_app.services.judgement import judge_quality, protocol_spec
from qc_app.services.protocol import MAX_CHANGES_NAMED, PROTOCOL, DryRun, JudgementChange
from qc_app.services.shapes import metric_from_json
from qc_app.services.versions import Parsed, VersionKind
from sites_app.models import Trial


def _parse(document: Any, trial_id: UUID) -> Parsed:
    spec = parse_profile(document)
    return Parsed(document, digest(document), spec.name)


def _check_lock(row: QCProfile) -> None:
    """Refuse bounds for a series that the protocol in force does not know: they would never be used."""
    protocol = versions.in_force(PROTOCOL, row.trial_id)
    if protocol is None:
        return
    known = {series.key for series in protocol_spec(protocol).series}
    unknown = sorted(set(row.document.get("series", {})) - known)
    if unknown:
        raise InvalidInput(
            f"The protocol in force expects no series {', '.join(unknown)}; it expects {', '.join(sorted(known))}.",
            errors=[{"field": f"/series/{key}", "message": "is no expected series"} for key in unknown],
        )


def _locked(row: QCProfile) -> None:
    """Series judged before keep their verdicts; a person may have them checked again."""


QC_PROFILE: VersionKind[QCProfile] = VersionKind(QCProfile, "QC profile", _parse, _check_lock, _locked)


def create_draft(*, actor: Any, trial: Trial, document: Any = None, title: str = "") -> QCProfile:
    """Create a draft, by default from the profile that the hub ships."""
    content = DEFAULT_PROFILE if document is None else document
    return versions.create_draft(QC_PROFILE, actor=actor, trial=trial, document=content, title=title)


def update_draft(*, actor: Any, row: QCProfile, document: Any = None, title: str | None = None) -> QCProfile:
    return versions.update_draft(QC_PROFILE, actor=actor, row=row, document=document, title=title)


def discard_draft(*, actor: Any, row: QCProfile) -> None:
    versions.discard_draft(QC_PROFILE, actor=actor, row=row)


def lock_profile(*, actor: Any, row: QCProfile, password: str, meaning: str, otp: str = "") -> QCProfile:
    return versions.lock(QC_PROFILE, actor=actor, row=row, password=password, meaning=meaning, otp=otp)


def amend_profile(*, actor: Any, row: QCProfile, reason: str) -> QCProfile:
    return versions.amend(QC_PROFILE, actor=actor, row=row, reason=reason)


def dry_run(*, actor: Any, row: QCProfile) -> DryRun:
    """Judge the metrics measured so far by a version, beside their present outcomes. Raises NotAllowed."""
    require_trial_wide_role(actor, VERSION_DRAFTERS, row.trial_id, "try out a QC profile")
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    changed = 0
    changes: list[JudgementChange] = []
    checks = SeriesCheck.objects.filter(trial_id=row.trial_id, is_current=True).select_related(
        "series__subject", "series__visit__definition"
    )
    for check in checks.order_by("series__subject__code", "series__received_at").iterator(chunk_size=200):
        metrics = [metric_from_json(item) for item in check.metrics]
        judged = judge_quality(row, check.series.modality, metrics, check.expected_key)
        before[check.qc_outcome] += 1
        after[judged.outcome] += 1
        found_before, found = _findings(check.metrics), _findings(judged.metrics)
        if check.qc_outcome == judged.outcome and found == found_before:
            continue
        changed += 1
        if len(changes) < MAX_CHANGES_NAMED:
            changes.append(
                JudgementChange(
                    str(check.series_id),
                    check.series.subject.code,
                    check.series.visit.definition.code,
                    check.qc_outcome,
                    judged.outcome,
                    found_before,
                    found,
                )
            )
    return DryRun(sum(after.values()), dict(before), dict(after), changed, tuple(changes))


def _findings(metrics: Any) -> tuple[str, ...]:
    return tuple(sorted(item["name"] for item in metrics if item["outcome"] in {"warn", "fail"}))

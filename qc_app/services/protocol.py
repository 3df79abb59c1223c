"""Acquisition protocols: draft, import, dry run, lock, amend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from hub.core.errors import Conflict, InvalidInput, NotFound
from qc_app.models import Protocol, SeriesCheck
from qc_app.permissions import VERSION_DRAFTERS, require_trial_wide_role
from qc_app.protocol.capture import capture_series
from qc_app.protocol.changes import diff
from qc_app.protocol.model import COMPLIANT
from qc_app.protocol.schema import parse_protocol
from qc_app.protocol.template_files import load_template
from qc_app.services import versions
from qc_app.services.judgement import judge_protocol, protocol_spec
from qc_app.services.versions import Parsed, VersionKind
from sites_app.dicom.observations import SeriesObservation
from sites_app.models import Series, SeriesState, Trial, VisitDefinition

# A dry run names at most so many series whose judgement would change; the counts are always complete.
MAX_CHANGES_NAMED = 200
_CHUNK = 200


def _parse(document: Any, trial_id: UUID) -> Parsed:
    codes = list(VisitDefinition.objects.filter(trial_id=trial_id).values_list("code", flat=True))
    spec = parse_protocol(document, visit_codes=codes or None)
    return Parsed(spec.document, spec.digest, spec.title)


def _check_lock(row: Protocol) -> None:
    if not VisitDefinition.objects.filter(trial_id=row.trial_id).exists():
        raise Conflict(
            "The trial has no visit definitions yet. Define its visits before you lock the protocol."
        )


def _locked(row: Protocol) -> None:
    """Let the series that no protocol has judged yet be judged; what was judged keeps its verdicts."""
    never_judged = SeriesCheck.objects.filter(trial_id=row.trial_id, is_current=True, protocol=None)
    Series.objects.filter(
        trial_id=row.trial_id, state=SeriesState.CHECKED, pk__in=never_judged.values("series_id")
    ).update(state=SeriesState.RECEIVED)


PROTOCOL: VersionKind[Protocol] = VersionKind(Protocol, "protocol", _parse, _check_lock, _locked)


@dataclass(frozen=True)
class JudgementChange:
    """A series whose outcome or findings would be others, with the rules that are not compliant."""

    series: str
    subject_code: str
    visit_code: str
    before: str
    after: str
    findings_before: tuple[str, ...]
    findings_after: tuple[str, ...]


@dataclass(frozen=True)
class DryRun:
    """What a draft would say of all series received so far; nothing is written."""

    series: int
    before: dict[str, int]
    after: dict[str, int]
    changed: int
    changes: tuple[JudgementChange, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def create_draft(*, actor: Any, trial: Trial, document: Any, title: str = "") -> Protocol:
    return versions.create_draft(PROTOCOL, actor=actor, trial=trial, document=document, title=title)


def update_draft(*, actor: Any, row: Protocol, document: Any = None, title: str | None = None) -> Protocol:
    return versions.update_draft(PROTOCOL, actor=actor, row=row, document=document, title=title)


def discard_draft(*, actor: Any, row: Protocol) -> None:
    versions.discard_draft(PROTOCOL, actor=actor, row=row)


def lock_protocol(*, actor: Any, row: Protocol, password: str, meaning: str, otp: str = "") -> Protocol:
    """Lock a draft; series judged before keep the verdicts and the digest of the version that judged them."""
    return versions.lock(PROTOCOL, actor=actor, row=row, password=password, meaning=meaning, otp=otp)


def amend_protocol(*, actor: Any, row: Protocol, reason: str) -> Protocol:
    return versions.amend(PROTOCOL, actor=actor, row=row, reason=reason)


def template_document(name: str) -> dict[str, Any]:
    """Return a shipped template. Raises NotFound for an unknown name."""
    try:
        return load_template(name)
    except KeyError as error:
        raise NotFound(str(error.args[0])) from error


def import_template(*, actor: Any, row: Protocol, name: str) -> Protocol:
    """Add the expected series of a shipped template to a draft. Raises NotFound, Conflict for a key in use."""
    return _append(actor, row, template_document(name)["series"])


def import_series(*, actor: Any, row: Protocol, series: Series, key: str, title: str) -> Protocol:
    """Add an expected series with the rules that a reference series complies with.

    Raises InvalidInput where nothing was read from the series, Conflict for a key in use.
    """
    return _append(actor, row, [captured_series(series=series, key=key, title=title)])


def captured_series(*, series: Series, key: str, title: str) -> dict[str, Any]:
    """Return the expected series (protocol JSON) drafted from a received one."""
    if not series.observation:
        raise InvalidInput(
            "Nothing was read from this series yet. Choose a series that has been received wholly."
        )
    return capture_series(SeriesObservation.from_json(series.observation), key, title)


def _append(actor: Any, row: Protocol, additions: list[dict[str, Any]]) -> Protocol:
    require_trial_wide_role(actor, VERSION_DRAFTERS, row.trial_id, "change a draft protocol")
    document = dict(row.document)
    taken = {series["key"] for series in document["series"]} & {series["key"] for series in additions}
    if taken:
        names = ", ".join(sorted(taken))
        raise Conflict(f"The draft has a series with the key {names} already. Remove or rename it first.")
    document["series"] = [*document["series"], *additions]
    return versions.update_draft(PROTOCOL, actor=actor, row=row, document=document)


def changes_since_lock(row: Protocol) -> list[str]:
    """Return one sentence for each difference of a version from the one in force."""
    former = versions.in_force(PROTOCOL, row.trial_id)
    if former is None or former.pk == row.pk:
        return []
    return diff(protocol_spec(former), protocol_spec(row))


def dry_run(*, actor: Any, row: Protocol) -> DryRun:
    """Judge all series received so far by a version, beside their present verdicts. Raises NotAllowed."""
    require_trial_wide_role(actor, VERSION_DRAFTERS, row.trial_id, "try out a protocol")
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    changed = 0
    changes: list[JudgementChange] = []
    for series, check in _judged_series(row.trial_id):
        judged = judge_protocol(row, series.observation, series.visit.definition.code)
        former = check.protocol_outcome if check is not None else "not_checked"
        before[former] += 1
        after[judged.outcome] += 1
        found = _findings(judged.verdicts)
        found_before = _findings(check.verdicts) if check is not None else ()
        if former == judged.outcome and found == found_before:
            continue
        changed += 1
        if len(changes) < MAX_CHANGES_NAMED:
            changes.append(
                JudgementChange(
                    str(series.pk),
                    series.subject.code,
                    series.visit.definition.code,
                    former,
                    judged.outcome,
                    found_before,
                    found,
                )
            )
    return DryRun(sum(after.values()), dict(before), dict(after), changed, tuple(changes))


def _judged_series(trial_id: UUID) -> Iterator[tuple[Series, SeriesCheck | None]]:
    rows = (
        Series.objects.filter(trial_id=trial_id)
        .select_related("subject", "visit__definition")
        .order_by("subject__code", "received_at")
    )
    batch: list[Series] = []
    for series in rows.iterator(chunk_size=_CHUNK):
        batch.append(series)
        if len(batch) == _CHUNK:
            yield from _with_checks(batch)
            batch = []
    yield from _with_checks(batch)


def _with_checks(batch: list[Series]) -> Iterator[tuple[Series, SeriesCheck | None]]:
    checks = {row.series_id: row for row in SeriesCheck.objects.filter(series__in=batch, is_current=True)}
    for series in batch:
        yield series, checks.get(series.pk)


def _findings(verdicts: Any) -> tuple[str, ...]:
    return tuple(sorted({verdict["rule"] for verdict in verdicts if verdict["outcome"] != COMPLIANT}))

"""What the hub knows of the images behind the rows of a feature set: conformance, quality, scanner epoch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from harmonization_app.diagnostics.feature_table import ROW_KEY_SEPARATOR
from qc_app.models import Deviation, DeviationState, ProtocolOutcome, QCOutcome, SeriesCheck
from qc_app.protocol.matching import SEVERAL
from qc_app.services.findings import ACTIVE
from qc_app.services.waivers import is_expired
from sites_app.models import Series, SeriesState, Trial, Visit

DECIDED = (DeviationState.WAIVED, DeviationState.RESOLVED, DeviationState.REJECTED)
_WAITING = (SeriesState.RECEIVED, SeriesState.CHECKING)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Epoch:
    """A scanner with one software version; `number` orders the epochs of a scanner."""

    scanner: UUID
    serial_number: str
    number: int
    software: str


@dataclass(frozen=True, slots=True)
class RowImages:
    """The images of one row. Empty texts say that nothing was found against them.

    `known` is False where the hub has no image of the visit. `pending` images are still being checked. A scanner in
    `without_epoch` took an image whose software version is not known.
    """

    known: bool = False
    pending: bool = False
    deviant: str = ""
    qc_failed: str = ""
    quality_judged: bool = True
    epochs: frozenset[Epoch] = frozenset()
    without_epoch: frozenset[UUID] = frozenset()


@dataclass
class _VisitFacts:
    series: list[dict[str, Any]] = field(default_factory=list)
    deviations: list[dict[str, Any]] = field(default_factory=list)


def images_of_rows(trial: Trial, rows: Iterable[str], series: Collection[str] = ()) -> dict[str, RowImages]:
    """Return the images of each row (subject|visit), of the expected `series` only where any are named.

    Series that were replaced by a compliant one, and series that the protocol does not expect, are left aside.
    """
    visits = _visits(trial)
    facts = _facts(trial)
    found = {}
    for row in rows:
        subject, _, visit = row.partition(ROW_KEY_SEPARATOR)
        own = facts.get(visits.get((subject, visit), UUID(int=0)))
        found[row] = _row_images(own, frozenset(series)) if own is not None else RowImages()
    return found


def _visits(trial: Trial) -> dict[tuple[str, str], UUID]:
    rows = Visit.objects.filter(trial=trial).order_by()
    return {
        (subject, visit): identifier
        for identifier, subject, visit in rows.values_list("pk", "subject__code", "definition__code")
    }


def _facts(trial: Trial) -> dict[UUID, _VisitFacts]:
    """Return every visit of the trial that has images, in five queries whatever its size."""
    facts: dict[UUID, _VisitFacts] = defaultdict(_VisitFacts)
    checks = _checks(trial)
    for item in (
        Series.objects.filter(trial=trial, instance_count__gt=0)
        .order_by()
        .values(
            "pk", "visit_id", "state", "scanner_id", "scanner__serial_number",
            "scanner_epoch__number", "scanner_epoch__software_versions",
        )
    ):  # fmt: skip
        facts[item["visit_id"]].series.append({**item, "check": checks.get(item["pk"])})
    active = Deviation.objects.filter(trial=trial, state__in=ACTIVE).order_by("opened_at")
    for item in active.values("visit_id", "series_id", "rule", "label"):
        if item["visit_id"] in facts:
            facts[item["visit_id"]].deviations.append(item)
    return dict(facts)


def _checks(trial: Trial) -> dict[UUID, dict[str, Any]]:
    """Return the current check of each series; `accepted` where people closed every finding in it."""
    rows = SeriesCheck.objects.filter(trial=trial, is_current=True).order_by()
    columns = ("series_id", "expected_key", "match", "protocol_outcome", "qc_outcome", "replaced_by_id")
    checks = {item["series_id"]: {**item, "accepted": False} for item in rows.values(*columns)}
    decided = _decided_rules(trial)
    faulty = rows.filter(series__in=list(decided)).exclude(protocol_outcome=ProtocolOutcome.COMPLIANT)
    for series_id, verdicts in faulty.values_list("series_id", "verdicts"):
        found = {item["rule"] for item in verdicts if item["outcome"] != ProtocolOutcome.COMPLIANT}
        checks[series_id]["accepted"] = bool(found) and found <= decided[series_id]
    return checks


def _decided_rules(trial: Trial) -> dict[UUID, set[str]]:
    """Return the rules by series whose deviation a person closed; a waiver that ran out closes nothing."""
    rules: dict[UUID, set[str]] = defaultdict(set)
    rows = Deviation.objects.filter(trial=trial, state__in=DECIDED, series__isnull=False)
    rows = rows.filter(closed_by__isnull=False).order_by()
    for series_id, rule, state, waiver in rows.values_list("series_id", "rule", "state", "waiver"):
        if state != DeviationState.WAIVED or not is_expired(waiver):
            rules[series_id].add(rule)
    return rules


def _row_images(facts: _VisitFacts, wanted: frozenset[str]) -> RowImages:
    considered = [item for item in facts.series if _is_considered(item, wanted)]
    epochs, without = _epochs(considered)
    checks = [item["check"] for item in considered if item["check"] is not None]
    failed = [_name(check) for check in checks if check["qc_outcome"] == QCOutcome.FAIL]
    return RowImages(
        known=True,
        pending=any(item["state"] in _WAITING for item in facts.series),
        deviant=_why_deviant(facts, considered, wanted),
        qc_failed=f"failed QC: {_shown(failed)}" if failed else "",
        quality_judged=all(check["qc_outcome"] != QCOutcome.NOT_EVALUABLE for check in checks),
        epochs=epochs,
        without_epoch=without,
    )


def _is_considered(item: Mapping[str, Any], wanted: frozenset[str]) -> bool:
    """Whether a series may be one that the features come from; one never checked may be any."""
    check = item["check"]
    if check is None:
        return True
    if check["replaced_by_id"] is not None:
        return False
    if check["match"].get("code") == SEVERAL:
        return not wanted or bool(wanted & set(check["match"].get("candidates", ())))
    return bool(check["expected_key"]) and (not wanted or check["expected_key"] in wanted)


def _why_deviant(facts: _VisitFacts, considered: Sequence[Mapping[str, Any]], wanted: frozenset[str]) -> str:
    """Return why the images are not known to be as the protocol wants, or an empty text."""
    found = {item["check"]["expected_key"] for item in considered if item["check"] is not None}
    lacking = sorted(wanted - found)
    if lacking or not considered:
        return f"no image of {_shown(lacking)}" if lacking else "no image that the protocol expects"
    own = {item["pk"] for item in considered}
    labels = [
        item["label"]
        for item in facts.deviations
        if (item["series_id"] in own if item["series_id"] else _concerns(item["rule"], wanted))
    ]
    if labels:
        return f"open deviation: {_shown(labels)}"
    for item in considered:
        reason = _why_series_deviant(item)
        if reason:
            return reason
    return ""


def _why_series_deviant(item: Mapping[str, Any]) -> str:
    check = item["check"]
    if item["state"] == SeriesState.FAILED or (check is None and item["state"] not in _WAITING):
        return "an image could not be checked"
    if check is None or check["accepted"] or check["protocol_outcome"] == ProtocolOutcome.COMPLIANT:
        return ""
    what = (
        "departs from" if check["protocol_outcome"] == ProtocolOutcome.DEVIANT else "could not be judged by"
    )
    return f"{_name(check)} {what} the protocol"


def _concerns(rule: str, wanted: frozenset[str]) -> bool:
    """Whether a deviation of the visit as a whole (one series missing, its date) is about these images."""
    return not wanted or rule in {f"visit.{key}" for key in wanted}


def _epochs(series: Sequence[Mapping[str, Any]]) -> tuple[frozenset[Epoch], frozenset[UUID]]:
    epochs, without = set(), set()
    for item in series:
        if item["scanner_id"] is None:
            continue
        number = item["scanner_epoch__number"]
        if number is None:
            without.add(item["scanner_id"])
            continue
        serial, software = item["scanner__serial_number"], item["scanner_epoch__software_versions"]
        epochs.add(Epoch(item["scanner_id"], serial, number, software))
    return frozenset(epochs), frozenset(without)


def _name(check: Mapping[str, Any]) -> str:
    return check["expected_key"] or "a series that may be one of several"


def _shown(names: Sequence[str]) -> str:
    each = list(dict.fromkeys(names))
    more = f" and {len(each) - _SHOWN} more" if len(each) > _SHOWN else ""
    return ", ".join(each[:_SHOWN]) + more

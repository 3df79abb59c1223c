"""The subject by visit grid: one state per cell."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count

from qc_app.models import Deviation, ProtocolOutcome, QCOutcome, SeriesCheck, VisitCheck
from qc_app.services.findings import ACTIVE
from sites_app.models import Series, SeriesState, Site, Subject, Trial, Visit, VisitDefinition

CELL_STATES = {
    "nothing": "nothing received",
    "received": "being checked",
    "compliant": "compliant",
    "deviant": "deviant",
    "not_evaluable": "not evaluable",
    "failed_qc": "failed QC",
}


@dataclass(frozen=True)
class GridCell:
    """One subject at one planned visit; `visit_id` None where nothing was planned or sent yet."""

    visit_code: str
    visit_id: UUID | None
    state: str
    series: int
    open_deviations: int

    @property
    def label(self) -> str:
        return CELL_STATES[self.state]


@dataclass(frozen=True)
class GridRow:
    subject_id: UUID
    subject_code: str
    site_code: str
    cells: tuple[GridCell, ...]


@dataclass(frozen=True)
class Grid:
    """`columns` are (code, title) of the planned visits; `subjects` counts all rows, of which some are shown."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[GridRow, ...]
    subjects: int
    totals: dict[str, int]


@dataclass(frozen=True)
class _VisitFacts:
    states: Counter[str]
    outcomes: Counter[str]
    quality: Counter[str]
    visit_outcome: str
    open_deviations: int


def subject_visit_grid(
    user: Any, trial: Trial, *, site: Site | None = None, offset: int = 0, limit: int = 200
) -> Grid:
    """Return the grid of the subjects that the user may see, in the order of their codes."""
    subjects = Subject.objects.visible_to(user).filter(trial=trial)
    if site is not None:
        subjects = subjects.filter(site=site)
    count = subjects.count()
    shown = list(subjects.select_related("site").order_by("code")[offset : offset + limit])
    definitions = list(VisitDefinition.objects.filter(trial=trial))
    visits = {
        (row.subject_id, row.definition_id): row.pk
        for row in Visit.objects.filter(subject__in=shown).only("pk", "subject_id", "definition_id")
    }
    facts = _facts(list(visits.values()))
    rows = tuple(
        GridRow(
            subject.pk,
            subject.code,
            subject.site.code,
            tuple(
                _cell(definition.code, visits.get((subject.pk, definition.pk)), facts)
                for definition in definitions
            ),
        )
        for subject in shown
    )
    totals = Counter(cell.state for row in rows for cell in row.cells)
    columns = tuple((definition.code, definition.title) for definition in definitions)
    return Grid(columns, rows, count, {state: totals.get(state, 0) for state in CELL_STATES})


def _facts(visit_ids: list[UUID]) -> dict[UUID, _VisitFacts]:
    states: dict[UUID, Counter[str]] = defaultdict(Counter)
    rows = (
        Series.objects.filter(visit__in=visit_ids, instance_count__gt=0)
        .order_by()
        .values_list("visit_id", "state")
    )
    for visit_id, state, number in rows.annotate(number=Count("pk")):
        states[visit_id][state] += number
    outcomes: dict[UUID, Counter[str]] = defaultdict(Counter)
    quality: dict[UUID, Counter[str]] = defaultdict(Counter)
    checks = SeriesCheck.objects.filter(series__visit__in=visit_ids, is_current=True, replaced_by=None)
    for visit_id, outcome, qc, number in (
        checks.order_by()
        .values_list("series__visit_id", "protocol_outcome", "qc_outcome")
        .annotate(number=Count("pk"))
    ):
        outcomes[visit_id][outcome] += number
        quality[visit_id][qc] += number
    judged = dict(
        VisitCheck.objects.filter(visit__in=visit_ids).order_by().values_list("visit_id", "protocol_outcome")
    )
    deviations = dict(
        Deviation.objects.filter(visit__in=visit_ids, state__in=ACTIVE)
        .order_by()
        .values_list("visit_id")
        .annotate(number=Count("pk"))
    )
    return {
        visit_id: _VisitFacts(
            states[visit_id],
            outcomes[visit_id],
            quality[visit_id],
            judged.get(visit_id, ""),
            deviations.get(visit_id, 0),
        )
        for visit_id in visit_ids
    }


def _cell(code: str, visit_id: UUID | None, facts: dict[UUID, _VisitFacts]) -> GridCell:
    if visit_id is None:
        return GridCell(code, None, "nothing", 0, 0)
    found = facts[visit_id]
    return GridCell(code, visit_id, _state(found), found.states.total(), found.open_deviations)


def _state(facts: _VisitFacts) -> str:
    if not facts.states:
        return "deviant" if facts.visit_outcome == ProtocolOutcome.DEVIANT else "nothing"
    if facts.states[SeriesState.RECEIVED] or facts.states[SeriesState.CHECKING]:
        return "received"
    if facts.quality[QCOutcome.FAIL]:
        return "failed_qc"
    found = [*facts.outcomes.elements(), facts.visit_outcome or ProtocolOutcome.NOT_EVALUABLE.value]
    if facts.states[SeriesState.FAILED]:
        found.append(ProtocolOutcome.NOT_EVALUABLE.value)
    for outcome in (ProtocolOutcome.DEVIANT.value, ProtocolOutcome.NOT_EVALUABLE.value):
        if outcome in found:
            return outcome
    return ProtocolOutcome.COMPLIANT.value

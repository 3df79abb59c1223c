"""The dashboards' figures; each is scoped by `visible_to` and costs a handful of statements."""

from __future__ import annotations

from typing import Any

from django.db.models import Count

from qc_app.models import (
    ChangeEvent,
    Deviation,
    DriftAlert,
    Protocol,
    QCProfile,
    Query,
    QueryState,
    SeriesCheck,
    VersionState,
)
from qc_app.selectors.distribution import MetricDistribution, metric_distribution, scanner_timeline
from qc_app.selectors.grid import CELL_STATES, Grid, subject_visit_grid
from qc_app.selectors.next_steps import WhatNext, what_next
from qc_app.selectors.scorecard import ParetoBar, SiteScorecard, deviation_pareto, site_scorecards
from qc_app.services.findings import ACTIVE
from qc_app.services.shapes import version_json
from sites_app.models import Site, Subject, Submission, Trial, Visit
from sites_app.selectors.series import received_series

__all__ = [
    "CELL_STATES",
    "Grid",
    "MetricDistribution",
    "ParetoBar",
    "SiteScorecard",
    "WhatNext",
    "deviation_pareto",
    "metric_distribution",
    "scanner_timeline",
    "site_scorecards",
    "subject_visit_grid",
    "trial_summary",
    "what_next",
]


def trial_summary(user: Any, trial: Trial) -> dict[str, Any]:
    """Return the counts of what the user may see of a trial, and the versions in force."""
    checks = SeriesCheck.objects.visible_to(user).filter(trial=trial, is_current=True, replaced_by=None)
    deviations = Deviation.objects.visible_to(user).filter(trial=trial, state__in=ACTIVE)
    queries = Query.objects.visible_to(user).filter(trial=trial).exclude(state=QueryState.CLOSED)
    alerts = DriftAlert.objects.visible_to(user).filter(trial=trial, state=DriftAlert.State.OPEN)
    changes = ChangeEvent.objects.visible_to(user).filter(trial=trial, state=ChangeEvent.State.OPEN)
    return {
        "trial": str(trial.pk),
        "code": trial.code,
        "lock_state": trial.lock_state,
        "sites": Site.objects.visible_to(user).filter(trial=trial).count(),
        "subjects": Subject.objects.visible_to(user).filter(trial=trial).count(),
        "visits": Visit.objects.visible_to(user).filter(trial=trial).count(),
        "submissions": _by(Submission.objects.visible_to(user).filter(trial=trial), "state"),
        "series": _by(received_series(user).filter(trial=trial), "state"),
        "protocol_outcomes": _by(checks, "protocol_outcome"),
        "qc_outcomes": _by(checks, "qc_outcome"),
        "open_deviations": _by(deviations, "severity"),
        "queries": _by(queries, "state"),
        "open_drift_alerts": alerts.count(),
        "open_change_events": changes.count(),
        "protocol": version_json(
            Protocol.objects.filter(trial=trial, state=VersionState.LOCKED).defer("document").first()
        ),
        "qc_profile": version_json(
            QCProfile.objects.filter(trial=trial, state=VersionState.LOCKED).defer("document").first()
        ),
    }


def _by(rows: Any, field: str) -> dict[str, int]:
    return dict(rows.order_by().values_list(field).annotate(number=Count("pk")))

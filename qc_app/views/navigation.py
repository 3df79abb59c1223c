"""This app's pages in the main navigation."""

from __future__ import annotations

from sites_app.models import Role
from sites_app.views.navigation import Entry
from sites_app.views.trial_pages import TRIAL_WIDE_ROLES

_EVERYBODY = frozenset(Role.values)

COORDINATOR_ENTRIES = (
    Entry("What to do next", "home", "trial-home", frozenset({Role.SITE_COORDINATOR}), order=10),
    Entry("Series", "images", "series", _EVERYBODY, order=40),
    Entry("Deviations", "flag", "deviations", _EVERYBODY, order=50),
    Entry("Queries", "chat", "queries", _EVERYBODY, order=60),
)

DASHBOARD_ENTRIES = (
    Entry("Dashboard", "grid", "trial-dashboard", TRIAL_WIDE_ROLES, order=5),
    Entry("Scanners", "scanner", "trial-scanners", _EVERYBODY, order=65),
    Entry("Protocol", "list", "trial-protocol", _EVERYBODY, order=70),
    Entry("QC profile", "chart", "trial-qc-profile", _EVERYBODY, order=72),
)

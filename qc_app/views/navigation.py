"""This app's pages in the main navigation."""

from __future__ import annotations

from sites_app.models import Role
from sites_app.views.navigation import Entry

_EVERYBODY = frozenset(Role.values)

COORDINATOR_ENTRIES = (
    Entry("What to do next", "home", "trial-home", frozenset({Role.SITE_COORDINATOR}), order=10),
    Entry("Series", "images", "series", _EVERYBODY, order=40),
    Entry("Deviations", "flag", "deviations", _EVERYBODY, order=50),
    Entry("Queries", "chat", "queries", _EVERYBODY, order=60),
)

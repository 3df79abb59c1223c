"""The main navigation: each app adds its pages, each role sees its own."""

from __future__ import annotations

from dataclasses import dataclass

from sites_app.models import Role
from sites_app.permissions import UPLOADERS


@dataclass(frozen=True)
class Entry:
    """A page in the navigation; in a trial's group `url_name` takes the argument `trial_code`."""

    title: str
    icon: str
    url_name: str
    roles: frozenset[str]
    order: int = 50


_entries: list[Entry] = []
_hub_entries: list[Entry] = []


def register_entries(*entries: Entry) -> None:
    """Add pages to every trial's navigation. Register in AppConfig.ready()."""
    _entries.extend(entry for entry in entries if entry not in _entries)
    _entries.sort(key=lambda entry: entry.order)


def register_hub_entries(*entries: Entry) -> None:
    """Add pages of the whole hub, which belong to no trial and take no argument; `roles` held in any trial."""
    _hub_entries.extend(entry for entry in entries if entry not in _hub_entries)
    _hub_entries.sort(key=lambda entry: entry.order)


def hub_entries_for(roles: frozenset[str]) -> list[Entry]:
    return [entry for entry in _hub_entries if entry.roles & roles]


def entries_for(roles: frozenset[str]) -> list[Entry]:
    return [entry for entry in _entries if entry.roles & roles]


SITE_ENTRIES = (
    Entry("Upload", "upload", "upload", UPLOADERS, order=20),
    Entry("Submissions", "inbox", "submissions", frozenset(Role.values), order=30),
)

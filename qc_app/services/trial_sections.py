"""The sections of a trial file that this app owns: the draft protocol and the draft QC profile."""

from __future__ import annotations

from typing import Any

from hub.core.errors import HubError
from qc_app.services import versions
from qc_app.services.protocol import PROTOCOL
from qc_app.services.qc_profile import QC_PROFILE
from qc_app.services.versions import VersionKind
from sites_app.services.trial_file import Change, Section, register_section

AFTER_VISITS = 80
_REASON = "Changed by the trial file."


def apply_protocol(section: Section, value: Any) -> None:
    _apply(section, value, PROTOCOL)


def apply_qc_profile(section: Section, value: Any) -> None:
    _apply(section, value, QC_PROFILE)


def _apply(section: Section, value: Any, kind: VersionKind[Any]) -> None:
    """Create or change the draft where the document differs from the draft and from the version in force."""
    trial = section.trial
    try:
        wanted = kind.parse(value, trial.pk).digest
        draft = versions.draft_of(kind, trial.pk)
        standing = draft or versions.in_force(kind, trial.pk)
        if standing is not None and standing.digest == wanted:
            return
        if draft is not None:
            versions.save_changes(kind, actor=section.actor, row=draft, document=value)
        else:
            reason = _REASON if standing is not None else ""
            versions.save_new(kind, actor=section.actor, trial=trial, document=value, title="", reason=reason)
    except HubError as error:
        for fault in error.errors or [{"field": "", "message": error.detail}]:
            section.error(str(fault["field"]), str(fault["message"]))
        return
    changed = "updated" if draft is not None else "created"
    section.changes.append(Change(changed, f"draft {kind.noun}", {"digest": wanted}))


def register_sections() -> None:
    register_section("protocol", apply_protocol, order=AFTER_VISITS)
    register_section("qc_profile", apply_qc_profile, order=AFTER_VISITS + 1)

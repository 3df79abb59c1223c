"""Each trial's secret, each subject's date offset, and the de-identification profile in use."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import fields
from functools import lru_cache
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from sites_app.deid.engine import Deidentifier
from sites_app.deid.profile import DEFAULT_PROFILE, Profile
from sites_app.models import DeidentificationProfile, Subject, Trial

OFFSET_RANGE_DAYS = (-365, -1)
"""Dates of a subject move back by one offset between one year and one day: intervals stay as they were."""


def trial_key(trial_id: UUID) -> bytes:
    """Return the 32-byte secret of a trial: the same UID in two trials maps to unrelated ones."""
    return _derive(b"trial", trial_id.bytes)


def date_offset_days(subject_id: UUID) -> int:
    """Return the one offset of a subject's dates, uniform over OFFSET_RANGE_DAYS."""
    first, last = OFFSET_RANGE_DAYS
    return first + int.from_bytes(_derive(b"dates", subject_id.bytes)[:8], "big") % (last - first + 1)


def current_profile(trial: Trial) -> DeidentificationProfile:
    """Return the trial's newest profile; a version is added where none says what this software does.

    Call it inside a transaction: the trial's row is locked while a version is added.
    """
    newest = DeidentificationProfile.objects.filter(trial=trial).order_by("-version").first()
    profile = DEFAULT_PROFILE if newest is None else profile_from(newest.document)
    if newest is not None and newest.digest == profile.digest:
        return newest
    Trial.objects.select_for_update(no_key=True).get(pk=trial.pk)
    newest = DeidentificationProfile.objects.filter(trial=trial).order_by("-version").first()
    if newest is not None and newest.digest == profile.digest:
        return newest
    return DeidentificationProfile.objects.create(
        trial=trial,
        version=1 if newest is None else newest.version + 1,
        document=profile.to_json(),
        digest=profile.digest,
    )


def profile_from(document: dict) -> Profile:
    """Return the profile with a stored document's options; its actions are those of this software."""
    names = {field.name for field in fields(Profile)}
    options = {name: value for name, value in document.items() if name in names}
    return _profile_with(json.dumps(options, sort_keys=True))


@lru_cache(maxsize=32)
def _profile_with(options: str) -> Profile:
    """Return one profile for the same options: it keeps the actions and the digest that it has worked out."""
    return Profile(**json.loads(options))


def deidentifier_for(subject: Subject, profile: DeidentificationProfile) -> Deidentifier:
    """Return the de-identifier of a subject's files under a stored profile."""
    return Deidentifier(
        profile_from(profile.document),
        trial_key(subject.trial_id),
        subject.code,
        date_offset_days(subject.pk),
        subject.trial.code,
    )


def _derive(*parts: bytes) -> bytes:
    if not settings.HUB_PSEUDONYM_KEY:
        raise ImproperlyConfigured("HUB_PSEUDONYM_KEY is missing: nothing can be de-identified without it.")
    return hmac.new(settings.HUB_PSEUDONYM_KEY.encode(), b"\0".join(parts), hashlib.sha256).digest()

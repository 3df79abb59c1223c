"""Searches what was written for any original identifying value: the last gate before a file is kept."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress

from sites_app.deid.identifiers import MINIMUM_CHARACTERS, Identifiers
from sites_app.deid.policy import InstanceRefused

MINIMUM_DIGITS = 6
"""A shorter number is found in any header by chance: as a time, a size, an instance number."""
DATE_DIGITS = 8
"""A date may be followed by a time."""
DISTINCT_DIGITS = 10
DISTINCT_CHARACTERS = 8
"""From here on a value is not met by chance inside a longer one, so it is looked for anywhere."""
FEW_UIDS = 64
"""Up to here each UID is searched for; beyond, all numbers of the file are listed once."""
_NUMBERS = re.compile(rb"[0-9.]+")
_WORD = rb"[0-9a-z\x80-\xff]"


class Residual:
    """Finds original values in written bytes, in any case and in UTF-8, Latin-1 and UTF-16.

    A short value counts only where it does not touch another letter or digit, a long one anywhere.
    """

    def __init__(self) -> None:
        self._forms: dict[Identifiers, tuple[tuple[bytes, re.Pattern[bytes]], ...]] = {}

    def check(self, written: bytes, identifiers: Identifiers, uids: Collection[str]) -> None:
        """Raise InstanceRefused(residual_identifier) where `written` holds an original value.

        The value itself is not repeated in the error.
        """
        haystack = written.lower()
        if _holds_uid(haystack, uids):
            raise _refused("an original UID")
        for needle, pattern in self._patterns(identifiers):
            if needle in haystack and pattern.search(haystack):
                raise _refused("an identifying value of the original header")

    def _patterns(self, identifiers: Identifiers) -> tuple[tuple[bytes, re.Pattern[bytes]], ...]:
        found = self._forms.get(identifiers)
        if found is None:
            if len(self._forms) > 1000:
                self._forms.clear()
            found = self._forms[identifiers] = tuple(_forms(identifiers))
        return found


def _holds_uid(haystack: bytes, uids: Collection[str]) -> bool:
    """True where a UID stands in the bytes as a whole number of digits and dots."""
    needles = {uid.encode() for uid in uids}
    if len(needles) > FEW_UIDS:
        return not needles.isdisjoint(_NUMBERS.findall(haystack))
    return any(needle in haystack and _number_pattern(needle).search(haystack) for needle in needles)


def _forms(identifiers: Identifiers) -> Iterable[tuple[bytes, re.Pattern[bytes]]]:
    values = identifiers.whole | {word for word in identifiers.words if len(word) >= MINIMUM_CHARACTERS}
    for value in sorted(values):
        needles: dict[bytes, None] = {}
        for form in (value, value.lower(), value.upper()):
            for encoding in ("utf-8", "latin-1", "utf-16-le"):
                # A form that an encoding cannot hold cannot stand in the file in that encoding.
                with suppress(UnicodeEncodeError):
                    needles[form.encode(encoding).lower()] = None
        for needle in needles:
            pattern = _pattern(needle)
            if pattern is not None:
                yield needle, pattern


def _pattern(needle: bytes) -> re.Pattern[bytes] | None:
    """Return how to look for a value, None for a number so short that any header holds it by chance."""
    escaped = re.escape(needle)
    if not re.fullmatch(rb"[0-9.]+", needle):
        if len(needle) >= DISTINCT_CHARACTERS:
            return re.compile(escaped)
        return re.compile(rb"(?<!" + _WORD + rb")" + escaped + rb"(?!" + _WORD + rb")")
    if len(needle) < MINIMUM_DIGITS:
        return None
    if len(needle) >= DISTINCT_DIGITS:
        return re.compile(escaped)
    if len(needle) >= DATE_DIGITS:
        return re.compile(rb"(?<![0-9.])" + escaped)
    return _number_pattern(needle)


def _number_pattern(needle: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![0-9.])" + re.escape(needle) + rb"(?![0-9.])")


def _refused(what: str) -> InstanceRefused:
    return InstanceRefused(
        "residual_identifier",
        f"After de-identification the file still held {what}.",
        "Remove the patient's data from free-text fields at the scanner or ask a data manager to look at the file.",
    )

"""Searches what was written for any original identifying value: the last gate before a file is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sites_app.deid.identifiers import MINIMUM_CHARACTERS, Identifiers
from sites_app.deid.policy import InstanceRefused

MINIMUM_DIGITS = 6
_WORD = rb"[0-9a-z\x80-\xff]"


class Residual:
    """Finds original values in written bytes, in any case and in UTF-8, Latin-1 and UTF-16.

    Values of digits and dots only must not touch another digit or dot, words must not touch another letter or
    digit: a number inside a longer number is not the identifier.
    """

    def __init__(self) -> None:
        self._forms: dict[Identifiers, tuple[tuple[bytes, re.Pattern[bytes]], ...]] = {}

    def check(self, written: bytes, identifiers: Identifiers, uids: Iterable[str]) -> None:
        """Raise InstanceRefused(residual_identifier) where `written` holds an original value.

        The value itself is not repeated in the error.
        """
        haystack = written.lower()
        for uid in uids:
            needle = uid.encode()
            if needle in haystack and _number_pattern(needle).search(haystack):
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


def _forms(identifiers: Identifiers) -> Iterable[tuple[bytes, re.Pattern[bytes]]]:
    for value in sorted(
        identifiers.whole | {word for word in identifiers.words if len(word) >= MINIMUM_CHARACTERS}
    ):
        for encoding in ("utf-8", "latin-1", "utf-16-le"):
            try:
                needle = value.encode(encoding).lower()
            except UnicodeEncodeError:
                continue
            if re.fullmatch(rb"[0-9.]+", needle):
                # A short number is found in any header by chance: as a time, a size, an instance number.
                if len(needle) >= MINIMUM_DIGITS:
                    yield needle, _number_pattern(needle)
            else:
                yield (
                    needle,
                    re.compile(rb"(?<!" + _WORD + rb")" + re.escape(needle) + rb"(?!" + _WORD + rb")"),
                )


def _number_pattern(needle: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![0-9.])" + re.escape(needle) + rb"(?![0-9.])")


def _refused(what: str) -> InstanceRefused:
    return InstanceRefused(
        "residual_identifier",
        f"After de-identification the file still held {what}.",
        "Remove the patient's data from free-text fields at the scanner or ask a data manager to look at the file.",
    )

"""Replacement values: keyed UIDs, shifted dates, cleaned descriptors, and the patient's keyed digest."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import date, timedelta

_DA = re.compile(rb"(\d{4})\.?(\d{2})\.?(\d{2})")
_DT = re.compile(rb"(\d{4})(\d{2})?(\d{2})?((?:\d{2}){0,3}(?:\.\d{1,6})?)((?:[+-]\d{4})?)")
_TM = re.compile(rb"\d{2}(?::?\d{2}(?::?\d{2}(?:\.\d{1,6})?)?)?")

_DATE_IN_TEXT = re.compile(
    r"(?<!\d)(?:(?:19|20)\d{2}[-/._]?(?:0[1-9]|1[0-2])[-/._]?(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:19|20)?\d{2})(?!\d)"
)
_LONG_NUMBER = re.compile(r"(?<![\d.])\d{6,}(?![\d.])")
_CONTACT = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\b\d{3}[- ]\d{2,4}[- ]\d{4}\b")
_TITLED_NAME = re.compile(r"\b(?:Dr|Mrs|Ms|Prof|Mr(?=\.))\.?(?:\s+[^\W\d_]+|\s*$)", re.IGNORECASE)
_CARETED_NAME = re.compile(r"[^\W\d_]{2,}\^[^\W\d_^]*(?:\^[^\W\d_^]*)*")
_SPACES = re.compile(r"\s+")


class UidMap:
    """Maps UIDs one way under a key: the same UID and key give the same 2.25 UID in every process.

    2.25 UIDs hold a 128-bit number (PS3.5 B.2); here the first 128 bits of an HMAC-SHA256.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hmac.new(key, b"uid", hashlib.sha256).digest()
        self._memo: dict[str, str] = {}

    def __call__(self, uid: str) -> str:
        mapped = self._memo.get(uid)
        if mapped is None:
            if len(self._memo) > 100_000:
                self._memo.clear()
            number = int.from_bytes(hmac.new(self._key, uid.encode(), hashlib.sha256).digest()[:16], "big")
            mapped = self._memo[uid] = f"2.25.{number}"
        return mapped


def shift_dates(vr: str, raw: bytes, days: int) -> bytes | None:
    """Return a DA, DT or TM value moved by whole days, None where it is not a valid one.

    TM and the time, fraction and zone of DT stay as they are, since the offset is whole days. A DT of a year
    or a month only is moved as that period's first day and cut to the same precision.
    """
    parts = raw.strip(b"\0 ").split(b"\\")
    shifted = [_shift_one(vr, part.strip(), days) for part in parts]
    if any(part is None for part in shifted):
        return None
    return b"\\".join(part for part in shifted if part is not None)


def _shift_one(vr: str, part: bytes, days: int) -> bytes | None:
    if not part:
        return b""
    if vr == "TM":
        return part if _TM.fullmatch(part) else None
    match = (_DA if vr == "DA" else _DT).fullmatch(part)
    if match is None:
        return None
    year, month, day = match.group(1, 2, 3)
    try:
        moved = date(int(year), int(month or 1), int(day or 1)) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    text = moved.strftime("%Y%m%d").rjust(8, "0").encode()
    if vr == "DA":
        return text
    kept = 4 + 2 * (month is not None) + 2 * (day is not None)
    if day is None and match.group(4):
        return None
    return text[:kept] + match.group(4) + match.group(5)


def clean_descriptor(text: str, identifiers: Iterable[str]) -> str:
    """Return a free-text descriptor without the identifying values, dates, long numbers, contacts and names.

    The words of the text that describe the protocol stay (PS3.15 E.3.5); `identifiers` are matched in any case
    where they are not part of a longer word.
    """
    for value in sorted(identifiers, key=len, reverse=True):
        if value.casefold() in text.casefold():
            text = re.sub(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", " ", text, flags=re.IGNORECASE)
            if value.casefold() in text.casefold() and len(value) >= 6:
                text = re.sub(re.escape(value), " ", text, flags=re.IGNORECASE)
    for pattern in (_CONTACT, _DATE_IN_TEXT, _LONG_NUMBER, _CARETED_NAME, _TITLED_NAME):
        text = pattern.sub(" ", text)
    return _SPACES.sub(" ", text).strip(" ^,;:-")


def normalise_identifier(text: str) -> str:
    """Return an identifier in the one form in which it is compared: case folded, single spaces."""
    return _SPACES.sub(" ", text.strip()).casefold()


def keyed_digest(key: bytes, purpose: str, *parts: str) -> str:
    """Return the HMAC-SHA256 (hexadecimal) of the normalised parts under the trial's key."""
    message = "\0".join([purpose, *(normalise_identifier(part) for part in parts)])
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()

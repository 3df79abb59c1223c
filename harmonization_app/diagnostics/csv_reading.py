"""Strict reading of CSV text: bytes to rows, header, numbers, each fault named by row and column."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from harmonization_app.algorithms.base import FloatArray
from hub.core.errors import HubError

MISSING_CELLS = frozenset({"", "NA", "N/A", "NaN", "nan", "na", "n/a"})
MAXIMUM_COLUMNS = 250_000
ERRORS_SHOWN = 100

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_PLAIN_ROW = re.compile(r"[0-9+\-.eE,]*", re.ASCII)
_DIGIT = re.compile(r"\d")
_NOT_ZERO = re.compile(r"[+-]?[0.]*[1-9]")
# Unicode categories of characters without a picture of their own, and of blanks other than the plain one.
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
# What spreadsheets and databases write for nothing: a label like that would be a batch or level of its own.
_NO_LABELS = frozenset(
    {"null", "nan", "n.a.", "#n/a", "#null!", "#div/0!", "#value!", "#ref!", "#name?", "#num!"}
)

Record = tuple[int, list[str]]


class FeatureTableInvalid(HubError):
    """A feature table that cannot be taken; `errors` names each fault by row and column."""

    code = "feature_table_invalid"
    title = "The feature table is not valid"
    http_status = 400


class Faults:
    """Faults found so far; those after the first hundred are counted only."""

    def __init__(self) -> None:
        self.errors: list[dict[str, str]] = []
        self.count = 0

    def add(self, where: str, message: str) -> None:
        self.count += 1
        if len(self.errors) < ERRORS_SHOWN:
            self.errors.append({"field": where, "message": message})

    def stop(self) -> None:
        """Raise FeatureTableInvalid if anything was found."""
        if not self.count:
            return
        first = f"{self.errors[0]['field']}: {self.errors[0]['message']}"
        more = f" There are {self.count} faults in all." if self.count > 1 else ""
        raise FeatureTableInvalid(f"{first}{more}", errors=self.errors)


def require_text(data: bytes) -> None:
    """Raise FeatureTableInvalid unless `data` is UTF-8 text; the faulty row is named."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FeatureTableInvalid("The file is UTF-16 text; save it as CSV in UTF-8.")
    if b"\x00" in data:
        raise FeatureTableInvalid("The file is not text (it holds zero bytes); export it as CSV in UTF-8.")
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FeatureTableInvalid(f"Row {line} is not UTF-8 text; save the file as CSV in UTF-8.") from error


def read_records(data: bytes) -> list[Record]:
    """Return (line number in the file, cells) of every row that is not blank. Raises FeatureTableInvalid."""
    require_text(data)
    # Decoded line by line: the text as a whole would take four bytes of memory for each of the file's.
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=True)
    records = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((reader.line_num, cells))
    except csv.Error as error:
        raise FeatureTableInvalid(f"Row {reader.line_num} cannot be read as CSV: {error}.") from error
    return records


def read_header(data: bytes) -> list[str]:
    """Return the names in the first row that is not blank; none for an empty file. Raises FeatureTableInvalid."""
    require_text(data)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=True)
    try:
        rows = ([name.strip() for name in cells] for cells in reader)
        return next((names for names in rows if any(names)), [])
    except csv.Error as error:
        raise FeatureTableInvalid(f"Row {reader.line_num} cannot be read as CSV: {error}.") from error


def check_labels(body: list[Record], header: list[str], positions: Sequence[int], faults: Faults) -> None:
    """Add a fault for each text in the columns at `positions` that the eye takes for another, or that means nothing."""
    for position in positions:
        texts = [cells[position].strip() for _, cells in body]
        wrong = {text: why for text in set(texts) if (why := _why_no_label(text))}
        for (line, _), text in zip(body, texts, strict=True) if wrong else ():
            if text in wrong:
                faults.add(f"row {line}, column {header[position]}", wrong[text])


def _why_no_label(text: str) -> str:
    if unseen := unseen_character(text):
        return f"{text!r} holds a character that cannot be seen ({unseen}); remove it."
    if text.casefold() in _NO_LABELS and text not in MISSING_CELLS:
        return f"{text!r} is no label. Leave the cell empty if it is missing."
    return ""


def unseen_character(text: str) -> str:
    """Return the first character of a text that has no picture, or is a blank but not the plain one; else nothing."""
    if text.isascii() and text.isprintable():
        return ""
    for character in text:
        if character != " " and unicodedata.category(character) in _UNSEEN:
            name = unicodedata.name(character, "")
            return f"U+{ord(character):04X} {name}".strip()
    return ""


def check_header(header: list[str], faults: Faults, *, as_stored: bool = False) -> None:
    if header[0].lower().startswith("sep="):
        faults.add("header", "The first row is a spreadsheet's separator line (sep=); remove it, use commas.")
        faults.stop()
    if len(header) < 2:
        for delimiter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if delimiter in header[0]:
                faults.add("header", f"The columns are separated by {name}; export the file with commas.")
                faults.stop()
        faults.add("header", "There is one column only; the file needs comma-separated columns.")
    if len(header) > MAXIMUM_COLUMNS:
        faults.add("header", f"{len(header):,} columns are more than the {MAXIMUM_COLUMNS:,} allowed.")
        faults.stop()
    seen: dict[str, int] = {}
    for index, name in enumerate(header, start=1):
        if not name:
            faults.add(f"header, column {index}", "The column has no name.")
        elif not as_stored and (unseen := unseen_character(name)):
            message = f"The name {name!r} holds a character that cannot be seen ({unseen}); remove it."
            faults.add(f"header, column {index}", message)
        elif name in seen:
            faults.add(f"header, column {index}", f"The name {name!r} is that of column {seen[name]} too.")
        seen.setdefault(name, index)
    faults.stop()


def read_values(
    body: list[Record], header: list[str], positions: Sequence[int], faults: Faults
) -> FloatArray:
    """Return the cells of the columns at `positions` as numbers [rows x features], faults named by row and column."""
    values = np.full((len(body), len(positions)), np.nan)
    suspect: dict[int, list[tuple[int, str]]] = {}
    for row, (line, cells) in enumerate(body):
        own = [cells[index] for index in positions]
        if _PLAIN_ROW.fullmatch(",".join(own)) and _fast(own, values[row]):
            continue
        for position, cell in enumerate(own):
            text = cell.strip()
            if text in MISSING_CELLS:
                continue
            number = float(text) if _NUMBER.fullmatch(text) else math.inf
            if math.isinf(number) or _vanishes(number, text):
                suspect.setdefault(position, []).append((line, text))
            values[row, position] = number
    for position, cells_at in sorted(suspect.items()):
        name = header[positions[position]]
        if len(cells_at) == len(body) and not any(_DIGIT.search(text) for _, text in cells_at):
            faults.add(f"column {name}", "The column holds no numbers; name it as metadata, or leave it out.")
            continue
        for line, text in cells_at:
            faults.add(f"row {line}, column {name}", _why_no_number(text))
    return values


def _fast(cells: list[str], target: FloatArray) -> bool:
    """Fill a row of plain numbers and empty cells; return whether that was possible."""
    try:
        numbers = [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return False
    if any(math.isinf(number) for number in numbers):
        return False
    if 0.0 in numbers and any(map(_vanishes, numbers, cells)):
        return False
    target[:] = numbers
    return True


def _vanishes(number: float, text: str) -> bool:
    """Return whether a text that is not zero became zero, being too small for a number."""
    return number == 0.0 and _NOT_ZERO.match(text) is not None


def _why_no_number(text: str) -> str:
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    if _DECIMAL_COMMA.fullmatch(text):
        return f"{shown!r} has a decimal comma; use a decimal point."
    if _NUMBER.fullmatch(text) and float(text) == 0.0:
        return f"{shown!r} is too small for a number and would become 0; give it in another unit."
    if _NUMBER.fullmatch(text) or text.lower().lstrip("+-") in {"inf", "infinity"}:
        return f"{shown!r} is infinite; a measurement is finite. Leave the cell empty if it is missing."
    return f"{shown!r} is not a number. Leave the cell empty if the measurement is missing."

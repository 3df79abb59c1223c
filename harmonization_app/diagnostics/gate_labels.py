"""Labels that are most likely one, written in two ways: a batch or level split in two is corrected as two."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

from harmonization_app.algorithms.base import Finding
from harmonization_app.algorithms.design import as_numbers, level_texts, merged_labels
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled
from harmonization_app.diagnostics.wording import listed

CODE = "labels_look_alike"
# Whole numbers so few that they are rather codes of categories than measurements; two alone make no difference.
MOST_CODES, FEWEST_CODES, FEWEST_SCANS = 6, 3, 20
_NUMBER = re.compile(r"0*(\d+)(\.0+)?", re.ASCII)
_BLANKS = re.compile(r"[\s_]+")


def check_label_spelling(table: Labelled, specification: Specification) -> list[Finding]:
    """Return a stop for batches, and for levels of a covariate, that differ in spelling only."""
    batches = {label for label in merged_labels(table, specification) if label is not None}
    findings = [
        Finding(CODE, "stop", _message("batches", alike, "merge them in the plan"), batches=alike)
        for alike in look_alikes(batches)
    ]
    for covariate in specification.covariates:
        if covariate.kind != "categorical" or covariate.name not in table.covariates:
            continue
        levels = {text for text in level_texts(table.covariates[covariate.name]) if text is not None}
        for alike in look_alikes(levels - set(covariate.levels)):
            message = _message(
                f"levels of {covariate.name}", alike, "name each of them as a level in the plan"
            )
            findings.append(Finding(CODE, "stop", message, columns=(covariate.name,)))
    return findings


def look_alikes(labels: Collection[str]) -> list[tuple[str, ...]]:
    """Return the groups of labels alike but for case, blanks, unseen characters, Unicode form or leading zeros."""
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(_folded(label), []).append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def check_codes(table: Labelled, specification: Specification) -> list[Finding]:
    """Return a warning for continuous covariates that hold a few whole numbers: likely codes of categories."""
    findings = []
    for covariate in specification.covariates:
        if covariate.kind != "continuous" or covariate.name == specification.time:
            continue
        values = as_numbers(table.covariates[covariate.name])
        distinct = sorted(set(values.tolist()))
        whole = all(value.is_integer() for value in distinct)
        if len(values) < FEWEST_SCANS or not FEWEST_CODES <= len(distinct) <= MOST_CODES or not whole:
            continue
        message = (
            f"{covariate.name} holds the whole numbers {listed([f'{value:g}' for value in distinct])} only and is "
            "planned as continuous: each step would have the same effect. If they are codes, plan it as categorical."
        )
        findings.append(Finding("codes_as_numbers", "warn", message, columns=(covariate.name,)))
    return findings


def _folded(label: str) -> str:
    text = unicodedata.normalize("NFKC", label)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    text = _BLANKS.sub(" ", text).strip().casefold()
    number = _NUMBER.fullmatch(text)
    return number.group(1) if number else text


def _message(what: str, alike: Sequence[str], remedy: str) -> str:
    shown = listed([repr(label) for label in alike])
    return f"These {what} differ in spelling only: {shown}. Correct the table, or {remedy}."

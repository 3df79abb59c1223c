"""How many scans and subjects each batch has, and of each level of each categorical covariate."""

from __future__ import annotations

import numpy as np

from harmonization_app.algorithms.base import Finding, IntArray
from harmonization_app.algorithms.design import Design, level_texts
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled
from harmonization_app.diagnostics.subjects import find_subjects
from harmonization_app.diagnostics.wording import listed

SHOWN_BATCHES = 25


def level_counts(dataset: Labelled, design: Design) -> dict[str, dict[str, IntArray]]:
    """Return the number of scans by covariate, level and batch: {covariate: {level: [batches]}}."""
    counts: dict[str, dict[str, IntArray]] = {}
    for name, levels in design.coding.levels.items():
        texts = np.array([str(text) for text in level_texts(dataset.covariates[name])])
        counts[name] = {
            level: np.bincount(design.codes[texts == level], minlength=len(design.batches))
            for level in levels
        }
    return counts


def subject_counts(dataset: Labelled, design: Design, specification: Specification) -> IntArray | None:
    """Return the number of subjects by batch; None where neither plan nor row keys tell subjects."""
    subjects = find_subjects(dataset, specification)
    if subjects is None:
        return None
    pairs = np.unique(np.column_stack([design.codes, subjects.codes]), axis=0)
    return np.bincount(pairs[:, 0], minlength=len(design.batches)).astype(np.int64)


def check_counts(dataset: Labelled, design: Design, specification: Specification) -> list[Finding]:
    """Return the counts as notes, and warnings on levels that some batch lacks or only one has."""
    subjects = subject_counts(dataset, design, specification)
    parts = []
    for code, batch in enumerate(design.batches[:SHOWN_BATCHES]):
        of = "" if subjects is None else f" of {subjects[code]} subject(s)"
        parts.append(f"{batch} {design.batch_sizes[code]}{of}")
    message = f"Scans by batch: {'; '.join(parts)}{_rest(len(design.batches))}."
    findings = [Finding("batch_counts", "info", message, batches=design.batches)]
    for name, by_level in level_counts(dataset, design).items():
        findings.append(_counts_of(name, by_level, design))
        for level, counts in by_level.items():
            findings += _sparse_level(name, level, counts, design)
    return findings


def _counts_of(name: str, by_level: dict[str, IntArray], design: Design) -> Finding:
    parts = [
        f"{batch} {', '.join(f'{level} {counts[code]}' for level, counts in by_level.items())}"
        for code, batch in enumerate(design.batches[:SHOWN_BATCHES])
    ]
    message = f"Scans by batch and {name}: {'; '.join(parts)}{_rest(len(design.batches))}."
    return Finding("level_counts", "info", message, columns=(name,), batches=design.batches)


def _sparse_level(name: str, level: str, counts: IntArray, design: Design) -> list[Finding]:
    present = tuple(design.batches[i] for i in np.flatnonzero(counts))
    absent = tuple(design.batches[i] for i in np.flatnonzero(counts == 0))
    if len(present) == 1:
        message = (
            f"{name} {level} occurs in batch {present[0]} only: its effect rests on the scans there. Join the level "
            "with a like one, or leave its scans out."
        )
        return [Finding("level_in_one_batch", "warn", message, columns=(name,), batches=present)]
    if absent:
        message = (
            f"{name} {level} does not occur in {listed(absent)}: there its effect is taken from the other batches. "
            "Check that this is so by design."
        )
        return [Finding("level_absent_in_batch", "warn", message, columns=(name,), batches=absent)]
    return []


def _rest(batches: int) -> str:
    return f"; and {batches - SHOWN_BATCHES} more batches" if batches > SHOWN_BATCHES else ""

"""Which scans are of one subject: by the column the plan names, else by row keys of the form subject|visit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harmonization_app.algorithms.base import IntArray
from harmonization_app.algorithms.design import level_texts
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled

ROW_KEY_SEPARATOR = "|"


@dataclass(frozen=True, slots=True, eq=False)
class Subjects:
    """One code per scan from 0 and the names in the codes' order; `source` says where they come from."""

    codes: IntArray
    names: tuple[str, ...]
    source: str

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def repeated(self) -> bool:
        """Whether any subject has more than one scan."""
        return self.count < len(self.codes)

    @property
    def scans_per_subject(self) -> float:
        """Mean number of scans of the subject of a scan: the most by which repeats inflate a variance."""
        sizes = np.bincount(self.codes)
        return float((sizes**2).sum() / sizes.sum())

    def one_scan_each(self, seed: int) -> IntArray:
        """Return one row per subject, drawn by the seed, in order: scans that are independent of each other."""
        order = np.random.default_rng(seed).permutation(len(self.codes))
        return np.sort(order[np.unique(self.codes[order], return_index=True)[1]])

    def runs(self) -> tuple[IntArray, IntArray]:
        """Return the order that puts a subject's scans side by side, and where each subject starts in it."""
        order = np.argsort(self.codes, kind="stable")
        return order, np.flatnonzero(np.diff(self.codes[order], prepend=-1))


def find_subjects(dataset: Labelled, specification: Specification) -> Subjects | None:
    """Return the subjects; None where neither the plan nor the row keys tell them.

    A scan without a subject counts as a subject of its own.
    """
    if specification.subject is not None and specification.subject in dataset.covariates:
        texts = level_texts(dataset.covariates[specification.subject])
        keys = [f"{row}\0" if text is None else text for row, text in zip(dataset.rows, texts, strict=True)]
        return _coded(keys, f"column {specification.subject}")
    if not dataset.rows or not all(ROW_KEY_SEPARATOR in row for row in dataset.rows):
        return None
    return _coded([row.split(ROW_KEY_SEPARATOR, 1)[0] for row in dataset.rows], "row keys")


def repeated_subjects(dataset: Labelled, specification: Specification) -> Subjects | None:
    """Return the subjects where any has more than one scan, else None: then scans are independent."""
    subjects = find_subjects(dataset, specification)
    return subjects if subjects is not None and subjects.repeated else None


def _coded(keys: list[str], source: str) -> Subjects:
    names, codes = np.unique(np.array(keys, dtype=np.str_), return_inverse=True)
    return Subjects(codes.astype(np.int64), tuple(names.tolist()), source)

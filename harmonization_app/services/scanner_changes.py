"""Changes of a scanner's software inside a batch: found by the epoch of each row's images.

Days in images are shifted by another offset for each subject, so that they do not order the events of a scanner; the
software version in an image does say on which side of a change it lies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from harmonization_app.algorithms.base import Finding
from harmonization_app.diagnostics.wording import listed
from harmonization_app.plan_document import PlanDocument
from harmonization_app.services.image_facts import Epoch, RowImages


@dataclass(frozen=True)
class ScannerChanges:
    """Changes of scanners inside batches: rows by batch, scanner and epoch, where a batch has several epochs."""

    rows: Mapping[str, Mapping[UUID, Mapping[Epoch, tuple[str, ...]]]]
    several_scanners: frozenset[str]
    unclear: tuple[str, ...]

    @classmethod
    def find(cls, rows: Sequence[tuple[str, str | None]], images: Mapping[str, RowImages]) -> ScannerChanges:
        """Return the changes; `unclear` rows lie on a changed scanner without one software version."""
        seen: dict[str, dict[UUID, dict[Epoch, list[str]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for row, batch in rows:
            for epoch in images[row].epochs:
                if batch is not None:
                    seen[batch][epoch.scanner][epoch].append(row)
        changed = {
            batch: {
                scanner: {epoch: tuple(own) for epoch, own in sorted(epochs.items(), key=_order)}
                for scanner, epochs in scanners.items()
                if len(epochs) > 1
            }
            for batch, scanners in sorted(seen.items())
        }
        unclear = tuple(
            row
            for row, batch in rows
            if batch is not None and _is_unclear(images[row], frozenset(changed.get(batch, ())))
        )
        several = frozenset(batch for batch, scanners in seen.items() if len(scanners) > 1)
        return cls({batch: own for batch, own in changed.items() if own}, several, unclear)

    def labels(self) -> dict[str, str]:
        """Return the new batch label of every row on a scanner that changed inside its batch."""
        parts: dict[str, list[str]] = defaultdict(list)
        labels: dict[str, str] = {}
        for batch, scanners in self.rows.items():
            for epochs in scanners.values():
                for epoch, rows in epochs.items():
                    for row in rows:
                        parts[row].append(self._part(batch, epoch))
                        labels[row] = f"{batch} / {', '.join(parts[row])}"
        return labels

    def _part(self, batch: str, epoch: Epoch) -> str:
        scanner = f"{epoch.serial_number} " if batch in self.several_scanners else ""
        return f"{scanner}software {epoch.software}"

    def findings(self, parsed: PlanDocument) -> list[Finding]:
        if not self.rows:
            return []
        batches = tuple(self.rows)
        shown = listed([self._in_words(batch) for batch in batches])
        if parsed.scanner_changes is None:
            message = (
                f"A scanner changed inside these batches: {shown}. The plan does not say whether that begins a new "
                'batch: write "scanner_changes": "split" or "keep".'
            )
            return [Finding("scanner_change_unplanned", "stop", message, batches=batches)]
        if parsed.scanner_changes == "keep":
            message = f"A scanner changed inside these batches, which stay whole as planned: {shown}."
            return [Finding("scanner_change_kept", "warn", message, batches=batches)]
        message = f"Batches are split as planned where a scanner changed: {shown}."
        return [
            Finding("scanner_change_split", "info", message, batches=batches),
            *self._not_splittable(parsed),
        ]

    def _not_splittable(self, parsed: PlanDocument) -> list[Finding]:
        findings = []
        if self.unclear:
            message = (
                f"These rows cannot be placed before or after the change of their scanner: {listed(self.unclear)}. "
                "Their images have no software version, or more than one. Exclude them with the reason."
            )
            findings.append(Finding("scanner_epoch_unclear", "stop", message, rows=self.unclear))
        if parsed.specification.batch_variables:
            message = (
                "A method with several batch variables takes them from columns, which a change of the scanner does not "
                'split. Name a column with the software as a batch variable and write "scanner_changes": "keep".'
            )
            columns = parsed.specification.batch_variables
            findings.append(Finding("scanner_change_not_split", "stop", message, columns=columns))
        return findings

    def _in_words(self, batch: str) -> str:
        parts = [
            f"{epoch.serial_number} {epoch.software}: {len(rows)} rows"
            for epochs in self.rows[batch].values()
            for epoch, rows in epochs.items()
        ]
        return f"{batch} ({'; '.join(parts)})"


def _order(item: tuple[Epoch, Any]) -> tuple[str, int]:
    return item[0].serial_number, item[0].number


def _is_unclear(item: RowImages, changed: frozenset[UUID]) -> bool:
    """Whether a row's images on a changed scanner lack a software version or have several."""
    own = [epoch.scanner for epoch in item.epochs if epoch.scanner in changed]
    return len(own) != len(set(own)) or bool(item.without_epoch & changed)

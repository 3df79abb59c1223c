"""Which rows a plan leaves out or relabels because of their images and scanners, and what the gate says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harmonization_app.algorithms.base import Dataset, Finding
from harmonization_app.diagnostics.wording import listed
from harmonization_app.models import FeatureSet
from harmonization_app.plan_document import PlanDocument, RowPolicy
from harmonization_app.services.feature_matrix import select_rows
from harmonization_app.services.image_facts import RowImages, images_of_rows
from harmonization_app.services.scanner_changes import ScannerChanges
from qc_app.services.judgement import protocol_spec
from qc_app.services.visit_check import protocol_in_force


@dataclass(frozen=True)
class RowDecisions:
    """What became of rows: left out with the reason, kept in spite of it, given another batch label.

    `without_images` counts the rows whose images the hub does not have, so that nothing could be checked.
    """

    excluded: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    batches: Mapping[str, str] = field(default_factory=dict)
    without_images: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "excluded": dict(self.excluded),
            "kept": dict(self.kept),
            "batches": dict(self.batches),
            "without_images": self.without_images,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RowDecisions:
        """Return the decisions of a former run; a run that kept none decided nothing."""
        return cls(
            document.get("excluded", {}),
            document.get("kept", {}),
            document.get("batches", {}),
            document.get("without_images", 0),
        )


def decide_rows(
    parsed: PlanDocument, feature_set: FeatureSet, dataset: Dataset
) -> tuple[RowDecisions, list[Finding]]:
    """Return what the plan makes of the rows of `dataset`, and the findings; where it is silent it stops."""
    series = _series(parsed, feature_set)
    images = images_of_rows(feature_set.trial, dataset.rows, series)
    findings = [*_unknown_series(feature_set, series), *_not_checked(images)]
    decisions = RowDecisions(without_images=sum(not item.known for item in images.values()))
    for about in (_DEVIANT, _QC_FAILED):
        reasons = {row: about.reason(item) for row, item in images.items() if row not in decisions.excluded}
        found = {row: reason for row, reason in reasons.items() if reason}
        policy = getattr(parsed.image_rows, about.key)
        findings += about.findings(found, policy)
        if policy == "exclude":
            decisions = replace(decisions, excluded={**decisions.excluded, **found})
        elif policy == "keep":
            decisions = replace(decisions, kept={**decisions.kept, **found})
    remaining = [index for index, row in enumerate(dataset.rows) if row not in decisions.excluded]
    changes = ScannerChanges.find([(dataset.rows[i], dataset.batches[i]) for i in remaining], images)
    if parsed.scanner_changes == "split":
        decisions = replace(decisions, batches=changes.labels())
    return decisions, findings + changes.findings(parsed)


def apply_decisions(dataset: Dataset, decisions: RowDecisions) -> Dataset:
    """Return the dataset without the rows left out, with the batch labels that were decided."""
    labels = tuple(
        decisions.batches.get(row, label) for row, label in zip(dataset.rows, dataset.batches, strict=True)
    )
    kept = [index for index, row in enumerate(dataset.rows) if row not in decisions.excluded]
    relabelled = replace(dataset, batches=labels)
    return relabelled if len(kept) == len(labels) else select_rows(relabelled, kept)


def _series(parsed: PlanDocument, feature_set: FeatureSet) -> tuple[str, ...]:
    """Return the expected series that the features come from; a set built from metrics says it itself."""
    if feature_set.origin == FeatureSet.Origin.QC_METRICS:
        return (feature_set.provenance["expected_key"],)
    return parsed.image_rows.series


def _unknown_series(feature_set: FeatureSet, series: Sequence[str]) -> list[Finding]:
    """Return a stop for series that the protocol does not expect; without one every image counts as not judged."""
    if not series or feature_set.origin == FeatureSet.Origin.QC_METRICS:
        return []
    protocol = protocol_in_force(feature_set.trial_id)
    known = [item.key for item in protocol_spec(protocol).series] if protocol is not None else list(series)
    unknown = tuple(key for key in series if key not in known)
    if not unknown:
        return []
    message = (
        f"The protocol in force expects no series {listed(unknown)}; image_rows.series can name: "
        f"{listed(sorted(known))}."
    )
    return [Finding("unknown_image_series", "stop", message)]


def _not_checked(images: Mapping[str, RowImages]) -> list[Finding]:
    pending = tuple(row for row, item in images.items() if item.pending)
    unknown = tuple(row for row, item in images.items() if not item.known)
    unjudged = tuple(row for row, item in images.items() if item.known and not item.quality_judged)
    findings = []
    if pending:
        message = (
            f"Images of these rows are still being checked: {listed(pending)}. Wait until that has ended."
        )
        findings.append(Finding("images_being_checked", "stop", message, rows=pending))
    if unknown:
        message = (
            f"The hub has no images of {len(unknown)} of {len(images)} rows: {listed(unknown)}. Whether those follow "
            "the protocol, passed QC, or span a change of their scanner is not known."
        )
        findings.append(Finding("images_unknown", "warn", message, rows=unknown))
    if unjudged:
        message = f"The quality of images of {len(unjudged)} rows could not be judged: {listed(unjudged)}."
        findings.append(Finding("image_quality_unknown", "warn", message, rows=unjudged))
    without = tuple(row for row, item in images.items() if item.without_epoch)
    if without:
        message = (
            f"The software version of the scanner is not known for images of {len(without)} rows: {listed(without)}. "
            "A change of it would not be seen."
        )
        findings.append(Finding("scanner_software_unknown", "warn", message, rows=without))
    return findings


@dataclass(frozen=True, slots=True)
class _Concern:
    """One thing against a row, the plan's key for it, and its words."""

    key: str
    reason: Callable[[RowImages], str]
    code: str
    what: str

    def findings(self, found: Mapping[str, str], policy: RowPolicy | None) -> list[Finding]:
        if not found:
            return []
        rows = tuple(found)
        shown = listed([f"{row} ({reason})" for row, reason in found.items()])
        counted = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
        if policy is None:
            message = (
                f"{counted} with images that {self.what}: {shown}. The plan does not say what becomes of them: "
                f'write "image_rows": {{"{self.key}": "exclude"}} or {{"{self.key}": "keep"}}.'
            )
            return [Finding(f"{self.code}_unplanned", "stop", message, rows=rows)]
        if policy == "keep":
            message = f"Kept as planned: {counted} whose images {self.what}: {shown}."
            return [Finding(f"{self.code}_kept", "warn", message, rows=rows)]
        message = f"Left out as planned: {counted} whose images {self.what}: {shown}."
        return [Finding(f"{self.code}_excluded", "info", message, rows=rows)]


_DEVIANT = _Concern(
    "deviant", lambda item: item.deviant, "deviant_rows", "are not known to follow the protocol"
)
_QC_FAILED = _Concern("qc_failed", lambda item: item.qc_failed, "qc_failed_rows", "failed QC")

"""New scans as a frozen model has to see them: the batch labels it was estimated with, changes of scanners included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harmonization_app.algorithms.base import Dataset, Finding
from harmonization_app.models import FeatureSet, HarmonizationRun
from harmonization_app.plan_document import PlanDocument
from harmonization_app.services.image_facts import images_of_rows
from harmonization_app.services.preparation import Prepared, prepare, prepare_dataset
from harmonization_app.services.run_rows import RowDecisions
from harmonization_app.services.scanner_changes import ScannerChanges


def row_keys(feature_set: FeatureSet) -> set[str]:
    """Return the keys (subject|visit) of a feature set's rows."""
    return {str(row["row"]) for row in feature_set.rows}


def for_rows(parsed: PlanDocument, feature_set: FeatureSet) -> PlanDocument:
    """Return the plan with the rows left out that this feature set has: those of the model's need not be in it."""
    present = row_keys(feature_set)
    kept = {row: reason for row, reason in parsed.exclude_rows.items() if row in present}
    return replace(parsed, exclude_rows=kept)


def prepare_for_model(
    parsed: PlanDocument, row: HarmonizationRun, repeated: HarmonizationRun | None = None
) -> Prepared:
    """Return the new scans with the decisions of the plan, and the batch labels of the model.

    Decisions of a run that is `repeated` are taken over.

    Scans from after a change of their scanner that the model has not seen get a label that it does not know, where the
    plan splits batches at such changes.
    """
    own = for_rows(parsed, row.feature_set)
    if repeated is not None:
        return prepare(own, row.feature_set, RowDecisions.from_json(repeated.row_decisions))
    first = prepare(own, row.feature_set)
    labels, findings = _labels(parsed, row, first.decisions)
    decisions = replace(first.decisions, batches=labels)
    again = prepare(own, row.feature_set, decisions)
    # The changes of scanners are judged on the scans of the model and the new ones together.
    kept = [finding for finding in first.findings if not finding.code.startswith("scanner_change")]
    return replace(again, findings=(*kept, *findings))


def lineage(row: HarmonizationRun) -> Iterator[HarmonizationRun]:
    """Yield the runs that the model of `row` was estimated in, the latest first."""
    run = row.model_of
    while run is not None:
        if run.mode != HarmonizationRun.Mode.APPLY:
            yield run
        run = run.model_of


def _labels(
    parsed: PlanDocument, row: HarmonizationRun, decisions: RowDecisions
) -> tuple[dict[str, str], list[Finding]]:
    """Return the label of every new row that differs from its own column, and what changed since the model."""
    new = prepare_dataset(for_rows(parsed, row.feature_set), row.feature_set)
    former = [(run, _labelled(parsed, run)) for run in lineage(row)]
    pairs = [pair for _, dataset in former for pair in zip(dataset.rows, dataset.batches, strict=True)]
    pairs += [
        (key, batch)
        for key, batch in zip(new.rows, new.batches, strict=True)
        if key not in decisions.excluded
    ]
    images = images_of_rows(row.trial, {key for key, _ in pairs}, parsed.image_rows.series)
    changes = ScannerChanges.find(pairs, images)
    findings = changes.findings(parsed)
    if parsed.scanner_changes != "split":
        return {}, findings
    labels = changes.labels()
    in_model: dict[str, str] = {}
    for run, dataset in former:
        given = run.row_decisions.get("batches", {})
        for key, batch in zip(dataset.rows, dataset.batches, strict=True):
            if key in labels:
                in_model[labels[key]] = str(given.get(key, batch))
    return {key: in_model.get(labels[key], labels[key]) for key in new.rows if key in labels}, findings


def _labelled(parsed: PlanDocument, run: HarmonizationRun) -> Dataset:
    """Return the rows that a model was estimated on, with their labels before any split."""
    whole = prepare_dataset(for_rows(parsed, run.feature_set), run.feature_set)
    left_out, labels = (run.row_decisions.get(name, {}) for name in ("excluded", "batches"))
    own = [
        index
        for index, (key, batch) in enumerate(zip(whole.rows, whole.batches, strict=True))
        if key not in left_out and run.added_batch in ("", labels.get(key, batch))
    ]
    return whole.select(own)

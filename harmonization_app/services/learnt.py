"""The scans that a frozen model was estimated on, read again from what is stored of its runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.chain import CALIBRATION, MAIN, apply_chain
from harmonization_app.algorithms.design import merged_labels
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.registry import get_algorithm
from harmonization_app.models import HarmonizationRun
from harmonization_app.plan_document import parse_plan
from harmonization_app.services.frozen_rows import lineage
from harmonization_app.services.run_checks import Learnt
from harmonization_app.services.stored_input import stored_preparation


def learnt_by(row: HarmonizationRun, scans: Dataset, models: Mapping[str, Model]) -> Learnt:
    """Return what the model that `row` corrects `scans` by was estimated on; a batch that `row` adds is the last.

    `models` are the frozen ones by step. Raises NotFound where a stored table is damaged, StoredInputDiffers.
    """
    *later, first = [(run, _stored(run)) for run in lineage(row)]
    raw = first[1]
    added = [_of_batch(dataset, models[MAIN], run.added_batch) for run, dataset in reversed(later)]
    if row.mode == HarmonizationRun.Mode.ADD_BATCH:
        added.append(_of_batch(scans, models[MAIN], row.added_batch))
    if CALIBRATION not in models:
        return Learnt(raw, raw, tuple(added))
    algorithm = get_algorithm(row.algorithm_version.algorithm)
    calibrated = apply_chain(models[CALIBRATION], algorithm, models[MAIN], raw).dataset
    return Learnt(raw, calibrated, tuple(added))


def _stored(run: HarmonizationRun) -> Dataset:
    return stored_preparation(parse_plan(run.specification), run).dataset


def _of_batch(dataset: Dataset, model: Model, batch: str) -> Dataset:
    """Return the scans of a batch, named as after the merges of the plan."""
    labels = merged_labels(dataset, model.specification)
    return dataset.select(np.flatnonzero([label == batch for label in labels]))

"""Phantom calibration cell by cell, the line by a polynomial fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, FloatArray
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.coding import plain_batches
from harmonization_app.algorithms.verification.inputs import PLAIN_SPECIFICATION, case_input
from harmonization_app.algorithms.verification.methods import Input

SPLIT = "2024-07-01"


def correct(fitted: Dataset, specification: Specification, scans: Dataset) -> FloatArray:
    """Return `scans` with the line of their scanner and date inverted."""
    corrected = scans.values.copy()
    dates = np.array([str(day) for day in scans.covariates[str(specification.time)]])
    labels = np.array(plain_batches(scans, specification))
    position = {name: column for column, name in enumerate(scans.features)}
    for item in specification.options["measurements"]:
        # Dates as YYYY-MM-DD are ordered as texts are.
        rows = (labels == item["batch"]) & (item["first_day"] <= dates) & (dates <= item["last_day"])
        column = position[item["feature"]]
        slope, offset = 1.0, float(np.mean(np.subtract(item["measured"], item["known"])))
        if len(set(item["known"])) > 1:
            slope, offset = np.polyfit(item["known"], item["measured"], 1)
        corrected[rows, column] = (scans.values[rows, column] - offset) / slope
    return corrected


def make_measured(
    dataset: Dataset, seed: int, noise: float = 0.0
) -> tuple[Dataset, list[dict[str, Any]], FloatArray]:
    """Return the dataset with planted scanner lines that change at a date, the phantom's values, and the truth."""
    random = np.random.default_rng(seed)
    late = random.integers(0, 2, len(dataset.rows))
    days = tuple(f"2024-{9 if after else 3:02d}-{1 + i % 28:02d}" for i, after in enumerate(late))
    values, measurements = dataset.values.copy(), []
    for batch in sorted({str(label) for label in dataset.batches}):
        for after, (first, last) in enumerate((("2024-01-01", "2024-06-30"), (SPLIT, "2024-12-31"))):
            rows = (np.array(dataset.batches) == batch) & (late == after)
            for column, feature in enumerate(dataset.features[:-1]):
                slope, offset = random.uniform(0.9, 1.1), random.uniform(-0.2, 0.2)
                values[rows, column] = offset + slope * dataset.values[rows, column]
                known = [1.0, 2.0, 3.0, 4.0]
                measured = [offset + slope * value + random.normal(0, noise) for value in known]
                measurements.append(
                    {
                        "batch": batch,
                        "feature": feature,
                        "first_day": first,
                        "last_day": last,
                        "known": known,
                        "measured": measured,
                    }
                )
    covariates = {"scanned": days}
    return replace(dataset, values=values, covariates=covariates), measurements, dataset.values


def cases() -> Iterator[Input]:
    """Yield the inputs of the packaged suite."""
    dataset, measurements, _ = make_measured(case_input()[0], seed=3)
    plan = replace(
        PLAIN_SPECIFICATION, covariates=(), eb=False, time="scanned", options={"measurements": measurements}
    )
    yield Input("lines_that_change", dataset, plan)
    single = [
        {**item, "known": item["known"][1:2], "measured": item["measured"][1:2]} for item in measurements
    ]
    yield Input("offsets_only", dataset, replace(plan, options={"measurements": single}))
    new = make_measured(case_input()[1], seed=5)[0]
    yield Input("apply_new_scans", dataset, plan, new)

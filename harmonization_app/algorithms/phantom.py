"""Calibration of scanners by phantom measurements: a slope and an offset per scanner, date range and feature.

The phantom's known and measured values are given in the plan; the line measured = offset + slope * known is fitted by
least squares and inverted on every scan of that scanner and range. One known value alone gives an offset. It learns
nothing from subjects, so that it can go before any other method: its result is a table for the next plan. With exact
phantom measurements planted slopes and offsets are taken out to rounding (2e-15 feature SD); with measurement noise
the correction is as uncertain as the line, whose residual SD is in the model's facts.

Limits: a phantom is not a body: only what scales alike in both is corrected (geometry, ADC, CT numbers), not what
depends on tissue; drift within a date range stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms.base import (
    Arrays,
    Capabilities,
    CovariateValue,
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
    IntArray,
)
from harmonization_app.algorithms.design import Design, merged_labels
from harmonization_app.algorithms.direct import DirectMethod, without_eb
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import run_gate
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    OverlapPolicy,
    Specification,
    method_schema,
)
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import listed

SMALLEST_SLOPE = 0.1
# Findings of the gate on what this method does not learn from the scans.
NOT_LEARNT = frozenset(
    {
        "one_batch",
        "duplicate_values",
        "constant_in_batch",
        "constant_feature",
        "feature_lacks_batch",
        "small_batch",
    }
)

_VALUES = {"type": "array", "items": {"type": "number"}, "minItems": 1}
OPTIONS: dict[str, Any] = {
    "measurements": {
        "type": "array",
        "minItems": 1,
        "description": "phantom measurements: known and measured values by batch, date range and feature",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["batch", "first_day", "last_day", "feature", "known", "measured"],
            "properties": {
                "batch": {"type": "string", "minLength": 1},
                "first_day": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
                "last_day": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},
                "feature": {"type": "string", "minLength": 1},
                "known": _VALUES,
                "measured": _VALUES,
            },
        },
    }
}


@dataclass(frozen=True, slots=True)
class Line:
    """One calibration: days are ordinals, both ends included; `spread` is the residual SD, 0 for an exact line."""

    batch: str
    feature: str
    first: int
    last: int
    slope: float
    offset: float
    spread: float


class PhantomCalibration(DirectMethod):
    """Slope and offset of each scanner from its phantom, by date; features without measurements pass through."""

    id: ClassVar[str] = "phantom-calibration"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Phantom calibration"
    capabilities: ClassVar[Capabilities] = Capabilities(
        missing_values=True, train_apply=True, without_eb=True
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Corrects what the phantom and the body share (geometry, ADC, CT numbers), not what depends on "
        "tissue or on the processing of images.",
        "Drift within a date range stays; every scan needs a measurement that covers its scanner and date.",
        "A slope needs two known values; one gives an offset only, wrong where the scanner's error grows "
        "with the value.",
        "The correction is as uncertain as the phantom line; its residual SD is in the model, and is not "
        "carried into later tests.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.chain",
        "harmonization_app.algorithms.phantom",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(OPTIONS, without_eb())
        schema["properties"]["covariates"] |= {"maxItems": 0}
        schema["properties"]["options"]["required"] = ["measurements"]
        schema["properties"]["time"] = {
            "type": "string",
            "minLength": 1,
            "description": "column with each scan's date",
        }
        schema["required"] = ["time"]
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings on the table and on the measurements; one batch, however small, is enough."""
        return run_gate(self, dataset, specification, self.check_planned, _check_table)

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where a measurement is at fault or a scan is not covered by exactly one line."""
        try:
            lines = fit_lines(specification.options["measurements"])
            calibrate(dataset, specification, lines)
        except HarmonizationRefused as refusal:
            return list(refusal.findings)
        known = {line.feature for line in lines}
        strange = tuple(sorted(known - set(dataset.features)))
        if strange:
            message = (
                f"Measurements are given for {listed(strange)}, which the table or the plan does not have."
            )
            return [Finding("unknown_feature", "stop", message, columns=strange)]
        left = tuple(name for name in dataset.features if name not in known)
        if left:
            message = f"No phantom measurement is given for {listed(left)}; they pass through unchanged."
            return [Finding("not_calibrated", "warn", message, columns=left)]
        return []

    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        lines = fit_lines(options["measurements"])
        table = [(line.first, line.last, line.slope, line.offset, line.spread) for line in lines]
        return {"lines": np.array(table, dtype=np.float64)}

    def flags(self, dataset: Dataset, arrays: Arrays) -> dict[str, tuple[str, ...]]:
        return {}

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Return the lines as a model; `facts` names their scanners, days and residual SD."""
        model = super().fit(dataset, specification)
        lines = fit_lines(specification.options["measurements"])
        left = tuple(name for name in model.features if name not in {line.feature for line in lines})
        shown = [
            {
                "batch": line.batch,
                "feature": line.feature,
                "first_day": date.fromordinal(line.first).isoformat(),
                "last_day": date.fromordinal(line.last).isoformat(),
                "slope": line.slope,
                "offset": line.offset,
                "residual_sd": line.spread,
            }
            for line in lines
        ]
        return replace(
            model, flags={"not_calibrated": left} if left else {}, facts={**model.facts, "lines": shown}
        )

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        return calibrate(dataset, model.specification, fit_lines(model.specification.options["measurements"]))


def _check_table(dataset: Dataset, specification: Specification) -> list[Finding]:
    """Return the findings of the common gate that matter where nothing is learnt from the scans."""
    any_size = replace(
        specification,
        batch_size=BatchSizePolicy(1, 1, 1, 1, 1),
        mean_only=True,
        overlap=OverlapPolicy(1e9, 0.0),
    )
    return [item for item in gate.check(dataset, any_size) if item.code not in NOT_LEARNT]


def fit_lines(measurements: list[Mapping[str, Any]]) -> tuple[Line, ...]:
    """Return the line of each measurement. Raises HarmonizationRefused naming the one at fault."""
    lines: list[Line] = []
    for item in measurements:
        where = f"{item['feature']} of batch {item['batch']} from {item['first_day']}"
        line = _fit_line(item, where)
        clashing = any(
            other.batch == line.batch
            and other.feature == line.feature
            and other.first <= line.last
            and line.first <= other.last
            for other in lines
        )
        if clashing:
            raise _refused(
                "ranges_overlap", f"Two measurements of {where} share days; a day needs one line.", item
            )
        lines.append(line)
    return tuple(lines)


def _fit_line(item: Mapping[str, Any], where: str) -> Line:
    first, last = _day(item["first_day"]), _day(item["last_day"])
    if first is None or last is None or first > last:
        raise _refused("measurement_days", f"The days of {where} are no dates in order.", item)
    known, measured = np.array(item["known"], dtype=float), np.array(item["measured"], dtype=float)
    if known.shape != measured.shape:
        raise _refused("measurement_values", f"{where}: known and measured values differ in number.", item)
    slope, offset = 1.0, float(np.mean(measured - known))
    if np.ptp(known) > 0:
        centred = known - known.mean()
        slope = float(centred @ (measured - measured.mean()) / (centred @ centred))
        offset = float(measured.mean() - slope * known.mean())
    if not (np.isfinite(slope) and slope >= SMALLEST_SLOPE):
        message = f"{where}: measured values do not rise with the known ones (slope {slope:.3g}). Look at the values."
        raise _refused("phantom_slope", message, item)
    free = len(known) - (2 if np.ptp(known) > 0 else 1)
    residuals = measured - offset - slope * known
    spread = float(np.sqrt(residuals @ residuals / free)) if free > 0 else 0.0
    return Line(item["batch"], item["feature"], first, last, slope, offset, spread)


def calibrate(dataset: Dataset, specification: Specification, lines: tuple[Line, ...]) -> FloatArray:
    """Return the calibrated values [scans x features].

    Raises HarmonizationRefused naming the rows that have no date or that no line covers for a calibrated feature.
    """
    days = _days(dataset, str(specification.time))
    labels = np.array([str(label) for label in merged_labels(dataset, specification)])
    values = dataset.values.copy()
    for index, feature in enumerate(dataset.features):
        own = [line for line in lines if line.feature == feature]
        covered = np.zeros(len(days), dtype=bool)
        for line in own:
            rows = (labels == line.batch) & (days >= line.first) & (days <= line.last)
            values[rows, index] = (values[rows, index] - line.offset) / line.slope
            covered |= rows
        if own and not covered.all():
            rows_left = tuple(np.array(dataset.rows, dtype=object)[~covered])
            message = (
                f"No phantom measurement of {feature} covers the scanner and date of {listed(rows_left)}."
            )
            raise HarmonizationRefused(
                [Finding("scan_not_covered", "stop", message, rows=rows_left, columns=(feature,))]
            )
    return values


def _days(dataset: Dataset, column: str) -> IntArray:
    if column not in dataset.covariates:
        raise HarmonizationRefused(
            [Finding("column_lacking", "stop", f"The table lacks {column}.", columns=(column,))]
        )
    found = [_day(value) for value in dataset.covariates[column]]
    rows = tuple(row for row, day in zip(dataset.rows, found, strict=True) if day is None)
    if rows:
        message = f"{column} is no date (YYYY-MM-DD) in {listed(rows)}."
        raise HarmonizationRefused([Finding("missing_date", "stop", message, rows=rows, columns=(column,))])
    return np.array(found, dtype=np.int64)


def _day(value: CovariateValue) -> int | None:
    try:
        return date.fromisoformat(str(value)).toordinal() if len(str(value)) == 10 else None
    except ValueError:
        return None


def _refused(code: str, message: str, item: Mapping[str, Any]) -> HarmonizationRefused:
    finding = Finding(code, "stop", message, columns=(item["feature"],), batches=(item["batch"],))
    return HarmonizationRefused([finding])

"""Phantom calibration before any other method, as one step of work with two gates and two models.

The calibration sees the raw table and its own batch labels (the scanner as measured, before merges of the main
plan); the main method sees what the calibration left and nothing of the phantom. The result is that of doing both by
hand, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from harmonization_app.algorithms.base import (
    Algorithm,
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.design import feature_positions
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.phantom import PhantomCalibration
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.wording import stops

CALIBRATION, MAIN = "calibration", "main"


@dataclass(frozen=True, slots=True, eq=False)
class ChainResult:
    """What a chain leaves: `dataset` as the main method saw it, the result of each step.

    `calibration` is None where the plan has none. The final values are `main.values`, in the order of
    `main.model.features`.
    """

    dataset: Dataset
    calibration: Result | None
    main: Result

    @property
    def values(self) -> FloatArray:
        return self.main.values

    @property
    def findings(self) -> tuple[Finding, ...]:
        first = () if self.calibration is None else self.calibration.findings
        return (*_marked(first, CALIBRATION), *_marked(self.main.findings, MAIN))

    @property
    def models(self) -> dict[str, Model]:
        """The fitted models by step, each to be stored as any other."""
        own = {MAIN: self.main.model}
        return own if self.calibration is None else {CALIBRATION: self.calibration.model, **own}


def check_chain(
    calibration: Specification | None, algorithm: Algorithm, dataset: Dataset, specification: Specification
) -> tuple[Finding, ...]:
    """Return the findings of both gates, each with its `step`.

    The main gate judges calibrated values, and is left out while the calibration's stops.
    """
    if calibration is None:
        return _marked(algorithm.validate(dataset, specification), MAIN)
    own = _over_same_features(calibration, specification)
    phantom = PhantomCalibration()
    findings = phantom.validate(dataset, own)
    if stops(findings):
        return _marked(findings, CALIBRATION)
    calibrated = _calibrated(dataset, phantom.harmonize(dataset, own))
    return (
        *_marked(findings, CALIBRATION),
        *_marked(algorithm.validate(calibrated, specification), MAIN),
    )


def calibrate_then(
    calibration: Specification | None, algorithm: Algorithm, dataset: Dataset, specification: Specification
) -> ChainResult:
    """Calibrate a dataset, then harmonize it by `algorithm`. Raises HarmonizationRefused with marked findings.

    A diagnosis of the main step is `algorithm.diagnose(result.dataset, specification, result.main)`.
    """
    require_no_stops(check_chain(calibration, algorithm, dataset, specification))
    first, calibrated = None, dataset
    if calibration is not None:
        own = _over_same_features(calibration, specification)
        with _step(CALIBRATION):
            first = PhantomCalibration().harmonize(dataset, own)
        calibrated = _calibrated(dataset, first)
    with _step(MAIN):
        return ChainResult(calibrated, first, algorithm.harmonize(calibrated, specification))


def apply_chain(
    calibration: Model | None, algorithm: Algorithm, main: Model, dataset: Dataset
) -> ChainResult:
    """Correct new scans by both frozen models, in their order. Raises HarmonizationRefused."""
    first, calibrated = None, dataset
    if calibration is not None:
        with _step(CALIBRATION):
            first = PhantomCalibration().apply(calibration, dataset)
        calibrated = _calibrated(dataset, first)
    with _step(MAIN):
        return ChainResult(calibrated, first, algorithm.apply(main, calibrated))


def _over_same_features(calibration: Specification, specification: Specification) -> Specification:
    """Return the calibration for the features of the main plan, where it names none of its own."""
    return calibration if calibration.features else replace(calibration, features=specification.features)


def _calibrated(dataset: Dataset, result: Result) -> Dataset:
    values = dataset.values.copy()
    values[:, feature_positions(dataset, result.model.features)] = result.values
    return dataset.with_values(values)


@contextmanager
def _step(step: str) -> Iterator[None]:
    """Mark the findings of a refusal with the step that refused."""
    try:
        yield
    except HarmonizationRefused as refusal:
        raise HarmonizationRefused(_marked(refusal.findings, step)) from refusal


def _marked(findings: Sequence[Finding], step: str) -> tuple[Finding, ...]:
    return tuple(replace(finding, step=step) for finding in findings)

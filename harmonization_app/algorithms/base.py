"""The one interface of every harmonization method, and the values that travel through it.

A method is pure: no files, no clock, no global random state. `validate` says what is wrong, `fit` estimates,
`apply` corrects, `diagnose` shows what changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.specification import Specification
from hub.core.errors import HubError, InvalidInput

if TYPE_CHECKING:
    from harmonization_app.algorithms.model import Model
    from harmonization_app.diagnostics.effects import EffectsReport

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Arrays = Mapping[str, npt.NDArray[Any]]
Severity = Literal["stop", "warn", "info"]
CovariateValue = str | float | int | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the gate saw: a code for programs, a sentence for people, and where it is.

    `stop` refuses the run; `warn` and `info` go into the report. `step` names the part of a chain that saw it; it is
    empty, and left out of the JSON, where there is one step only.
    """

    code: str
    severity: Severity
    message: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    step: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            **({"step": self.step} if self.step else {}),
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "rows": list(self.rows),
            "columns": list(self.columns),
            "batches": list(self.batches),
        }


class HarmonizationRefused(HubError):
    """The data or the parameters do not allow a correct result; `findings` says why, row and column named."""

    code = "harmonization_refused"
    title = "The harmonization is refused"
    http_status = 422

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        stops = [finding for finding in self.findings if finding.severity == "stop"]
        super().__init__(
            " ".join(finding.message for finding in stops),
            errors=[{"field": finding.code, "message": finding.message} for finding in stops],
        )


def without_rows(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as a model keeps them: JSON that names no row, for a model holds nothing of any subject."""
    return [
        (
            replace(finding, rows=(), message=f"{len(finding.rows)} rows; the gate of the run names them.")
            if finding.rows
            else finding
        ).to_json()
        for finding in findings
    ]


def require_no_stops(findings: Sequence[Finding]) -> None:
    """Raise HarmonizationRefused when any finding stops the run."""
    if any(finding.severity == "stop" for finding in findings):
        raise HarmonizationRefused(findings)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A table of image-derived measurements with batch labels and covariates.

    `values` is float64, C-contiguous, [scans x features]: a scan's features lie together in memory, so a
    batch is gathered by whole rows and a block of features is still read in long runs. NaN marks a missing
    cell. `rows`, `batches` and each covariate have one entry per scan; None or an empty text is a missing
    label.
    """

    values: FloatArray
    features: tuple[str, ...]
    rows: tuple[str, ...]
    batches: tuple[str | None, ...]
    covariates: Mapping[str, Sequence[CovariateValue]] = field(default_factory=dict)
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float64)
        object.__setattr__(self, "values", values)
        if values.ndim != 2:
            raise InvalidInput(f"Values must be a table [scans x features]; got {values.ndim} dimension(s).")
        if not self.units:
            object.__setattr__(self, "units", ("",) * len(self.features))
        expected = {
            "features": values.shape[1],
            "units": values.shape[1],
            "rows": values.shape[0],
            "batches": values.shape[0],
        }
        for name, length in expected.items():
            if len(getattr(self, name)) != length:
                raise InvalidInput(
                    f"{name} has {len(getattr(self, name))} entries, the table needs {length}."
                )
        for name, column in self.covariates.items():
            if len(column) != values.shape[0]:
                raise InvalidInput(f"Covariate {name} has {len(column)} entries for {values.shape[0]} scans.")

    def select(self, rows: npt.ArrayLike) -> Dataset:
        """Return the scans at the integer positions `rows`, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        return Dataset(
            self.values[index],
            self.features,
            tuple(self.rows[i] for i in index),
            tuple(self.batches[i] for i in index),
            {name: tuple(column[i] for i in index) for name, column in self.covariates.items()},
            self.units,
        )

    def with_values(self, values: FloatArray) -> Dataset:
        """Return the same scans and features with other values."""
        return Dataset(values, self.features, self.rows, self.batches, self.covariates, self.units)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Harmonized values [scans x features] in the order of the dataset, with what is needed to report them.

    `iterations` counts the empirical Bayes steps by pool and batch; `flags` names features treated otherwise.
    """

    values: FloatArray
    model: Model
    findings: tuple[Finding, ...]
    iterations: Mapping[str, Mapping[str, int]]
    flags: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a method can do, for the page that offers it; what is not named it cannot."""

    missing_values: bool = False
    reference_batch: bool = False
    train_apply: bool = False
    nonparametric: bool = False
    mean_only: bool = False
    without_eb: bool = False
    longitudinal: bool = False
    new_batch: bool = False


class Algorithm(ABC):
    """A harmonization method; all of them are used the same way."""

    id: ClassVar[str]
    version: ClassVar[str]
    title: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    source_modules: ClassVar[tuple[str, ...]]
    # Agreement with the reference that the method can reach, and refusals that verification does not hold
    # against it.
    tolerance_sd: ClassVar[float] = 1e-9
    own_refusals: ClassVar[tuple[str, ...]] = ()
    # Sentences for the page and the report: what this method cannot do and when not to use it.
    limits: ClassVar[tuple[str, ...]] = ()
    # An exploratory method is never the primary analysis and cannot be locked.
    exploratory: ClassVar[bool] = False

    @abstractmethod
    def parameters_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the method's parameters with explicit defaults."""

    @abstractmethod
    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return everything that stops, weakens or qualifies this harmonization."""

    @abstractmethod
    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate the batch effects. Raises HarmonizationRefused when `validate` stops."""

    @abstractmethod
    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans of batches known to `model`, each with its own covariates. Raises
        HarmonizationRefused.
        """

    def harmonize(self, dataset: Dataset, specification: Specification) -> Result:
        """Fit on a dataset and correct that same dataset."""
        return self.apply(self.fit(dataset, specification), dataset)

    def diagnose(self, dataset: Dataset, specification: Specification, result: Result) -> EffectsReport:
        """Return batch and covariate effects before and after, in-sample and held-out."""
        from harmonization_app.diagnostics import effects

        return effects.compare(self, dataset, specification, result)

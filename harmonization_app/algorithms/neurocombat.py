"""neuroCombat 0.2.12 as published on PyPI, run behind our validation.

Only what it does right is allowed. Refused, with the reason: missing values (one empties the whole result), a
reference batch (fails on numpy 1.24 and later), the non-parametric mode (its likelihood underflows in large
batches), new scans (its training mode uses the mean covariates of the training data instead of the scan's
own) and covariates that lose precision in its 32-bit conversion. Constant features are kept from it: they
would enter its priors. Agrees with the R package within 5e-7 SD.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from neuroCombat import neuroCombat
from threadpoolctl import threadpool_limits

from harmonization_app.algorithms.base import (
    Algorithm,
    Capabilities,
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.design import Design, as_number, build_design, level_text, select_features
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import SHARED_MODULES, flagged, new_model, table_facts
from harmonization_app.algorithms.options import check_parameters
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import listed, stops

# Rounding of a covariate to 32 bits, in its SD, beyond which results would leave the stated 5e-7 SD.
FLOAT32_ROUNDING_SD = 1e-6
# It inverts X'X of the unscaled design: the square of this condition number is lost from 16 digits.
MAXIMUM_UNSCALED_CONDITION = 1e4
BATCH_COLUMN = "__batch__"


class NeuroCombat(Algorithm):
    """The published Python ComBat, for agreement with earlier analyses; prefer `combat`."""

    id: ClassVar[str] = "neurocombat"
    version: ClassVar[str] = "0.2.12"
    title: ClassVar[str] = "neuroCombat 0.2.12 (published package, behind our validation)"
    tolerance_sd: ClassVar[float] = 5e-7
    own_refusals: ClassVar[tuple[str, ...]] = (
        "missing_value",
        "reference_batch_not_supported",
        "nonparametric_not_supported",
        "apply_not_supported",
    )
    capabilities: ClassVar[Capabilities] = Capabilities(mean_only=True, without_eb=True)
    limits: ClassVar[tuple[str, ...]] = (
        "For agreement with earlier analyses only; combat gives the same numbers without these limits.",
        "Cannot correct new scans: neuroCombatFromTraining takes the training data's mean covariate effect "
        "in place of each scan's own, which is wrong by up to 0.5 to 0.9 SD (0.03 to 0.05 SD on average, "
        "six data sets), so it is refused.",
        "Covariates are held in 32 bits, so that it agrees with the R package within 5e-7 SD only; a "
        "covariate that loses digits is refused.",
        "Takes no missing value (one empties the whole result), no reference batch (fails on numpy 1.24 and "
        "later), no non-parametric mode (its likelihood underflows above about 510 scans in a batch) and "
        "one feature pool only.",
        "A feature with one value in a batch is refused: the package would scale it by what covariates "
        "predict, or by rounding.",
        "About 5 to 65 times slower than combat, and needs six times the data's memory.",
        "What holds for ComBat holds here: equal covariate effects in all batches, and too little gain in "
        "batches below 8 scans.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *SHARED_MODULES,
        "harmonization_app.algorithms.neurocombat",
        "neuroCombat.neuroCombat",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema()
        schema["properties"]["parametric"] = {"const": True, "default": True}
        schema["properties"]["reference_batch"] = {"type": "null", "default": None}
        schema["properties"]["missing_values"] = {"const": "refuse", "default": "refuse"}
        schema["properties"]["pools"]["maxItems"] = 0
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the common gate and the refusals of what the package gets wrong."""
        own = _unsupported(specification) + _extra_parameters(specification)
        findings = gate.check(dataset, replace(specification, missing_values="refuse"))
        if not stops((*own, *findings)):
            own += _precision(dataset, specification)
            own += _constant_in_batch(findings, specification)
        return (*own, *findings)

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate batch effects; the model documents them but cannot correct other scans."""
        return self.harmonize(dataset, specification).model

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Refuse: neuroCombatFromTraining ignores the new scans' covariates (errors up to 0.9 SD)."""
        message = (
            "neuroCombat 0.2.12 corrects new scans with the mean covariates of its training data, which "
            "is wrong by "
            "up to 0.9 SD. Plan the algorithm combat to apply a model to new scans."
        )
        raise HarmonizationRefused([Finding("apply_not_supported", "stop", message)])

    def harmonize(self, dataset: Dataset, specification: Specification) -> Result:
        """Fit and correct one dataset. Raises HarmonizationRefused; also when any result is not finite."""
        findings = self.validate(dataset, specification)
        require_no_stops(findings)
        dataset = select_features(dataset, specification.features)
        design = build_design(dataset, specification)
        usable = np.flatnonzero(np.ptp(dataset.values, axis=0) > 0)
        values = dataset.values.copy()
        corrected, estimates = _run_package(dataset.values[:, usable], dataset, design, specification)
        if not np.isfinite(corrected).all():
            raise HarmonizationRefused([_not_finite()])
        values[:, usable] = corrected
        model = _model(self, dataset, specification, design, estimates, findings)
        return Result(values, model, findings, model.iterations, model.flags, model.facts)


def _unsupported(specification: Specification) -> list[Finding]:
    reasons = {
        "reference_batch_not_supported": (
            specification.reference_batch is not None,
            "neuroCombat 0.2.12 fails with a reference batch on numpy 1.24 and later (it uses numpy.int).",
        ),
        "nonparametric_not_supported": (
            not specification.parametric,
            "The non-parametric mode of neuroCombat 0.2.12 underflows to empty results in large batches.",
        ),
        "pools_not_supported": (
            bool(specification.pools),
            "neuroCombat 0.2.12 has one prior for all features; run it once per pool.",
        ),
    }
    advice = " Plan the algorithm combat instead."
    return [Finding(code, "stop", text + advice) for code, (present, text) in reasons.items() if present]


def _extra_parameters(specification: Specification) -> list[Finding]:
    """Return stops for columns and options that only other methods know."""
    common = Specification(options=specification.options, batch_variables=specification.batch_variables)
    return check_parameters(method_schema(), common)


def _precision(dataset: Dataset, specification: Specification) -> list[Finding]:
    """Return stops where the package's conversion to 32 bits or its plain inverse would cost the stated
    accuracy.
    """
    dataset = select_features(dataset, specification.features)
    design = build_design(dataset, specification)
    rounding = np.abs(design.covariates - design.covariates.astype(np.float32)).max(axis=0, initial=0.0)
    names = design.coding.column_names
    lost = tuple(
        names[i] for i in np.flatnonzero(rounding > FLOAT32_ROUNDING_SD * design.covariates.std(axis=0))
    )
    if lost:
        message = (
            f"neuroCombat 0.2.12 holds covariates in 32 bits, which loses digits of {', '.join(lost)}. "
            "Subtract a "
            "round number from it, or plan the algorithm combat."
        )
        return [Finding("covariate_precision", "stop", message, columns=lost)]
    whole = np.hstack([np.eye(len(design.batches))[design.codes], design.covariates])
    condition = float(np.linalg.cond(whole))
    if condition > MAXIMUM_UNSCALED_CONDITION:
        message = (
            f"neuroCombat 0.2.12 inverts the unscaled design, whose condition number {condition:.3g} is "
            "too high. "
            "Centre and scale the covariates, or plan the algorithm combat."
        )
        return [Finding("unscaled_condition", "stop", message, columns=names)]
    return []


def _constant_in_batch(findings: Sequence[Finding], specification: Specification) -> list[Finding]:
    """Return a stop for features with one value in a batch: the package takes what covariates or rounding leave of
    them for their scale.
    """
    found = [item for item in findings if item.code == "constant_in_batch"]
    if not found or specification.mean_only:
        return []
    columns, batches = found[0].columns, found[0].batches
    message = (
        f"{listed(columns)} has one value in all scans of {listed(batches)}; neuroCombat 0.2.12 would scale it there "
        "by what covariates predict, or by rounding. Leave it out, or plan the algorithm combat."
    )
    return [Finding("constant_in_batch_not_supported", "stop", message, columns=columns, batches=batches)]


def _run_package(
    values: FloatArray, dataset: Dataset, design: Design, specification: Specification
) -> tuple[FloatArray, Mapping[str, Any]]:
    """Call the package on [features x scans] with one BLAS thread; its printed lines are dropped."""
    table = pd.DataFrame({BATCH_COLUMN: [design.batches[code] for code in design.codes]})
    kinds: dict[str, list[str]] = {"continuous": [], "categorical": []}
    for covariate in specification.covariates:
        column = dataset.covariates[covariate.name]
        convert = as_number if covariate.kind == "continuous" else level_text
        table[covariate.name] = [convert(value) for value in column]
        kinds[covariate.kind].append(covariate.name)
    with contextlib.redirect_stdout(io.StringIO()), threadpool_limits(1):
        output = neuroCombat(
            np.ascontiguousarray(values.T),
            table,
            BATCH_COLUMN,
            categorical_cols=kinds["categorical"],
            continuous_cols=kinds["continuous"],
            eb=specification.eb,
            mean_only=specification.mean_only,
        )
    return np.ascontiguousarray(output["data"].T), output["estimates"]


def _model(
    algorithm: NeuroCombat,
    dataset: Dataset,
    specification: Specification,
    design: Design,
    estimates: Mapping[str, Any],
    findings: tuple[Finding, ...],
) -> Model:
    constant = np.ptp(dataset.values, axis=0) == 0
    names = ("gamma_hat", "delta_hat", "gamma.star", "delta.star")
    arrays: dict[str, npt.NDArray[Any]] = {
        name.replace(".", "_"): np.array(estimates[name], dtype=np.float64) for name in names
    }
    arrays["pooled_variance"] = np.array(estimates["var.pooled"], dtype=np.float64).ravel()
    arrays["usable"] = np.flatnonzero(~constant)
    return new_model(
        algorithm,
        dataset,
        specification,
        design,
        arrays=arrays,
        flags=flagged(dataset, {"constant": constant}),
        facts=table_facts(dataset, 0, findings),
    )


def _not_finite() -> Finding:
    message = "neuroCombat 0.2.12 returned values that are not finite; none of its result is used."
    return Finding("result_not_finite", "stop", message)

"""Longitudinal ComBat: batch effects beside random effects of the subject, from repeated scans.

Source: Beer et al., NeuroImage 220:117129 (2020). The mixed model is fitted by our own profile REML; the batch
effects are then shrunk as in ComBat, with a fixed number of steps as published. Equal to the R package longCombat
(git 9b3cc36, lme4 1.1-31) within 1e-7 feature SD on its four reference cases, singular random slopes included.

New scans of known batches are corrected by frozen fixed effects, variance ratios and batch effects. Their subjects'
random effects are predicted from the scans given (best linear unbiased prediction), so that the model holds nothing of
any subject; all fitted scans given together come back as when fitted. In 30 simulations (60 subjects fitted, 40 new
ones, 3 scanners, 4 visits) 5 % of the jumps at scanner changes are left in the new subjects.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import (
    Algorithm,
    Arrays,
    BoolArray,
    Capabilities,
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
    IntArray,
    Result,
    require_no_stops,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import (
    Design,
    build_design,
    code_covariates,
    known_codes,
    pool_columns,
    select_features,
)
from harmonization_app.algorithms.empirical_bayes import estimate_prior
from harmonization_app.algorithms.kernel import constant_columns
from harmonization_app.algorithms.location_scale import EXACT_FIT_RATIO, not_estimable
from harmonization_app.algorithms.longitudinal import (
    LongitudinalDesign,
    check_columns,
    check_longitudinal,
    longitudinal_design,
)
from harmonization_app.algorithms.mixed_model import (
    FrozenFit,
    MixedFit,
    fit_random_intercept,
    fit_random_slope,
    predict,
)
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import base_facts, flagged, new_model, open_fit, run_gate
from harmonization_app.algorithms.options import read_options
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.algorithms.spread import without_spread
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.wording import stops

OPTIONS: dict[str, Any] = {
    "random_slope": {
        "type": "boolean",
        "default": False,
        "description": "a random slope over time beside the random intercept of each subject",
    },
    "residual_scale": {
        "enum": ["REML", "MSR"],
        "default": "REML",
        "description": "residual SD of the mixed model, or root of the mean squared residual",
    },
    "steps": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 30},
    "interactions": {
        "type": "array",
        "default": [],
        "uniqueItems": True,
        "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
        "description": "pairs of covariates whose product is preserved too, such as [diagnosis, time]",
    },
}


class LongCombat(Algorithm):
    """ComBat for repeated scans of the same subjects."""

    id: ClassVar[str] = "longcombat"
    version: ClassVar[str] = "1.2.0"
    title: ClassVar[str] = "Longitudinal ComBat"
    tolerance_sd: ClassVar[float] = 2e-6
    capabilities: ClassVar[Capabilities] = Capabilities(train_apply=True, longitudinal=True)
    limits: ClassVar[tuple[str, ...]] = (
        "New scans are corrected with their subject's random effects predicted from the scans given: one "
        "scan alone tells little of its subject, so the result depends a little on which scans are given "
        "together. Give a subject's earlier scans along.",
        "Takes no missing values, no reference batch and no mean-only mode; a batch needs two scans at "
        "least and gains from about as many as in ComBat.",
        "Batches that share no subject with the others are told from their subjects by the covariates "
        "alone; a warning names them.",
        "A singular fit (no variance left for subjects or for the slope) is flagged by feature; its numbers "
        "are those of the simpler model. Random slopes equal lme4's within 1e-7 SD on the reference cases, but "
        "are assured within 1e-2 SD only: lme4's own optimizers differ by 1e-3.",
        "The shrinkage takes a fixed number of steps (30), as published, not a stopping rule.",
        "Covariates, time included, are taken to have the same linear effect in all batches.",
        "Scans leave the study for reasons: dropout that depends on the measurement itself biases a mixed "
        "model too.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.longcombat",
        "harmonization_app.algorithms.longitudinal",
        "harmonization_app.algorithms.mixed_model",
    )

    def parameters_schema(self) -> dict[str, Any]:
        fixed = {"reference_batch": None, "eb": True, "parametric": True, "mean_only": False}
        schema = method_schema(OPTIONS, fixed)
        schema["properties"]["subject"] = {"type": "string", "minLength": 1}
        schema["required"] = ["subject"]
        return schema

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the common gate and those on subjects, time and interactions."""
        return run_gate(self, dataset, specification, self._check)

    def _check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        options = read_options(self.parameters_schema(), specification)
        unmeasured = without_spread(select_features(dataset, specification.features))
        return unmeasured or check_longitudinal(dataset, specification, options)

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate batch effects. Raises HarmonizationRefused when `validate` stops."""
        return self.harmonize(dataset, specification).model

    def apply(self, model: Model, dataset: Dataset) -> Result:
        """Correct scans of known batches, their subjects' random effects predicted from the scans given."""
        dataset = select_features(dataset, model.features)
        options = read_options(self.parameters_schema(), model.specification)
        findings = gate.check_apply(model, dataset, missing_values=False)
        if not stops(findings):
            findings = (*findings, *check_columns(dataset, model.specification, options))
        require_no_stops(findings)
        design = _known_design(model, dataset)
        own = longitudinal_design(dataset, design, model.specification, options)
        arrays, usable = model.arrays, model.arrays["usable"]
        random = np.ones((len(dataset.rows), 1))
        if options["random_slope"]:
            random = np.column_stack([random, own.time])
        frozen = FrozenFit(arrays["coefficients"], arrays["relative_factor"])
        fitted = predict(dataset.values[:, usable], own.fixed, random, own.subjects, frozen)
        values = dataset.values.copy()
        values[:, usable] = _corrected(values[:, usable], fitted, design.codes, arrays)
        findings = (*findings, *_lone_scans(own, str(model.specification.subject)))
        return Result(values, model, findings, model.iterations, model.flags, model.facts)

    def harmonize(self, dataset: Dataset, specification: Specification) -> Result:
        """Fit and correct one dataset. Raises HarmonizationRefused."""
        dataset, findings = open_fit(self, dataset, specification)
        options = read_options(self.parameters_schema(), specification)
        design = build_design(dataset, specification)
        varying = np.ptp(dataset.values, axis=0) > 0
        own = longitudinal_design(dataset, design, specification, options)
        fit = _fit(dataset.values[:, varying], own, options)
        scale = _residual_scale(fit, dataset.values[:, varying], options)
        _require_residuals(dataset, varying, scale)
        offsets = _batch_offsets(fit, own, design)
        standard = (dataset.values[:, varying] - fit.fitted + offsets[design.codes]) / scale
        constant = np.stack([constant_columns(rows) for rows in _by_batch(dataset.values, design)])[
            :, varying
        ]
        pools = _pools(dataset, specification, varying)
        shift, spread = _shrink(_by_batch(standard, design), constant, pools, options["steps"])
        arrays: dict[str, npt.NDArray[Any]] = {
            "gamma_star": shift,
            "delta_star": spread,
            "batch_offsets": offsets,
            "residual_scale": scale,
            "coefficients": fit.coefficients,
            "relative_factor": fit.factor,
            "usable": np.flatnonzero(varying),
        }
        values = dataset.values.copy()
        values[:, varying] = _corrected(values[:, varying], fit.fitted, design.codes, arrays)
        flags = _flags(dataset, varying, fit, constant)
        model = self._model(dataset, specification, design, own, arrays, findings, flags)
        return Result(values, model, findings, model.iterations, model.flags, model.facts)

    def _model(
        self,
        dataset: Dataset,
        specification: Specification,
        design: Design,
        own: LongitudinalDesign,
        arrays: dict[str, npt.NDArray[Any]],
        findings: tuple[Finding, ...],
        flags: dict[str, tuple[str, ...]],
    ) -> Model:
        return new_model(
            self,
            dataset,
            specification,
            design,
            arrays=arrays,
            flags=flags,
            facts={
                **base_facts(dataset, findings),
                "subjects": int(own.subjects.max()) + 1,
                "fixed_effects": list(own.names),
                "singular_fits": len(flags.get("singular_fit", ())),
            },
        )


def _known_design(model: Model, dataset: Dataset) -> Design:
    """Return batches and covariates of scans to correct, coded as when the model was fitted."""
    codes = known_codes(dataset, model.specification, model.batches)
    return Design(model.batches, codes, code_covariates(dataset, model.coding), model.coding)


def _corrected(values: FloatArray, fitted: FloatArray, codes: IntArray, arrays: Arrays) -> FloatArray:
    """Return values with the batches' effects out: of `fitted` the fixed ones, of what is left shift and scale."""
    offsets, scale = arrays["batch_offsets"][codes], arrays["residual_scale"]
    standard = (values - fitted + offsets) / scale
    adjusted = (standard - arrays["gamma_star"][codes]) / np.sqrt(arrays["delta_star"][codes])
    return np.asarray(scale * adjusted + fitted - offsets)


def _lone_scans(own: LongitudinalDesign, subject: str) -> list[Finding]:
    lone = int((np.bincount(own.subjects) == 1).sum())
    if not lone:
        return []
    message = (
        f"{lone} of {int(own.subjects.max()) + 1} subject(s) are given with one scan: how far they lie from the "
        "population is predicted from that scan alone. Give a subject's earlier scans along with new ones."
    )
    return [Finding("subject_with_one_scan", "info", message, columns=(subject,))]


def _fit(values: FloatArray, own: LongitudinalDesign, options: dict[str, Any]) -> MixedFit:
    if options["random_slope"]:
        return fit_random_slope(values, own.fixed, own.subjects, own.time)
    return fit_random_intercept(values, own.fixed, own.subjects)


def _residual_scale(fit: MixedFit, values: FloatArray, options: dict[str, Any]) -> FloatArray:
    if options["residual_scale"] == "REML":
        return fit.deviation
    return np.asarray(np.sqrt(((values - fit.fitted) ** 2).mean(axis=0)))


def _require_residuals(dataset: Dataset, varying: BoolArray, scale: FloatArray) -> None:
    """Raise HarmonizationRefused where subjects, batches and covariates leave of a feature nothing but rounding."""
    level = np.abs(dataset.values[:, varying]).max(axis=0, initial=0.0)
    exact = ~(scale > EXACT_FIT_RATIO * level)
    if exact.any():
        columns = np.flatnonzero(varying)[exact]
        raise HarmonizationRefused([not_estimable(tuple(dataset.features[i] for i in columns))])


def _batch_offsets(fit: MixedFit, own: LongitudinalDesign, design: Design) -> FloatArray:
    """Return each batch's fixed effect, centred so that the scans' mean effect is zero [batches x features]."""
    against_first = fit.coefficients[own.batch_columns]
    whole = np.vstack([np.zeros(against_first.shape[1]), against_first])
    return np.asarray(whole - (design.batch_sizes / design.batch_sizes.sum()) @ whole)


def _shrink(
    standard: list[FloatArray], constant: BoolArray, pools: list[IntArray], steps: int
) -> tuple[FloatArray, FloatArray]:
    """Return posterior shift and scale [batches x features] after a fixed number of steps, as published.

    `standard` are the standardized values of each batch [scans x features]. Unlike the published program, a feature
    keeps its scale where it is `constant` [batches x features], as in ComBat: what varies there are the fitted values
    that were taken off.
    """
    shift, spread = np.empty(constant.shape), np.empty(constant.shape)
    for batch, rows in enumerate(standard):
        count, means, variances = len(rows), rows.mean(axis=0), rows.var(axis=0, ddof=1)
        scales = np.where(constant[batch], 1.0, variances)
        for columns in pools:
            mean, variance = means[columns], variances[columns]
            prior = estimate_prior(mean, scales[columns], mean_only=False)
            own_shift, own_spread = mean, scales[columns]
            for _ in range(steps):
                weight = count * prior.variance
                own_shift = (weight * mean + own_spread * prior.mean) / (weight + own_spread)
                squares = (count - 1) * variance + count * (mean - own_shift) ** 2
                own_spread = (prior.rate + 0.5 * squares) / (count / 2.0 + prior.shape - 1.0)
            shift[batch, columns], spread[batch, columns] = own_shift, own_spread
    spread[constant] = 1.0
    return shift, spread


def _by_batch(values: FloatArray, design: Design) -> list[FloatArray]:
    """Return the scans of each batch."""
    return [values[design.codes == batch] for batch in range(len(design.batches))]


def _pools(dataset: Dataset, specification: Specification, varying: BoolArray) -> list[IntArray]:
    """Return the columns of each pool among the varying features."""
    position = np.cumsum(varying) - 1
    return [position[columns] for columns in pool_columns(dataset, specification, varying).values()]


def _flags(
    dataset: Dataset, varying: BoolArray, fit: MixedFit, constant: BoolArray
) -> dict[str, tuple[str, ...]]:
    partly, singular = np.zeros_like(varying), np.zeros_like(varying)
    partly[varying], singular[varying] = constant.any(axis=0), fit.singular
    return flagged(dataset, {"constant": ~varying, "constant_in_batch": partly, "singular_fit": singular})

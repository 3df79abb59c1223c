"""Scanner effects from subjects scanned at several sites, free of what sites' own populations differ in.

Source: Yamashita et al., PLoS Biol 17:e3000042 (2019). Values of travelling subjects are their subject's level plus
their batch's effect; both are found by least squares from those scans alone, and the batch's effect is taken off
every scan. In simulation (5 scanners, 9 travelling subjects, shift SD 0.3, noise SD 0.1) effects are recovered with a
root mean square error of 0.030, which is their sampling error. Where subjects missed scanners the effects are those of
R's lm(y ~ subject + scanner) with sum contrasts within 1e-15 SD.

Limits: the mean is corrected, not the scale; effects that depend on the subject (age, disease, size) are taken as
those of the travelling subjects; a batch without a travelling subject cannot be corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms.base import Arrays, Capabilities, Dataset, Finding, FloatArray, IntArray
from harmonization_app.algorithms.design import Design, batch_codes, level_texts
from harmonization_app.algorithms.direct import DirectMethod, without_eb
from harmonization_app.algorithms.longitudinal import batch_components
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import check_label_column
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.wording import listed


class TravellingSubject(DirectMethod):
    """Batch effects by least squares over subjects that were scanned in more than one batch.

    Without a reference batch the effects add up to zero over the batches; with one, its own effect is zero.
    """

    id: ClassVar[str] = "travelling-subject"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Travelling subjects"
    capabilities: ClassVar[Capabilities] = Capabilities(
        reference_batch=True, train_apply=True, mean_only=True, without_eb=True
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Only the mean of each batch is corrected, not its scale.",
        "The effect is that seen in the travelling subjects; whether it is the same in patients or at other "
        "ages cannot be seen from them.",
        "With k travelling subjects an effect is known within about noise SD x root(2 / k); few subjects "
        "give that error to every scan of the batch.",
        "Batches that no travelling subject connects with the others are refused. Takes no missing values.",
        "A subject must not have changed between its scans: plan travelling scans within weeks.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.longitudinal",
        "harmonization_app.algorithms.travelling",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(fixed={**without_eb("reference_batch"), "mean_only": True})
        schema["properties"]["covariates"] |= {"maxItems": 0}
        schema["properties"]["subject"] = {"type": "string", "minLength": 1}
        schema["required"] = ["subject"]
        return schema

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where subjects are missing or the travelling ones do not connect all batches."""
        name = str(specification.subject)
        findings = check_label_column(dataset, name)
        if findings:
            return findings
        batches, codes = batch_codes(dataset, specification)
        subjects = _subjects(dataset, specification)
        component = batch_components(len(batches), codes, subjects)
        largest = np.argmax(np.bincount(component))
        apart = tuple(batches[i] for i in np.flatnonzero(component != largest))
        if not apart:
            return []
        message = (
            f"No travelling subject connects {listed(apart)} with the other batches, directly or through a third; "
            "their effect is not known. Leave them out, or scan a subject there."
        )
        return [Finding("batches_not_connected", "stop", message, batches=apart)]

    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        subjects, codes = _subjects(dataset, specification), design.codes
        indicators = np.eye(len(design.batches))[codes]
        sizes = np.bincount(subjects)
        # The subject's own level is eliminated: scans and indicators are centred within the subject.
        membership = np.eye(len(sizes))[subjects]
        within = indicators - membership @ ((membership.T @ indicators) / sizes[:, None])
        values = dataset.values - membership @ ((membership.T @ dataset.values) / sizes[:, None])
        effects = np.linalg.lstsq(within, values, rcond=None)[0]
        if specification.reference_batch is not None:
            effects = effects - effects[design.batches.index(specification.reference_batch)]
        else:
            effects = effects - effects.mean(axis=0)
        travelling = np.array(
            [len(set(codes[subjects == subject].tolist())) > 1 for subject in range(len(sizes))]
        )
        return {"effect": effects, "travelling_subjects": np.array([int(travelling.sum())])}

    def fit(self, dataset: Dataset, specification: Specification) -> Model:
        """Estimate the effects; `facts` tells from how many travelling subjects."""
        model = super().fit(dataset, specification)
        number = int(model.arrays["travelling_subjects"][0])
        return replace(model, facts={**model.facts, "travelling_subjects": number})

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        return np.asarray(dataset.values - model.arrays["effect"][codes])


def _subjects(dataset: Dataset, specification: Specification) -> IntArray:
    """Return a number for the subject of each scan."""
    labels = level_texts(dataset.covariates[str(specification.subject)])
    return np.unique(np.array(labels, dtype=str), return_inverse=True)[1].astype(np.int64)

"""Federated ComBat: every site sends sufficient statistics of its batches, none sends a row.

Source: Chen et al., Hum Brain Mapp 43:1179 (2022), distributed ComBat; here one round suffices, because the
kernel needs no more than means and centred cross products by batch. The result equals pooled ComBat within 1e-12
feature SD. A site runs `summarize_batches` on its own table, the coordinator `combine_summaries`, and every site
applies the returned model to its own table; `dcombat_site` does each as a command.

Limits: levels of categorical covariates must be in the plan, since no site sees the others'. The range of a
continuous covariate is not sent; the model takes the batches' mean plus and minus two SD for it. A batch's means and
cross products of few scans can tell something of single subjects: the plan's least batch size is enforced on site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from harmonization_app.algorithms.base import (
    Dataset,
    Finding,
    HarmonizationRefused,
)
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.dcombat_summary import BatchSummary, SiteSummary, summarize_batch
from harmonization_app.algorithms.design import (
    Design,
    as_numbers,
    code_covariates,
    level_texts,
    merged_labels,
    select_features,
)
from harmonization_app.algorithms.kernel import Statistics
from harmonization_app.algorithms.missing_cells import undetermined
from harmonization_app.algorithms.model import CovariateCoding, Model
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labels
from harmonization_app.diagnostics.wording import listed, stops
from hub.core.canonical import digest
from hub.core.errors import InvalidInput

RANGE_SD = 2.0


class DCombat(Combat):
    """ComBat from the sufficient statistics of each batch."""

    id: ClassVar[str] = "dcombat"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Federated ComBat"
    limits: ClassVar[tuple[str, ...]] = (
        "A run in the hub has all rows at hand and computes what the sites would have sent; the protection "
        "of rows exists only where each site runs the command on its own table.",
        "Sends means and cross products of each batch, one set per feature: of a batch of few scans they "
        "tell something of single subjects. The plan's least batch size is enforced on site.",
        "The levels of categorical covariates must be in the plan, since no site sees those of the others.",
        "The range of a continuous covariate is not sent: the model takes the batches' means plus and minus "
        "two SD, by which scans outside the range are flagged.",
        "Gate checks that need rows of several sites at once (overlap, duplicates between sites) are not "
        "possible at a site.",
        *Combat.limits,
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *Combat.source_modules,
        "harmonization_app.algorithms.dcombat",
        "harmonization_app.algorithms.dcombat_summary",
    )

    def validate(self, dataset: Dataset, specification: Specification) -> tuple[Finding, ...]:
        """Return the findings of the common gate, and a stop for categories whose levels the plan lacks."""
        own = check_levels(specification)
        return (*own, *super().validate(dataset, specification))

    def estimate(
        self, dataset: Dataset, specification: Specification, findings: tuple[Finding, ...]
    ) -> Model:
        """Return the model of summaries made batch by batch, as if each were at a site of its own."""
        dataset = select_features(dataset, specification.features)
        summary = summarize_batches(dataset, specification)
        return combine_summaries([summary], specification, findings)


def check_levels(specification: Specification) -> list[Finding]:
    """Return a stop for categorical covariates without levels: no site can learn them from the others."""
    open_ended = tuple(
        item.name for item in specification.covariates if item.kind == "categorical" and len(item.levels) < 2
    )
    if not open_ended:
        return []
    message = f"The plan must list the levels of {listed(open_ended)}: no site sees those of the others."
    return [Finding("levels_lacking", "stop", message, columns=open_ended)]


def planned_coding(specification: Specification) -> CovariateCoding:
    """Return the covariates' coding from the plan alone. Raises HarmonizationRefused without levels."""
    findings = check_levels(specification)
    if findings:
        raise HarmonizationRefused(findings)
    columns: list[tuple[str, str | None]] = []
    levels: dict[str, tuple[str, ...]] = {}
    for item in specification.covariates:
        if item.kind == "continuous":
            columns.append((item.name, None))
            continue
        reference = item.reference if item.reference is not None else sorted(item.levels)[0]
        levels[item.name] = (reference, *(level for level in sorted(item.levels) if level != reference))
        columns.extend((item.name, level) for level in levels[item.name][1:])
    return CovariateCoding(tuple(columns), levels, {})


def summarize_batches(dataset: Dataset, specification: Specification) -> SiteSummary:
    """Return what a site may send of its own table: by batch counts, means, cross products.

    Raises HarmonizationRefused, naming rows, where a label or covariate is missing or unknown, a value infinite, or
    a batch smaller than the plan allows.
    """
    coding = planned_coding(specification)
    dataset = select_features(dataset, specification.features)
    findings = _check_site(dataset, specification, coding)
    if stops(findings):
        raise HarmonizationRefused(findings)
    labels = np.array(merged_labels(dataset, specification), dtype=str)
    covariates = code_covariates(dataset, coding)
    batches = {
        label: summarize_batch(dataset.values[labels == label], covariates[labels == label])
        for label in sorted(set(labels.tolist()))
    }
    return SiteSummary(digest(specification.to_json()), dataset.features, dataset.units, batches)


def combine_summaries(
    summaries: Sequence[SiteSummary], specification: Specification, findings: tuple[Finding, ...] = ()
) -> Model:
    """Return the model of all sites' summaries, as pooled ComBat would have it.

    Raises InvalidInput where the summaries are of other plans, features or units or share a batch,
    HarmonizationRefused where the batches together do not determine the effects.
    """
    batches = _joined(summaries, specification)
    coding = _with_ranges(planned_coding(specification), batches)
    own = _check_together(batches, specification, coding)
    if stops(own):
        raise HarmonizationRefused(own)
    parts = tuple(batches.values())
    statistics = _statistics(parts)
    features, units = summaries[0].features, summaries[0].units
    table = Labels(features, (), (), units=units)
    sizes = [part.scans for part in parts]
    codes = np.repeat(np.arange(len(parts)), sizes)
    design = Design(tuple(batches), codes, np.empty((len(codes), 0)), coding)
    model = DCombat().conclude(table, specification, design, statistics, (*findings, *own))
    # The base class counts scans and missing cells from a table, of which there is none here.
    missing = int(sum(sizes) * len(features) - statistics.counts.sum())
    return replace(model, facts={**model.facts, "scans": int(sum(sizes)), "missing_cells": missing})


def _joined(summaries: Sequence[SiteSummary], specification: Specification) -> dict[str, BatchSummary]:
    if not summaries:
        raise InvalidInput("There is no summary to combine.")
    plan = digest(specification.to_json())
    batches: dict[str, BatchSummary] = {}
    for index, summary in enumerate(summaries, start=1):
        if summary.plan != plan:
            raise InvalidInput(f"Summary {index} was made with another plan; make it again with this one.")
        if (summary.features, summary.units) != (summaries[0].features, summaries[0].units):
            raise InvalidInput(
                f"Summary {index} has other features or units than the first; align the tables."
            )
        twice = sorted(set(batches) & set(summary.batches))
        if twice:
            raise InvalidInput(f"Batch {', '.join(twice)} is in two summaries; a batch belongs to one site.")
        batches |= summary.batches
    return dict(sorted(batches.items()))


def _statistics(parts: Sequence[BatchSummary]) -> Statistics:
    """Return what the kernel would have found in the pooled data."""
    scans = np.array([part.scans for part in parts], dtype=np.float64)
    own = np.stack([part.covariate_mean for part in parts])
    centre = (scans @ own) / scans.sum()
    squares = sum(
        np.diag(part.covariate_products) + part.scans * (part.covariate_mean - centre) ** 2 for part in parts
    )
    scale = np.sqrt(squares / scans.sum())
    scale = np.where(scale == 0, 1.0, scale)
    counts = np.stack([part.counts for part in parts])
    gram = sum(part.observed_products for part in parts) / np.outer(scale, scale)
    right = sum(part.cross_products for part in parts) / scale[:, None]
    singular = undetermined(gram, counts.sum(axis=0))
    gram[singular] = np.eye(len(scale))
    coefficients = np.linalg.solve(gram, right.T[:, :, None])[:, :, 0].T if len(scale) else right
    coefficients[:, singular] = 0.0
    residuals, intercepts = [], []
    for part in parts:
        cross = part.cross_products / scale[:, None]
        products = part.observed_products / np.outer(scale, scale)
        explained = np.einsum("cf,cf->f", coefficients, 2 * cross) - np.einsum(
            "cf,fcd,df->f", coefficients, products, coefficients
        )
        residuals.append(np.maximum(part.squares - explained, 0.0))
        at_centre = (part.observed_mean - centre[:, None]) / scale[:, None]
        intercepts.append(part.mean - np.einsum("cf,cf->f", at_centre, coefficients))
    constant = np.stack([part.constant for part in parts])
    means = np.stack([part.mean for part in parts])
    return Statistics(
        intercepts=np.stack(intercepts),
        coefficients=coefficients,
        residual_squares=np.stack(residuals),
        counts=counts,
        constant=constant,
        uniform=constant.all(axis=0) & (means == means[0]).all(axis=0),
        unusable=singular | (counts == 0).any(axis=0),
        centre=centre,
        scale=scale,
    )


def _check_site(dataset: Dataset, specification: Specification, coding: CovariateCoding) -> list[Finding]:
    labels = merged_labels(dataset, specification)
    findings = []
    missing = tuple(row for row, label in zip(dataset.rows, labels, strict=True) if label is None)
    if missing:
        findings.append(
            Finding("missing_batch", "stop", f"The batch is missing in {listed(missing)}.", rows=missing)
        )
    sizes = {label: labels.count(label) for label in set(labels) if label is not None}
    small = tuple(sorted(label for label, size in sizes.items() if size < specification.minimum_scans))
    if small:
        message = f"Batch {listed(small)} has fewer than {specification.minimum_scans} scans; nothing of it is sent."
        findings.append(Finding("batch_too_small", "stop", message, batches=small))
    infinite = np.argwhere(np.isinf(dataset.values))
    if infinite.size:
        rows = tuple(dict.fromkeys(dataset.rows[i] for i in infinite[:, 0]))
        names = tuple(dict.fromkeys(dataset.features[i] for i in infinite[:, 1]))
        message = f"Infinite values in row(s) {listed(rows)}, feature(s) {listed(names)}."
        findings.append(Finding("infinite_value", "stop", message, rows=rows, columns=names))
    for item in specification.covariates:
        findings += _check_covariate(dataset, item.name, coding.levels.get(item.name))
    return findings


def _check_covariate(dataset: Dataset, name: str, levels: tuple[str, ...] | None) -> list[Finding]:
    if name not in dataset.covariates:
        return [
            Finding("covariate_lacking", "stop", f"The table lacks the covariate {name}.", columns=(name,))
        ]
    values = dataset.covariates[name]
    faulty = (
        np.isnan(as_numbers(values)).tolist()
        if levels is None
        else [text not in levels for text in level_texts(values)]
    )
    rows = tuple(row for row, wrong in zip(dataset.rows, faulty, strict=True) if wrong)
    if not rows:
        return []
    what = "missing or no number" if levels is None else f"missing or none of {listed(levels)}"
    message = f"{name} is {what} in {listed(rows)}."
    return [Finding("missing_covariate", "stop", message, rows=rows, columns=(name,))]


def _check_together(
    batches: Mapping[str, BatchSummary], specification: Specification, coding: CovariateCoding
) -> list[Finding]:
    """Return stops on what only all batches together can show: their number, the reference, the design's rank."""
    if len(batches) < 2:
        return [Finding("one_batch", "stop", "There is one batch only; there is nothing to harmonize.")]
    reference = specification.reference_batch
    if reference is not None and reference not in batches:
        message = f"The reference batch {reference} is in no summary; they have {listed(tuple(batches))}."
        return [Finding("unknown_reference_batch", "stop", message, batches=(reference,))]
    if not coding.columns:
        return []
    within = sum(part.covariate_products for part in batches.values())
    scans = np.array([float(sum(part.scans for part in batches.values()))])
    between = sum(part.scans * part.covariate_mean**2 for part in batches.values())
    whole = np.sqrt(np.maximum(np.diag(within) + between, np.finfo(float).tiny))
    if not undetermined(np.asarray(within / np.outer(whole, whole))[None] * scans, scans)[0]:
        return []
    names = coding.column_names
    message = (
        f"Batches and covariates ({listed(names)}) cannot be told apart: within the batches a covariate does not "
        "vary or follows from the others. Take one out of the plan, or merge batches."
    )
    return [Finding("confounded_with_batch", "stop", message, columns=names)]


def _with_ranges(coding: CovariateCoding, batches: Mapping[str, BatchSummary]) -> CovariateCoding:
    ranges: dict[str, tuple[float, float]] = {}
    for index, (name, level) in enumerate(coding.columns):
        if level is None:
            means = np.array([part.covariate_mean[index] for part in batches.values()])
            squares = np.array([part.covariate_products[index, index] for part in batches.values()])
            spread = np.sqrt(squares / np.array([part.scans for part in batches.values()]))
            ranges[name] = (
                float((means - RANGE_SD * spread).min()),
                float((means + RANGE_SD * spread).max()),
            )
    return replace(coding, ranges=ranges)

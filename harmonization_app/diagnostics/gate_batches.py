"""Checks of batch labels: present, more than one, large enough, reference and merges known."""

from __future__ import annotations

from collections import Counter

from harmonization_app.algorithms.base import Finding
from harmonization_app.algorithms.design import level_text, merged_labels
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.table import Labelled
from harmonization_app.diagnostics.wording import listed


def check_batches(dataset: Labelled, specification: Specification) -> list[Finding]:
    """Return the findings on the batches of a dataset after the plan's merges."""
    labels = merged_labels(dataset, specification)
    findings: list[Finding] = []
    missing = tuple(row for row, label in zip(dataset.rows, labels, strict=True) if label is None)
    if missing:
        message = (
            f"The batch label is missing in {len(missing)} row(s): {listed(missing)}. Give it, or "
            "leave the rows out."
        )
        findings.append(Finding("missing_batch", "stop", message, rows=missing))
    sizes = Counter(label for label in labels if label is not None)
    if len(sizes) < 2:
        message = (
            f"There is one batch only ({listed(tuple(sizes)) or 'none'}); there is nothing to harmonize. Look whether "
            "the plan names the right batch column."
        )
        findings.append(Finding("one_batch", "stop", message, batches=tuple(sizes)))
        return findings
    reference = specification.reference_batch
    if reference is not None and reference not in sizes:
        message = (
            f"The reference batch {reference} is not in the data; it has {listed(tuple(sorted(sizes)))}. Plan one of "
            "these."
        )
        findings.append(Finding("unknown_reference_batch", "stop", message, batches=(reference,)))
    present = {level_text(label) for label in dataset.batches}
    absent = tuple(sorted(set(specification.merge_batches) - present - {None}))
    if absent:
        message = (
            f"The plan merges batches that are not in the data: {listed(absent)}. Look for a misspelt name."
        )
        findings.append(Finding("unknown_merged_batch", "warn", message, batches=absent))
    findings += _sizes(sizes, specification)
    return findings


def _sizes(sizes: Counter[str], specification: Specification) -> list[Finding]:
    policy = specification.batch_size
    findings: list[Finding] = []
    least = specification.minimum_scans
    refused = _between(sizes, 0, least)
    if refused:
        why = "without empirical Bayes" if not specification.eb else "with this method"
        message = (
            f"These batches have fewer than {least} scans, too few to estimate their effect {why}: "
            f"{_with_sizes(refused, sizes)}. Merge them with a like scanner, leave them out"
            + (", or plan mean-only." if not specification.mean_only and specification.eb else ".")
        )
        findings.append(Finding("batch_too_small", "stop", message, batches=refused))
    if not specification.mean_only:
        scale = _between(sizes, least, policy.mean_only_below)
        if scale:
            message = (
                f"These batches have fewer than {policy.mean_only_below} scans, too few to estimate "
                "their scale: "
                f"{_with_sizes(scale, sizes)}. Plan mean-only, or merge them with a like scanner."
            )
            findings.append(Finding("batch_too_small_for_scale", "stop", message, batches=scale))
    start = least if specification.mean_only else max(least, policy.mean_only_below)
    small = _between(sizes, start, policy.warn_below)
    if small:
        message = (
            f"These batches have fewer than {policy.warn_below} scans; part of their effect will remain: "
            f"{_with_sizes(small, sizes)}. Name leave_one_batch_out among the sensitivity analyses."
        )
        findings.append(Finding("small_batch", "warn", message, batches=small))
    return findings


def _between(sizes: Counter[str], least: int, below: int) -> tuple[str, ...]:
    return tuple(sorted(batch for batch, size in sizes.items() if least <= size < below))


def _with_sizes(batches: tuple[str, ...], sizes: Counter[str]) -> str:
    return listed([f"{batch} ({sizes[batch]})" for batch in batches])

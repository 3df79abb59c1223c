"""Reading plans: their specification in words, what changed between versions, findings by severity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harmonization_app.algorithms.base import Finding
from harmonization_app.algorithms.specification import Specification
from harmonization_app.models import HarmonizationPlan
from hub.core.errors import InvalidInput
from sites_app.models import Trial

SEVERITIES = (
    ("stop", "Stops the run"),
    ("warn", "Weakens the result"),
    ("info", "Worth knowing"),
)


@dataclass(frozen=True)
class SpecificationRow:
    """One line of the readable specification; `default` tells that the plan left it unsaid."""

    name: str
    value: str
    default: bool = False


@dataclass(frozen=True)
class Change:
    path: str
    before: str
    after: str


def visible_plans(user: Any, trial: Trial) -> Any:
    rows = HarmonizationPlan.objects.visible_to(user).filter(trial=trial)
    return rows.select_related("algorithm_version", "signature")


def specification_rows(document: Mapping[str, Any]) -> list[SpecificationRow]:
    """Return a plan's document as a table that a statistician reads, every default written out."""
    given = document.get("parameters", {})
    try:
        parameters = Specification.from_json(given).to_json()
    except InvalidInput:
        parameters = dict(given)
    rows = [
        SpecificationRow("Algorithm", str(document.get("algorithm", ""))),
        SpecificationRow("Batch", f"column {document.get('batch', '')}"),
        *_said("Statistical analysis plan", _reference(document.get("analysis_plan"))),
        *_said("Rationale", document.get("rationale")),
        SpecificationRow("Rows excluded", _excluded(document.get("exclude_rows", []))),
        _ranges(document.get("plausible_ranges") or {}),
        *_images_and_scanners(document),
        *_companions(document),
    ]
    return rows + [
        SpecificationRow(_LABELS.get(name, name), _in_words(name, value), name not in given)
        for name, value in parameters.items()
    ]


def differing_rows(documents: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the lines of the specification in which documents differ, each with one value per document."""
    tables = [{row.name: row.value for row in specification_rows(document)} for document in documents]
    names = list(dict.fromkeys(name for table in tables for name in table))
    lines = [(name, [table.get(name, "—") for table in tables]) for name in names]
    return [(name, values) for name, values in lines if len(set(values)) > 1]


def _ranges(ranges: Mapping[str, Sequence[float | None]]) -> SpecificationRow:
    """Return the plausible ranges in words, as `mm3: 0 to 9000`."""
    parts = [f"{name}: {_range(*ends)}" for name, ends in ranges.items()]
    value = "; ".join(parts) or "none: no value is judged by its size"
    return SpecificationRow("Plausible ranges", value, not parts)


def _range(least: float | None, greatest: float | None) -> str:
    if greatest is None:
        return f"{least} or more"
    return f"{greatest} or less" if least is None else f"{least} to {greatest}"


_UNSAID = "not said: the gate stops where there are any"


def _images_and_scanners(document: Mapping[str, Any]) -> list[SpecificationRow]:
    images = document.get("image_rows", {})
    changes = document.get("scanner_changes")
    series = images.get("series", [])
    blinded = document.get("blinded", True)
    return [
        _policy("Rows with images that depart from the protocol", images.get("deviant")),
        _policy("Rows with images that failed QC", images.get("qc_failed")),
        SpecificationRow(
            "Images the features come from",
            ", ".join(series) or "every expected series of the visit",
            not series,
        ),
        _policy("A scanner's change inside a batch", _CHANGES.get(str(changes), changes)),
        SpecificationRow(
            "Blinded",
            "yes: no column may tell the treatment arm"
            if blinded
            else "no: columns may tell the treatment arm",
            "blinded" not in document,
        ),
    ]


_CHANGES = {"split": "begins a new batch", "keep": "leaves the batch whole"}


def _policy(name: str, value: Any) -> SpecificationRow:
    return SpecificationRow(name, str(value) if value else _UNSAID, not value)


def _companions(document: Mapping[str, Any]) -> list[SpecificationRow]:
    """Return the calibration before the algorithm and the analyses beside it."""
    calibration = document.get("calibration")
    rows = []
    if calibration:
        options = calibration.get("parameters", {}).get("options", {})
        count = len(options.get("measurements", []))
        rows.append(SpecificationRow("Phantom calibration", f"before the algorithm, {count} measurements"))
    named = [
        str(item.get("algorithm") or item.get("kind", "")).replace("_", " ")
        for item in document.get("sensitivity", [])
    ]
    return [*rows, SpecificationRow("Sensitivity analyses", ", ".join(named) or "none", not named)]


def _reference(value: Any) -> str:
    """Return where the statistical analysis plan says it, in words."""
    if isinstance(value, Mapping):
        parts = [value.get("document"), f"version {value.get('version')}", f"section {value.get('section')}"]
        return ", ".join([*map(str, parts), *([f"SHA-256 {value['sha256']}"] if value.get("sha256") else [])])
    return str(value or "")


_LABELS = {
    "covariates": "Effects preserved",
    "eb": "Empirical Bayes",
    "parametric": "Priors",
    "mean_only": "Correction",
    "reference_batch": "Reference batch",
    "features": "Features",
    "pools": "Feature pools",
    "merge_batches": "Batches merged",
    "batch_size": "Batch sizes (scans)",
    "overlap": "Covariate overlap",
    "missing_values": "Missing values",
    "unusable_features": "Features a batch lacks",
    "duplicate_values": "Rows with equal values",
    "maximum_condition": "Largest condition number",
    "seed": "Seed",
    "subject": "Column of the subject",
    "time": "Column of the time",
    "batch_variables": "Batch variables in order",
    "options": "Options of the method",
}


def _in_words(name: str, value: Any) -> str:
    writer = _WRITERS.get(name)
    if writer is not None:
        return writer(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {item}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value).replace("_", " ")


def _covariates(items: Any) -> str:
    parts = []
    for item in items:
        reference = f", reference {item['reference']}" if item.get("reference") else ""
        parts.append(f"{item['name']} ({item['kind']}{reference})")
    return "; ".join(parts) or "none"


_WRITERS: dict[str, Any] = {
    "covariates": _covariates,
    "eb": lambda value: "on: batch effects are shrunk over features" if value else "off",
    "parametric": lambda value: "parametric (normal, inverse gamma)" if value else "non-parametric",
    "mean_only": lambda value: "mean only" if value else "mean and scale",
    "reference_batch": lambda value: str(value) if value else "none: to the pooled mean",
    "features": lambda value: f"{len(value)}: {', '.join(value)}" if value else "all of the feature set",
    "pools": lambda value: "; ".join(f"{pool['name']} ({len(pool['features'])})" for pool in value) or "one",
    "merge_batches": lambda value: ", ".join(f"{old} → {new}" for old, new in value.items()) or "none",
}


def _said(name: str, value: Any) -> list[SpecificationRow]:
    return [SpecificationRow(name, str(value))] if value else []


def _excluded(rows: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(f"{item['row']}: {item['reason']}" for item in rows) or "none"


def changes_since(plan: HarmonizationPlan) -> list[Change]:
    """Return what a plan's document changed against the version before it."""
    former = HarmonizationPlan.objects.filter(
        trial=plan.trial, name=plan.name, version=plan.version - 1
    ).first()
    if former is None:
        return []
    old, new = _flat(former.document), _flat(plan.document)
    return [
        Change(path, old.get(path, "—"), new.get(path, "—"))
        for path in sorted({*old, *new})
        if old.get(path) != new.get(path)
    ]


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        whole: dict[str, str] = {}
        for key, item in value.items():
            whole |= _flat(item, f"{path}/{key}")
        return whole
    return {path: str(value)}


def grouped(findings: Iterable[Finding | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return findings by severity, worst first, as the pages and the report show them."""
    items = [item.to_json() if isinstance(item, Finding) else dict(item) for item in findings]
    groups = []
    for severity, title in SEVERITIES:
        own = [item for item in items if item["severity"] == severity]
        if own:
            groups.append({"severity": severity, "title": title, "findings": own})
    return groups

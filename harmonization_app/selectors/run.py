"""Reading runs: before and after by feature, covariate effects, held-out evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harmonization_app.models import FeatureSet, HarmonizationRun
from hub.core.models import Job
from sites_app.models import Trial

LISTED_ROWS = 20


@dataclass(frozen=True)
class FeatureEffect:
    """The batch effect on one feature before and after, in-sample; None where it cannot be computed."""

    feature: str
    unit: str
    eta_before: float | None
    eta_after: float | None
    share_before: float | None
    share_after: float | None
    q_before: float | None
    q_after: float | None
    scale_q_before: float | None
    scale_q_after: float | None


@dataclass(frozen=True)
class FlowStep:
    """How many rows were left at one step, and why some were not."""

    title: str
    rows: int
    note: str = ""


def visible_runs(user: Any, trial: Trial) -> Any:
    rows = HarmonizationRun.objects.visible_to(user).filter(trial=trial)
    return rows.select_related("plan", "plan__signature", "algorithm_version", "feature_set", "created_by")


def job_of(run: HarmonizationRun) -> Job | None:
    return Job.objects.filter(pk=run.job_id).first() if run.job_id else None


def feature_effects(diagnostics: Mapping[str, Any], feature_set: FeatureSet) -> list[FeatureEffect]:
    """Return the batch effect of every feature, the largest before first."""
    in_sample = diagnostics.get("in_sample", {})
    after = {item["feature"]: item for item in _tests(in_sample.get("after", {}))}
    units = units_of(feature_set)
    rows = []
    for before in _tests(in_sample.get("before", {})):
        name = before["feature"]
        other = after.get(name, {})
        rows.append(
            FeatureEffect(
                name,
                units.get(name, ""),
                before.get("partial_eta_squared"),
                other.get("partial_eta_squared"),
                before.get("variance_explained"),
                other.get("variance_explained"),
                before.get("q"),
                other.get("q"),
                before.get("levene_q"),
                other.get("levene_q"),
            )
        )
    return sorted(
        rows, key=lambda row: (-(row.eta_before if row.eta_before is not None else -1), row.feature)
    )


def _tests(stage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tests by feature: of all of them where the stage keeps columns, else of those it lists."""
    columns = stage.get("columns")
    if not columns:
        return list(stage.get("tests", []))
    figures = {name: values for name, values in columns.items() if name != "feature"}
    return [
        {"feature": feature, **{name: values[index] for name, values in figures.items()}}
        for index, feature in enumerate(columns["feature"])
    ]


def units_of(feature_set: FeatureSet) -> dict[str, str]:
    return {column["name"]: column.get("unit", "") for column in feature_set.columns}


def covariate_choices(diagnostics: Mapping[str, Any], feature_set: FeatureSet) -> list[dict[str, Any]]:
    """Return each covariate column with its units and how many features keep its effect."""
    units = units_of(feature_set)
    found: dict[str, dict[str, Any]] = {}
    for item in diagnostics.get("covariates", []):
        entry = found.setdefault(
            item["covariate"], {"name": item["covariate"], "units": [], "kept": 0, "of": 0}
        )
        unit = units.get(item["feature"], "")
        if unit not in entry["units"]:
            entry["units"].append(unit)
        entry["kept"] += item["preserved"] is True
        entry["of"] += item["preserved"] is not None
    return list(found.values())


def covariate_rows(
    diagnostics: Mapping[str, Any], feature_set: FeatureSet, covariate: str, unit: str
) -> list[dict[str, Any]]:
    """Return one covariate's effects on the features of one unit, in the order of the diagnostics."""
    units = units_of(feature_set)
    return [
        item
        for item in diagnostics.get("covariates", [])
        if item["covariate"] == covariate and units.get(item["feature"], "") == unit
    ]


def row_flow(run: HarmonizationRun) -> list[FlowStep]:
    """Return the flow of rows from the feature set to the result, what left it and why."""
    excluded = {item["row"]: item["reason"] for item in run.specification.get("exclude_rows", [])}
    decisions = run.row_decisions or {}
    steps = [
        FlowStep("Rows in the feature set", run.feature_set.row_count),
        FlowStep("Excluded by the plan", len(excluded), _listed(excluded)),
    ]
    by_images = decisions.get("excluded") or {}
    if by_images:
        steps.append(
            FlowStep("Excluded for their images (deviant or failed QC)", len(by_images), _listed(by_images))
        )
    if run.summary.get("rows") is not None:
        steps.append(FlowStep("Rows harmonized", run.summary["rows"]))
    kept = decisions.get("kept") or {}
    if kept:
        steps.append(FlowStep("of these, kept in spite of their images", len(kept), _listed(kept)))
    moved = decisions.get("batches") or {}
    if moved:
        steps.append(FlowStep("of these, in a batch split by a scanner change", len(moved), _listed(moved)))
    if decisions.get("without_images"):
        steps.append(
            FlowStep(
                "Rows whose images the hub does not have", decisions["without_images"], "nothing to check"
            )
        )
    return steps


def _listed(reasons: Mapping[str, str]) -> str:
    """Return the rows with their reasons, the first of many; all of them are in the JSON report."""
    shown = "; ".join(f"{row}: {reason}" for row, reason in list(reasons.items())[:LISTED_ROWS])
    more = len(reasons) - LISTED_ROWS
    return f"{shown}; and {more} more" if more > 0 else shown or "none"


def overall_noise_floor(diagnostics: Mapping[str, Any]) -> float | None:
    """Return the partial eta squared to expect of no batch effect; older runs: (batches - 1) / (scans - 1)."""
    stored = diagnostics.get("in_sample", {}).get("noise_floor")
    if stored is not None:
        return float(stored)
    batches, scans = len(diagnostics.get("batches", [])), diagnostics.get("scans", 0)
    return (batches - 1) / (scans - 1) if scans > 1 and batches else None

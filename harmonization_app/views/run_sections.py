"""What the sections of a run's page show: figures, charts, one feature before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest

from harmonization_app.models import HarmonizationRun
from harmonization_app.selectors import run as selectors
from harmonization_app.selectors.run_evidence import evidence_of, limits_of
from harmonization_app.selectors.run_values import before_after, feature_names
from harmonization_app.services.run import load_diagnostics
from harmonization_app.views import charts, evidence_charts
from harmonization_app.views.pages import LISTED, picker

Diagnostics = Mapping[str, Any]


def sections(request: HttpRequest, run: HarmonizationRun) -> dict[str, Any]:
    """Return the context of all sections; without diagnostics only what needs none."""
    diagnostics = load_diagnostics(run)
    context: dict[str, Any] = {"diagnostics": diagnostics, "limits": limits_of(run, diagnostics)}
    if run.data_digest:
        context |= look_at(request, run, _first_feature(run, diagnostics))
    if not diagnostics:
        return context
    return context | _before_and_after(run, diagnostics) | _evidence(run, diagnostics)


def _first_feature(run: HarmonizationRun, diagnostics: Diagnostics) -> str:
    """Return the feature to begin with: the one with the largest batch effect before."""
    effects = selectors.feature_effects(diagnostics, run.feature_set) if diagnostics else []
    names = feature_names(run)
    return effects[0].feature if effects else (names[0] if names else "")


def look_at(request: HttpRequest, run: HarmonizationRun, feature: str) -> dict[str, Any]:
    """Return one feature by batch, before and after, on the same axis."""
    found = before_after(run, feature)
    context: dict[str, Any] = {"look_feature": feature, "picker": _run_picker(request, run, feature)}
    if isinstance(found, str):
        return context | {"look_problem": found}
    limits = (found.least, found.greatest)
    return context | {
        "look": found,
        "look_rows": _paired(found.before, found.after),
        "look_options": [
            {
                "name": name,
                "chart": f"look-{name}",
                "options": charts.distribution_chart(groups, feature, found.unit, limits=limits, tone=tone),
            }
            for name, groups, tone in (("before", found.before, "bad"), ("after", found.after, "good"))
        ],
    }


def _paired(before: Any, after: Any) -> list[tuple[Any, Any]]:
    other = {group.name: group for group in after}
    return [(group, other.get(group.name)) for group in before]


def _run_picker(request: HttpRequest, run: HarmonizationRun, feature: str) -> dict[str, Any]:
    context = picker(request, run.feature_set, feature)
    names = feature_names(run)
    if len(names) <= LISTED:
        context |= {"names": names, "count": len(names)}
    return context


def _before_and_after(run: HarmonizationRun, diagnostics: Diagnostics) -> dict[str, Any]:
    effects = selectors.feature_effects(diagnostics, run.feature_set)
    in_sample = diagnostics.get("in_sample") or {}
    stages = [(in_sample.get(stage) or {}).get("projection") for stage in ("before", "after")]
    limits = charts.projection_limits(*stages)
    both = all(stages)
    held_out = diagnostics.get("held_out") or {}
    movers = diagnostics.get("movers") or {}
    return {
        "effects": effects,
        "effects_shown": charts.MOST_FEATURES,
        "effect_options": charts.effect_chart(effects, selectors.overall_noise_floor(diagnostics)),
        "projections": [
            {"name": name, "chart": f"pca-{name}", "options": charts.projection_chart(stage, limits)}
            for name, stage in zip(("before", "after"), stages, strict=True)
            if both
        ],
        "component_options": charts.component_chart(*stages) if both else None,
        "held_out_options": evidence_charts.held_out_chart(held_out) if held_out.get("evaluable") else None,
        "shift_options": evidence_charts.shift_chart(movers["mean_shift_by_batch_sd"]) if movers else None,
        "shift_histogram_options": evidence_charts.histogram_chart(movers.get("distribution")),
        **covariate(run, diagnostics, ""),
    }


def _evidence(run: HarmonizationRun, diagnostics: Diagnostics) -> dict[str, Any]:
    evidence = evidence_of(run, diagnostics)
    contrasts = [
        {
            **item,
            "chart": f"contrast-{number}",
            "options": evidence_charts.contrast_chart(item) if item.get("listed") else None,
        }
        for number, item in enumerate(evidence["contrasts"])
    ]
    left_out = [row for row in evidence["left_out"] if row["median_move_sd"] is not None]
    return {
        **evidence,
        "contrasts": contrasts,
        "left_out_options": evidence_charts.left_out_chart(left_out) if left_out else None,
    }


def covariate(run: HarmonizationRun, diagnostics: Diagnostics, wanted: str) -> dict[str, Any]:
    """Return the choices and the chosen effect; a choice is written "covariate|unit"."""
    choices = selectors.covariate_choices(diagnostics, run.feature_set)
    pairs = [(item["name"], unit) for item in choices for unit in item["units"]]
    chosen = next((pair for pair in pairs if "|".join(pair) == wanted), pairs[0] if pairs else ("", ""))
    rows = selectors.covariate_rows(diagnostics, run.feature_set, *chosen)
    return {
        "covariates": choices,
        "covariate_pairs": [("|".join(pair), *pair) for pair in pairs],
        "covariate_chosen": "|".join(chosen),
        "covariate_name": chosen[0],
        "covariate_unit": chosen[1],
        "covariate_rows": rows,
        "covariate_options": evidence_charts.covariate_chart(rows, *chosen) if rows else None,
    }

"""Candidate plans side by side on the same data: choose, start, read. Exploratory throughout."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from harmonization_app.models import FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.selectors import comparison as selectors
from harmonization_app.selectors.plan import differing_rows, grouped, visible_plans
from harmonization_app.selectors.run import visible_runs
from harmonization_app.services import comparison as services
from harmonization_app.views.comparison_charts import held_out_comparison
from harmonization_app.views.pages import go_to, harmonization_page, may, offered_feature_sets
from hub.core.errors import InvalidInput, NotFound
from sites_app.models import Trial
from sites_app.views.trial_pages import get_visible


@harmonization_page
def plan_compare(request: HttpRequest, trial: Trial) -> HttpResponse:
    """The form; with ?runs= the comparison of these runs; its POST starts one and goes to it."""
    if request.method == "POST":
        return _start(request, trial)
    ids = _ids(request)
    context = {"may": may(request, trial), **(_compared(request, trial, ids) if ids else {})}
    if not ids:
        context |= {
            "plans": _choices(request, trial),
            **offered_feature_sets(request, trial),
            "label": services.why_exploratory(trial),
            "wanted": request.GET.get("plan", ""),
            "fewest": services.FEWEST,
            "most": services.MOST,
        }
    page = "compare" if ids else "compare_new"
    return render(request, f"harmonization/{page}.html", context)


@harmonization_page
def plan_compare_progress(request: HttpRequest, trial: Trial) -> HttpResponse:
    """How far the compared runs are; reloads the page when all have ended. Answers a fragment."""
    runs = selectors.runs_to_compare(visible_runs(request.user, trial), _ids(request))
    response = render(request, "harmonization/_compare_progress.html", {"runs": runs, "trial": trial})
    if all(run.is_final for run in runs):
        response["HX-Refresh"] = "true"
    return response


def _start(request: HttpRequest, trial: Trial) -> HttpResponse:
    features = get_visible(
        FeatureSet.objects, request.user, pk=_uuid(request.POST.get("feature_set")), trial=trial
    )
    candidates = []
    for text in request.POST.getlist("candidates"):
        key, _, variant = text.partition(":")
        plan: Any = get_visible(HarmonizationPlan.objects, request.user, pk=_uuid(key), trial=trial)
        if variant:
            candidates.append(services.Candidate(document=services.vary(plan.document, variant)))
        else:
            candidates.append(services.Candidate(plan=plan))
    runs = services.start_comparison(actor=request.user, feature_set=features, candidates=candidates)
    messages.success(request, f"{len(runs)} exploratory runs are queued. This page follows them.")
    address = reverse("plan-compare", args=[trial.code])
    return go_to(request, f"{address}?runs={','.join(str(run.pk) for run in runs)}")


def _choices(request: HttpRequest, trial: Trial) -> list[dict[str, Any]]:
    plans = visible_plans(request.user, trial).exclude(state="superseded")
    return [{"plan": plan, "variants": services.variants_of(plan.document)} for plan in plans]


def _compared(request: HttpRequest, trial: Trial, ids: list[str]) -> dict[str, Any]:
    runs = selectors.runs_to_compare(visible_runs(request.user, trial), ids)
    found = selectors.compare_runs(runs)
    return {
        "comparison": found,
        "runs": runs,
        "feature_set": runs[0].feature_set,
        "ids": ",".join(ids),
        "specifications": differing_rows([run.specification for run in runs]),
        "gates": [{"column": column, "groups": grouped(column.run.gate)} for column in found.columns],
        "held_out_options": held_out_comparison(found),
        "of_primary": any(run.kind == HarmonizationRun.Kind.PRIMARY for run in runs),
    }


def _ids(request: HttpRequest) -> list[str]:
    return [item for text in request.GET.getlist("runs") for item in text.split(",") if item]


def _uuid(text: Any) -> UUID:
    try:
        return UUID(str(text))
    except ValueError:
        raise (NotFound if text else InvalidInput)("Choose a feature set and plans of this trial.") from None

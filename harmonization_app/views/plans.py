"""Plans: list, editor with the gate beside it, one plan, lock, amend, discard."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST

from harmonization_app.algorithms.registry import ALGORITHMS, describe
from harmonization_app.diagnostics.wording import stops
from harmonization_app.models import FeatureSet, HarmonizationPlan
from harmonization_app.plan_document import SCHEMA_NAME
from harmonization_app.selectors import plan as selectors
from harmonization_app.selectors.feature_set import choices_of
from harmonization_app.services import plan as services
from harmonization_app.views.pages import (
    PAGE,
    as_uuid,
    go_to,
    harmonization_page,
    json_object,
    may,
    offered_feature_sets,
    signature_of,
)
from hub.core.csv_export import csv_response
from hub.core.errors import HubError
from qc_app.models import VersionState
from sites_app.models import Trial
from sites_app.views.trial_pages import done, get_visible

_NAMING = ("name", "title")
_COLUMNS = ("name", "version", "title", "state", "digest", "locked_at", "id")


@harmonization_page
def plan_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    rows = selectors.visible_plans(request.user, trial)
    state = request.GET.get("state", "")
    if state in VersionState.values:
        rows = rows.filter(state=state)
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-plans", _COLUMNS, rows.values_list(*_COLUMNS))
    context = {
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
        "states": VersionState.choices,
        "chosen": state,
        "may": may(request, trial),
    }
    return render(request, "harmonization/plans.html", context)


@harmonization_page
def plan_new(request: HttpRequest, trial: Trial) -> HttpResponse:
    """An empty editor; its POST stores the draft."""
    if request.method == "POST":
        return _store(request, trial)
    return _editor(request, trial, None)


@harmonization_page
def plan_edit(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    plan = _get(request, trial, pk)
    if request.method == "POST":
        return _store(request, trial)
    return _editor(request, trial, plan)


@harmonization_page
def plan_detail(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    plan = _get(request, trial, pk)
    if request.GET.get("format") == "json":
        return _document_answer(plan)
    context = {
        "plan": plan,
        "rows": selectors.specification_rows(plan.document),
        "changes": selectors.changes_since(plan),
        "versions": HarmonizationPlan.objects.filter(trial=trial, name=plan.name),
        "document": _as_json(plan.document),
        **offered_feature_sets(request, trial, plan),
        "runs": plan.runs.select_related("feature_set")[:10],
        "may": may(request, trial),
    }
    return render(request, "harmonization/plan.html", context)


def _document_answer(plan: HarmonizationPlan) -> HttpResponse:
    """Return the plan's document as a download, as its page shows it."""
    response = HttpResponse(_as_json(plan.document), content_type="application/json")
    name = f"plan-{plan.name}-v{plan.version}-{plan.state}.json"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@require_POST
@harmonization_page
def plan_gate(request: HttpRequest, trial: Trial) -> HttpResponse:
    """What the gate says of the document in the editor, or of a stored plan; answers a fragment."""
    try:
        features = get_visible(
            FeatureSet.objects, request.user, pk=as_uuid(request.POST.get("feature_set")), trial=trial
        )
        if request.POST.get("plan"):
            document = _get(request, trial, as_uuid(request.POST["plan"])).document
        else:
            document = json_object(request.POST.get("document", ""), "The plan")
        lacking = [name for name in _NAMING if document.get(name) == ""]
        # Name and title change nothing of what the gate says of the data: it answers before they are written.
        document = document | {name: "not-named-yet" for name in lacking}
        findings = services.check_document(
            actor=request.user, trial=trial, document=document, feature_set=features
        )
    except HubError as error:
        # A draft in the making is often incomplete: the gate's place shows why it cannot say anything yet.
        return render(request, "harmonization/_gate.html", {"problem": error.as_problem()})
    context = {
        "checked": True,
        "passes": not stops(findings),
        "groups": selectors.grouped(findings),
        "feature_set": features,
        "lacking": lacking,
        "plan_id": request.POST.get("plan", ""),
        "trial": trial,
        "may": may(request, trial),
    }
    return render(request, "harmonization/_gate.html", context)


@require_POST
@harmonization_page
def plan_lock(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    plan = services.lock_plan(actor=request.user, plan=_get(request, trial, pk), **signature_of(request))
    sentence = f"{plan} is locked and signed. Runs under it are primary until data lock."
    return done(request, sentence, "plan", trial.code, pk)


@require_POST
@harmonization_page
def plan_amend(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    draft = services.amend_plan(
        actor=request.user, plan=_get(request, trial, pk), reason=request.POST.get("reason", "")
    )
    sentence = f"Version {draft.version} is a draft. Version {draft.version - 1} stays in force."
    return done(request, sentence, "plan-edit", trial.code, draft.pk)


@require_POST
@harmonization_page
def plan_discard(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    plan = _get(request, trial, pk)
    services.discard_draft(actor=request.user, plan=plan)
    return done(request, f"The draft {plan} is discarded.", "plans", trial.code)


def _as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def _store(request: HttpRequest, trial: Trial) -> HttpResponse:
    document = json_object(request.POST.get("document", ""), "The plan")
    plan = services.save_draft(actor=request.user, trial=trial, document=document)
    messages.success(request, f"The draft of {plan.title} is stored.")
    # The page of the plan goes on with the feature set that the gate beside the editor was asked about.
    features = as_uuid(request.POST.get("feature_set"))
    address = reverse("plan", args=[trial.code, plan.pk])
    return go_to(request, f"{address}?feature_set={features}" if features else address)


def _editor(request: HttpRequest, trial: Trial, plan: HarmonizationPlan | None) -> HttpResponse:
    offered = offered_feature_sets(request, trial, plan)
    document = plan.document if plan else _empty_document(offered["chosen_set"])
    context = {
        "plan": plan,
        **offered,
        "document": _as_json(document),
        "choices": [choices_of(row) for row in offered["feature_sets"]],
        "methods": [describe(name) for name in ALGORITHMS],
        # Stands for the chosen set in the address of its features, which the page's script fills in.
        "nobody": UUID(int=0),
        "may": may(request, trial),
    }
    return render(request, "harmonization/plan_edit.html", context)


def _empty_document(feature_set: FeatureSet | None) -> dict[str, Any]:
    """Return a document with the feature set's own batch column and covariates filled in."""
    columns = choices_of(feature_set)["columns"] if feature_set else {}
    covariates = [
        {key: item[key] for key in ("name", "kind", "reference") if item.get(key)}
        for item in (feature_set.covariates if feature_set else [])
        if item.get("kind")
    ]
    return {
        "schema": SCHEMA_NAME,
        "name": "",
        "title": "",
        "algorithm": "combat",
        "batch": "batch" if "batch" in columns else next(iter(columns), ""),
        "parameters": {"covariates": covariates, "eb": True, "parametric": True},
    }


def _get(request: HttpRequest, trial: Trial, pk: UUID | None) -> Any:
    rows = HarmonizationPlan.objects.select_related("algorithm_version", "signature")
    return get_visible(rows, request.user, pk=pk, trial=trial)

"""Runs: start, follow, read before and after, download, repeat."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from harmonization_app.models import FeatureSet, HarmonizationPlan, HarmonizationRun, RunState
from harmonization_app.selectors import run as selectors
from harmonization_app.selectors.plan import grouped, specification_rows, visible_plans
from harmonization_app.services import run as services
from harmonization_app.services.run import load_diagnostics
from harmonization_app.views.pages import PAGE, as_uuid, harmonization_page, may, offered_feature_sets
from harmonization_app.views.report_answer import report_answer
from harmonization_app.views.run_sections import covariate, look_at, sections
from harmonization_app.views.run_steps import steps_offered
from harmonization_app.views.table_answer import Answer, harmonized_answer
from hub.core.csv_export import csv_response
from hub.core.errors import NotFound
from hub.core.storage.blobs import get_blob
from sites_app.models import LockState, Trial
from sites_app.views.trial_pages import done, get_visible

_COLUMNS = (
    "id",
    "kind",
    "exploratory_reason",
    "state",
    "plan_digest",
    "data_digest",
    "created_at",
    "finished_at",
)


@harmonization_page
def run_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    rows = selectors.visible_runs(request.user, trial)
    kind, state = request.GET.get("kind", ""), request.GET.get("state", "")
    if kind in HarmonizationRun.Kind.values:
        rows = rows.filter(kind=kind)
    if state in RunState.values:
        rows = rows.filter(state=state)
    if request.GET.get("format") == "csv":
        return csv_response(f"{trial.code}-runs", _COLUMNS, rows.values_list(*_COLUMNS))
    context = {
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
        "kinds": HarmonizationRun.Kind.choices,
        "states": RunState.choices,
        "kind": kind,
        "state_chosen": state,
        "plans": visible_plans(request.user, trial).exclude(state="superseded"),
        **offered_feature_sets(request, trial),
        "wanted": request.GET.get("plan", ""),
        "data_locked": trial.lock_state == LockState.LOCKED,
        "may": may(request, trial),
    }
    return render(request, "harmonization/runs.html", context)


@require_POST
@harmonization_page
def run_start(request: HttpRequest, trial: Trial) -> HttpResponse:
    find = {"trial": trial}
    features = get_visible(
        FeatureSet.objects, request.user, pk=as_uuid(request.POST.get("feature_set")), **find
    )
    plan = get_visible(HarmonizationPlan.objects, request.user, pk=as_uuid(request.POST.get("plan")), **find)
    row = services.start_run(actor=request.user, feature_set=features, plan=plan)
    return done(request, f"The {row.kind} run is queued. This page follows it.", "run", trial.code, row.pk)


@harmonization_page
def run_detail(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    run = _get(request, trial, pk)
    context = {
        "run": run,
        "job": selectors.job_of(run),
        "gate": grouped(run.gate),
        "flow": selectors.row_flow(run),
        "specification": specification_rows(run.specification),
        "reruns": run.reruns.all(),
        "may": may(request, trial),
        **sections(request, run),
        **steps_offered(request, run),
    }
    return render(request, "harmonization/run.html", context)


@harmonization_page
def run_progress(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """How far the run is; reloads the page when it has ended. Answers a fragment."""
    run = _get(request, trial, pk)
    context = {"run": run, "job": selectors.job_of(run)}
    response = render(request, "harmonization/_run_progress.html", context)
    if run.is_final:
        response["HX-Refresh"] = "true"
    return response


@harmonization_page
def run_covariate(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """One covariate's effects on the features of one unit; answers a fragment."""
    run = _get(request, trial, pk)
    diagnostics = load_diagnostics(run)
    context = {"run": run, **covariate(run, diagnostics, request.GET.get("effect", ""))}
    return render(request, "harmonization/_covariate.html", context)


@harmonization_page
def run_feature(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """One feature by batch, before and after side by side; answers a fragment."""
    run = _get(request, trial, pk)
    context = {"run": run, **look_at(request, run, request.GET.get("feature", ""))}
    return render(request, "harmonization/_look.html", context)


@harmonization_page
def run_data(request: HttpRequest, trial: Trial, pk: UUID) -> Answer:
    return harmonized_answer(request, _get(request, trial, pk))


@harmonization_page
def run_model(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    run = _get(request, trial, pk)
    return _download(run.model_digest, "application/zip", f"model-{run.kind}-{run.pk}.zip")


@harmonization_page
def run_report(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    return report_answer(_get(request, trial, pk), request.GET.get("as", "html"))


@require_POST
@harmonization_page
def run_rerun(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = services.rerun(actor=request.user, run=_get(request, trial, pk))
    sentence = "The run is repeated from its stored inputs; this page will show whether it is equal."
    return done(request, sentence, "run", trial.code, row.pk)


@require_POST
@harmonization_page
def run_cancel(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    services.cancel_run(actor=request.user, run=_get(request, trial, pk))
    return done(request, "The run is cancelled.", "run", trial.code, pk)


def _download(digest: str, content_type: str, name: str) -> HttpResponse:
    if not digest:
        raise NotFound("This run has no such output: it has not succeeded.")
    response = HttpResponse(get_blob(digest), content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _get(request: HttpRequest, trial: Trial, pk: UUID) -> Any:
    rows = HarmonizationRun.objects.select_related(
        "plan", "plan__signature", "algorithm_version", "feature_set", "created_by", "rerun_of", "trial"
    )
    return get_visible(rows, request.user, pk=pk, trial=trial)

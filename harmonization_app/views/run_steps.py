"""What a person does with a finished run: apply its model, add a batch to it, take the whole of it offline."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.views.decorators.http import require_POST

from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.models import FeatureSet, HarmonizationRun, RunState
from harmonization_app.selectors.algorithm import is_present
from harmonization_app.selectors.feature_set import visible_feature_sets
from harmonization_app.services import model_application as services
from harmonization_app.services.run_export import export_run
from harmonization_app.views.pages import PAGE, harmonization_page
from hub.core.errors import InvalidInput
from sites_app.api.raw import streamed
from sites_app.models import Trial
from sites_app.views.trial_pages import done, get_visible


@require_POST
@harmonization_page
def run_apply(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = services.apply_model(
        actor=request.user, run=_get(request, trial, pk), feature_set=_features(request, trial)
    )
    sentence = "The frozen model is applied to the other feature set. This page follows the run."
    return done(request, sentence, "run", trial.code, row.pk)


@require_POST
@harmonization_page
def run_add_batch(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = services.add_batch(
        actor=request.user,
        run=_get(request, trial, pk),
        feature_set=_features(request, trial),
        batch=request.POST.get("batch", ""),
        reason=request.POST.get("reason", ""),
    )
    sentence = f"The batch {row.added_batch} is added to the model. This page follows the run."
    return done(request, sentence, "run", trial.code, row.pk)


@harmonization_page
def run_export(request: HttpRequest, trial: Trial, pk: UUID) -> StreamingHttpResponse:
    """The run with its inputs, source and proof as one ZIP file that repeats itself offline."""
    name, pieces, size = export_run(actor=request.user, run=_get(request, trial, pk))
    response = streamed(request, pieces, name)
    response["Content-Length"] = str(size)
    response["X-Content-Type-Options"] = "nosniff"
    return response


def steps_offered(request: HttpRequest, run: HarmonizationRun) -> dict[str, Any]:
    """Return what can be done with the model of this run; the services decide."""
    done = run.state == RunState.SUCCEEDED and is_present(run.algorithm_version)
    algorithm = ALGORITHMS.get(run.algorithm_version.algorithm)
    applicable = done and algorithm is not None and algorithm.capabilities.train_apply
    return {
        "exportable": done,
        "applicable": applicable,
        "extendable": applicable and run.algorithm_version.algorithm == Combat.id,
        "feature_sets": visible_feature_sets(request.user, run.trial)[:PAGE] if applicable else [],
        "applications": run.applications.all(),
    }


def _features(request: HttpRequest, trial: Trial) -> Any:
    try:
        pk = UUID(request.POST.get("feature_set", ""))
    except ValueError as error:
        raise InvalidInput(
            "Choose a feature set.", errors=[{"field": "feature_set", "message": "is not one of this trial"}]
        ) from error
    return get_visible(FeatureSet.objects, request.user, pk=pk, trial=trial)


def _get(request: HttpRequest, trial: Trial, pk: UUID) -> Any:
    rows = HarmonizationRun.objects.select_related("plan", "algorithm_version", "feature_set", "trial")
    return get_visible(rows, request.user, pk=pk, trial=trial)

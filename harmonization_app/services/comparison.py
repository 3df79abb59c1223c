"""Candidate plans on the same data, side by side: exploratory runs of each, whatever the state of its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.models import FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.permissions import require_analyst
from harmonization_app.services.run import start_run
from hub.core.audit.services import record
from hub.core.errors import InvalidInput
from qc_app.models import VersionState
from sites_app.models import LockState, Trial

FEWEST, MOST = 2, 4
BEFORE_LOCK = "comparison of candidate plans, before any plan of the trial is locked"


@dataclass(frozen=True)
class Candidate:
    """A stored plan, or a document that is none yet; exactly one of the two."""

    plan: HarmonizationPlan | None = None
    document: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Variant:
    """A change of one plan that is often weighed against it: parameters by name, and its title."""

    code: str
    title: str
    capability: str
    parameters: Mapping[str, Any]


VARIANTS = (
    Variant("mean-only", "mean only", "mean_only", {"mean_only": True}),
    Variant("without-eb", "without empirical Bayes", "without_eb", {"eb": False}),
    Variant("nonparametric", "non-parametric priors", "nonparametric", {"parametric": False}),
    Variant("no-covariates", "no covariate preserved", "", {"covariates": []}),
)


def variants_of(document: Mapping[str, Any]) -> list[Variant]:
    """Return the variants that the plan's method can do and that differ from the plan."""
    algorithm = ALGORITHMS.get(str(document.get("algorithm", "")))
    given = document.get("parameters", {})
    return [
        variant
        for variant in VARIANTS
        if algorithm is not None
        and (not variant.capability or getattr(algorithm.capabilities, variant.capability))
        and any(given.get(name) != value for name, value in variant.parameters.items())
    ]


def vary(document: Mapping[str, Any], code: str) -> dict[str, Any]:
    """Return the document with one variant's change, its title saying so. Raises InvalidInput."""
    variant = next((item for item in variants_of(document) if item.code == code), None)
    if variant is None:
        raise InvalidInput(
            f"The plan {document.get('title', '')} has no variant {code!r}.",
            errors=[{"field": "variants", "message": f"{code!r} does not apply to this plan"}],
        )
    return {
        **document,
        "title": f"{document['title']}: {variant.title}"[:300],
        "parameters": {**document.get("parameters", {}), **variant.parameters},
    }


def start_comparison(
    *, actor: Any, feature_set: FeatureSet, candidates: Sequence[Candidate]
) -> list[HarmonizationRun]:
    """Start an exploratory run of two to four candidates on one feature set, and record that they were compared.

    Never refused because a plan or the data are locked; the runs are then labelled post hoc.
    Raises NotAllowed, InvalidInput, PlanInvalid, Conflict.
    """
    trial = feature_set.trial
    require_analyst(actor, trial, "compare harmonization plans")
    if not FEWEST <= len(candidates) <= MOST:
        raise InvalidInput(
            f"Choose {FEWEST} to {MOST} candidates to compare; {len(candidates)} were named.",
            errors=[{"field": "plans", "message": f"needs {FEWEST} to {MOST} plans or documents"}],
        )
    with transaction.atomic():
        reason = why_exploratory(trial)
        runs = [
            start_run(
                actor=actor,
                feature_set=feature_set,
                plan=item.plan,
                specification=item.document,
                exploratory=reason,
            )
            for item in candidates
        ]
        record(
            actor=actor,
            action="harmonization_plan.compared",
            obj=feature_set,
            new={"runs": [str(run.pk) for run in runs], "label": reason},
        )
    return runs


def why_exploratory(trial: Trial) -> str:
    """Return the label of a comparison made now: before lock, or post hoc and after what."""
    if Trial.objects.get(pk=trial.pk).lock_state == LockState.LOCKED:
        return "post hoc: comparison of plans after the data of the trial were locked"
    locked = HarmonizationPlan.objects.filter(trial=trial, state=VersionState.LOCKED).order_by("locked_at")
    first = locked.first()
    if first is not None:
        return f"post hoc: comparison of plans after the plan {first.name} version {first.version} was locked"
    return BEFORE_LOCK

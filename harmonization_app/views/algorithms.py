"""Algorithm versions of this installation: what was verified here, what is locked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from harmonization_app.algorithms.registry import ALGORITHMS, get_algorithm
from harmonization_app.models import AlgorithmVersion, AlgorithmVersionState
from harmonization_app.permissions import administers_algorithms, verifies_algorithms
from harmonization_app.selectors import algorithm as selectors
from harmonization_app.services import algorithm as services
from harmonization_app.views.pages import signature_of
from harmonization_app.views.parameter_meanings import with_meanings
from hub.core.accounts.second_factor import has_second_factor
from hub.core.errors import NotFound
from hub.core.models import Job
from sites_app.views.trial_pages import done

_VERIFY_JOB = "harmonization.verify_algorithm"


@login_required
def algorithm_list(request: HttpRequest) -> HttpResponse:
    services.register_algorithms()
    rows = list(AlgorithmVersion.objects.select_related("signature", "second_signature"))
    for row in rows:
        row.is_present = selectors.is_present(row)
        row.exploratory = row.is_present and get_algorithm(row.algorithm).exploratory
    # Each change of the code registers a version; those that nobody ever verified say nothing to a reader.
    told = [row for row in rows if row.is_present or row.state != AlgorithmVersionState.REGISTERED]
    whole = request.GET.get("all") == "yes"
    methods = [
        {"algorithm": algorithm, "capabilities": dict(selectors.capabilities_of(algorithm))}
        for algorithm in ALGORITHMS.values()
    ]
    context = {
        "versions": rows if whole else told,
        "left_out": 0 if whole else len(rows) - len(told),
        "methods": methods,
        "capabilities": [*selectors.CAPABILITIES.values(), selectors.NEEDS_REPEATS],
    }
    return render(request, "harmonization/algorithms.html", context)


@login_required
def algorithm_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    return render(request, "harmonization/algorithm.html", _context(request, _get(pk)))


@login_required
def algorithm_verification(request: HttpRequest, pk: UUID) -> HttpResponse:
    """State, progress and cases; renews itself while the verification runs. Answers a fragment."""
    context = _context(request, _get(pk))
    response = render(request, "harmonization/_verification_cases.html", context)
    if not context["job"] and request.GET.get("waiting"):
        response["HX-Refresh"] = "true"
    return response


@require_POST
@login_required
def algorithm_verify(request: HttpRequest, pk: UUID) -> HttpResponse:
    services.request_verification(actor=request.user, version=_get(pk))
    return done(request, "The verification is queued. This page follows it.", "algorithm", pk)


@require_POST
@login_required
def algorithm_lock(request: HttpRequest, pk: UUID) -> HttpResponse:
    row = services.lock_algorithm(actor=request.user, version=_get(pk), **signature_of(request))
    if row.state == AlgorithmVersionState.LOCKED:
        sentence = f"{row} is locked and signed by two administrators."
    else:
        sentence = f"Your signature of {row} is kept. Another administrator signs next."
    return done(request, sentence, "algorithm", pk)


@require_POST
@login_required
def algorithm_retire(request: HttpRequest, pk: UUID) -> HttpResponse:
    row = services.retire_algorithm(
        actor=request.user, version=_get(pk), reason=request.POST.get("reason", "")
    )
    return done(request, f"{row} is retired. Plans that name it keep it.", "algorithm", pk)


def _get(pk: UUID) -> AlgorithmVersion:
    rows = AlgorithmVersion.objects.select_related("signature", "second_signature")
    row = rows.filter(pk=pk).first()
    if row is None:
        raise NotFound("There is no such algorithm version.")
    return row


def _context(request: HttpRequest, row: AlgorithmVersion) -> dict[str, Any]:
    last = Job.objects.filter(kind=_VERIFY_JOB, key=str(row.pk)).first()
    algorithm = ALGORITHMS.get(row.algorithm)
    administers = administers_algorithms(request.user)
    # The database keeps no order of keys; the present code has the order in which a person reads them.
    schema = (
        algorithm.parameters_schema() if algorithm and selectors.is_present(row) else row.parameters_schema
    )
    return {
        "version": row,
        "algorithm": algorithm,
        "description": [text.replace("`", "") for text in selectors.description_of(algorithm)]
        if algorithm
        else [],
        "capabilities": selectors.capabilities_of(algorithm) if algorithm else [],
        "parameters": with_meanings(selectors.parameter_rows(schema)),
        "signatures": selectors.signatures_of(row),
        "versions": AlgorithmVersion.objects.filter(algorithm=row.algorithm),
        "job": last if last is not None and not last.is_final else None,
        "failed_job": last if last is not None and last.state == Job.State.FAILED else None,
        "lock_digest": services.lock_digest(row) if row.verification else "",
        **_offered(request, row, administers),
    }


def _offered(request: HttpRequest, row: AlgorithmVersion, administers: bool) -> dict[str, Any]:
    """Return what the page offers this person; the services decide."""
    present = selectors.is_present(row)
    exploratory = present and get_algorithm(row.algorithm).exploratory
    lockable = present and row.state == AlgorithmVersionState.VERIFIED and not exploratory
    signed = selectors.has_signed(request.user, row)
    return {
        "present": present,
        "exploratory": exploratory,
        "may_verify": present
        and row.state in {AlgorithmVersionState.REGISTERED, AlgorithmVersionState.VERIFIED}
        and verifies_algorithms(request.user),
        "may_lock": lockable and administers and not signed,
        "has_signed": lockable and signed,
        "may_retire": row.state == AlgorithmVersionState.LOCKED and administers,
        "may": {"otp": has_second_factor(request.user)},
    }

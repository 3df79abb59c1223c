"""Algorithm versions of this installation: what was verified here, what is locked."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from harmonization_app.algorithms.registry import ALGORITHMS, describe, get_algorithm, source_digest
from harmonization_app.models import AlgorithmVersion
from harmonization_app.permissions import administers_algorithms, verifies_algorithms
from harmonization_app.services import algorithm as services
from harmonization_app.views.pages import signature_of
from hub.core.accounts.second_factor import has_second_factor
from hub.core.errors import NotFound
from hub.core.models import Job

_VERIFY_JOB = "harmonization.verify_algorithm"


@login_required
def algorithm_list(request: HttpRequest) -> HttpResponse:
    services.register_algorithms()
    rows = list(AlgorithmVersion.objects.select_related("signature"))
    for row in rows:
        row.is_present = _is_present(row)
    methods = [describe(name) for name in ALGORITHMS]
    return render(request, "harmonization/algorithms.html", {"versions": rows, "methods": methods})


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
    messages.success(request, "The verification is queued. This page follows it.")
    return redirect("algorithm", pk=pk)


@require_POST
@login_required
def algorithm_lock(request: HttpRequest, pk: UUID) -> HttpResponse:
    row = services.lock_algorithm(actor=request.user, version=_get(pk), **signature_of(request))
    messages.success(request, f"{row} is locked and signed.")
    return redirect("algorithm", pk=pk)


@require_POST
@login_required
def algorithm_retire(request: HttpRequest, pk: UUID) -> HttpResponse:
    row = services.retire_algorithm(
        actor=request.user, version=_get(pk), reason=request.POST.get("reason", "")
    )
    messages.success(request, f"{row} is retired. Plans that name it keep it.")
    return redirect("algorithm", pk=pk)


def _get(pk: UUID) -> AlgorithmVersion:
    row = AlgorithmVersion.objects.select_related("signature").filter(pk=pk).first()
    if row is None:
        raise NotFound("There is no such algorithm version.")
    return row


def _is_present(row: AlgorithmVersion) -> bool:
    return row.algorithm in ALGORITHMS and source_digest(get_algorithm(row.algorithm)) == row.code_digest


def _context(request: HttpRequest, row: AlgorithmVersion) -> dict[str, Any]:
    jobs = Job.objects.filter(kind=_VERIFY_JOB, key=str(row.pk))
    last = jobs.first()
    present = _is_present(row)
    return {
        "version": row,
        "present": present,
        "job": last if last is not None and not last.is_final else None,
        "failed_job": last if last is not None and last.state == Job.State.FAILED else None,
        "lock_digest": services.lock_digest(row) if row.verification else "",
        "may_verify": present
        and row.state in {"registered", "verified"}
        and verifies_algorithms(request.user),
        "may_lock": present and row.state == "verified" and administers_algorithms(request.user),
        "may_retire": row.state == "locked" and administers_algorithms(request.user),
        "may": {"otp": has_second_factor(request.user)},
    }

"""Where everybody starts: the only trial one takes part in, or a list of them."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from sites_app.models import Trial


@login_required
def home(request: HttpRequest) -> HttpResponse:
    trials = list(Trial.objects.visible_to(request.user))
    if len(trials) == 1:
        return redirect("trial-home", trial_code=trials[0].code)
    return render(request, "sites/home.html", {"trials": trials})

"""Feature sets: list, import, build from QC metrics, one set by batch."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST

from harmonization_app.models import FeatureSet
from harmonization_app.selectors import feature_set as selectors
from harmonization_app.services import feature_set as services
from harmonization_app.services.feature_matrix import import_matrix
from harmonization_app.views.charts import distribution_chart, profile_chart
from harmonization_app.views.pages import PAGE, harmonization_page, json_object, may, picker
from harmonization_app.views.table_answer import Answer, feature_set_answer
from harmonization_app.views.table_upload import matrix_file, read_table
from hub.core.csv_export import csv_response
from hub.core.errors import InvalidInput
from sites_app.models import Trial
from sites_app.views.trial_pages import done, get_visible

_COLUMNS = ("name", "origin", "rows", "columns", "missing", "digest", "created_at", "id")
_DICTIONARY = ("column", "role", "kind", "unit", "pool")
COLUMNS = 100


@harmonization_page
def feature_set_list(request: HttpRequest, trial: Trial) -> HttpResponse:
    rows = selectors.visible_feature_sets(request.user, trial)
    origin = request.GET.get("origin", "")
    if origin in FeatureSet.Origin.values:
        rows = rows.filter(origin=origin)
    if request.GET.get("format") == "csv":
        cells = rows.values_list(
            "name", "origin", "row_count", "column_count", "missing_count", "digest", "created_at", "id"
        )
        return csv_response(f"{trial.code}-feature-sets", _COLUMNS, cells)
    context = {
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
        "origins": FeatureSet.Origin.choices,
        "chosen": origin,
        "may": may(request, trial),
    }
    return render(request, "harmonization/feature_sets.html", context)


@harmonization_page
def feature_set_new(request: HttpRequest, trial: Trial) -> HttpResponse:
    """The form to import a table; its POST answers a redirect, or the problem beside the form."""
    if request.method != "POST":
        metrics = selectors.available_metrics(trial)
        return render(
            request, "harmonization/feature_set_new.html", {"metrics": metrics, "may": may(request, trial)}
        )
    row = _import(request, trial)
    return _to(request, row, f"Feature set “{row.name}”: {row.row_count} rows, {row.column_count} features.")


def _import(request: HttpRequest, trial: Trial) -> FeatureSet:
    """Import the CSV of the form, or the matrix with the CSV as labels of its rows."""
    table, matrix = request.FILES.get("file"), request.FILES.get("matrix")
    if table is None:
        raise InvalidInput("Choose a CSV file.", errors=[{"field": "file", "message": "no file was sent"}])
    given: dict[str, Any] = {
        "actor": request.user,
        "trial": trial,
        "name": request.POST.get("name", "").strip() or table.name,
        "metadata": json_object(request.POST.get("metadata", "{}"), "The description of the columns"),
    }
    if matrix is None:
        return services.import_feature_set(content=read_table(table), **given)
    with matrix_file(matrix) as path:
        return import_matrix(labels=read_table(table), matrix=path, **given)


@require_POST
@harmonization_page
def feature_set_from_metrics(request: HttpRequest, trial: Trial) -> HttpResponse:
    row = services.build_from_metrics(
        actor=request.user,
        trial=trial,
        name=request.POST.get("name", ""),
        metrics=request.POST.getlist("metrics"),
        expected_key=request.POST.get("expected_key", ""),
    )
    return _to(request, row, f"Feature set “{row.name}” was built from {row.column_count} QC metrics.")


def _to(request: HttpRequest, row: FeatureSet, sentence: str) -> HttpResponse:
    return done(request, sentence, "feature-set", row.trial.code, row.pk)


@harmonization_page
def feature_set_detail(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    row = _get(request, trial, pk)
    by = _chosen_group(request, row)
    context = {
        "set": row,
        "groups": selectors.rows_by_group(row, by) if by else [],
        "group_columns": selectors.grouping_columns(row),
        "by": by,
        "by_query": quote(by),
        "cells": row.row_count * row.column_count,
        "covariates": selectors.covariate_names(row),
        "columns": Paginator(selectors.columns_matching(row, request.GET.get("q", "")), COLUMNS).get_page(
            request.GET.get("page")
        ),
        "may": may(request, trial),
        **_profile(row, by),
        **_distribution(request, row, by),
    }
    return render(request, "harmonization/feature_set.html", context)


@harmonization_page
def feature_set_distribution(request: HttpRequest, trial: Trial, pk: UUID) -> HttpResponse:
    """The distribution of one feature by batch; answers a fragment."""
    row = _get(request, trial, pk)
    context = {"set": row, **_distribution(request, row, _chosen_group(request, row))}
    return render(request, "harmonization/_distribution.html", context)


@harmonization_page
def feature_set_features(request: HttpRequest, trial: Trial, pk: UUID) -> JsonResponse:
    """The features of a set with unit and pool, or those whose name holds ?q= as suggestions."""
    row = _get(request, trial, pk)
    if "q" not in request.GET:
        return JsonResponse({"features": row.columns})
    found = selectors.columns_matching(row, request.GET["q"])
    return JsonResponse({"features": found[: selectors.SUGGESTED], "found": len(found)})


@harmonization_page
def feature_set_data(request: HttpRequest, trial: Trial, pk: UUID) -> Answer:
    """The table as CSV; with ?as=dictionary what each of its columns is."""
    row = _get(request, trial, pk)
    if request.GET.get("as") == "dictionary":
        return csv_response(f"dictionary-{row.digest[:12]}", _DICTIONARY, selectors.dictionary_rows(row))
    return feature_set_answer(request, row)


def _get(request: HttpRequest, trial: Trial, pk: UUID) -> Any:
    return get_visible(FeatureSet.objects, request.user, pk=pk, trial=trial)


def _chosen_group(request: HttpRequest, row: FeatureSet) -> str:
    columns = selectors.grouping_columns(row)
    wanted = request.GET.get("by", "")
    return wanted if wanted in columns else (columns[0] if columns else "")


def _profile(row: FeatureSet, by: str) -> dict[str, Any]:
    profile = selectors.batch_profile(row, by) if by else None
    if profile is None:
        return {"profile": None}
    return {
        "profile": profile,
        "profile_options": profile_chart(profile),
        "profile_rows": list(zip(profile.features, profile.means_sd, strict=True)),
    }


def _distribution(request: HttpRequest, row: FeatureSet, by: str) -> dict[str, Any]:
    feature = request.GET.get("feature", "") or (row.columns[0]["name"] if row.columns else "")
    groups = selectors.distribution(row, feature, by) if by else []
    unit = next((column["unit"] for column in row.columns if column["name"] == feature), "")
    return {
        "picker": picker(request, row, feature),
        "feature": feature,
        "unit": unit,
        "by": by,
        "distribution": groups,
        "options": distribution_chart(groups, feature, unit) if groups else None,
    }

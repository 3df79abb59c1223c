"""API routes of receiving: submissions, studies, series, instances."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []

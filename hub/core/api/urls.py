"""API routes of the core."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []

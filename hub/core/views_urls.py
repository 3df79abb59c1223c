"""Pages of the core: jobs, audit."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []

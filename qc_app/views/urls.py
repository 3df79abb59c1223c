"""Pages of this app."""

from django.urls import include, path

urlpatterns = [
    path("", include("qc_app.views.urls_coordinator")),
    path("", include("qc_app.views.urls_dashboard")),
]

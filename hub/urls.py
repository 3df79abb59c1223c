"""Every address of the hub."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from hub.core import health

api = [
    path("", include("hub.core.api.urls")),
    path("", include("sites_app.api.urls")),
    path("", include("qc_app.api.urls")),
    path("", include("harmonization_app.api.urls")),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
]

urlpatterns = [
    path("health/live", health.live, name="health-live"),
    path("health/ready", health.ready, name="health-ready"),
    path("api/v1/", include(api)),
    path("accounts/", include("hub.core.accounts.urls")),
    path("", include("sites_app.views.urls")),
    path("", include("qc_app.views.urls")),
    path("", include("harmonization_app.views.urls")),
    path("", include("hub.core.views_urls")),
]

handler404 = "hub.core.error_pages.not_found"
handler403 = "hub.core.error_pages.not_allowed"
handler500 = "hub.core.error_pages.server_error"

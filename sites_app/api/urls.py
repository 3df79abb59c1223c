"""API routes of this app."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from sites_app.api import configuration

router = SimpleRouter(use_regex_path=False)
router.register("trials", configuration.TrialViewSet)
router.register("arms", configuration.ArmViewSet)
router.register("sites", configuration.SiteViewSet)
router.register("scanners", configuration.ScannerViewSet)
router.register("subjects", configuration.SubjectViewSet)
router.register("visits", configuration.VisitViewSet)
router.register("visit-definitions", configuration.VisitDefinitionViewSet)
router.register("memberships", configuration.MembershipViewSet)

urlpatterns = [
    path("", include(router.urls)),
    path("", include("sites_app.api.urls_ingest")),
]

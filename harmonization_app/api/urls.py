"""API routes of this app."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from harmonization_app.api import exports, features, plans

router = SimpleRouter(use_regex_path=False)
router.register("feature-sets", features.FeatureSetViewSet)
router.register("algorithms", features.AlgorithmViewSet, basename="algorithm")
router.register("algorithm-versions", features.AlgorithmVersionViewSet)
router.register("harmonization-plans", plans.PlanViewSet)
router.register("harmonization-runs", plans.RunViewSet)
router.register("data-locks", plans.DataLockViewSet)
router.register("exports", exports.ExportViewSet)

urlpatterns = [path("", include(router.urls))]

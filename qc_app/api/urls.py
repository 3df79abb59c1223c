"""API routes of this app."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from qc_app.api import checks, dashboards, deviations, monitoring, versions

router = SimpleRouter(use_regex_path=False)
router.register("protocols", versions.ProtocolViewSet)
router.register("qc-profiles", versions.QCProfileViewSet)
router.register("deviations", deviations.DeviationViewSet)
router.register("queries", deviations.QueryViewSet)
router.register("metrics", checks.MetricViewSet)
router.register("change-events", monitoring.ChangeEventViewSet)
router.register("drift-alerts", monitoring.DriftAlertViewSet)

urlpatterns = [
    path("", include(router.urls)),
    path("protocol-templates/", versions.TemplateListView.as_view(), name="protocol-template-list"),
    path(
        "protocol-templates/<slug:name>/",
        versions.TemplateDetailView.as_view(),
        name="protocol-template-detail",
    ),
    path("protocol-schema/", versions.ProtocolSchemaView.as_view(), name="protocol-schema"),
    path("qc-profile-schema/", versions.QCProfileSchemaView.as_view(), name="qc-profile-schema"),
    path("qc-profile-default/", versions.QCProfileDefaultView.as_view(), name="qc-profile-default"),
    path("series/<uuid:pk>/verdicts/", checks.SeriesVerdictsView.as_view(), name="series-verdicts"),
    path("series/<uuid:pk>/metrics/", checks.SeriesMetricsView.as_view(), name="series-metrics"),
    path("series/<uuid:pk>/preview/", checks.SeriesPreviewView.as_view(), name="series-preview"),
    path("series/<uuid:pk>/recheck/", checks.SeriesRecheckView.as_view(), name="series-recheck"),
    path("submissions/<uuid:pk>/precheck/", checks.PrecheckView.as_view(), name="submission-precheck"),
    path("trials/<uuid:pk>/summary/", dashboards.TrialSummaryView.as_view(), name="trial-summary"),
    path("sites/<uuid:pk>/scorecard/", dashboards.SiteScorecardView.as_view(), name="site-scorecard"),
    path("scanners/<uuid:pk>/timeline/", dashboards.ScannerTimelineView.as_view(), name="scanner-timeline"),
]

"""API routes of the core."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from hub.core.api import auth, records

router = SimpleRouter(use_regex_path=False)
router.register("jobs", records.JobViewSet)
router.register("audit-events", records.AuditEventViewSet)
router.register("signatures", records.SignatureViewSet)

urlpatterns = [
    path("auth/login/", auth.LoginView.as_view(), name="api-login"),
    path("auth/logout/", auth.LogoutView.as_view(), name="api-logout"),
    path("auth/me/", auth.MeView.as_view(), name="api-me"),
    path("audit/verify/", records.VerifyAuditView.as_view(), name="api-audit-verify"),
    path("", include(router.urls)),
]

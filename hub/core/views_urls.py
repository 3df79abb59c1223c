"""Pages of the core."""

from django.urls import path

from hub.core import views

urlpatterns = [
    path("jobs/", views.jobs, name="jobs"),
    path("audit/", views.audit, name="audit"),
    path("audit/verify/", views.verify_audit, name="verify-audit"),
    path("account/", views.account, name="account"),
]

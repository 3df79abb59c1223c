"""API routes of receiving: submissions, studies, series, instances."""

from django.urls import include, path
from rest_framework.routers import DefaultRouter

from sites_app.api import series, submissions

router = DefaultRouter(use_regex_path=False)
router.include_root_view = False
router.register("submissions", submissions.SubmissionViewSet)
router.register("studies", series.StudyViewSet)
router.register("series", series.SeriesViewSet)
router.register("instances", series.InstanceViewSet)

urlpatterns = [path("", include(router.urls))]

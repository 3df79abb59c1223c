"""API routes of receiving: submissions, studies, series, instances."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from sites_app.api import series, submissions

router = SimpleRouter(use_regex_path=False)
router.register("submissions", submissions.SubmissionViewSet)
router.register("studies", series.StudyViewSet)
router.register("series", series.SeriesViewSet)
router.register("instances", series.InstanceViewSet)

urlpatterns = [path("", include(router.urls))]

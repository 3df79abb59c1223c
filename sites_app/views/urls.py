"""Pages of this app."""

from django.urls import include, path

from sites_app.views import home, submissions, upload

urlpatterns = [
    path("", home.home, name="home"),
    path("t/<slug:trial_code>/upload/", upload.upload, name="upload"),
    path("t/<slug:trial_code>/upload/visits/", upload.visits, name="upload-visits"),
    path("t/<slug:trial_code>/submissions/", submissions.submission_list, name="submissions"),
    path("t/<slug:trial_code>/submissions/<uuid:pk>/", submissions.submission_detail, name="submission"),
    path(
        "t/<slug:trial_code>/submissions/<uuid:pk>/progress/",
        submissions.submission_progress,
        name="submission-progress",
    ),
    path("t/<slug:trial_code>/submissions/<uuid:pk>/files/", submissions.files, name="submission-outcomes"),
    path("t/<slug:trial_code>/submissions/<uuid:pk>/receipt/", submissions.receipt, name="receipt"),
    path("t/<slug:trial_code>/submissions/<uuid:pk>/cancel/", submissions.cancel, name="cancel-submission"),
    path("", include("sites_app.views.urls_people")),
]

"""Addresses of a trial's people."""

from django.urls import path

from sites_app.views import people

urlpatterns = [
    path("t/<slug:trial_code>/people/", people.people, name="trial-people"),
    path("t/<slug:trial_code>/people/add/", people.add, name="trial-people-add"),
    path("t/<slug:trial_code>/people/<uuid:pk>/end/", people.end, name="trial-people-end"),
]

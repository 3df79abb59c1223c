"""Pages of sites: what to do next, series, deviations, queries."""

from django.urls import path

from qc_app.views import deviations, home, queries, series

_TRIAL = "t/<slug:trial_code>/"

urlpatterns = [
    path(_TRIAL, home.trial_home, name="trial-home"),
    path(_TRIAL + "submissions/<uuid:pk>/series/", series.submission_series, name="submission-series"),
    path(_TRIAL + "series/", series.series_list, name="series"),
    path(_TRIAL + "series/<uuid:pk>/", series.series_page, name="series-page"),
    path(_TRIAL + "series/<uuid:pk>/query/", series.ask, name="ask-about-series"),
    path(_TRIAL + "deviations/", deviations.deviation_list, name="deviations"),
    path(_TRIAL + "deviations/<uuid:pk>/", deviations.deviation_page, name="deviation"),
    path(_TRIAL + "deviations/<uuid:pk>/query/", deviations.ask, name="ask-about-deviation"),
    path(_TRIAL + "deviations/<uuid:pk>/<slug:act>/", deviations.act_on, name="act-on-deviation"),
    path(_TRIAL + "queries/", queries.query_list, name="queries"),
    path(_TRIAL + "queries/<uuid:pk>/", queries.query_page, name="query"),
    path(_TRIAL + "queries/<uuid:pk>/<slug:act>/", queries.act_on, name="act-on-query"),
]

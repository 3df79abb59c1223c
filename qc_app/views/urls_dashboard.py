"""Addresses of dashboards, scanners, the protocol and the QC profile."""

from django.urls import URLPattern, path

from qc_app.views import dashboard, protocol, qc_profile, scanner, site

_PROTOCOL = (
    "draft", "create", "save", "import-template", "capture", "discard", "dry-run", "lock", "amend",
)  # fmt: skip
_QC_PROFILE = ("draft", "create", "save", "discard", "dry-run", "lock", "amend")


def _acts(module: object, folder: str, acts: tuple[str, ...]) -> list[URLPattern]:
    return [
        path(
            f"t/<slug:trial_code>/{folder}/{act}/",
            getattr(module, act.replace("-", "_")),
            name=f"trial-{folder}-{act}",
        )
        for act in acts
    ]


urlpatterns = [
    path("t/<slug:trial_code>/dashboard/", dashboard.dashboard, name="trial-dashboard"),
    path("t/<slug:trial_code>/dashboard/grid/", dashboard.grid, name="trial-dashboard-grid"),
    path("t/<slug:trial_code>/dashboard/metric/", dashboard.metric, name="trial-dashboard-metric"),
    path("t/<slug:trial_code>/sites/<slug:site_code>/", site.site, name="site-dashboard"),
    path("t/<slug:trial_code>/scanners/", scanner.scanners, name="trial-scanners"),
    path("t/<slug:trial_code>/scanners/<uuid:pk>/", scanner.scanner, name="trial-scanner"),
    path("t/<slug:trial_code>/scanners/<uuid:pk>/control/", scanner.control, name="trial-scanner-control"),
    path(
        "t/<slug:trial_code>/monitoring/alert/<uuid:pk>/review/",
        scanner.review_finding,
        {"kind": "alert"},
        name="drift-alert-review-page",
    ),
    path(
        "t/<slug:trial_code>/monitoring/change/<uuid:pk>/review/",
        scanner.review_finding,
        {"kind": "change"},
        name="change-event-review-page",
    ),
    path("t/<slug:trial_code>/protocol/", protocol.protocol, name="trial-protocol"),
    *_acts(protocol, "protocol", _PROTOCOL),
    path("t/<slug:trial_code>/qc-profile/", qc_profile.qc_profile, name="trial-qc-profile"),
    *_acts(qc_profile, "qc-profile", _QC_PROFILE),
]

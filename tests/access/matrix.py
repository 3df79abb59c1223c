"""Who may do what: one line for each method of each route. docs/roles.md is written from this table.

A line names the route, the roles that may, and (where some see the thing without being allowed) who sees it.
For a request by a role the expected answer is

- `status` where the role may;
- 403 where it sees the thing but may not;
- 404 (or `unseen`) where the thing is out of its scope;
- 401 from the API, and the way to the login page, where nobody is logged in.

The thing is always one of the world's first site (see world.py); the outsider administers another trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ANONYMOUS = "anonymous"
COORDINATOR = "site coordinator"
OTHER_COORDINATOR = "site coordinator of another site"
MONITOR = "monitor"
DATA_MANAGER = "data manager"
REVIEWER = "imaging reviewer"
SPONSOR = "sponsor"
STATISTICIAN = "statistician"
ADMINISTRATOR = "trial administrator"
AUDITOR = "auditor"
OUTSIDER = "administrator of another trial"
SUPERUSER = "administrator of the hub"

ROLES = (
    ANONYMOUS, COORDINATOR, OTHER_COORDINATOR, MONITOR, DATA_MANAGER, REVIEWER, SPONSOR, STATISTICIAN,
    ADMINISTRATOR, AUDITOR, OUTSIDER, SUPERUSER,
)  # fmt: skip

Roles = frozenset[str]
EVERYBODY: Roles = frozenset(ROLES)
ACCOUNT: Roles = EVERYBODY - {ANONYMOUS}
TRIAL: Roles = ACCOUNT - {OUTSIDER}
SITE: Roles = TRIAL - {OTHER_COORDINATOR}
COORDINATORS: Roles = frozenset({COORDINATOR, OTHER_COORDINATOR})
UNBLINDED: Roles = frozenset({DATA_MANAGER, STATISTICIAN, ADMINISTRATOR, AUDITOR, SUPERUSER})
STAFF: Roles = SITE - {SPONSOR}
HUB: Roles = frozenset({SUPERUSER})
ADMINISTRATORS: Roles = frozenset({ADMINISTRATOR, SUPERUSER})
ALGORITHM_LOCKERS: Roles = ADMINISTRATORS | {OUTSIDER}
ALGORITHM_VERIFIERS: Roles = ALGORITHM_LOCKERS | {STATISTICIAN}
DATA_MANAGEMENT: Roles = ADMINISTRATORS | {DATA_MANAGER}
SENDERS: Roles = DATA_MANAGEMENT | {COORDINATOR}
ACKNOWLEDGERS: Roles = SENDERS | {MONITOR}
REVIEWERS: Roles = DATA_MANAGEMENT | {MONITOR, REVIEWER}
ANALYSTS: Roles = ADMINISTRATORS | {STATISTICIAN}
HARMONIZATION: Roles = ANALYSTS | {DATA_MANAGER, SPONSOR, AUDITOR}
AUDIT: Roles = ADMINISTRATORS | {AUDITOR}
PEOPLE_READERS: Roles = AUDIT | {DATA_MANAGER, MONITOR}
EXPORTERS: Roles = ANALYSTS | {DATA_MANAGER, AUDITOR}
ANY_AUDIT: Roles = AUDIT | {OUTSIDER}


@dataclass(frozen=True)
class Rule:
    """One line: `thing` names the attribute of the world whose row the route takes, `case` the body it sends."""

    method: str
    route: str
    may: Roles
    sees: Roles
    status: int
    unseen: int
    thing: str
    case: str
    anonymous: int
    also: Mapping[str, int]

    @property
    def key(self) -> str:
        return f"{self.method} /{self.route}" + (f" [{self.case}]" if self.case else "")

    def expected(self, role: str) -> int:
        if role in self.may:
            return self.also.get(role, self.status)
        if role == ANONYMOUS:
            return self.anonymous
        return 403 if role in self.sees else self.unseen


RULES: list[Rule] = []


def _api(
    line: str, may: Roles, sees: Roles | None = None, *, status: int = 200, unseen: int = 404, thing: str = "",
    case: str = "",
) -> None:  # fmt: skip
    method, route = line.split()
    RULES.append(
        Rule(
            method,
            f"api/v1/{route}",
            may,
            may if sees is None else sees,
            status,
            unseen,
            thing,
            case,
            401,
            {},
        )
    )


def _page(
    line: str, may: Roles, sees: Roles | None = None, *, status: int = 0, unseen: int = 404, thing: str = "",
    case: str = "", also: Mapping[str, int] | None = None,
) -> None:  # fmt: skip
    method, _, route = line.partition(" ")
    status = status or (302 if method == "POST" else 200)
    RULES.append(
        Rule(method, route, may, may if sees is None else sees, status, unseen, thing, case, 302, also or {})
    )


# The core: login, health, jobs, audit.
_api("POST auth/login/", EVERYBODY)
_api("POST auth/logout/", ACCOUNT, status=204)
_api("GET auth/me/", ACCOUNT)
_api("GET schema/", EVERYBODY)
_api("GET docs/", EVERYBODY)
_api("GET jobs/", ACCOUNT)
_api("GET jobs/<uuid:pk>/", SITE, thing="job")
_api("POST jobs/<uuid:pk>/cancel/", ADMINISTRATORS, SITE, thing="job")
_api("GET audit-events/", ACCOUNT)
_api("GET audit-events/<int:pk>/", AUDIT, thing="audit_event")
_api("GET audit/verify/", ANY_AUDIT, ACCOUNT)
_api("GET signatures/", ACCOUNT)
_api("GET signatures/<uuid:pk>/", AUDIT, thing="signature")

# A trial's configuration.
_api("GET trials/", ACCOUNT)
_api("POST trials/", HUB, ACCOUNT, status=201)
_api("GET trials/<uuid:pk>/", TRIAL, thing="trial")
_api("PATCH trials/<uuid:pk>/", ADMINISTRATORS, TRIAL, thing="trial")
_api("GET trials/<uuid:pk>/summary/", TRIAL, thing="trial")
_api("GET arms/", ACCOUNT)
_api("POST arms/", ADMINISTRATORS, TRIAL, status=201, unseen=400)
_api("GET arms/<uuid:pk>/", UNBLINDED, thing="arm")
_api("PATCH arms/<uuid:pk>/", ADMINISTRATORS, UNBLINDED, thing="arm")
_api("GET sites/", ACCOUNT)
_api("POST sites/", ADMINISTRATORS, TRIAL, status=201, unseen=400)
_api("GET sites/<uuid:pk>/", SITE, thing="site")
_api("PATCH sites/<uuid:pk>/", ADMINISTRATORS, SITE, thing="site")
_api("GET sites/<uuid:pk>/scorecard/", SITE, thing="site")
_api("GET scanners/", ACCOUNT)
_api("POST scanners/", ADMINISTRATORS, SITE, status=201, unseen=400)
_api("GET scanners/<uuid:pk>/", SITE, thing="scanner")
_api("PATCH scanners/<uuid:pk>/", ADMINISTRATORS, SITE, thing="scanner")
_api("GET scanners/<uuid:pk>/timeline/", SITE, thing="scanner")
_api("GET visit-definitions/", ACCOUNT)
_api("POST visit-definitions/", ADMINISTRATORS, TRIAL, status=201, unseen=400)
_api("GET visit-definitions/<uuid:pk>/", TRIAL, thing="definition")
_api("PATCH visit-definitions/<uuid:pk>/", ADMINISTRATORS, TRIAL, thing="definition")
_api("GET subjects/", ACCOUNT)
_api("POST subjects/", SENDERS, SITE, status=201, unseen=400)
_api("GET subjects/<uuid:pk>/", SITE, thing="subject")
_api("PATCH subjects/<uuid:pk>/", SENDERS, SITE, thing="subject")
_api("GET visits/", ACCOUNT)
_api("POST visits/", SENDERS, SITE, status=201, unseen=400)
_api("GET visits/<uuid:pk>/", SITE, thing="visit")
_api("GET memberships/", ACCOUNT)
_api("POST memberships/", ADMINISTRATORS, SITE, status=201, unseen=400)
_api("GET memberships/<uuid:pk>/", STAFF, thing="membership")
_api("DELETE memberships/<uuid:pk>/", ADMINISTRATORS, STAFF, status=204, thing="membership")

# What was sent.
_api("GET submissions/", ACCOUNT)
_api("POST submissions/", SENDERS, SITE, status=201)
_api("GET submissions/<uuid:pk>/", SITE, thing="submission")
_api("GET submissions/<uuid:pk>/files/", SITE, thing="finished")
_api("POST submissions/<uuid:pk>/files/", SENDERS, SITE, status=202, thing="submission")
_api("POST submissions/<uuid:pk>/precheck/", SENDERS, SITE, thing="submission")
_api("POST submissions/<uuid:pk>/complete/", SENDERS, SITE, status=202, thing="sent")
_api("POST submissions/<uuid:pk>/cancel/", SENDERS, SITE, thing="submission")
_api("GET submissions/<uuid:pk>/receipt/", SITE, thing="finished")
_api("GET studies/", ACCOUNT)
_api("GET studies/<uuid:pk>/", SITE, thing="study")
_api("GET series/", ACCOUNT)
_api("GET series/<uuid:pk>/", SITE, thing="series")
_api("GET series/<uuid:pk>/parameters/", SITE, thing="series")
_api("GET series/<uuid:pk>/archive/", SITE, thing="series")
_api("GET series/<uuid:pk>/verdicts/", SITE, thing="series")
_api("GET series/<uuid:pk>/metrics/", SITE, thing="series")
_api("GET series/<uuid:pk>/preview/", SITE, thing="series")
_api("POST series/<uuid:pk>/recheck/", DATA_MANAGEMENT, SITE, status=202, thing="series")
_api("GET instances/", ACCOUNT)
_api("GET instances/<uuid:pk>/", SITE, thing="instance")

# What was asked for, and what was found.
_api("GET protocols/", ACCOUNT)
_api("POST protocols/", DATA_MANAGEMENT, TRIAL, status=409)
_api("GET protocols/<uuid:pk>/", TRIAL, thing="protocol")
_api("PATCH protocols/<uuid:pk>/", DATA_MANAGEMENT, TRIAL, thing="protocol_draft")
_api("PUT protocols/<uuid:pk>/", DATA_MANAGEMENT, TRIAL, thing="protocol_draft")
_api("DELETE protocols/<uuid:pk>/", DATA_MANAGEMENT, TRIAL, status=204, thing="protocol_draft")
_api("POST protocols/<uuid:pk>/lock/", ADMINISTRATORS, TRIAL, thing="protocol_draft")
_api("POST protocols/<uuid:pk>/amend/", DATA_MANAGEMENT, TRIAL, status=409, thing="protocol")
_api("GET protocols/<uuid:pk>/dry-run/", DATA_MANAGEMENT, TRIAL, thing="protocol_draft")
_api("POST protocols/<uuid:pk>/dry-run/", DATA_MANAGEMENT, TRIAL, thing="protocol_draft")
_api("POST protocols/<uuid:pk>/import/", DATA_MANAGEMENT, TRIAL, thing="protocol_draft")
_api("GET protocol-templates/", ACCOUNT)
_api("GET protocol-templates/<slug:name>/", ACCOUNT)
_api("GET protocol-schema/", ACCOUNT)
_api("GET qc-profile-schema/", ACCOUNT)
_api("GET qc-profile-default/", ACCOUNT)
_api("GET qc-profiles/", ACCOUNT)
_api("POST qc-profiles/", DATA_MANAGEMENT, TRIAL, status=409)
_api("GET qc-profiles/<uuid:pk>/", TRIAL, thing="profile")
_api("PATCH qc-profiles/<uuid:pk>/", DATA_MANAGEMENT, TRIAL, thing="profile_draft")
_api("PUT qc-profiles/<uuid:pk>/", DATA_MANAGEMENT, TRIAL, thing="profile_draft")
_api("DELETE qc-profiles/<uuid:pk>/", DATA_MANAGEMENT, TRIAL, status=204, thing="profile_draft")
_api("POST qc-profiles/<uuid:pk>/lock/", ADMINISTRATORS, TRIAL, thing="profile_draft")
_api("POST qc-profiles/<uuid:pk>/amend/", DATA_MANAGEMENT, TRIAL, status=409, thing="profile")
_api("GET qc-profiles/<uuid:pk>/dry-run/", DATA_MANAGEMENT, TRIAL, thing="profile_draft")
_api("POST qc-profiles/<uuid:pk>/dry-run/", DATA_MANAGEMENT, TRIAL, thing="profile_draft")
_api("GET deviations/", ACCOUNT)
_api("GET deviations/export/", ACCOUNT)
_api("GET deviations/<uuid:pk>/", SITE, thing="deviation")
_api("POST deviations/<uuid:pk>/acknowledge/", ACKNOWLEDGERS, SITE, thing="deviation")
_api("POST deviations/<uuid:pk>/waive/", DATA_MANAGEMENT, SITE, thing="deviation")
_api("POST deviations/<uuid:pk>/resolve/", DATA_MANAGEMENT, SITE, thing="deviation")
_api("POST deviations/<uuid:pk>/reject/", DATA_MANAGEMENT, SITE, thing="deviation")
_api("GET queries/", ACCOUNT)
_api("POST queries/", REVIEWERS, SITE, status=201)
_api("GET queries/<uuid:pk>/", SITE, thing="query")
_api("POST queries/<uuid:pk>/answer/", SENDERS, SITE, thing="query")
_api("POST queries/<uuid:pk>/reopen/", REVIEWERS, SITE, thing="answered_query")
_api("POST queries/<uuid:pk>/close/", REVIEWERS, SITE, thing="query")
_api("GET metrics/", ACCOUNT)
_api("GET metrics/definitions/", ACCOUNT)
_api("GET metrics/export/", ACCOUNT)
_api("GET metrics/<uuid:pk>/", SITE, thing="metric")
_api("GET change-events/", ACCOUNT)
_api("GET change-events/<uuid:pk>/", SITE, thing="change_event")
_api("POST change-events/<uuid:pk>/review/", REVIEWERS, SITE, thing="change_event")
_api("GET drift-alerts/", ACCOUNT)
_api("GET drift-alerts/<uuid:pk>/", SITE, thing="drift_alert")
_api("POST drift-alerts/<uuid:pk>/review/", REVIEWERS, SITE, thing="drift_alert")

# Harmonization and the data lock.
_api("GET feature-sets/", ACCOUNT)
_api("POST feature-sets/", ANALYSTS, TRIAL, status=201, unseen=400)
_api("GET feature-sets/<uuid:pk>/", HARMONIZATION, thing="feature_set")
_api("GET feature-sets/<uuid:pk>/data/", HARMONIZATION, thing="feature_set")
_api("GET algorithms/", ACCOUNT)
_api("GET algorithms/<slug:pk>/", ACCOUNT)
_api("GET algorithm-versions/", ACCOUNT)
_api("GET algorithm-versions/<uuid:pk>/", ACCOUNT, thing="algorithm")
_api(
    "POST algorithm-versions/<uuid:pk>/verify/",
    ALGORITHM_VERIFIERS,
    ACCOUNT,
    status=202,
    thing="new_algorithm",
)
_api("POST algorithm-versions/<uuid:pk>/lock/", ALGORITHM_LOCKERS, ACCOUNT, thing="new_algorithm")
_api("POST algorithm-versions/<uuid:pk>/retire/", ALGORITHM_LOCKERS, ACCOUNT, thing="algorithm")
_api("GET harmonization-plans/", ACCOUNT)
_api("POST harmonization-plans/", ANALYSTS, TRIAL, status=201, unseen=400)
_api("POST harmonization-plans/compare/", ANALYSTS, HARMONIZATION, status=202, unseen=400)
# Without ids of runs there is nothing to compare; which runs are seen is tested with the comparison.
_api("GET harmonization-plans/compare/", ACCOUNT, status=400)
_api("GET harmonization-plans/<uuid:pk>/", HARMONIZATION, thing="plan")
_api("PATCH harmonization-plans/<uuid:pk>/", ANALYSTS, HARMONIZATION, thing="plan_draft")
_api("PUT harmonization-plans/<uuid:pk>/", ANALYSTS, HARMONIZATION, thing="plan_draft")
_api("DELETE harmonization-plans/<uuid:pk>/", ANALYSTS, HARMONIZATION, status=204, thing="plan_unused")
_api("POST harmonization-plans/<uuid:pk>/check/", ANALYSTS, HARMONIZATION, thing="plan_draft")
_api("POST harmonization-plans/<uuid:pk>/lock/", ADMINISTRATORS, HARMONIZATION, thing="plan_draft")
_api("POST harmonization-plans/<uuid:pk>/amend/", ANALYSTS, HARMONIZATION, status=201, thing="plan")
_api("GET harmonization-runs/", ACCOUNT)
_api("POST harmonization-runs/", ANALYSTS, HARMONIZATION, status=202, unseen=400)
_api("GET harmonization-runs/<uuid:pk>/", HARMONIZATION, thing="run")
_api("GET harmonization-runs/<uuid:pk>/data/", HARMONIZATION, thing="run")
_api("GET harmonization-runs/<uuid:pk>/model/", HARMONIZATION, thing="run")
_api("GET harmonization-runs/<uuid:pk>/report/", HARMONIZATION, thing="run")
_api("POST harmonization-runs/<uuid:pk>/rerun/", ANALYSTS, HARMONIZATION, status=202, thing="run")
_api("POST harmonization-runs/<uuid:pk>/apply/", ANALYSTS, HARMONIZATION, status=202, thing="run")
_api("POST harmonization-runs/<uuid:pk>/add-batch/", ANALYSTS, HARMONIZATION, status=202, thing="run")
_api("GET harmonization-runs/<uuid:pk>/export/", HARMONIZATION, thing="run")
_api("POST harmonization-runs/<uuid:pk>/cancel/", ANALYSTS, HARMONIZATION, thing="waiting_run")
_api("GET data-locks/", ACCOUNT)
_api("POST data-locks/", ADMINISTRATORS, TRIAL, status=201, unseen=400)
_api("GET data-locks/<uuid:pk>/", HARMONIZATION, thing="data_lock")
_api("GET data-locks/<uuid:pk>/checklist/", HARMONIZATION, thing="data_lock")
_api("GET data-locks/<uuid:pk>/manifest/", HARMONIZATION, status=404, thing="data_lock")
_api("POST data-locks/<uuid:pk>/freeze/", ADMINISTRATORS, HARMONIZATION, status=409, thing="data_lock")
_api("POST data-locks/<uuid:pk>/unfreeze/", ADMINISTRATORS, HARMONIZATION, status=409, thing="data_lock")
_api("POST data-locks/<uuid:pk>/lock/", ADMINISTRATORS, HARMONIZATION, status=409, thing="data_lock")
_api("GET exports/", ACCOUNT)
_api("POST exports/", EXPORTERS, TRIAL, status=202, unseen=400)
_api("GET exports/<uuid:pk>/", EXPORTERS, thing="export")
_api("GET exports/<uuid:pk>/package/", EXPORTERS, status=409, thing="export")

# Pages of the core and of one's own account.
_page("GET health/live", EVERYBODY)
_page("GET health/ready", EVERYBODY, status=503)
_page("GET accounts/login/", EVERYBODY, status=302, also={ANONYMOUS: 200})
_page("POST accounts/login/", EVERYBODY, status=302, also={ANONYMOUS: 200})
_page("GET accounts/logout/", ACCOUNT)
_page("POST accounts/logout/", ACCOUNT)
_page("GET accounts/inactive/", EVERYBODY)
_page("GET accounts/reauthenticate/", ACCOUNT)
_page("POST accounts/reauthenticate/", ACCOUNT, status=200)
_page("GET accounts/password/change/", ACCOUNT)
_page("POST accounts/password/change/", ACCOUNT, status=200)
_page("GET accounts/2fa/", ACCOUNT)
_page("GET accounts/2fa/authenticate/", EVERYBODY, status=302)
_page("POST accounts/2fa/authenticate/", EVERYBODY, status=302)
_page("GET accounts/2fa/reauthenticate/", ACCOUNT, status=302)
_page("POST accounts/2fa/reauthenticate/", ACCOUNT, status=302)
_page("GET accounts/2fa/totp/activate/", ACCOUNT, status=302)
_page("POST accounts/2fa/totp/activate/", ACCOUNT, status=302)
_page("GET accounts/2fa/totp/deactivate/", ACCOUNT, status=404)
_page("POST accounts/2fa/totp/deactivate/", ACCOUNT, status=404)
_page("GET accounts/2fa/recovery-codes/", ACCOUNT, status=404)
_page("GET accounts/2fa/recovery-codes/generate/", ACCOUNT, status=302)
_page("POST accounts/2fa/recovery-codes/generate/", ACCOUNT, status=302)
_page("GET accounts/2fa/recovery-codes/download/", ACCOUNT, status=404)
_page("GET account/", ACCOUNT)
_page("GET jobs/", ACCOUNT)
_page("GET audit/", ANY_AUDIT, ACCOUNT)
_page("GET audit/verify/", ANY_AUDIT, ACCOUNT)

# Pages of a trial: what was sent, who takes part.
_page("GET ", ACCOUNT, status=302, also={SUPERUSER: 200})
_page("GET t/<slug:trial_code>/", TRIAL, also={COORDINATOR: 200, OTHER_COORDINATOR: 200}, status=302)
_page("GET t/<slug:trial_code>/upload/", SENDERS | {OTHER_COORDINATOR}, TRIAL)
_page("GET t/<slug:trial_code>/upload/visits/", SENDERS | {OTHER_COORDINATOR}, TRIAL)
_page("GET t/<slug:trial_code>/submissions/", TRIAL)
_page("GET t/<slug:trial_code>/submissions/<uuid:pk>/", SITE, thing="submission")
_page("GET t/<slug:trial_code>/submissions/<uuid:pk>/progress/", SITE, thing="submission")
_page("GET t/<slug:trial_code>/submissions/<uuid:pk>/files/", SITE, thing="finished")
_page("GET t/<slug:trial_code>/submissions/<uuid:pk>/series/", SITE, thing="finished")
_page("GET t/<slug:trial_code>/submissions/<uuid:pk>/receipt/", SITE, thing="finished")
_page("POST t/<slug:trial_code>/submissions/<uuid:pk>/cancel/", SENDERS, SITE, thing="submission")
_page("GET t/<slug:trial_code>/people/", PEOPLE_READERS, TRIAL)
_page("POST t/<slug:trial_code>/people/add/", ADMINISTRATORS, TRIAL)
_page("POST t/<slug:trial_code>/people/<uuid:pk>/end/", ADMINISTRATORS, TRIAL, thing="membership")

# Pages of a trial: what was asked for, and what was found.
_page("GET t/<slug:trial_code>/dashboard/", TRIAL - COORDINATORS, TRIAL)
_page("GET t/<slug:trial_code>/dashboard/grid/", TRIAL)
_page("GET t/<slug:trial_code>/dashboard/metric/", TRIAL)
_page("GET t/<slug:trial_code>/sites/<slug:site_code>/", SITE)
_page("GET t/<slug:trial_code>/scanners/", TRIAL)
_page("GET t/<slug:trial_code>/scanners/<uuid:pk>/", SITE, thing="scanner")
_page("GET t/<slug:trial_code>/scanners/<uuid:pk>/control/", SITE, thing="scanner")
_page("POST t/<slug:trial_code>/monitoring/alert/<uuid:pk>/review/", REVIEWERS, TRIAL, thing="drift_alert")
_page("POST t/<slug:trial_code>/monitoring/change/<uuid:pk>/review/", REVIEWERS, TRIAL, thing="change_event")
_page("GET t/<slug:trial_code>/series/", TRIAL)
_page("GET t/<slug:trial_code>/series/<uuid:pk>/", SITE, thing="series")
_page("POST t/<slug:trial_code>/series/<uuid:pk>/query/", REVIEWERS, SITE, thing="series")
_page("GET t/<slug:trial_code>/deviations/", TRIAL)
_page("GET t/<slug:trial_code>/deviations/<uuid:pk>/", SITE, thing="deviation")
_page("POST t/<slug:trial_code>/deviations/<uuid:pk>/query/", REVIEWERS, SITE, thing="deviation")
for _act, _may in (
    ("acknowledge", ACKNOWLEDGERS),
    ("waive", DATA_MANAGEMENT),
    ("resolve", DATA_MANAGEMENT),
    ("reject", DATA_MANAGEMENT),
):
    _page(
        "POST t/<slug:trial_code>/deviations/<uuid:pk>/<slug:act>/", _may, SITE, thing="deviation", case=_act
    )
_page("GET t/<slug:trial_code>/queries/", TRIAL)
_page("GET t/<slug:trial_code>/queries/<uuid:pk>/", SITE, thing="query")
for _act, _may, _thing in (
    ("answer", SENDERS, "query"),
    ("reopen", REVIEWERS, "answered_query"),
    ("close", REVIEWERS, "query"),
):
    _page("POST t/<slug:trial_code>/queries/<uuid:pk>/<slug:act>/", _may, SITE, thing=_thing, case=_act)
for _kind in ("protocol", "qc-profile"):
    _page(f"GET t/<slug:trial_code>/{_kind}/", TRIAL)
    _page(f"GET t/<slug:trial_code>/{_kind}/draft/", TRIAL)
    _page(f"POST t/<slug:trial_code>/{_kind}/create/", DATA_MANAGEMENT, TRIAL, status=409)
    _page(f"POST t/<slug:trial_code>/{_kind}/save/", DATA_MANAGEMENT, TRIAL)
    _page(f"POST t/<slug:trial_code>/{_kind}/discard/", DATA_MANAGEMENT, TRIAL)
    _page(f"GET t/<slug:trial_code>/{_kind}/dry-run/", DATA_MANAGEMENT, TRIAL)
    _page(f"POST t/<slug:trial_code>/{_kind}/lock/", ADMINISTRATORS, TRIAL)
    _page(f"POST t/<slug:trial_code>/{_kind}/amend/", DATA_MANAGEMENT, TRIAL, status=409)
_page("POST t/<slug:trial_code>/protocol/import-template/", DATA_MANAGEMENT, TRIAL)
_page("POST t/<slug:trial_code>/protocol/capture/", DATA_MANAGEMENT, TRIAL)

# Pages of harmonization and of the data lock.
_page("GET algorithms/", ACCOUNT)
_page("GET algorithms/<uuid:pk>/", ACCOUNT, thing="algorithm")
_page("GET algorithms/<uuid:pk>/verification/", ACCOUNT, thing="algorithm")
_page("POST algorithms/<uuid:pk>/verify/", ALGORITHM_VERIFIERS, ACCOUNT, thing="new_algorithm")
_page("POST algorithms/<uuid:pk>/lock/", ALGORITHM_LOCKERS, ACCOUNT, thing="new_algorithm")
_page("POST algorithms/<uuid:pk>/retire/", ALGORITHM_LOCKERS, ACCOUNT, thing="algorithm")
_page("GET t/<slug:trial_code>/harmonization/", HARMONIZATION, TRIAL)
_page("GET t/<slug:trial_code>/feature-sets/", HARMONIZATION, TRIAL)
_page("GET t/<slug:trial_code>/feature-sets/new/", HARMONIZATION, TRIAL)
_page("POST t/<slug:trial_code>/feature-sets/new/", ANALYSTS, TRIAL)
_page("POST t/<slug:trial_code>/feature-sets/from-metrics/", ANALYSTS, TRIAL)
_page("GET t/<slug:trial_code>/feature-sets/<uuid:pk>/", HARMONIZATION, TRIAL, thing="feature_set")
_page("GET t/<slug:trial_code>/feature-sets/<uuid:pk>/data/", HARMONIZATION, TRIAL, thing="feature_set")
_page("GET t/<slug:trial_code>/feature-sets/<uuid:pk>/features/", HARMONIZATION, TRIAL, thing="feature_set")
_page(
    "GET t/<slug:trial_code>/feature-sets/<uuid:pk>/distribution/", HARMONIZATION, TRIAL, thing="feature_set"
)
_page("GET t/<slug:trial_code>/plans/", HARMONIZATION, TRIAL)
_page("GET t/<slug:trial_code>/plans/new/", HARMONIZATION, TRIAL)
_page("POST t/<slug:trial_code>/plans/new/", ANALYSTS, TRIAL)
# The gate answers a fragment: for who only reads, the refusal is in it.
_page("POST t/<slug:trial_code>/plans/gate/", HARMONIZATION, TRIAL, status=200)
_page("GET t/<slug:trial_code>/plans/compare/", HARMONIZATION, TRIAL)
_page("POST t/<slug:trial_code>/plans/compare/", ANALYSTS, TRIAL)
_page("GET t/<slug:trial_code>/plans/compare/progress/", HARMONIZATION, TRIAL, status=400)
_page("GET t/<slug:trial_code>/plans/<uuid:pk>/", HARMONIZATION, TRIAL, thing="plan")
_page("GET t/<slug:trial_code>/plans/<uuid:pk>/edit/", HARMONIZATION, TRIAL, thing="plan_draft")
_page("POST t/<slug:trial_code>/plans/<uuid:pk>/edit/", ANALYSTS, TRIAL, thing="plan_draft")
_page("POST t/<slug:trial_code>/plans/<uuid:pk>/lock/", ADMINISTRATORS, TRIAL, thing="plan_draft")
_page("POST t/<slug:trial_code>/plans/<uuid:pk>/amend/", ANALYSTS, TRIAL, thing="plan")
_page("POST t/<slug:trial_code>/plans/<uuid:pk>/discard/", ANALYSTS, TRIAL, thing="plan_unused")
_page("GET t/<slug:trial_code>/runs/", HARMONIZATION, TRIAL)
_page("POST t/<slug:trial_code>/runs/start/", ANALYSTS, TRIAL)
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/", HARMONIZATION, TRIAL, thing="run")
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/progress/", HARMONIZATION, TRIAL, thing="waiting_run")
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/feature/", HARMONIZATION, TRIAL, thing="run")
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/covariate/", HARMONIZATION, TRIAL, thing="run")
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/data/", HARMONIZATION, TRIAL, thing="run")
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/model/", HARMONIZATION, TRIAL, thing="run")
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/report/", HARMONIZATION, TRIAL, thing="run")
_page("POST t/<slug:trial_code>/runs/<uuid:pk>/apply/", ANALYSTS, TRIAL, thing="run")
_page("POST t/<slug:trial_code>/runs/<uuid:pk>/add-batch/", ANALYSTS, TRIAL, thing="run")
_page("GET t/<slug:trial_code>/runs/<uuid:pk>/export/", HARMONIZATION, TRIAL, thing="run")
_page("POST t/<slug:trial_code>/runs/<uuid:pk>/rerun/", ANALYSTS, TRIAL, thing="run")
_page("POST t/<slug:trial_code>/runs/<uuid:pk>/cancel/", ANALYSTS, TRIAL, thing="waiting_run")
_page("GET t/<slug:trial_code>/lock/", HARMONIZATION, TRIAL)
_page("POST t/<slug:trial_code>/lock/freeze/", ADMINISTRATORS, TRIAL, status=409)
_page("POST t/<slug:trial_code>/lock/unfreeze/", ADMINISTRATORS, TRIAL, status=409)
_page("POST t/<slug:trial_code>/lock/sign/", ADMINISTRATORS, TRIAL, status=409)
_page("GET t/<slug:trial_code>/lock/manifest/", HARMONIZATION, TRIAL, status=404)
_page("GET t/<slug:trial_code>/lock/exports/", HARMONIZATION, TRIAL)
_page("POST t/<slug:trial_code>/lock/exports/start/", EXPORTERS, TRIAL)

"""What a request of each line of the matrix sends: a body that the service accepts from who may."""

from __future__ import annotations

import io
import json
from typing import Any

import pydicom
from django.core.files.uploadedfile import SimpleUploadedFile

from hub.demo.simulator import simulate_mr
from tests.access.world import FEATURES_METADATA, World, features_csv, plan_document
from tests.factories.qc_app import protocol_document
from tests.factories.sites_app import PASSWORD

SIGNATURE = {"password": PASSWORD, "meaning": "I approve this."}
REASON = {"reason": "It was measured again."}
SEND_FILE = "POST /api/v1/submissions/<uuid:pk>/files/"


def _header() -> dict[str, Any]:
    dataset = pydicom.dcmread(io.BytesIO(simulate_mr(seed=2).files[0].data), stop_before_pixels=True)
    header: dict[str, Any] = dataset.to_json_dict()
    return header


def path_arguments(world: World, rule: Any) -> dict[str, Any]:
    """Return the values of the route's parameters: the thing's id, the first trial's code, names."""
    values = {
        "<uuid:pk>": lambda: getattr(world, rule.thing).pk,
        "<int:pk>": lambda: getattr(world, rule.thing).pk,
        "<slug:pk>": lambda: "combat",
        "<slug:name>": lambda: "adni3-like-t1",
        "<slug:trial_code>": lambda: world.trial.code,
        "<slug:site_code>": lambda: world.site.code,
        "<slug:act>": lambda: rule.case,
    }
    return {part: value() for part, value in values.items() if part in rule.route}


def body_of(world: World, rule: Any) -> Any:
    """Return what the request sends: a dict as JSON (or a form, on pages), bytes as they are."""
    key = rule.key
    if key in BODIES:
        body = BODIES[key]
        return body(world) if callable(body) else body
    last = rule.route.rstrip("/").rpartition("/")[2]
    if rule.method == "POST" and last == "lock":
        return SIGNATURE
    if rule.method == "POST" and last in {"retire", "amend", "unfreeze", "resolve", "reject", "recheck"}:
        return REASON
    return {}


def _id(world: World, name: str) -> str:
    return str(getattr(world, name).pk)


def _placed(**fields: Any) -> Any:
    """A body for the first trial; `site`, `subject`... name things of the world."""

    def body(world: World) -> dict[str, Any]:
        named = {
            name: _id(world, value[1:]) if isinstance(value, str) and value.startswith("@") else value
            for name, value in fields.items()
        }
        return {"trial": _id(world, "trial"), **named}

    return body


_API = "/api/v1"
BODIES: dict[str, Any] = {
    f"POST {_API}/auth/login/": lambda world: {
        "username": world.newcomer.username,
        "password": PASSWORD,
    },
    f"POST {_API}/trials/": {"code": "THIRD", "title": "Third"},
    f"PATCH {_API}/trials/<uuid:pk>/": {"title": "Renamed"},
    f"POST {_API}/arms/": _placed(code="x", title="X"),
    f"PATCH {_API}/arms/<uuid:pk>/": {"title": "Renamed"},
    f"POST {_API}/sites/": _placed(code="NEW", name="New"),
    f"PATCH {_API}/sites/<uuid:pk>/": {"name": "Renamed"},
    f"POST {_API}/scanners/": _placed(site="@site", manufacturer="M", serial_number="1"),
    f"PATCH {_API}/scanners/<uuid:pk>/": {"model": "Renamed"},
    f"POST {_API}/visit-definitions/": _placed(code="later", title="Later"),
    f"PATCH {_API}/visit-definitions/<uuid:pk>/": {"title": "Renamed"},
    f"POST {_API}/subjects/": _placed(site="@site", code="NEW-1"),
    f"PATCH {_API}/subjects/<uuid:pk>/": {"code": "NEW-2"},
    f"POST {_API}/visits/": _placed(subject="@new_subject", definition="@definition"),
    f"POST {_API}/memberships/": _placed(site="@site", user="@newcomer", role="monitor"),
    f"POST {_API}/submissions/": _placed(site="@site", subject="@subject", visit="@visit"),
    SEND_FILE: lambda world: simulate_mr(seed=2).files[0].data,
    f"POST {_API}/submissions/<uuid:pk>/precheck/": lambda world: [_header()],
    f"POST {_API}/protocols/": lambda world: {
        "trial": _id(world, "trial"),
        "document": protocol_document(),
    },
    f"PATCH {_API}/protocols/<uuid:pk>/": {"title": "Renamed"},
    f"PUT {_API}/protocols/<uuid:pk>/": lambda world: {"document": protocol_document(title="Other")},
    f"POST {_API}/protocols/<uuid:pk>/import/": {"template": "low-dose-chest-ct"},
    f"POST {_API}/qc-profiles/": _placed(),
    f"PATCH {_API}/qc-profiles/<uuid:pk>/": {"title": "Renamed"},
    f"PUT {_API}/qc-profiles/<uuid:pk>/": lambda world: {"document": world.profile_draft.document},
    f"POST {_API}/deviations/<uuid:pk>/waive/": {**SIGNATURE, **REASON},
    f"POST {_API}/queries/": lambda world: {
        "series": _id(world, "series"), "title": "Which coil?", "text": "Which coil was used?",
    },
    f"POST {_API}/queries/<uuid:pk>/answer/": {"text": "The head coil."},
    f"POST {_API}/queries/<uuid:pk>/reopen/": {"text": "Please look again."},
    f"POST {_API}/queries/<uuid:pk>/close/": REASON,
    f"POST {_API}/change-events/<uuid:pk>/review/": {"comment": "Seen."},
    f"POST {_API}/drift-alerts/<uuid:pk>/review/": {"comment": "Seen."},
    f"POST {_API}/feature-sets/": lambda world: {
        "trial": _id(world, "trial"),
        "name": "Volumes again",
        "metadata": json.dumps(FEATURES_METADATA),
        "file": SimpleUploadedFile("features.csv", features_csv(world.trial)),
    },
    f"POST {_API}/harmonization-plans/": _placed(document=plan_document("third")),
    f"PATCH {_API}/harmonization-plans/<uuid:pk>/": {"document": plan_document("draft")},
    f"PUT {_API}/harmonization-plans/<uuid:pk>/": {"document": plan_document("draft")},
    f"POST {_API}/harmonization-plans/<uuid:pk>/check/": lambda world: {"feature_set": _id(world, "feature_set")},
    f"POST {_API}/harmonization-plans/compare/": lambda world: {
        "feature_set": _id(world, "feature_set"), "plans": [_id(world, "plan"), _id(world, "plan_draft")],
    },
    f"POST {_API}/harmonization-runs/": lambda world: {
        "feature_set": _id(world, "feature_set"), "plan": _id(world, "plan"),
    },
    f"POST {_API}/harmonization-runs/<uuid:pk>/apply/": lambda world: {
        "feature_set": _id(world, "feature_set"),
    },
    f"POST {_API}/harmonization-runs/<uuid:pk>/add-batch/": lambda world: {
        "feature_set": _id(world, "feature_set"), "batch": "C", "reason": "A site joined.",
    },
    f"POST {_API}/data-locks/": _placed(),
    f"POST {_API}/exports/": _placed(),
}  # fmt: skip

_T = "/t/<slug:trial_code>"
BODIES |= {
    f"POST {_T}/people/add/": lambda world: {
        "username": world.newcomer.username, "role": "monitor", "site": world.site.code,
    },
    f"POST {_T}/monitoring/alert/<uuid:pk>/review/": {"comment": "Seen."},
    f"POST {_T}/monitoring/change/<uuid:pk>/review/": {"comment": "Seen."},
    f"POST {_T}/series/<uuid:pk>/query/": {"title": "Which coil?", "text": "Which coil was used?"},
    f"POST {_T}/deviations/<uuid:pk>/query/": {"title": "Which coil?", "text": "Which coil was used?"},
    f"POST {_T}/deviations/<uuid:pk>/<slug:act>/ [acknowledge]": REASON,
    f"POST {_T}/deviations/<uuid:pk>/<slug:act>/ [waive]": {**SIGNATURE, **REASON, "scope": "series"},
    f"POST {_T}/deviations/<uuid:pk>/<slug:act>/ [resolve]": REASON,
    f"POST {_T}/deviations/<uuid:pk>/<slug:act>/ [reject]": REASON,
    f"POST {_T}/queries/<uuid:pk>/<slug:act>/ [answer]": {"text": "The head coil."},
    f"POST {_T}/queries/<uuid:pk>/<slug:act>/ [reopen]": {"text": "Please look again."},
    f"POST {_T}/queries/<uuid:pk>/<slug:act>/ [close]": REASON,
    f"POST {_T}/protocol/create/": {"template": "flair-3d"},
    f"POST {_T}/protocol/import-template/": lambda world: {
        "template": "low-dose-chest-ct", "digest": world.protocol_draft.digest,
    },
    f"POST {_T}/protocol/capture/": lambda world: {
        "series": _id(world, "series"), "key": "captured", "title": "Captured", "digest": world.protocol_draft.digest,
    },
    f"POST {_T}/feature-sets/new/": lambda world: {
        "name": "Volumes again",
        "metadata": json.dumps(FEATURES_METADATA),
        "file": SimpleUploadedFile("features.csv", features_csv(world.trial)),
    },
    f"POST {_T}/feature-sets/from-metrics/": lambda world: {
        "name": "From QC", "metrics": [world.metric.name], "expected_key": "t1",
    },
    f"POST {_T}/plans/new/": {"document": json.dumps(plan_document("third"))},
    f"POST {_T}/plans/<uuid:pk>/edit/": {"document": json.dumps(plan_document("draft"))},
    f"POST {_T}/plans/gate/": lambda world: {
        "feature_set": _id(world, "feature_set"), "plan": _id(world, "plan_draft"),
    },
    f"POST {_T}/plans/compare/": lambda world: {
        "feature_set": _id(world, "feature_set"),
        "candidates": [_id(world, "plan"), _id(world, "plan_draft")],
    },
    f"POST {_T}/runs/start/": lambda world: {
        "feature_set": _id(world, "feature_set"), "plan": _id(world, "plan"),
    },
    f"POST {_T}/runs/<uuid:pk>/apply/": lambda world: {"feature_set": _id(world, "feature_set")},
    f"POST {_T}/runs/<uuid:pk>/add-batch/": lambda world: {
        "feature_set": _id(world, "feature_set"), "batch": "C", "reason": "A site joined.",
    },
    f"POST {_T}/lock/sign/": {**SIGNATURE, "confirmation": "FIRST"},
}  # fmt: skip
for _kind, _draft in (("protocol", "protocol_draft"), ("qc-profile", "profile_draft")):
    for _act in ("save", "discard", "lock"):
        BODIES[f"POST {_T}/{_kind}/{_act}/"] = lambda world, draft=_draft: {
            **SIGNATURE,
            "digest": getattr(world, draft).digest,
            "document": json.dumps(getattr(world, draft).document),
            "title": "Renamed",
        }

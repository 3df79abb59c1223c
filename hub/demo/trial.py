"""The demonstration trial as `apply_trial` takes it; `python -m hub.demo.trial` prints it as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from hub.demo.cohort import BASELINE, MONTH_12, TEST_VISIT, subjects
from hub.demo.features import COVARIATES, covariates, feature_truths, pool_of
from hub.demo.packaged import CORE_SITE, packaged_submissions
from hub.demo.protocol import protocol_document
from hub.demo.quality import qc_profile
from hub.demo.scanners import SCANNERS, Scanner

TRIAL_CODE = "DEMO"
PASSWORD_VARIABLE = "HUB_DEMO_PASSWORD"

SITES: Mapping[str, tuple[str, str]] = {
    "S01": ("Site 01", "Germany"),
    "S02": ("Site 02", "Netherlands"),
    "S03": ("Site 03", "United States"),
    "S04": ("Site 04", "France"),
    "S05": ("Site 05", "Japan"),
    CORE_SITE: ("Core laboratory, test scans", ""),
}

TRIAL_WIDE_ROLES: Mapping[str, tuple[str, str]] = {
    "trial-admin": ("trial_administrator", "Trial administrator"),
    "trial-admin-2": ("trial_administrator", "Second trial administrator"),
    "monitor": ("monitor", "Monitor"),
    "data-manager": ("data_manager", "CRO data manager"),
    "reviewer": ("imaging_reviewer", "Imaging reviewer"),
    "sponsor": ("sponsor", "Sponsor"),
    "statistician": ("statistician", "Statistician"),
    "auditor": ("auditor", "Auditor"),
}


def trial_document() -> dict[str, Any]:
    """Return the whole trial definition: people are roles, subjects are codes."""
    return {
        "trial": {"code": TRIAL_CODE, "title": "Demonstration trial: head MR, CT and PET at five sites"},
        "arms": [{"code": "A", "title": "Arm A"}, {"code": "B", "title": "Arm B"}],
        "visit_definitions": _visit_definitions(),
        "sites": [
            {"code": code, "name": name, "country": country} for code, (name, country) in SITES.items()
        ],
        "scanners": [_scanner(scanner) for scanner in SCANNERS],
        "subjects": _subjects(),
        "users": _users(),
        "memberships": _memberships(),
        "protocol": protocol_document(),
        "qc_profile": qc_profile(),
        "harmonization_plan": harmonization_plan_document(),
    }


def _visit_definitions() -> list[dict[str, Any]]:
    return [
        {"code": BASELINE, "title": "Baseline", "day": 0, "window_before": 0, "window_after": 0},
        {"code": MONTH_12, "title": "Month 12", "day": 365, "window_before": 14, "window_after": 14},
        {"code": TEST_VISIT, "title": "Test scan", "day": 0, "window_before": 0, "window_after": 0},
    ]


def _scanner(scanner: Scanner) -> dict[str, Any]:
    """Declare the scanner as it is when the trial starts: the upgrade has to be seen in its images."""
    document: dict[str, Any] = {
        "site": scanner.site,
        "manufacturer": scanner.manufacturer,
        "model": scanner.model,
        "serial": scanner.serial,
        "modality": scanner.modality,
        "ae_title": f"{scanner.site}{scanner.modality}",
        "history": [
            {
                "from": epoch.start.isoformat(),
                "software_version": epoch.software_version,
                "coil": epoch.coil,
            }
            for epoch in scanner.epochs[:1]
        ],
    }
    if scanner.field_strength_t is not None:
        document["field_strength"] = scanner.field_strength_t
    return document


def _subjects() -> list[dict[str, Any]]:
    simulated = [{"code": item.code, "site": item.site, "arm": item.arm} for item in subjects()]
    return simulated + [{"code": item.subject, "site": item.site} for item in packaged_submissions()]


def coordinator_of(site: str) -> str:
    """Return the user name of a site's coordinator."""
    return f"coordinator-{site.lower()}"


def _user(username: str, full_name: str) -> dict[str, Any]:
    return {
        "username": username,
        "email": f"{username}@example.org",
        "full_name": full_name,
        "password_env": PASSWORD_VARIABLE,
    }


def _users() -> list[dict[str, Any]]:
    sites = [_user(coordinator_of(code), f"Site coordinator {code}") for code in SITES]
    return sites + [_user(name, full_name) for name, (_, full_name) in TRIAL_WIDE_ROLES.items()]


def _memberships() -> list[dict[str, Any]]:
    sites = [{"user": coordinator_of(code), "role": "site_coordinator", "site": code} for code in SITES]
    return sites + [{"user": name, "role": role} for name, (role, _) in TRIAL_WIDE_ROLES.items()]


def harmonization_plan_document() -> dict[str, Any]:
    """Return the draft plan: ComBat by scanner and software, thickness and volume as pools of their own."""
    pools: dict[str, list[str]] = {}
    for feature in feature_truths():
        pools.setdefault(pool_of(feature), []).append(feature.name)
    return {
        "schema": "hub.harmonization-plan/1",
        "name": "demo-combat",
        "title": "ComBat by scanner and software version",
        "algorithm": "combat",
        "batch": "batch",
        "analysis_plan": {
            "document": "Statistical analysis plan",
            "version": "1.0",
            "section": "7.3 Harmonization of imaging measurements",
        },
        "rationale": (
            "Scanner software is part of the batch, since one scanner is upgraded between the visits. "
            f"Preserved: {', '.join(COVARIATES)}. The treatment arm is not used: the run is blinded. Scans that depart "
            "from the protocol are kept, as the trial analyses them; scans that failed quality control are not."
        ),
        "image_rows": {"deviant": "keep", "qc_failed": "exclude", "series": ["t1"]},
        "scanner_changes": "split",
        "blinded": True,
        "sensitivity": [
            {"kind": "unharmonized"},
            {"kind": "leave_one_batch_out"},
            {
                "kind": "algorithm",
                "algorithm": "longcombat",
                "parameters": {"subject": "subject", "time": "age"},
            },
        ],
        "parameters": {
            "covariates": covariates(),
            "eb": True,
            "parametric": True,
            "features": [feature.name for feature in feature_truths()],
            "pools": [{"name": name, "features": names} for name, names in pools.items()],
            "seed": 20260101,
        },
    }


if __name__ == "__main__":
    json.dump(trial_document(), sys.stdout, indent=2)
    sys.stdout.write("\n")

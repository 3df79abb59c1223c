"""The sections of a trial file that this app owns: arms, visits, sites, scanners, subjects, people."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from hub.core.audit.services import record
from hub.core.models import User
from sites_app.models import (
    Arm,
    Membership,
    Role,
    Scanner,
    ScannerEpoch,
    Site,
    Subject,
    VisitDefinition,
)
from sites_app.services.trial_file import Section, register_section


def register_sections() -> None:
    for order, (name, handler) in enumerate(
        [
            ("arms", apply_arms),
            ("visit_definitions", apply_visit_definitions),
            ("sites", apply_sites),
            ("scanners", apply_scanners),
            ("subjects", apply_subjects),
            ("users", apply_users),
            ("memberships", apply_memberships),
        ]
    ):
        register_section(name, handler, order=order)


def _items(
    section: Section, value: Any, required: Mapping[str, type], optional: Mapping[str, type]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(value, list):
        section.error("", "must be a list")
        return
    for index, item in enumerate(value):
        section.where = f"/{index}"
        fields = section.fields_of(item, f"/{index}", required, optional)
        if fields is not None:
            yield f"/{index}", fields


def apply_arms(section: Section, value: Any) -> None:
    for _, item in _items(section, value, {"code": str}, {"title": str}):
        section.save(
            Arm,
            {"trial": section.trial, "code": item["code"]},
            {"title": item.get("title", item["code"])},
            f"arm {item['code']}",
        )


def apply_visit_definitions(section: Section, value: Any) -> None:
    optional = {"title": str, "day": int, "window_before": int, "window_after": int}
    for index, (where, item) in enumerate(_items(section, value, {"code": str}, optional)):
        negative = [name for name in ("window_before", "window_after") if item.get(name, 0) < 0]
        if negative:
            section.error(f"{where}/{negative[0]}", "must not be negative")
            continue
        section.save(
            VisitDefinition,
            {"trial": section.trial, "code": item["code"]},
            {
                "title": item.get("title", item["code"]),
                "position": index,
                "target_day": item.get("day", 0),
                "window_before_days": item.get("window_before", 0),
                "window_after_days": item.get("window_after", 0),
            },
            f"visit definition {item['code']}",
        )


def apply_sites(section: Section, value: Any) -> None:
    for _, item in _items(section, value, {"code": str, "name": str}, {"country": str, "active": bool}):
        section.save(
            Site,
            {"trial": section.trial, "code": item["code"]},
            {
                "name": item["name"],
                "country": item.get("country", ""),
                "is_active": item.get("active", True),
            },
            f"site {item['code']}",
        )


def _site(section: Section, where: str, code: str) -> Site | None:
    site = Site.objects.filter(trial=section.trial, code=code).first()
    if site is None:
        section.error(
            f"{where}/site", f"names the site “{code}”, which the trial does not have; add it to sites"
        )
    return site


def apply_scanners(section: Section, value: Any) -> None:
    optional = {"model": str, "modality": str, "field_strength": float, "ae_title": str, "history": list}
    for where, item in _items(section, value, {"site": str, "manufacturer": str, "serial": str}, optional):
        site = _site(section, where, item["site"])
        if site is None:
            continue
        scanner = section.save(
            Scanner,
            {"site": site, "manufacturer": item["manufacturer"], "serial_number": item["serial"]},
            {
                "trial": section.trial,
                "model": item.get("model", ""),
                "modality": item.get("modality", ""),
                "field_strength_t": item.get("field_strength"),
                "is_declared": True,
            },
            f"scanner {item['serial']} at {site}",
        )
        _apply_history(section, where, scanner, item.get("history", []))


def _apply_history(section: Section, where: str, scanner: Scanner, history: list[Any]) -> None:
    for index, entry in enumerate(history):
        place = f"{where}/history/{index}"
        fields = section.fields_of(entry, place, {"software_version": str}, {"from": object, "coil": str})
        if fields is None:
            continue
        try:
            start = date.fromisoformat(str(fields["from"])) if fields.get("from") else None
        except ValueError:
            section.error(f"{place}/from", f"must be a date as YYYY-MM-DD, not “{fields['from']}”")
            continue
        section.save(
            ScannerEpoch,
            {"scanner": scanner, "software_versions": fields["software_version"]},
            {"trial": section.trial, "site": scanner.site, "number": index + 1, "first_seen_on": start},
            f"software {fields['software_version']} of {scanner.serial_number}",
        )


def apply_subjects(section: Section, value: Any) -> None:
    for where, item in _items(section, value, {"code": str, "site": str}, {"arm": str}):
        site = _site(section, where, item["site"])
        arm = Arm.objects.filter(trial=section.trial, code=item["arm"]).first() if item.get("arm") else None
        if item.get("arm") and arm is None:
            section.error(f"{where}/arm", f"names the arm “{item['arm']}”, which the trial does not have")
        elif site is not None:
            section.save(
                Subject,
                {"trial": section.trial, "code": item["code"]},
                {"site": site, "arm": arm},
                f"subject {item['code']}",
            )


def apply_users(section: Section, value: Any) -> None:
    optional = {"email": str, "full_name": str, "password_env": str}
    for where, item in _items(section, value, {"username": str}, optional):
        existed = User.objects.filter(username=item["username"]).exists()
        user = section.save(
            User,
            {"username": item["username"]},
            {"email": item.get("email", ""), "full_name": item.get("full_name", "")},
            f"user {item['username']}",
        )
        if not existed:
            _set_password(section, where, user, item.get("password_env", ""))


def _set_password(section: Section, where: str, user: User, variable: str) -> None:
    password = os.environ.get(variable, "") if variable else ""
    if variable and not password:
        section.error(f"{where}/password_env", f"names {variable}, which is not set in the environment")
        return
    if not password:
        user.set_unusable_password()
    else:
        try:
            validate_password(password, user)
        except ValidationError as error:
            section.error(f"{where}/password_env", f"{variable}: {' '.join(error.messages)}")
            return
        user.set_password(password)
    user.save(update_fields=["password"])
    record(actor=section.actor, action="user.password_set", obj=user, scope=section.trial.pk)


def apply_memberships(section: Section, value: Any) -> None:
    for where, item in _items(section, value, {"user": str, "role": str}, {"site": str, "active": bool}):
        user = User.objects.filter(username=item["user"]).first()
        site = _site(section, where, item["site"]) if item.get("site") else None
        if user is None:
            section.error(f"{where}/user", f"names “{item['user']}”, who is not among the users")
        elif item["role"] not in Role.values:
            section.error(f"{where}/role", f"must be one of: {', '.join(Role.values)}")
        elif item["role"] == Role.SITE_COORDINATOR and site is None:
            section.error(where, "needs a site: a site coordinator belongs to one")
        elif not item.get("site") or site is not None:
            section.save(
                Membership,
                {"user": user, "trial": section.trial, "site": site, "role": item["role"]},
                {"is_active": item.get("active", True)},
                f"{item['user']} as {item['role']}",
            )

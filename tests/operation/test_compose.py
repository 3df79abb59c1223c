"""The compose file is what docs/operation.md promises: complete, pinned, checked, private, free of secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")
LONG_RUNNING = sorted(set(SERVICES) - {"migrate"})


def _example_values() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_part_of_the_hub_has_a_service() -> None:
    assert set(SERVICES) == {
        "postgres",
        "redis",
        "migrate",
        "web",
        "worker-ingest",
        "worker-check",
        "worker-harmonize",
        "beat",
    }


def test_the_workers_together_serve_every_queue() -> None:
    commands = [
        " ".join(service["command"]) for name, service in SERVICES.items() if name.startswith("worker-")
    ]

    served = {queue for command in commands for queue in re.findall(r"--queues=(\S+)", command)[0].split(",")}

    assert served == {"ingest", "control", "check", "harmonize"}


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_has_a_health_check_and_restarts(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_migrations_run_once_as_owner_and_all_else_waits_for_them() -> None:
    assert SERVICES["migrate"]["restart"] == "no"
    assert "postgres://hub_owner:" in SERVICES["migrate"]["environment"]["HUB_DATABASE_URL"]
    for name in set(LONG_RUNNING) - {"postgres", "redis"}:
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert "postgres://hub_app:" in SERVICES[name]["environment"]["HUB_DATABASE_URL"]
        assert "hub_owner" not in str(SERVICES[name]["environment"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_an_image_is_pinned_to_an_exact_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w.]+)?", SERVICES[name]["image"])


def test_the_base_images_are_pinned_to_an_exact_version() -> None:
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)

    assert len(bases) == 3
    assert all(re.fullmatch(r"\w+:\d+\.\d+\.\d+-[\w-]+", base) for base in bases)


def test_only_the_web_server_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"web": ["127.0.0.1:${HUB_PORT:-8000}:8000"]}
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == SERVICES["redis"]["networks"] == ["backend"]


def test_every_variable_is_in_the_example_and_no_other() -> None:
    assert set(VARIABLE.findall(COMPOSE_TEXT)) == set(_example_values())


def test_every_optional_variable_of_the_documentation_reaches_the_hub() -> None:
    table = (
        (ROOT / "docs" / "operation.md")
        .read_text(encoding="utf-8")
        .split("Only the compose file reads these")[0]
    )
    optional = {
        name
        for name, needed in re.findall(r"^\| `(HUB_\w+)` \| (no\b[^|]*)\|", table, re.MULTILINE)
        if needed
    }
    # Places inside the image, which the image decides.
    optional -= {"HUB_BEAT_SCHEDULE_FILE", "HUB_STATIC_ROOT", "HUB_UPLOAD_TEMP_DIR"}
    passed = {name for name, value in SERVICES["web"]["environment"].items() if value is None}
    example = re.findall(r"^# (HUB_\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)

    assert len(optional) >= 9
    assert optional == passed == set(example)
    assert optional <= set(SERVICES["migrate"]["environment"])


def test_no_secret_has_a_default_or_an_example_value() -> None:
    secrets = {name for name in _example_values() if name.endswith(("_KEY", "_PASSWORD"))}

    assert len(secrets) == 7
    assert {_example_values()[name] for name in secrets} == {""}
    for name in secrets:
        uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", COMPOSE_TEXT)
        assert uses and all(use.startswith(":?") for use in uses), name


def test_the_hub_is_configured_by_its_own_variables_alone() -> None:
    for name in set(SERVICES) - {"postgres", "redis"}:
        assert all(variable.startswith("HUB_") for variable in SERVICES[name]["environment"]), name


def test_every_required_production_setting_is_given() -> None:
    settings = (ROOT / "hub" / "settings" / "production.py").read_text(encoding="utf-8")
    listed = re.search(r"REQUIRED = \[(.*?)\]", settings, re.DOTALL)
    assert listed is not None
    required = set(re.findall(r'"(HUB_\w+)"', listed.group(1)))

    assert required
    assert required <= set(SERVICES["web"]["environment"])

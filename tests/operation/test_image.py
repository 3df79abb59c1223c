"""The container image: linted, unprivileged, with production settings, built from locked assets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from hub.launcher.assets import VENDOR_FILES
from hub.launcher.serving import UNUSED_STATIC

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"

    answer = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)

    assert (answer.returncode, answer.stdout) == (0, "")


def test_the_image_runs_unprivileged_with_production_settings() -> None:
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]

    assert re.findall(r"^USER (\S+)", last_stage, re.MULTILINE) == ["10001"]
    assert "DJANGO_SETTINGS_MODULE=hub.settings.production" in last_stage
    assert not re.search(r"HUB_\w*(KEY|PASSWORD)=", DOCKERFILE)


def test_static_files_are_gathered_while_the_image_is_built() -> None:
    build = DOCKERFILE.rpartition("\nFROM ")[0].replace('"', "")

    assert "collectstatic" in build
    assert all(option in build for option in UNUSED_STATIC)


def test_nothing_private_enters_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert {".git", ".env", ".venv", "var"} <= set(ignored)


def test_browser_assets_have_exact_versions_with_digests_and_no_addresses() -> None:
    wanted = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    packages = {name: entry for name, entry in lock.items() if name}

    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert {name: lock[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())
    assert {source.split("/")[0] for source in VENDOR_FILES.values()} == set(wanted)

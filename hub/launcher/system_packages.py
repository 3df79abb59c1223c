"""Debian packages that no Python wheel replaces: a browser for the tests, Pango for PDF reports."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
from pathlib import Path

from hub.launcher.console import LauncherError, say
from hub.launcher.layout import Layout

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
PANGO_LIBRARIES = ("pango-1.0", "pangoft2-1.0")
PANGO_PACKAGES = ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0", "fonts-dejavu-core")


def require_for_tests(layout: Layout) -> None:
    """Make sure that a browser and Pango are here.

    Raises LauncherError with what to install when they are not and cannot be installed."""
    if not has_pango() and not _apt_install(*PANGO_PACKAGES):
        raise LauncherError(
            "The tests make PDF reports, which need the library Pango. As root: apt-get install "
            f"{' '.join(PANGO_PACKAGES)}."
        )
    if find_chromium(layout) is None and not _download_chromium(layout) and not _apt_install("chromium"):
        raise LauncherError(
            "The tests drive a real browser, and there is none: no chromium on PATH, and Playwright's own "
            "could not be downloaded. As root: apt-get install chromium."
        )


def offer_pango() -> bool:
    """Return whether PDF reports can be made, after installing Pango where root may."""
    return has_pango() or _apt_install(*PANGO_PACKAGES)


def has_pango() -> bool:
    """Return whether the libraries that weasyprint loads are here."""
    return all(ctypes.util.find_library(name) for name in PANGO_LIBRARIES)


def find_chromium(layout: Layout) -> Path | None:
    """Return a Chromium that starts: one on PATH, else the one that Playwright downloaded."""
    for name in CHROMIUM_NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    script = (
        "from playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as browsers: print(browsers.chromium.executable_path)"
    )
    command = [str(layout.python), "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    own = Path(answer.stdout.strip()) if answer.returncode == 0 and answer.stdout.strip() else None
    return own if own and _starts(own) else None


def _starts(program: Path) -> bool:
    try:
        return (
            subprocess.run([program, "--version"], capture_output=True, timeout=60, check=False).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _download_chromium(layout: Layout) -> bool:
    say("Chromium for the browser tests: Playwright's download ...")
    command = [str(layout.python), "-m", "playwright", "install", "chromium"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=600, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
    return done and find_chromium(layout) is not None


def _apt_install(*packages: str) -> bool:
    """Install Debian packages as root; return whether that succeeded."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    say(f"Debian packages: {' '.join(packages)} ...")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if subprocess.run(install, env=environment, capture_output=True, check=False).returncode == 0:
        return True
    subprocess.run(["apt-get", "update"], env=environment, capture_output=True, check=False)
    return subprocess.run(install, env=environment, capture_output=True, check=False).returncode == 0

"""Browser assets: fetched from the npm registry by the lock file, then copied where Django serves them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from hub.launcher.binaries import npm_command
from hub.launcher.console import LauncherError, say
from hub.launcher.layout import Layout
from hub.launcher.processes import guarded

# Source maps travel too: the hashing static storage refuses a file whose map is missing.
VENDOR_FILES = {
    "bootstrap/bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
    "bootstrap/bootstrap.min.css.map": "bootstrap/dist/css/bootstrap.min.css.map",
    "bootstrap/bootstrap.bundle.min.js": "bootstrap/dist/js/bootstrap.bundle.min.js",
    "bootstrap/bootstrap.bundle.min.js.map": "bootstrap/dist/js/bootstrap.bundle.min.js.map",
    "bootstrap/LICENSE": "bootstrap/LICENSE",
    "echarts/echarts.min.js": "echarts/dist/echarts.min.js",
    "echarts/LICENSE": "echarts/LICENSE",
    "echarts/NOTICE": "echarts/NOTICE",
    "client-zip/client-zip.js": "client-zip/index.js",
    "client-zip/LICENSE.txt": "client-zip/LICENSE.txt",
}


def install_assets(layout: Layout) -> bool:
    """Bring static/vendor up to date with package-lock.json; return whether anything was done.

    Raises LauncherError when npm fails or a package lacks a file."""
    vendor = layout.root / "static" / "vendor"
    stamp = vendor / ".stamp"
    wanted = _fingerprint(layout.root)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    say("Browser assets from the npm registry ...")
    _run_npm(layout)
    copy_vendor_files(layout.root)
    stamp.write_text(wanted, encoding="utf-8")
    return True


def copy_vendor_files(root: Path) -> None:
    """Copy the files that pages use from node_modules to static/vendor.

    Raises LauncherError when a package lacks one."""
    vendor = root / "static" / "vendor"
    shutil.rmtree(vendor, ignore_errors=True)
    for target, source in VENDOR_FILES.items():
        _copy(root / "node_modules" / source, vendor / target)


def _fingerprint(root: Path) -> str:
    digest = hashlib.sha256((root / "package-lock.json").read_bytes())
    digest.update(repr(sorted(VENDOR_FILES.items())).encode())
    return digest.hexdigest()


def _run_npm(layout: Layout) -> None:
    command = npm_command(layout.venv)
    environment = os.environ | {"PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    answer = subprocess.run(
        guarded([*command, *arguments]),
        cwd=layout.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        reason = (answer.stderr or answer.stdout).strip()[-600:]
        raise LauncherError(
            f"npm could not fetch the browser assets (exit {answer.returncode}): {reason} "
            "Check the network and npm's registry setting, then start again."
        )


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise LauncherError(
            f"The npm package has no file {source}. Correct VENDOR_FILES in hub/launcher/assets.py."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)

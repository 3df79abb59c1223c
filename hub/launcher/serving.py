"""`make serve` and `make demo`: the whole hub on this machine until Ctrl-C."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hub.launcher import demonstration, setup, system_packages
from hub.launcher.console import LauncherError, last_words, say, warn
from hub.launcher.hub_processes import await_ready, hub_processes
from hub.launcher.layout import Layout
from hub.launcher.services import Services, require_unused, running_services

# Type comments in these htmx extensions look like imports of a missing file to the hashing static storage; of the
# two viewers of the API's document the hub has one.
UNUSED_STATIC = ("--ignore=hx-sse-*", "--ignore=hx-ws-*", "--ignore=redoc")
APPS = ("hub/core", "sites_app", "qc_app", "harmonization_app")


def serve(layout: Layout) -> None:
    """Serve an empty hub with the administrator `admin` until Ctrl-C."""
    with _running_hub(layout) as services:
        say(f"ready {layout.base_url}")
        services.supervisor.watch()


def demo(layout: Layout) -> None:
    """Serve the hub with the demonstration trial, which is made at the first start of this VAR, until Ctrl-C.

    Raises LauncherError when the demonstration cannot be made."""
    with _running_hub(layout) as services:
        logins = demonstration.prepare(layout, services)
        say(f"ready {layout.base_url}\n{logins}")
        services.supervisor.watch()


def require_free_port(port: int) -> None:
    """Raise LauncherError when another program listens on the port, or it may not be used."""
    if not 0 < port < 65536:
        raise LauncherError(f"Port {port} cannot be; choose one from 1024 to 65535, for example PORT=8001.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise LauncherError(
                f"Port {port} is kept for the administrator of this machine. Choose one from 1024 on, for example "
                "PORT=8001."
            ) from error
        except OSError as error:
            raise LauncherError(
                f"Port {port} of this machine cannot be used ({error.strerror}). Another program may be serving "
                "there: end it, or choose another port, for example PORT=8001."
            ) from error


def update_database(layout: Layout, services: Services) -> None:
    """Apply the migrations and grant the application's role its rights, when either changed.

    Raises LauncherError when Django refuses."""
    code = [file for app in APPS for file in (layout.root / app).rglob("migrations/*.py")]
    code.append(layout.root / "requirements.txt")
    code += (layout.root / "hub" / "core" / "management" / "commands").glob("grant_app_role.py")
    wanted = setup.fingerprint(code)
    stamp = layout.stamps / "migrations"
    if setup.is_current(stamp, wanted):
        return
    say("Database schema ...")
    owner = services.environment | {"HUB_DATABASE_URL": services.environment["HUB_OWNER_DATABASE_URL"]}
    _manage(layout, services, owner, "migrate", "--no-input", "--verbosity=0")
    _manage(layout, services, owner, "grant_app_role")
    setup.set_stamp(stamp, wanted)


def collect_static(layout: Layout, environment: dict[str, str]) -> None:
    """Gather the static files of all apps when any of them changed.

    Raises LauncherError when Django refuses."""
    folders = [layout.root / "static", *(layout.root / app / "static" for app in APPS)]
    files = sorted(file for folder in folders for file in folder.rglob("*") if file.is_file())
    facts = ((file, file.stat()) for file in files)
    listing = "\n".join(f"{file} {fact.st_size} {fact.st_mtime_ns}" for file, fact in facts)
    wanted = setup.fingerprint([layout.root / "requirements.txt"], listing)
    stamp = layout.root / "staticfiles" / ".stamp"
    if setup.is_current(stamp, wanted):
        return
    say("Static files ...")
    command = [
        str(layout.python),
        "manage.py",
        "collectstatic",
        "--no-input",
        "--clear",
        "--verbosity=0",
        *UNUSED_STATIC,
    ]
    _run_quietly(layout, environment, command, "The static files could not be gathered")
    setup.set_stamp(stamp, wanted)


def compile_loops(layout: Layout, environment: dict[str, str]) -> None:
    """Compile the loops of harmonization when they changed, so that no request waits for it.

    Raises LauncherError when that fails."""
    folder = layout.root / "harmonization_app" / "algorithms"
    loops = [folder / "compiled.py", *sorted(folder.glob("*_loops.py"))]
    wanted = setup.fingerprint([*loops, layout.root / "requirements.txt"])
    stamp = folder / "__pycache__" / ".loops"
    if setup.is_current(stamp, wanted):
        return
    say("Numerical loops ...")
    command = [str(layout.python), "-m", "harmonization_app.algorithms.warm_up"]
    _run_quietly(layout, environment, command, "The loops of harmonization could not be compiled")
    with suppress(OSError):  # a folder that cannot be written keeps nothing, as numba keeps nothing there
        setup.set_stamp(stamp, wanted)


@contextmanager
def _running_hub(layout: Layout) -> Iterator[Services]:
    require_unused(layout)
    require_free_port(layout.port)
    setup.install(layout)
    if not system_packages.offer_pango():
        packages = " ".join(system_packages.PANGO_PACKAGES)
        warn(f"Reports will be HTML only: PDF needs the library Pango. As root: apt-get install {packages}")
    with running_services(layout) as services:
        collect_static(layout, services.environment)
        compile_loops(layout, services.environment)
        update_database(layout, services)
        scheduler, *others = reversed(hub_processes(layout, services.environment))
        for spec in reversed(others):
            services.supervisor.start(spec)
        _ensure_admin(layout, services)
        await_ready(layout, services.supervisor)
        # Last, because readiness does not wait for it and two processors are busy enough until then.
        services.supervisor.start(scheduler)
        yield services


def _ensure_admin(layout: Layout, services: Services) -> None:
    stamp = layout.stamps / "administrator"
    if not stamp.exists():
        _manage(layout, services, services.environment, "ensure_admin")
        setup.set_stamp(stamp, "done")


def _run_quietly(layout: Layout, environment: dict[str, str], command: list[str], failure: str) -> None:
    """Run a program, its output not shown. Raises LauncherError with its last words when it fails."""
    answer = subprocess.run(
        command, cwd=layout.root, env=environment, capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise LauncherError(f"{failure}: {last_words(answer.stderr)}")


def _manage(layout: Layout, services: Services, environment: dict[str, str], *words: str) -> None:
    """Run a Django command, its output shown.

    Raises LauncherError when it fails."""
    status = services.supervisor.run([layout.python, "manage.py", *words], environment, layout.root)
    if status != 0:
        raise LauncherError(
            f"`manage.py {words[0]}` ended with status {status}; its reason is above. The services' logs are "
            f"in {layout.logs}."
        )

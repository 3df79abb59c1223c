"""The launcher's command line: what `make` calls."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from hub.launcher import checks, maintenance, services, serving, setup
from hub.launcher.console import LauncherError, say
from hub.launcher.environment import write_private
from hub.launcher.layout import REPOSITORY, Layout
from hub.launcher.processes import StopRequested

INTERRUPTED = 130
# prctl(2), linux/prctl.h
_PR_SET_PDEATHSIG = 1


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; an expected failure is one paragraph on standard error."""
    options = _parser().parse_args(arguments)
    if options.end_with_parent:
        _end_with_parent()
    signal.signal(signal.SIGTERM, _interrupt)
    layout = Layout(REPOSITORY, Path(options.var).expanduser().resolve(), options.port)
    try:
        return COMMANDS[options.command][0](layout, options)
    except LauncherError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, StopRequested):
        say("Stopped.")
        return 0 if options.command in ("serve", "demo", "services") else INTERRUPTED
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return _refuse(f"{error.strerror or error}{place}. The logs, if any, are in {layout.logs}.")


def _setup(layout: Layout, options: argparse.Namespace) -> int:
    setup.install(layout, with_tests=options.tests)
    return 0


def _services(layout: Layout, options: argparse.Namespace) -> int:
    setup.install(layout)
    with services.running_services(layout) as running:
        if options.words:
            return running.supervisor.run(options.words, running.environment, Path.cwd())
        names = ("DJANGO_SETTINGS_MODULE", "HUB_DATABASE_URL", "HUB_OWNER_DATABASE_URL", "HUB_REDIS_URL")
        file = layout.var / "services.env"
        write_private(file, "".join(f"export {name}='{running.environment[name]}'\n" for name in names))
        say(f"PostgreSQL and Redis run until Ctrl-C; their addresses: . '{file}'")
        running.supervisor.watch()
    return 0


def _serve(layout: Layout, options: argparse.Namespace) -> int:
    serving.serve(layout)
    return 0


def _demo(layout: Layout, options: argparse.Namespace) -> int:
    serving.demo(layout)
    return 0


def _stop(layout: Layout, options: argparse.Namespace) -> int:
    services.stop(layout)
    return 0


def _test(layout: Layout, options: argparse.Namespace) -> int:
    return checks.run_all(layout, options.words)


def _bench(layout: Layout, options: argparse.Namespace) -> int:
    return maintenance.bench(layout)


def _lock(layout: Layout, options: argparse.Namespace) -> int:
    maintenance.lock(layout)
    return 0


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent (make) is killed, and end at once if it is dead already."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(INTERRUPTED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m hub.launcher", description="Set the hub up and run it here."
    )
    port, var = os.environ.get("PORT") or "8000", os.environ.get("VAR") or str(REPOSITORY / "var")
    parser.add_argument(
        "--port", type=int, default=port, help="where the hub is served; default $PORT or 8000"
    )
    parser.add_argument("--var", default=var, help="the folder of the state; default $VAR or var")
    parser.add_argument("--end-with-parent", action="store_true", help="stop when the parent process dies")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name == "setup":
            command.add_argument("--tests", action="store_true", help="install the developer tools too")
        if name == "services":
            command.add_argument("words", nargs=argparse.REMAINDER, help="a command to run beside them")
        if name == "test":
            command.add_argument("words", nargs=argparse.REMAINDER, help="arguments for pytest")
    return parser


COMMANDS: dict[str, tuple[Callable[[Layout, argparse.Namespace], int], str]] = {
    "setup": (_setup, "install what the hub needs"),
    "services": (_services, "run PostgreSQL and Redis, around a command or until Ctrl-C"),
    "serve": (_serve, "serve an empty hub with one administrator"),
    "demo": (_demo, "serve the hub with the demonstration trial"),
    "stop": (_stop, "end what serve or demo left in the background"),
    "test": (_test, "run every check and test"),
    "bench": (_bench, "run the benchmarks"),
    "lock": (_lock, "resolve the dependencies again"),
}

"""The command line: python -m hub_client, or hub-client."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hub_client import commands
from hub_client.configuration import NotConfigured
from hub_client.folder import FolderUnusable
from hub_client.harmonization_arguments import add_commands, with_action
from hub_client.transport import HubRequestFailed, HubUnreachable
from hub_client.upload import StillProcessing

EXPECTED = (
    FolderUnusable, HubRequestFailed, HubUnreachable, LookupError, NotConfigured, OSError, StillProcessing, ValueError,
)  # fmt: skip
_EPILOG = """exit status: 0 everything is as wanted; 1 it is not (a file was not accepted, a verdict is not compliant, a
run was refused, a condition is not met); 2 the command could not be carried out.
HUB_URL and HUB_TOKEN name hub and token; without them the file that `login` writes does."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="hub-client", description="Work with an imaging data hub.", epilog=_EPILOG
    )
    add = top.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    command = add("login", help="log in and keep the token for later commands")
    command.add_argument("username")
    command.add_argument("--url", default="", help="the hub's address")
    command.add_argument("--otp", default="", help="one-time code, where the account has a second factor")
    command.set_defaults(do=commands.login)

    command = add("upload", help="send a folder of DICOM for a subject's visit and wait for the verdicts")
    command.add_argument("folder", type=Path, metavar="DIR")
    for name in ("trial", "site", "subject", "visit"):
        command.add_argument(f"--{name}", required=True, help="code or id")
    command.add_argument("--watch", action="store_true", help="go on: send what comes into the folder")
    _followed(command, 1800.0)
    command.add_argument("--receipt", type=Path, help="file for the receipt (receipt-<submission>.json)")
    command.set_defaults(do=commands.upload)

    command = add("status", help="list a trial's submissions, or wait for one and show what became of it")
    _one_of(command, "submission", "id of a submission")
    command.add_argument("--limit", type=int, default=20)
    _followed(command, 60.0)
    command.add_argument("--receipt", type=Path, help="file for the receipt")
    command.set_defaults(do=commands.status)

    command = add("deviations", help="list a trial's deviations from its protocol")
    command.add_argument("--trial", required=True, help="code or id")
    command.add_argument("--state", default="", help="only those in this state, for example open")
    command.add_argument("--csv", action="store_true")
    command.set_defaults(do=commands.deviations)
    add_commands(add)
    _add_locking(add)
    return top


def _add_locking(add: object) -> None:
    command = add("lock", help="show what a data lock needs; freeze or lock")  # type: ignore[operator]
    command.add_argument("--trial", required=True, help="code or id")
    command.add_argument("--freeze", action="store_true", help="take no new data from now on")
    command.add_argument(
        "--sign", metavar="MEANING", default="", help="lock for good; asks for your password"
    )
    command.add_argument("--otp", default="", help="one-time code, where the account has a second factor")
    command.set_defaults(do=commands.lock)

    command = add("export", help="make and download a package of a trial with its proof")  # type: ignore[operator]
    command.add_argument("--trial", required=True, help="code or id")
    command.add_argument("--images", action="store_true", help="with the de-identified images")
    command.add_argument("-o", "--output", type=Path, help="file for the package (export-<id>.zip)")
    _followed(command, 6 * 3600.0)
    command.set_defaults(do=commands.export)


def _followed(command: argparse.ArgumentParser, seconds: float) -> None:
    command.add_argument("--timeout", type=float, default=seconds, help=f"seconds to wait ({seconds:.0f})")


def _one_of(command: argparse.ArgumentParser, name: str, text: str) -> None:
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument(name, nargs="?", help=text)
    group.add_argument("--trial", help="code or id")


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(with_action(sys.argv[1:] if arguments is None else arguments))
    try:
        return int(given.do(given))
    except KeyboardInterrupt:
        commands.note("Stopped. The same command goes on where this one ended.")
    except EXPECTED as error:
        commands.note(f"hub-client: {error}")
    return 2


if __name__ == "__main__":
    sys.exit(main())

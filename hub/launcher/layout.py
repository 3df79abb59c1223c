"""Where everything the launcher makes lives."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hub.launcher.console import LauncherError

REPOSITORY = Path(__file__).resolve().parents[2]
# sockaddr_un.sun_path holds 108 bytes including the final NUL (unix(7)).
SOCKET_PATH_LIMIT_BYTES = 107
# A new database takes 60 MB, its log another 100.
FREE_SPACE_NEEDED_BYTES = 300_000_000
POSTGRES_SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True)
class Layout:
    """The folders of one hub: the checkout `root`, its state `var`, and the port it serves."""

    root: Path
    var: Path
    port: int

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> Path:
        return self.var / "log"

    @property
    def run(self) -> Path:
        return self.var / "run"

    @property
    def secrets(self) -> Path:
        return self.var / "secrets"

    @property
    def stamps(self) -> Path:
        return self.var / "stamps"

    def make_folders(self) -> None:
        """Create the state folders.

        Raises LauncherError when they belong to somebody else, the disk is full or its permissions refuse."""
        self.require_own()
        try:
            for folder in (
                self.var,
                self.logs,
                self.run,
                self.stamps,
                self.var / "data",
                self.var / "bodies",
                self.var / "anchor",
            ):
                folder.mkdir(parents=True, exist_ok=True)
            self.secrets.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LauncherError(
                f"The hub keeps its state in {self.var}, and that folder cannot be written "
                f"({error.strerror}: {error.filename}). Free space or mend its permissions, or name "
                "another place with VAR=/some/folder."
            ) from error
        free = shutil.disk_usage(self.var).free
        if free < FREE_SPACE_NEEDED_BYTES:
            raise LauncherError(
                f"The disk of {self.var} is full: {free / 1e6:.0f} MB are free and the hub needs at least "
                f"{FREE_SPACE_NEEDED_BYTES / 1e6:.0f} MB. Free space, or name another place with VAR=/some/folder."
            )

    def require_own(self) -> None:
        """Raise LauncherError where another user made this state: half of its files would change hands."""
        try:
            owner = self.run.stat().st_uid
        except OSError:
            return
        if owner != os.geteuid():
            raise LauncherError(
                f"The state in {self.var} belongs to {_user_name(owner)}, and you are "
                f"{_user_name(os.geteuid())}. Start as {_user_name(owner)}, or name another folder with "
                "VAR=/some/folder."
            )


def _user_name(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user number {number}"


def short_socket_folder(preferred: Path) -> Path:
    """Return `preferred` if both services' sockets fit below it, else a short private folder.

    The short folder's name is kept in `preferred`, so that a later start finds it again."""
    if _fits(preferred / "postgres"):
        return preferred
    pointer = preferred / "socket-folder"
    if pointer.exists():
        kept = Path(pointer.read_text(encoding="utf-8").strip())
        if kept.is_dir() and kept.stat().st_uid == os.geteuid():
            return kept
    base = next(
        (
            folder
            for folder in (tempfile.gettempdir(), "/tmp")
            if _fits(Path(folder, "hub-12345678/postgres"))
        ),
        None,
    )
    if base is None:
        raise LauncherError(
            f"A unix socket's path may have {SOCKET_PATH_LIMIT_BYTES} bytes, and neither {preferred} nor the "
            "temporary folder is short enough. Set VAR= or TMPDIR= to a shorter folder."
        )
    folder = Path(tempfile.mkdtemp(prefix="hub-", dir=base))
    pointer.write_text(str(folder), encoding="utf-8")
    return folder


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / POSTGRES_SOCKET_NAME)) <= SOCKET_PATH_LIMIT_BYTES

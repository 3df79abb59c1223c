"""A private PostgreSQL: its own data folder, one unix socket, no network."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.launcher.binaries import find_postgres
from hub.launcher.console import LauncherError, say
from hub.launcher.environment import APP_ROLE, DATABASE, OWNER_ROLE
from hub.launcher.layout import Layout
from hub.launcher.processes import ProcessSpec, Supervisor

SUPERUSER = "hub_superuser"
START_SECONDS = 60.0
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "jit": "off",
    "log_line_prefix": "%m [%p] %u@%d ",
}
# Only for data nobody keeps: a crash of the machine would damage them.
_THROWAWAY_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Cluster:
    """A data folder with the programs that run it. `prefix` changes to the account that owns the data."""

    programs: Path
    data: Path
    sockets: Path
    account: pwd.struct_passwd
    prefix: tuple[str, ...]

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return a command line that runs one of the cluster's programs as its owner."""
        return [*self.prefix, str(self.programs / program), *(str(argument) for argument in arguments)]


def open_cluster(layout: Layout, sockets: Path) -> Cluster:
    """Return the cluster of `layout`, made by initdb at the first time.

    Raises LauncherError naming what is missing."""
    data = layout.var / "postgres"
    programs = find_postgres(layout.venv, _data_version(data))
    account = _database_account()
    folder = data if data.exists() else data.with_name("postgres.part")
    if folder != data:
        shutil.rmtree(folder, ignore_errors=True)
    for owned in (folder, sockets):
        owned.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(owned, account.pw_uid, account.pw_gid)
    prefix = _change_account(account, [folder, sockets, programs / "postgres"])
    cluster = Cluster(programs, data, sockets, account, prefix)
    if folder != data:
        say(f"New database (PostgreSQL in {programs}) ...")
        _initialise(cluster, folder)
        # The stamps tell what was done to the former database.
        shutil.rmtree(layout.stamps, ignore_errors=True)
        folder.rename(data)
    _write_access_rules(cluster)
    return cluster


def server(cluster: Cluster, log: Path, throwaway: bool = False) -> ProcessSpec:
    """Return the server process; SIGINT is PostgreSQL's fast shutdown."""
    # The setting is a comma-separated list; quotes keep a folder with a space or a comma whole.
    quoted = '"' + str(cluster.sockets).replace('"', '""') + '"'
    settings = _SETTINGS | {"unix_socket_directories": quoted} | (_THROWAWAY_SETTINGS if throwaway else {})
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    argv = tuple(cluster.command("postgres", "-D", cluster.data, *options))
    return ProcessSpec(
        "postgres",
        argv,
        dict(os.environ),
        Path("/"),
        log,
        service=True,
        stop_signal=signal.SIGINT,
        stop_seconds=60.0,
    )


def await_server(cluster: Cluster, supervisor: Supervisor, log: Path) -> None:
    """Wait until the server answers.

    Raises LauncherError with the end of its log when it does not."""
    attempts = int(START_SECONDS / 0.1)
    for _ in range(attempts):
        if _psql(cluster, "postgres", "SELECT 1").returncode == 0:
            return
        if supervisor.deaths() >= 2:
            break
        supervisor.pause()
    raise LauncherError(f"PostgreSQL does not start; the end of {log}: {log_tail(log)}")


def ensure_database(cluster: Cluster) -> None:
    """Create the two roles and the database where they are missing.

    The owner holds the schema and may create test databases; the application's role owns nothing."""
    roles = "".join(
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN "
        f"CREATE ROLE {role} LOGIN {rights}; END IF; END $$;\n"
        for role, rights in ((OWNER_ROLE, "CREATEDB"), (APP_ROLE, "NOCREATEDB"))
    )
    _require(_psql(cluster, "postgres", roles), "create its roles")
    answer = _psql(cluster, "postgres", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'")
    _require(answer, "list its databases")
    if answer.stdout.strip() != "1":
        _require(
            _psql(cluster, "postgres", f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}"),
            "create the database",
        )


def log_tail(log: Path, characters: int = 1200) -> str:
    """Return the end of a log, or a word in its place when there is none."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-characters:].strip() or "(empty)"
    except OSError:
        return "(no log)"


def _data_version(data: Path) -> int | None:
    version = data / "PG_VERSION"
    return int(version.read_text(encoding="ascii").split(".")[0]) if version.exists() else None


def _database_account() -> pwd.struct_passwd:
    """Return the account that runs PostgreSQL: oneself, or for root `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError as error:
            raise LauncherError(
                f"PostgreSQL needs a user with a name, and user number {os.geteuid()} has none in "
                "/etc/passwd. Add one, or start as another user."
            ) from error
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LauncherError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as."
    )


def _change_account(account: pwd.struct_passwd, needed: Sequence[Path]) -> tuple[str, ...]:
    """Return the words before a command that change to `account`, nothing when it is oneself.

    Where a parent folder is closed to the account (a checkout below /root), one capability to pass
    folders is kept, because the alternative would be to open other people's folders."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LauncherError(
            "To run PostgreSQL as another user, root needs the program setpriv (package util-linux)."
        )
    change = [setpriv, "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    for capability in ("", "dac_read_search", "dac_override"):
        kept = _keep_capability(capability) if capability else []
        prefix = (*change, *kept, "--pdeathsig", "INT", "--")
        test = 'for path; do test -x "$path" || exit 1; done'
        probe = subprocess.run(
            [*prefix, "sh", "-c", test, "sh", *map(str, needed)], capture_output=True, check=False
        )
        if probe.returncode == 0:
            return prefix
    raise LauncherError(
        f"PostgreSQL runs as user {account.pw_name}, who may not enter {needed[0].parent} or "
        f"{needed[-1].parent}. Start as an ordinary user, or move the checkout to a "
        "folder that everybody may enter."
    )


def _keep_capability(name: str) -> list[str]:
    """Return setpriv's words that carry one capability into the command.

    Without the secure bit access(2), by which PostgreSQL checks its programs, would ignore it
    (capabilities(7), SECBIT_NO_SETUID_FIXUP)."""
    return ["--inh-caps", f"+{name}", "--ambient-caps", f"+{name}", "--securebits", "+no_setuid_fixup"]


def _initialise(cluster: Cluster, folder: Path) -> None:
    arguments = ("-D", folder, "-U", SUPERUSER, "--auth-local=peer", "--auth-host=reject", "-E", "UTF8")
    command = cluster.command("initdb", *arguments, "--locale=C.UTF-8")
    _require(
        subprocess.run(command, cwd="/", capture_output=True, text=True, check=False), "make its data folder"
    )


def _write_access_rules(cluster: Cluster) -> None:
    """Admit only the person who started the launcher, recognised by the kernel (peer), to the hub's roles."""
    person = pwd.getpwuid(os.geteuid()).pw_name
    maps = "".join(f'hub "{person}" {role}\n' for role in (SUPERUSER, OWNER_ROLE, APP_ROLE))
    for name, text in (("pg_hba.conf", "local all all peer map=hub\n"), ("pg_ident.conf", maps)):
        file = cluster.data / name
        if file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def _psql(cluster: Cluster, database: str, sql: str) -> subprocess.CompletedProcess[str]:
    command = [str(cluster.programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    target = ["-h", str(cluster.sockets), "-U", SUPERUSER, "-d", database]
    return subprocess.run(
        [*command, *target], input=sql, capture_output=True, text=True, cwd="/", check=False
    )


def _require(answer: subprocess.CompletedProcess[str], deed: str) -> None:
    if answer.returncode != 0:
        reason = (answer.stderr or answer.stdout).strip()[-1200:]
        raise LauncherError(f"PostgreSQL could not {deed}: {reason}")

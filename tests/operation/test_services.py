"""The private PostgreSQL and Redis: real ones, in folders with awkward names."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import environ
import psycopg2
import pytest
from redis import Redis

from hub.launcher.console import LauncherError
from hub.launcher.environment import database_url, read_secrets
from hub.launcher.layout import REPOSITORY, Layout
from hub.launcher.services import Services, running_services
from hub.launcher.serving import require_free_port

LAUNCHER = [sys.executable, "-m", "hub.launcher"]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services in a folder of awkward characters, too long for a socket, below folders closed to others."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    var = tmp_path_factory.mktemp("services") / "a b+c%20d, é" / ("long" * 20)
    with running_services(Layout(REPOSITORY, var, 8000), throwaway=True) as running:
        yield running
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _connect(services: Services, variable: str) -> psycopg2.extensions.connection:
    found = environ.Env.db_url_config(services.environment[variable])
    return psycopg2.connect(host=found["HOST"], user=found["USER"], dbname=found["NAME"])


def _scalar(connection: psycopg2.extensions.connection, sql: str) -> object:
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
    return row[0] if row else None


def test_both_roles_reach_the_database_and_the_app_owns_nothing(services: Services) -> None:
    owner, app = _connect(services, "HUB_OWNER_DATABASE_URL"), _connect(services, "HUB_DATABASE_URL")

    assert _scalar(owner, "SELECT current_user::text") == "hub_owner"
    assert _scalar(app, "SELECT current_user::text") == "hub_app"
    assert (
        _scalar(owner, "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'hub'")
        == "hub_owner"
    )
    assert (
        _scalar(
            app, "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = 'hub_app'"
        )
        is False
    )
    with pytest.raises(psycopg2.errors.InsufficientPrivilege), app, app.cursor() as cursor:
        cursor.execute("CREATE TABLE mine (id int)")
    for connection in (owner, app):
        connection.close()


def test_the_database_is_not_on_the_network_and_text_is_utf8(services: Services) -> None:
    app = _connect(services, "HUB_DATABASE_URL")

    assert _scalar(app, "SHOW listen_addresses") == ""
    assert _scalar(app, "SHOW server_encoding") == "UTF8"
    assert _scalar(app, "SELECT upper('é')") == "É"
    app.close()


def test_redis_answers_on_its_socket_and_keeps_a_log_of_every_second(services: Services) -> None:
    redis = Redis.from_url(services.environment["HUB_REDIS_URL"])

    assert redis.ping() is True
    assert redis.config_get("append*") | redis.config_get("maxmemory-policy") == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "appendfilename": "appendonly.aof",
        "maxmemory-policy": "noeviction",
    }
    assert redis.config_get("port") == {"port": "0"}
    redis.close()


def test_a_second_launcher_on_the_same_state_is_refused(services: Services) -> None:
    var = Path(services.environment["HUB_STORAGE_ROOT"]).parent

    with pytest.raises(LauncherError, match=rf"already uses .*process {os.getpid()}.*make stop"):
        with running_services(Layout(REPOSITORY, var, 8000)):
            pytest.fail("two launchers share one state")


def test_a_second_start_names_the_first_rather_than_its_port(services: Services) -> None:
    var = Path(services.environment["HUB_STORAGE_ROOT"]).parent
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [*LAUNCHER, f"--var={var}", f"--port={taken.getsockname()[1]}", "serve"]
        answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: A hub already uses {var} (process {os.getpid()}). End it with")


def _manage(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py as a person does at a terminal: nothing of the hub in the environment."""
    bare = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "manage.py", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, env=bare | environment, capture_output=True, text=True, check=False
    )


def test_manage_reaches_the_hub_that_runs_from_this_state_with_the_rights_of_the_hub(
    services: Services,
) -> None:
    var = Path(services.environment["HUB_STORAGE_ROOT"]).parent
    told = var / "run" / "environment.json"

    answer = _manage("showmigrations", "sessions", VAR=str(var))

    assert (answer.returncode, answer.stdout) == (0, "sessions\n [ ] 0001_initial\n"), answer.stderr
    assert told.stat().st_mode & 0o777 == 0o600
    assert json.loads(told.read_text())["HUB_DATABASE_URL"] == services.environment["HUB_DATABASE_URL"]
    assert "HUB_OWNER_DATABASE_URL" not in told.read_text()


def test_manage_leaves_the_database_that_the_caller_names(services: Services) -> None:
    var = Path(services.environment["HUB_STORAGE_ROOT"]).parent

    answer = _manage(
        "showmigrations", VAR=str(var), HUB_DATABASE_URL="postgres://hub_app@/%2Fnowhere/hub"
    )  # fmt: skip

    assert answer.returncode == 2
    assert "/nowhere" in answer.stderr


@pytest.mark.parametrize("command", ["verify_audit", "showmigrations"])
def test_manage_without_a_hub_says_what_to_start(folder: Path, command: str) -> None:
    answer = _manage(command, VAR=str(folder), HUB_DATABASE_URL="postgres://hub_app@/%2Fnowhere/hub")

    assert answer.returncode == 2
    assert answer.stderr.startswith("error: the database cannot be used: ")
    assert answer.stderr.endswith("or set HUB_DATABASE_URL.\n") and "Traceback" not in answer.stderr


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(LauncherError, match=rf"Port {port} .*Address already in use.*PORT=8001"):
            require_free_port(port)

        answer = subprocess.run(
            [*LAUNCHER, f"--port={port}", "serve"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: Port {port} ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("port", [0, 70000, -1])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(LauncherError, match=f"Port {port} "):
        require_free_port(port)


def test_stopping_nothing_is_no_error(folder: Path) -> None:
    answer = subprocess.run(
        [*LAUNCHER, f"--var={folder}", "stop"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert (answer.returncode, answer.stdout) == (0, "Nothing was running.\n")


def test_secrets_are_made_once_and_private(folder: Path) -> None:
    file = folder / "secrets" / "hub.env"

    first = read_secrets(file)

    assert read_secrets(file) == first
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert set(first) == {"HUB_SECRET_KEY", "HUB_PSEUDONYM_KEY", "HUB_SIGNING_KEY"}
    assert len(set(first.values())) == 3
    assert all(len(bytes.fromhex(value)) == 32 for value in first.values())


def test_a_secret_that_is_missing_is_added_beside_the_kept_ones(folder: Path) -> None:
    file = folder / "hub.env"
    file.write_text("HUB_PSEUDONYM_KEY=kept\n")

    assert read_secrets(file)["HUB_PSEUDONYM_KEY"] == "kept"
    assert read_secrets(file)["HUB_SECRET_KEY"] == read_secrets(file)["HUB_SECRET_KEY"] != ""


def test_a_database_url_survives_every_character_of_a_folder() -> None:
    found = environ.Env.db_url_config(database_url("hub_app", Path("/a b/c+d/e%20f/g?h/i#j")))

    assert (found["HOST"], found["NAME"], found["USER"]) == ("/a b/c+d/e%20f/g?h/i#j", "hub", "hub_app")


def test_an_old_python_is_told_what_to_do() -> None:
    code = (
        "import sys; sys.version_info = (3, 9, 2, 'final', 0)\n"
        "from hub.launcher.__main__ import main; sys.exit(main())"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert answer.returncode == 1
    assert "needs Python 3.11 or newer" in answer.stderr
    assert "make PYTHON=python3.11" in answer.stderr

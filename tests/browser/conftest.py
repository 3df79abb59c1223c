"""A real browser, a real worker and a live server for the journeys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings as hub_settings
from django.db import connection
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.factories.sites_app import PASSWORD

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"width": 1440, "height": 1000}
PHONE = {"width": 390, "height": 844}
# Told by the page itself: a violation of the policy is no console message in every browser.
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
"""


def _chromium() -> str | None:
    """Return the Chromium to drive; None means Playwright's own download."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is not None:
        return found
    with sync_playwright() as playwright:
        if Path(playwright.chromium.executable_path).is_file():
            return None
    pytest.fail(
        "There is no Chromium: none of " + ", ".join(CHROMIUM_NAMES) + " is on PATH, and Playwright has not"
        " downloaded one. `make test` installs it; by hand: apt-get install chromium."
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = _chromium()
    # Playwright's loop runs in this thread, where Django would refuse to read the database. It ends with the
    # module: other tests run loops of their own.
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        running = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(autouse=True)
def _vendor_files() -> None:
    vendor = Path(hub_settings.BASE_DIR) / "static" / "vendor"
    if not (vendor / "client-zip" / "client-zip.js").is_file():
        pytest.fail(f"{vendor} is not filled; run `make setup`, which fetches the browser assets.")


@dataclass
class Visitor:
    """A person at a browser; `faults` collects what the console complains of."""

    context: BrowserContext
    base_url: str
    page: Page
    faults: list[str] = field(default_factory=list)

    def log_in(self, username: str, password: str = PASSWORD) -> None:
        self.page.goto(f"{self.base_url}/accounts/login/")
        self.page.fill("[name=login]", username)
        self.page.fill("[name=password]", password)
        self.page.press("[name=password]", "Enter")
        self.page.wait_for_url(lambda url: "/accounts/login" not in url)

    def open(self, path: str) -> int:
        answer = self.page.goto(f"{self.base_url}{path}")
        return answer.status if answer is not None else 0

    def overflow_px(self) -> int:
        """Return by how much the page is wider than the window."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))

    def note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")


@pytest.fixture
def visitor(browser: Browser, live_server) -> Iterator[Visitor]:  # type: ignore[no-untyped-def]
    """A new visitor of the live server; the test fails at its end if the console complained."""
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    context.add_init_script(_REPORT_VIOLATIONS)
    page = context.new_page()
    person = Visitor(context, live_server.url, page)
    page.on("console", person.note)
    page.on("pageerror", lambda error: person.faults.append(f"error: {error}"))
    yield person
    context.close()
    assert person.faults == []


@pytest.fixture
def worker(transactional_db, settings, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:  # type: ignore[no-untyped-def]
    """A Celery worker of its own process on the test's database, queues and storage."""
    environment = os.environ | {
        "HUB_OWNER_DATABASE_URL": _database_url(),
        "HUB_TEST_ROOT": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "hub.settings.test",
    }
    queues = "--queues=ingest,check,control,harmonize"
    command = [sys.executable, "-m", "celery", "-A", "hub.celery", "worker", queues, "--concurrency=2"]
    options = ["--without-gossip", "--without-mingle", "--loglevel=WARNING"]
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], env=environment, cwd=settings.BASE_DIR, stdout=output, stderr=output
        )
        yield process
        died = process.poll()
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert died is None, f"The worker ended early: {log.read_text(errors='replace')[-2000:]}"


def _database_url() -> str:
    found = connection.settings_dict
    user = f"{found['USER']}:{found['PASSWORD']}" if found["PASSWORD"] else found["USER"]
    if found["HOST"].startswith("/"):
        return f"postgres://{user}@/{quote(found['HOST'])}/{found['NAME']}"
    return f"postgres://{user}@{found['HOST']}:{found['PORT'] or 5432}/{found['NAME']}"

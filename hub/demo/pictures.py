"""Take the README's pictures of a served demonstration: `python -m hub.demo.pictures --base-url URL --password ...`.

Needs the packages of tests/requirements.txt and Chromium (`make test` sets both up).
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from hub.demo.client import HubClient
from hub.demo.trial import PASSWORD_VARIABLE, TRIAL_CODE, coordinator_of

WIDTH_PX, HEIGHT_PX = 1280, 900
STORED_WIDTH_PX = 960
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]


def pages(client: HubClient) -> dict[str, tuple[str, str]]:
    """Return, for each picture, who looks and at which address."""
    trial = client.trial_id(TRIAL_CODE)
    deviation = next(row for row in client.deviations(trial) if row["rule"] == "t1-tr-siemens")
    run = next((row for row in client.runs(trial) if row["state"] == "succeeded"), None)
    base = f"/t/{TRIAL_CODE}"
    coordinator = coordinator_of("S01")
    wanted = {
        "dashboard": ("sponsor", f"{base}/dashboard/"),
        "series": ("sponsor", f"{base}/series/{deviation['series']}/"),
        "coordinator": (coordinator, f"{base}/"),
        "upload": (coordinator, f"{base}/upload/"),
        "deviations": ("data-manager", f"{base}/deviations/"),
        "protocol": ("trial-admin", f"{base}/protocol/"),
        "lock": ("trial-admin", f"{base}/lock/"),
    }
    return wanted | ({"run": ("statistician", f"{base}/runs/{run['id']}/")} if run else {})


def take(base_url: str, password: str, folder: Path) -> None:
    """Write one picture per page into `folder`. Raises RuntimeError where a page does not answer with 200."""
    from playwright.sync_api import sync_playwright

    client = HubClient(base_url)
    client.login("trial-admin", password)
    wanted = pages(client)
    client.close()
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_OPTIONS)
        for user in sorted({user for user, _ in wanted.values()}):
            context = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
            page = context.new_page()
            _log_in(page, base_url, user, password)
            for name, (who, address) in wanted.items():
                if who == user:
                    _picture(page, base_url + address, folder / f"{name}.png")
            context.close()
        browser.close()


def _log_in(page: Any, base_url: str, user: str, password: str) -> None:
    page.goto(f"{base_url}/accounts/login/")
    page.fill("#id_login", user)
    page.fill("#id_password", password)
    page.click("button:has-text('Log in')")
    page.wait_for_load_state("networkidle")


def _picture(page: Any, address: str, path: Path) -> None:
    answer = page.goto(address)
    if answer is None or answer.status != 200:
        raise RuntimeError(f"{address} answered {answer.status if answer else 'nothing'}.")
    page.wait_for_timeout(1200)
    image = Image.open(io.BytesIO(page.screenshot()))
    height = round(image.height * STORED_WIDTH_PX / image.width)
    small = image.convert("RGB").resize((STORED_WIDTH_PX, height), Image.Resampling.LANCZOS)
    small.quantize(256).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the README's pictures of a served demonstration.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--password", default=os.environ.get(PASSWORD_VARIABLE, ""))
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    take(arguments.base_url, arguments.password, arguments.folder)


if __name__ == "__main__":
    main()

"""How long a site waits: from the last byte of a 200-slice MR series to its verdicts, by the API and on the page.

python benchmarks/latency.py [--runs 10]      (starts an empty hub of its own, in a temporary folder)
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
import uuid
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured_hub import Hub, await_verdicts, make_archive, prepare, send, served_hub

LIMIT_S = 2.0
SLICES, MATRIX = 200, 256


def log_in(hub: Hub) -> requests.Session:
    """Return a browser's session of the administrator."""
    session = requests.Session()
    address = f"{hub.url}/accounts/login/"
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', session.get(address, timeout=30).text)
    if token is None:
        raise SystemExit("The login page has no form.")
    form = {"login": "admin", "password": hub.password, "csrfmiddlewaretoken": token.group(1)}
    session.post(address, data=form, headers={"Referer": address}, timeout=30).raise_for_status()
    return session


def measure(hub: Hub, browser: requests.Session, seed: int) -> tuple[float, float]:
    """Return the seconds from the last byte of one series until its verdicts came by API, then on its page."""
    mark = uuid.uuid4().hex[:8]
    archive = make_archive(seed, SLICES, MATRIX, mark)
    place = prepare(hub, [archive], mark)
    sent = send(hub, place, archive)
    await_verdicts(hub, place, [archive], 0.05)
    session = hub.session()
    (series,) = hub.call(session, "GET", f"series/?trial={place['trial']}")["results"]
    hub.call(session, "GET", f"series/{series['id']}/verdicts/")
    by_api = time.perf_counter() - sent
    page = browser.get(f"{hub.url}/t/BENCH-{mark}/series/{series['id']}/", timeout=30)
    if page.status_code != 200 or page.history:
        raise SystemExit(f"The series' page answered {page.status_code}.")
    return by_api, time.perf_counter() - sent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--port", type=int, default=18081)
    options = parser.parse_args()
    with served_hub(options.port) as hub:
        browser = log_in(hub)
        measured = [measure(hub, browser, seed) for seed in range(options.runs)]
    by_api, on_page = zip(*measured, strict=True)
    result = {
        "runs": options.runs,
        "api_median_s": statistics.median(by_api),
        "api_worst_s": max(by_api),
        "page_median_s": statistics.median(on_page),
        "page_worst_s": max(on_page),
    }
    print(json.dumps(result, indent=2))
    prompt = result["page_median_s"] < LIMIT_S
    print(f"{SLICES} slices on the page within {LIMIT_S:.0f} s: {'yes' if prompt else 'NO'}")
    return 0 if prompt else 1


if __name__ == "__main__":
    sys.exit(main())

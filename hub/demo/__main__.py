"""`python -m hub.demo --base-url URL` fills a hub; `--rehearse` judges the same data without one."""

from __future__ import annotations

import argparse
import os
import sys
import time

from hub.demo.client import HubRequestFailed
from hub.demo.comparison import Comparison, compare_findings
from hub.demo.fill import Credentials, FillFailed, fill
from hub.demo.plan import real_submissions, simulated_submissions
from hub.demo.rehearsal import rehearse
from hub.demo.trial import PASSWORD_VARIABLE


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where everything planted was found and nothing else, 1 where not, 2 where it could not be tried."""
    parser = argparse.ArgumentParser(prog="python -m hub.demo", description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000", help="the hub's address")
    parser.add_argument("--rehearse", action="store_true", help="judge the data here, without a hub")
    options = parser.parse_args(arguments)
    if options.rehearse:
        return _rehearse()
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        print(
            f"{PASSWORD_VARIABLE} is not set; it holds the password of the demonstration's users.",
            file=sys.stderr,
        )
        return 2
    started = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {line}", flush=True)

    try:
        summary = fill(options.base_url, Credentials(password), progress)
    except (FillFailed, HubRequestFailed, LookupError, OSError) as error:
        print(f"The demonstration could not be filled: {error}", file=sys.stderr)
        return 2
    return 0 if summary.ok else 1


def _rehearse() -> int:
    found = rehearse((*real_submissions(), *simulated_submissions()))
    comparison = Comparison(compare_findings(frozenset(found.findings)))
    for line in comparison.lines():
        print(line)
    return 0 if comparison.ok else 1


if __name__ == "__main__":
    sys.exit(main())

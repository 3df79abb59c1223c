"""The demonstration trial: defined by `apply_trial`, filled through the public API, once per VAR."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from hub.launcher import setup
from hub.launcher.console import LauncherError, last_words, say, warn
from hub.launcher.environment import read_secrets
from hub.launcher.layout import Layout
from hub.launcher.services import Services

PASSWORD_VARIABLE = "HUB_DEMO_PASSWORD"
# What `python -m hub.demo` answers when it filled the hub, but the hub's findings differ from what was planted.
FINDINGS_DIFFER = 1
# People type this one: 12 hexadecimal digits.
_PASSWORD_BYTES = 6
_TOUR = """Where to begin:
  coordinator-s01  What to do next: deviations of the own site, each with what to do; Upload
  sponsor          Dashboard: all sites, subjects by visit; Scanners: the upgraded and the drifting one
  statistician     Harmonization: the run under the locked plan, its evidence and its report
  trial-admin      Data lock: what is still open; Audit trail: verify it (or python3 manage.py verify_audit)
Ctrl-C stops the hub; the next make demo finds it as it was left."""


def prepare(layout: Layout, services: Services) -> str:
    """Make the demonstration trial unless this VAR has it; return one login per role, a line each.

    Raises LauncherError when it cannot be made."""
    secrets = read_secrets(layout.secrets / "demo.env", (PASSWORD_VARIABLE,), _PASSWORD_BYTES)
    environment = secrets | services.environment
    stamp = layout.stamps / "demo"
    definition = _definition(layout, environment, reuse=stamp.exists())
    if not stamp.exists() and _make(layout, services, environment):
        setup.set_stamp(stamp, "done")
    return _logins(json.loads(definition), environment[PASSWORD_VARIABLE])


def _definition(layout: Layout, environment: dict[str, str], reuse: bool) -> str:
    kept = layout.stamps / "demo-trial.json"
    if reuse and kept.exists():
        return kept.read_text(encoding="utf-8")
    command = [str(layout.python), "-m", "hub.demo.trial"]
    answer = subprocess.run(
        command, cwd=layout.root, env=environment, capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise LauncherError(f"The demonstration trial is not defined: {last_words(answer.stderr)}")
    setup.set_stamp(kept, answer.stdout)
    return answer.stdout


def _make(layout: Layout, services: Services, environment: dict[str, str]) -> bool:
    """Define and fill the trial; return whether the hub found exactly what was planted."""
    say("Demonstration trial, uploaded through the API; the first time takes minutes ...")
    run = services.supervisor.run
    file = layout.stamps / "demo-trial.json"
    apply = [str(layout.python), "manage.py", "apply_trial", str(file), "--verbosity=0"]
    if run(apply, environment, layout.root) != 0:
        raise LauncherError("The demonstration trial could not be defined; the reason is above.")
    command = [str(layout.python), "-m", "hub.demo", "--base-url", layout.base_url]
    status = run(command, environment, layout.root)
    if status == FINDINGS_DIFFER:
        warn(
            "What the hub found differs from what was planted (listed above); the next start compares again."
        )
    elif status != 0:
        raise LauncherError(
            f"The demonstration could not be filled; the reason is above, the logs are in {layout.logs}. The next "
            "start goes on where this one ended."
        )
    return status == 0


def _logins(definition: dict[str, Any], password: str) -> str:
    people: dict[str, list[str]] = {}
    for membership in definition["memberships"]:
        people.setdefault(membership["role"], []).append(membership["user"])
    width = max(len(role) for role in people)
    # Two administrators lock an algorithm version; of every other role one is enough.
    shown = {role: users if role == "trial_administrator" else users[:1] for role, users in people.items()}
    lines = [f"  {role.replace('_', ' '):{width}}  {', '.join(users)}" for role, users in shown.items()]
    return "\n".join([f"One login per role, all with the password {password}", *lines, _TOUR])

"""docs/roles.md says what the matrix says; `python tests/access/test_roles_page.py` writes it anew."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]

from tests.access.matrix import ANONYMOUS, ROLES, RULES, Rule  # noqa: E402

PAGE = ROOT / "docs" / "roles.md"
COLUMNS = ROLES[1:]
INTRODUCTION = """# Who may do what

Roles are memberships: a person, a trial, perhaps one site, and a role. A site coordinator always belongs to one
site; a monitor, data manager or imaging reviewer may. Everybody sees only what the memberships reach.

This page is written from `tests/access/matrix.py`, and a test asks every route as every role and compares. The
thing asked for belongs to the first of two sites of a trial.

- **yes**: may. **no**: sees it, is refused (403). **–**: does not exist for this role (404; 400 where a body names it).
- Without login the API answers 401 and pages lead to the login; only login, health and the API's description are open.
- A sponsor knows neither treatment arms nor a site's staff; site coordinators, monitors and imaging reviewers do not
  know the arms. A protocol, a QC profile, an algorithm version, a plan and the data lock are locked by signature.
"""


def roles_page() -> str:
    parts = [INTRODUCTION]
    for title, start in (("API", "api/"), ("Pages", "")):
        rules = [rule for rule in RULES if rule.route.startswith("api/") == bool(start)]
        parts.append(f"## {title}\n\n{_table(rules)}")
    return "\n".join(parts)


def _table(rules: list[Rule]) -> str:
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| `{rule.key}` | {' | '.join(_cell(rule, role) for role in COLUMNS)} |" for rule in rules]
    return "\n".join(lines) + "\n"


def _cell(rule: Rule, role: str) -> str:
    if role in rule.may:
        return "yes"
    return "no" if role in rule.sees else "–"


def test_the_page_of_roles_is_the_matrix() -> None:
    assert PAGE.read_text(encoding="utf-8") == roles_page(), (
        "write it anew: python tests/access/test_roles_page.py"
    )


def test_what_is_open_without_login_is_little() -> None:
    open_to_all = {rule.route for rule in RULES if ANONYMOUS in rule.may}

    assert open_to_all == {
        "api/v1/auth/login/", "api/v1/schema/", "api/v1/docs/", "health/live", "health/ready", "accounts/login/",
        "accounts/inactive/", "accounts/2fa/authenticate/",
    }  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(roles_page(), encoding="utf-8")

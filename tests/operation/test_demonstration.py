"""What `make demo` says at its end."""

from __future__ import annotations

from hub.demo.trial import trial_document
from hub.launcher.demonstration import _logins


def test_the_logins_name_each_role_once_and_where_to_begin() -> None:
    document = trial_document()

    said = _logins(document, "secret")

    roles, tour = said.split("Where to begin:")
    named = {line.split("  ")[1]: line.split()[-1] for line in roles.splitlines()[1:] if line.strip()}
    assert roles.startswith("One login per role, all with the password secret\n")
    assert set(named) == {item["role"].replace("_", " ") for item in document["memberships"]}
    assert "trial-admin, trial-admin-2" in roles
    guided = [line.split()[0] for line in tour.splitlines() if line.startswith("  ")]
    assert guided == ["coordinator-s01", "sponsor", "statistician", "trial-admin"]
    assert all(user in roles for user in guided)

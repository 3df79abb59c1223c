"""The command line against a live hub: log in, send a folder, read what became of it, export."""

from __future__ import annotations

import io
import json
import stat

import pytest

from hub.core.audit.models import AuditEvent
from hub.demo.plan import simulated_submissions
from hub_client.__main__ import main
from sites_app.models import Role, Submission
from sites_app.services.receipt import receipt_is_ours
from tests.factories.sites_app import PASSWORD, MembershipFactory, UserFactory

PLACE = simulated_submissions()[0]
TARGET = ["--trial", "DEMO", "--site", PLACE.site, "--subject", PLACE.subject, "--visit", PLACE.visit]


@pytest.fixture
def hub(environment, live_server, trial, working, monkeypatch):
    site = trial.sites.get(code=PLACE.site)
    MembershipFactory(
        trial=trial, site=site, role=Role.SITE_COORDINATOR, user=UserFactory(username="coordinator")
    )

    def login(username):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
        return main(["login", "--url", live_server.url, username])

    assert login("coordinator") == 0
    return login


def test_a_coordinator_sends_a_folder_and_an_administrator_exports_the_trial(hub, folder, tmp_path, capsys):
    mode = stat.S_IMODE((tmp_path / "config" / "hub-client").stat().st_mode)
    assert mode == 0o600

    first = main(["upload", str(folder), *TARGET])
    shown = capsys.readouterr().out
    submission = Submission.objects.get()
    assert first == 0, shown
    assert submission.state == "accepted"
    assert "compliant" in shown
    receipt = (tmp_path / f"receipt-{submission.pk}.json").read_bytes()
    assert receipt_is_ours(receipt)
    sent = [path for path in folder.rglob("*") if path.is_file() and path.name != ".hidden"]
    assert len(json.loads(receipt)["receipt"]["files"]) == len(sent)

    again = main(["upload", str(folder), *TARGET])
    assert again == 0
    assert Submission.objects.count() == 1
    assert AuditEvent.objects.filter(action="upload.received").count() == submission.uploads.count()

    assert main(["status", "--trial", "DEMO"]) == 0
    assert str(submission.pk) in capsys.readouterr().out
    assert main(["export", "--trial", "DEMO"]) == 2
    assert "Your role does not allow you to export" in capsys.readouterr().err

    assert hub("admin") == 0
    package = tmp_path / "package.zip"
    assert main(["export", "--trial", "DEMO", "--images", "-o", str(package)]) == 0
    assert "NOT LOCKED" in capsys.readouterr().out
    from harmonization_app.offline.verify_package import verify

    assert verify(package).problem == ""
    assert main(["lock", "--trial", "DEMO", "--freeze"]) == 0
    assert "frozen" in capsys.readouterr().out


def test_what_was_not_accepted_is_named_and_the_exit_status_is_1(hub, folder, capsys):
    kept = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in kept[4:]:
        path.unlink()
    (folder / "notes.txt").write_text("no image")

    status = main(["upload", str(folder), *TARGET])

    shown = capsys.readouterr().out
    assert status == 1
    assert "notes.txt: " in shown
    assert "not evaluable" in shown or "deviant" in shown
    assert main(["deviations", "--trial", "DEMO", "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("id,site_code,subject_code")
    assert len(lines) > 1


def test_a_wrong_subject_is_refused_in_the_hub_s_words(hub, folder, capsys):
    status = main(["upload", str(folder), *TARGET[:4], "--subject", "NOBODY", "--visit", PLACE.visit])

    assert status == 2
    assert "NOBODY" in capsys.readouterr().err
    assert Submission.objects.count() == 0

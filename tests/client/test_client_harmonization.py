"""The statistician's way by the command line alone, against a live hub: from a table to a proven run."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile

import pytest

from harmonization_app.models import AlgorithmVersion, HarmonizationPlan, HarmonizationRun
from hub.demo.features import as_csv, metadata
from hub.demo.trial import harmonization_plan_document
from hub_client.__main__ import main
from sites_app.models import Role
from tests.factories.sites_app import PASSWORD, MembershipFactory, UserFactory

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MEANING = ["--meaning", "I approve this version"]


def plan_document():
    """Return the demonstration's plan without its sensitivity analyses: those need further locked algorithms."""
    return {**harmonization_plan_document(), "sensitivity": []}


@pytest.fixture
def people(trial):
    """A statistician, a second administrator, and an auditor."""
    for name, role in (
        ("statistician", Role.STATISTICIAN),
        ("second-admin", Role.TRIAL_ADMINISTRATOR),
        ("auditor", Role.AUDITOR),
    ):
        MembershipFactory(trial=trial, role=role, user=UserFactory(username=name))


@pytest.fixture
def hub(environment, live_server, trial, people, working, monkeypatch, tmp_path, capsys):
    (tmp_path / "table.csv").write_text(as_csv())
    (tmp_path / "metadata.json").write_text(json.dumps(metadata()))
    (tmp_path / "plan.json").write_text(json.dumps(plan_document()))

    class Hub:
        def as_user(self, username):
            monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
            assert main(["login", "--url", live_server.url, username]) == 0
            capsys.readouterr()
            return self

        def __call__(self, *arguments, status=0):
            monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
            found = main([str(item) for item in arguments])
            shown = capsys.readouterr()
            assert found == status, shown.out + shown.err
            return shown.out if status != 2 else shown.err

    return Hub().as_user("statistician")


def first_id(text):
    found = _ID.search(text)
    assert found is not None, text
    return found.group()


def test_from_a_table_to_a_proven_run(hub, tmp_path):
    features = first_id(
        hub("features", "import", "table.csv", "--trial", "DEMO", "--metadata", "metadata.json")
    )
    assert features in hub("features", "list", "--trial", "DEMO")
    hub("features", "download", features, "-o", "again.csv")
    assert (tmp_path / "again.csv").read_text().startswith("subject,visit,")

    plan = first_id(hub("plan", "draft", "plan.json", "--trial", "DEMO"))
    assert "The gate passes." in hub("plan", "check", plan, "--feature-set", features)
    version = first_id(hub("algorithm", "list", "--algorithm", "combat").splitlines()[-1])
    assert "Your role does not allow" in hub("algorithm", "lock", version, *MEANING, status=2)
    _lock(hub, version, plan)

    hub.as_user("statistician")
    shown = hub("run", "--plan", plan, "--feature-set", features, "--output", "harmonized.csv")
    run = first_id(shown)
    assert "primary, succeeded" in shown
    assert (tmp_path / "harmonized.csv").read_text().startswith("subject,visit,batch,harmonization_run")
    assert "bitwise equal" in hub("run", "rerun", run)
    _read(hub, run, tmp_path)

    (tmp_path / "late.csv").write_text("\n".join([*as_csv().splitlines()[:4], ""]))
    late = first_id(
        hub(
            "features",
            "import",
            "late.csv",
            "--trial",
            "DEMO",
            "--metadata",
            "metadata.json",
            "--name",
            "Late",
        )
    )
    assert "primary, succeeded" in hub(
        "run", "apply", run, "--feature-set", late, "-o", "late-harmonized.csv"
    )
    whole = (tmp_path / "harmonized.csv").read_text().splitlines()
    for line in (tmp_path / "late-harmonized.csv").read_text().splitlines()[1:]:
        subject, visit, *_ = line.split(",")
        same = next(row for row in whole if row.startswith(f"{subject},{visit},"))
        assert line.split(",")[5:] == same.split(",")[5:]
    assert "No scan is of batch None; the scans are of" in hub(
        "run",
        "add-batch",
        run,
        "--feature-set",
        late,
        "--batch",
        "None",
        "--reason",
        "A site joined",
        status=1,
    )


def _lock(hub, version, plan):
    hub.as_user("admin")
    verified = hub("algorithm", "verify", version)
    assert "agrees" in verified
    assert "reference set" in verified
    assert "second, different administrator" in hub("algorithm", "lock", version, *MEANING)
    assert "second, different administrator" in hub("algorithm", "lock", version, *MEANING, status=2)
    assert AlgorithmVersion.objects.get(pk=version).state == "verified"
    hub.as_user("second-admin")
    assert "locked by two signatures" in hub("algorithm", "lock", version, *MEANING)
    assert "2/2" in hub("algorithm", "list", "--algorithm", "combat")
    assert "locked" in hub("plan", "lock", plan, *MEANING)


def _read(hub, run, folder):
    hub.as_user("auditor")
    hub("run", "data", run, "-o", "data.csv")
    assert (folder / "data.csv").read_bytes() == (folder / "harmonized.csv").read_bytes()
    hub("run", "model", run, "-o", "model.zip")
    with zipfile.ZipFile(folder / "model.zip") as archive:
        assert json.loads(archive.read("run.json"))["kind"] == "primary"
    hub("run", "report", run, "--as", "json", "-o", "report.json")
    assert json.loads((folder / "report.json").read_text())["run"] == run
    assert json.loads(hub("run", "diagnostics", run))["kind"] == "primary"
    assert run in hub("run", "list", "--trial", "DEMO")
    hub("run", "export", run, "-o", "export.zip")
    with zipfile.ZipFile(folder / "export.zip") as archive:
        archive.extractall(folder / "export")
    command = [sys.executable, "-I", "rerun.py", "--verify-only"]
    done = subprocess.run(command, cwd=folder / "export", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"PRIMARY harmonization run {run}")
    hub.as_user("statistician")


def test_candidates_are_compared_and_a_run_is_cancelled(hub, tmp_path):
    features = first_id(
        hub("features", "import", "table.csv", "--trial", "DEMO", "--metadata", "metadata.json")
    )
    plan = first_id(hub("plan", "draft", "plan.json", "--trial", "DEMO"))
    document = plan_document()
    document["parameters"] = {**document["parameters"], "eb": False}
    (tmp_path / "other.json").write_text(json.dumps(document))

    shown = hub(
        "plan", "compare", "--feature-set", features, "--plan", plan, "--document", "other.json", "--csv"
    )

    assert shown.splitlines()[0].startswith("EXPLORATORY,evidence,A,B")
    assert "held out" in shown
    assert HarmonizationPlan.objects.get().state == "draft"
    assert set(HarmonizationRun.objects.values_list("kind", flat=True)) == {"exploratory"}
    run = first_id(hub("run", "list", "--trial", "DEMO").splitlines()[-1])
    assert "nothing to cancel" in hub("run", "cancel", run, status=2)
    assert "succeeded" in hub("run", "watch", run)
    assert "only the locked version is amended" in hub("plan", "amend", plan, "--reason", "Why not", status=2)


def test_a_refused_run_has_exit_status_1_and_names_the_columns(hub, tmp_path):
    features = first_id(
        hub("features", "import", "table.csv", "--trial", "DEMO", "--metadata", "metadata.json")
    )
    document = plan_document()
    document["parameters"] = {
        **document["parameters"],
        "covariates": [{"name": "site", "kind": "categorical"}],
    }
    (tmp_path / "confounded.json").write_text(json.dumps(document))

    shown = hub("run", "start", "--document", "confounded.json", "--feature-set", features, status=1)

    assert "refused" in shown
    assert "site" in shown


def test_a_file_that_is_no_json_is_named(hub, tmp_path):
    (tmp_path / "plan.json").write_text("{")

    assert "plan.json is no readable JSON" in hub("plan", "draft", "plan.json", "--trial", "DEMO", status=2)

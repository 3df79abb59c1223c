"""The export of a run repeats it offline with one command; whatever is changed in it is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from harmonization_cases import job_context, locked_combat, plan_document

from harmonization_app.models import FeatureSet, HarmonizationRun
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import model_application, run_execution, run_export
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from hub.core.audit.models import AuditEvent
from hub.core.errors import Conflict, NotFound
from hub.core.models import Job
from hub.core.signatures.keys import public_key
from hub.core.storage import blobs
from hub.demo.features import as_csv, metadata
from tests.factories.sites_app import PASSWORD

# Nothing of a hub can be imported: what the package needs of it, it holds itself.
_ISOLATED = """
import runpy, sys
for name in ("django", "rest_framework", "celery", "psycopg2", "redis", "pydicom"):
    sys.modules[name] = None
sys.argv = ["rerun.py", *sys.argv[1:]]
runpy.run_path("rerun.py", run_name="__main__")
"""


def done(row: HarmonizationRun) -> HarmonizationRun:
    run_execution.execute_run(job_context(), run_id=str(row.pk))
    Job.objects.filter(pk=row.job_id).update(state="succeeded")
    row.refresh_from_db()
    assert (row.state, row.reason) == ("succeeded", "")
    return row


def explore(people: Any, features: FeatureSet, **changes: Any) -> HarmonizationRun:
    return done(
        run_services.start_run(
            actor=people.statistician, feature_set=features, specification=plan_document(**changes)
        )
    )


def unpacked(actor: Any, run: HarmonizationRun, folder: Path) -> Path:
    name, pieces, size = run_export.export_run(actor=actor, run=run)
    path = folder / name
    path.write_bytes(b"".join(pieces))
    assert path.stat().st_size == size
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "package")
    return folder / "package"


def repeat(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS")}
    return subprocess.run(
        [sys.executable, "-I", "-c", _ISOLATED, *arguments],
        cwd=package,
        env={"PATH": os.environ["PATH"], **kept},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def primary(trial, people, features):
    locked_combat(people.admin)
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())
    plan = plan_services.lock_plan(actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve")
    return done(run_services.start_run(actor=people.statistician, feature_set=features, plan=plan))


def test_a_primary_run_is_repeated_offline_bit_for_bit(primary, people, tmp_path):
    package = unpacked(people.auditor, primary, tmp_path)

    shown = repeat(package)

    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0] == lines[-1] == f"PRIMARY harmonization run {primary.pk} of trial DEMO"
    assert any(line.startswith("result: BITWISE EQUAL") for line in lines)
    assert "environment: the same as that of the run" in lines
    assert f"signed with the public key {public_key()}" in lines
    assert "second, plain implementation: largest difference" in shown.stdout
    names = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {
        "plan.json",
        "plan_record.json",
        "input/table.csv",
        "computation/computation.json",
        "result/data.csv",
        "result/model.zip",
        "result/diagnostics.json",
        "result/report.json",
        "result/report.html",
        "environment.json",
        "requirements.txt",
        "signatures.json",
    } <= names
    signed = json.loads((package / "signatures.json").read_text())
    assert [item["of"] for item in signed] == ["algorithm version", "algorithm version", "plan"]
    assert AuditEvent.objects.filter(action="harmonization_run.exported").count() == 1
    assert list(blobs.root(run_export.AREA).iterdir()) == []


def test_an_exploratory_run_says_so_everywhere(people, features, tmp_path):
    run = explore(people, features)

    package = unpacked(people.auditor, run, tmp_path)
    shown = repeat(package)

    assert (tmp_path / f"harmonization-exploratory-{run.pk}.zip").exists()
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].startswith(f"EXPLORATORY harmonization run {run.pk}")
    assert "no plan" in shown.stdout.splitlines()[-1]
    assert (package / "README.txt").read_text().startswith("EXPLORATORY")
    assert json.loads((package / "manifest.json").read_text())["run"]["kind"] == "exploratory"
    assert "PRIMARY" not in shown.stdout


def test_every_file_that_was_tampered_with_is_named(people, features, tmp_path):
    package = unpacked(people.auditor, explore(people, features), tmp_path)
    names = sorted(item["path"] for item in json.loads((package / "manifest.json").read_text())["files"])
    kept = {name: (package / name).read_bytes() for name in names}
    assert len(names) > 60

    for name in names:
        if name == "rerun.py":
            continue
        (package / name).write_bytes(kept[name] + b" ")
    shown = repeat(package, "--verify-only")

    assert shown.returncode == 1
    named = {line.split(": ")[1] for line in shown.stderr.splitlines()}
    assert named == set(names) - {"rerun.py"}


@pytest.mark.parametrize("kind", ["one bit", "missing", "added", "bytecode", "link"])
def test_each_way_of_tampering_is_named(people, features, tmp_path, kind):
    package = unpacked(people.auditor, explore(people, features), tmp_path)
    path = package / "computation" / "values.npy"
    if kind == "one bit":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    elif kind == "missing":
        path.unlink()
    elif kind == "added":
        path = package / "source" / "numpy.py"
        path.write_text("")
    elif kind == "bytecode":
        path = package / "source" / "hub" / "__pycache__" / "canonical.cpython-311.pyc"
        path.parent.mkdir()
        path.write_bytes(b"")
    else:
        target = package.parent / "elsewhere.npy"
        path.rename(target)
        path.symlink_to(target)

    shown = repeat(package)

    assert shown.returncode == 1
    assert path.relative_to(package).as_posix() in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_a_manifest_that_was_made_to_fit_is_not_the_hub_s(people, features, tmp_path):
    package = unpacked(people.auditor, explore(people, features), tmp_path)
    path = package / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["run"]["kind"] = "primary"
    path.write_text(json.dumps(manifest))

    shown = repeat(package)

    assert (shown.returncode, shown.stderr) == (
        1,
        "DIFFERS: manifest.json: the hub's signature is not valid\n",
    )
    assert repeat(unpacked_again(tmp_path), "--public-key", "0" * 64, "--verify-only").returncode == 1
    assert repeat(unpacked_again(tmp_path), "--public-key", public_key(), "--verify-only").returncode == 0


def unpacked_again(folder: Path) -> Path:
    target = folder / "again"
    with zipfile.ZipFile(next(folder.glob("*.zip"))) as archive:
        archive.extractall(target)
    return target


def test_another_cpu_kernel_is_told_and_its_difference_in_sd(people, features, tmp_path, monkeypatch):
    package = unpacked(people.auditor, explore(people, features), tmp_path)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")

    shown = repeat(package)

    assert shown.returncode == 0, shown.stderr
    assert "environment differs: blas" in shown.stdout
    assert "BITWISE EQUAL" in shown.stdout or "EQUAL but not bit for bit: largest difference" in shown.stdout


def test_a_run_with_an_added_batch_is_repeated_offline(trial, people, features, tmp_path):
    last = sorted({row["batch"] for row in features.rows})[-1]
    header, *lines = as_csv().splitlines()
    first = feature_services.import_feature_set(
        actor=people.statistician,
        trial=trial,
        name="First sites",
        content="\n".join([header, *(line for line in lines if f",{last}," not in line), ""]).encode(),
        metadata=metadata(),
    )
    added = done(
        model_application.add_batch(
            actor=people.statistician,
            run=explore(people, first),
            feature_set=features,
            batch=last,
            reason="A site joined",
        )
    )

    shown = repeat(unpacked(people.auditor, added, tmp_path))

    assert shown.returncode == 0, shown.stderr
    assert "BITWISE EQUAL" in shown.stdout


def test_what_cannot_be_exported_is_refused(people, features):
    run = run_services.start_run(
        actor=people.statistician, feature_set=features, specification=plan_document()
    )

    with pytest.raises(Conflict, match="only a succeeded run"):
        run_export.export_run(actor=people.auditor, run=run)
    with pytest.raises(NotFound):
        run_export.export_run(actor=people.coordinator, run=done(run))


def test_requirements_are_exact_and_complete():
    lines = run_export.requirements()

    names = {line.split("==")[0].lower() for line in lines}
    assert {"numpy", "scipy", "pandas", "threadpoolctl", "jsonschema"} <= names
    assert "django" not in names
    assert all(line.count("==") == 1 for line in lines)

"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[2]
APPS = ("hub", "sites_app", "qc_app", "harmonization_app")


def test_imports_run_one_way_and_the_science_is_pure():
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([str(linter)], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-3000:]


def test_background_work_is_declared_only_through_jobs():
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            if path.name == "celery_tasks.py" and path.parent.name == "jobs":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                called = node.func if isinstance(node, ast.Call) else None
                assert getattr(called, "attr", "") not in {"delay", "apply_async"}, path
                assert getattr(node, "id", "") != "shared_task", path


@pytest.mark.django_db
def test_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_no_template_has_inline_script_or_style():
    for path in (ROOT / "templates").rglob("*.html"):
        if path.name.startswith("report"):
            continue
        text = path.read_text()
        assert "<script>" not in text and " onclick=" not in text, path
        assert ' style="' not in text, path


def test_the_openapi_document_is_valid(tmp_path):
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yml"))

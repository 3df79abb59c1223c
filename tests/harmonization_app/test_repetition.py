"""Runs are repeated in a process of their own; frozen models are applied and extended."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harmonization_cases import job_context, locked_combat, plan_document

from harmonization_app.models import FeatureSet, HarmonizationRun
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import (
    fresh_process,
    run_checks,
    run_execution,
    stored_input,
)
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from hub.core.errors import NotFound
from hub.core.models import Job
from hub.core.storage import blobs
from hub.demo.features import as_csv, metadata
from tests.factories.sites_app import PASSWORD


def done(row: HarmonizationRun) -> HarmonizationRun:
    run_execution.execute_run(job_context(), run_id=str(row.pk))
    Job.objects.filter(pk=row.job_id).update(state="succeeded")
    row.refresh_from_db()
    return row


def run_now(people: Any, features: FeatureSet, **what: Any) -> HarmonizationRun:
    return done(run_services.start_run(actor=people.statistician, feature_set=features, **what))


def locked_plan(trial: Any, people: Any) -> Any:
    locked_combat(people.admin)
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())
    return plan_services.lock_plan(actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve")


def table_of(trial: Any, people: Any, name: str, lines: list[str]) -> FeatureSet:
    """Import lines of the demonstration's table as a feature set of their own."""
    return feature_services.import_feature_set(
        actor=people.statistician,
        trial=trial,
        name=name,
        content="\n".join([as_csv().splitlines()[0], *lines, ""]).encode(),
        metadata=metadata(),
    )


def test_a_rerun_proves_equality(trial, people, features):
    run = run_now(people, features, specification=plan_document())

    again = run_services.rerun(actor=people.statistician, run=run)
    run_execution.execute_run(job_context(), run_id=str(again.pk))

    again.refresh_from_db()
    equality = again.summary["equality"]
    assert (equality["of"], equality["bitwise"], equality["iterations_equal"]) == (str(run.pk), True, True)
    assert equality["process"] != equality["worker"] == os.getpid()
    assert equality["environment_equal"] is True
    assert again.data_digest != run.data_digest
    assert again.input_digest == run.input_digest


def test_a_rerun_of_a_damaged_table_is_refused(trial, people, features):
    run = run_now(people, features, specification=plan_document())
    path = blobs.root("blobs") / features.data_digest[:2] / features.data_digest
    content = bytearray(path.read_bytes())
    place = content.index(b"2.", len(content) // 2)
    content[place] = ord("3")
    path.write_bytes(bytes(content))

    again = run_services.rerun(actor=people.statistician, run=run)
    with pytest.raises(NotFound, match="damaged"):
        run_execution.execute_run(job_context(), run_id=str(again.pk))


def test_a_rerun_of_another_input_is_refused(trial, people, features, monkeypatch):
    run = run_now(people, features, specification=plan_document())
    prepare = stored_input.prepare

    def otherwise(parsed, feature_set, former=None):
        given = prepare(parsed, feature_set, former)
        values = given.dataset.values.copy()
        values[0, 0] = np.nextafter(values[0, 0], np.inf)
        return replace(given, dataset=given.dataset.with_values(values))

    monkeypatch.setattr(stored_input, "prepare", otherwise)
    again = run_services.rerun(actor=people.statistician, run=run)
    with pytest.raises(run_checks.StoredInputDiffers, match="another input"):
        run_execution.execute_run(job_context(), run_id=str(again.pk))


def test_a_process_that_fails_says_why(trial, people, features, monkeypatch):
    run = run_now(people, features, specification=plan_document())
    again = run_services.rerun(actor=people.statistician, run=run)
    monkeypatch.setattr(fresh_process, "process_environment", lambda given: {"PYTHONHOME": "/nowhere"})

    with pytest.raises(fresh_process.ComputationFailed, match="status 1"):
        run_execution.execute_run(job_context(), run_id=str(again.pk))

    assert list(blobs.root(fresh_process.AREA).iterdir()) == []



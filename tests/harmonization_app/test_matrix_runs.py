"""A run on measurements that came as a matrix: by blocks, equal to the run on the same table as CSV, and exported."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from harmonization_cases import job_context, plan_document
from rest_framework.test import APIClient

from harmonization_app.models import FeatureSet, HarmonizationRun, RunState
from harmonization_app.services import feature_matrix as matrix_services
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_blocks, run_execution
from harmonization_app.services.harmonized_table import harmonized_table, is_matrix
from hub.core.storage.blobs import root
from hub.demo.features import metadata

pytestmark = pytest.mark.django_db


@pytest.fixture
def matrix(trial, people, features, tmp_path) -> FeatureSet:
    """The demonstration's table as a matrix."""
    table = feature_services.load_table(features)
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["subject", "visit", *table.metadata])
    for index, (subject, visit) in enumerate(zip(table.subjects, table.visits, strict=True)):
        writer.writerow([subject, visit, *(column[index] for column in table.metadata.values())])
    np.save(tmp_path / "values.npy", table.values)
    columns = [{"name": name, "unit": unit} for name, unit in zip(table.features, table.units, strict=True)]
    return matrix_services.import_matrix(
        actor=people.statistician,
        trial=trial,
        name="Matrix",
        labels=lines.getvalue().encode(),
        matrix=tmp_path / "values.npy",
        metadata={**metadata(), "columns": columns},
    )


def run_now(people, features, **changes) -> HarmonizationRun:
    row = run_services.start_run(
        actor=people.statistician, feature_set=features, specification=plan_document(**changes)
    )
    return done(row)


def done(row: HarmonizationRun) -> HarmonizationRun:
    run_execution.execute_run(job_context(), run_id=str(row.pk))
    row.refresh_from_db()
    return row


@pytest.fixture
def shared(settings, monkeypatch):
    """Every ComBat run goes by blocks; which runs did."""
    settings.HUB_RUN_BLOCK_CELLS = 1
    went = []
    original = run_blocks.compute_by_blocks

    def noted(context, run, computation):
        went.append(str(run.pk))
        return original(context, run, computation)

    monkeypatch.setattr(run_execution, "compute_by_blocks", noted)
    return went


def test_a_run_by_blocks_equals_the_run_on_the_csv(people, features, matrix, shared, settings):
    by_blocks = run_now(people, matrix)
    settings.HUB_RUN_BLOCK_CELLS = 10**9
    in_memory = run_now(people, features)

    assert (by_blocks.state, in_memory.state) == (RunState.SUCCEEDED, RunState.SUCCEEDED), by_blocks.reason
    assert shared == [str(by_blocks.pk)]
    assert by_blocks.summary["values_digest"] == in_memory.summary["values_digest"]
    assert by_blocks.summary["cross_check"]["passed"] is True
    assert is_matrix(by_blocks) and not is_matrix(in_memory)
    np.testing.assert_array_equal(harmonized_table(by_blocks).values, harmonized_table(in_memory).values)
    assert list(root("spool").iterdir()) == []


def test_its_data_are_downloaded_as_the_same_csv(people, features, matrix, shared, settings):
    by_blocks = run_now(people, matrix)
    settings.HUB_RUN_BLOCK_CELLS = 10**9
    in_memory = run_now(people, features)
    client = APIClient()
    client.force_authenticate(people.statistician)

    tables = [
        list(
            csv.DictReader(
                io.StringIO(b"".join(client.get(f"/api/v1/harmonization-runs/{run.pk}/data/")).decode())
            )
        )
        for run in (by_blocks, in_memory)
    ]

    for row in (row for table in tables for row in table):
        del row["harmonization_run"]
    assert tables[0] == tables[1] and len(tables[0]) == matrix.row_count


def test_a_repetition_in_a_fresh_process_has_the_same_bits(people, matrix, shared):
    run = run_now(people, matrix)

    again = done(run_services.rerun(actor=people.statistician, run=run))

    assert again.state == RunState.SUCCEEDED, again.reason
    assert again.summary["equality"]["bitwise"] is True
    assert shared == [str(run.pk)]


def test_rows_are_left_out_of_a_matrix_as_of_a_csv(people, features, matrix, shared):
    row = matrix.rows[3]["row"]
    leave_out = [{"row": row, "reason": "moved in the scanner"}]

    run = run_now(people, matrix, exclude_rows=leave_out)

    assert run.state == RunState.SUCCEEDED, run.reason
    assert run.summary["rows"] == matrix.row_count - 1
    whole = run_now(people, features, exclude_rows=leave_out)
    assert run.summary["values_digest"] == whole.summary["values_digest"]


def test_the_gate_refuses_a_run_by_blocks(people, matrix, shared):
    parameters = {**plan_document()["parameters"], "reference_batch": "NOWHERE"}

    run = run_now(people, matrix, parameters=parameters)

    assert run.state == RunState.REFUSED and "NOWHERE" in run.reason
    assert run.data_digest == ""

"""What a run is said to need of memory holds what it takes, for every method, and is not wildly above it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from harmonization_cases import job_context, plan_document

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification import plain_blocks, pooled
from harmonization_app.algorithms.verification.methods import gmm_combat as plain_mixture
from harmonization_app.diagnostics.feature_table import CsvLayout, csv_line, number_cells, read_feature_csv
from harmonization_app.models import FeatureSet
from harmonization_app.offline.computation import Computation, compute
from harmonization_app.plan_document import parse_plan
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution, run_memory
from harmonization_app.services.feature_matrix import import_matrix
from harmonization_app.services.run_checks import check_again
from hub.demo.features import KEY_COLUMNS, feature_table, metadata

SCANS, FEATURES, BATCHES = 160, 1_200, 4
# What a method takes whatever the size, far below run_memory.BASE_BYTES: chunks, and the gate's sample of features.
WORKING_BYTES = 6 << 20
# Interpreter and libraries, which are not traced.
INTERPRETER_BYTES = 200 << 20
AGE = {"name": "age", "kind": "continuous"}
SEX = {"name": "sex", "kind": "categorical", "levels": ["F", "M"]}
CONTROLS = [f"f{index:06d}" for index in range(10)]
PLANS: dict[str, dict[str, Any]] = {
    "combat": {},
    "neurocombat": {},
    "covbat": {},
    "combat-spline": {"options": {"splines": {"age": 4}}},
    "combat-gam": {"options": {"smooths": {"age": {"basis_size": 6}}}},
    "combat-robust": {},
    "dcombat": {},
    "longcombat": {"subject": "subject", "time": "age"},
    "nested": {"batch_variables": ["sex", "group"], "covariates": [AGE]},
    "pairwise": {"reference_batch": "B0"},
    "travelling-subject": {"eb": False, "mean_only": True, "subject": "subject", "covariates": []},
    "control-features": {"eb": False, "options": {"controls": CONTROLS}},
    "global-scaling": {"eb": False, "covariates": []},
    "z-score": {"eb": False, "covariates": []},
    "functional-normalization": {"eb": False},
    "gmm-combat": {"options": {"grouping": "batch"}},
    "nested-search": {
        "batch_variables": ["sex", "group"],
        "covariates": [AGE],
        "options": {"search": "stepwise"},
    },
    "sva": {"eb": False, "options": {"permutations": 20, "iterations": 2}},
}


def table(scans: int = SCANS, features: int = FEATURES) -> Dataset:
    """Two visits of each subject, every third subject at two scanners; every other feature is of two modes."""
    random = np.random.default_rng(8)
    subject, visit = np.arange(scans) // 2, np.arange(scans) % 2
    batch = (subject + visit * (subject % 3 == 0)) % BATCHES
    values = np.linspace(2, 5, features) + random.normal(0, 0.1, (scans // 2, features))[subject]
    values += random.normal(0, 0.2, (scans, features)) + random.normal(0, 0.1, (BATCHES, features))[batch]
    covariates = {
        "age": tuple((random.uniform(50, 80, scans // 2)[subject] + visit).tolist()),
        "sex": tuple("FM"[index] for index in random.integers(0, 2, scans // 2)[subject]),
        "group": tuple("AB"[index] for index in random.integers(0, 2, scans)),
        "subject": tuple(f"P{who:04d}" for who in subject),
    }
    values[:, ::2] += (random.random(scans) < 0.4)[:, None]
    return Dataset(
        values,
        tuple(f"f{index:06d}" for index in range(features)),
        tuple(f"P{who:04d}|V{when}" for who, when in zip(subject, visit, strict=True)),
        tuple(f"B{index}" for index in batch),
        covariates,
    )


def wide_matrix(trial, people, folder, features: int) -> FeatureSet:
    """The demonstration's rows with so many made features."""
    demonstration = feature_table()
    rows = [csv_line(KEY_COLUMNS), *(csv_line(row) for row in demonstration.rows)]
    random = np.random.default_rng(4)
    shape = (len(demonstration.rows), features)
    values = random.normal(2.5, 0.2, shape) + random.normal(0, 0.1, (6, features))[demonstration.batch_of_row]
    np.save(folder / "values.npy", values)
    return import_matrix(
        actor=people.statistician,
        trial=trial,
        name="Wide",
        labels=b"".join(rows),
        matrix=folder / "values.npy",
        metadata={"unit": "mm", "covariates": metadata()["covariates"], "batch": "batch"},
    )


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """The most bytes that were allocated since, by NumPy and Python."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def specification(method: str) -> Specification:
    return Specification.from_json({"covariates": [AGE, SEX], **PLANS[method]})


@pytest.fixture
def as_large(monkeypatch) -> None:
    """The second computation goes by blocks, as that of a large table does; steps that make no copies are few."""
    monkeypatch.setattr(pooled, "FEATURE_BY_FEATURE_CELLS", 0)
    monkeypatch.setattr(plain_blocks, "BLOCK_CELLS", 1 << 14)
    monkeypatch.setattr(plain_mixture, "STEPS", 3)


@pytest.mark.parametrize("method", sorted(run_memory.METHOD_TABLES))
def test_a_method_and_its_second_computation_take_no_more_copies_than_stated(method, as_large) -> None:
    small, dataset, plan = table(features=40), table(), specification(method)
    check_again(method, small, compute(Computation("fit", method, plan, small)))  # imports what it needs

    with traced() as peak:
        check_again(method, dataset, compute(Computation("fit", method, plan, dataset)))
        taken = peak()

    stated = run_memory.method_bytes(method, SCANS, FEATURES)
    assert taken <= stated + WORKING_BYTES
    assert 3 * taken >= stated


def test_reading_a_csv_takes_no_more_than_stated() -> None:
    dataset = table(features=2_000)
    lines = [csv_line(["subject", *dataset.features])]
    lines += [
        csv_line([row, *number_cells(own)]) for row, own in zip(dataset.rows, dataset.values, strict=True)
    ]
    content = b"".join(lines)

    with traced() as peak:
        read = read_feature_csv(content, CsvLayout(units_required=False))
        taken = peak() + len(content)

    assert read.values.shape == dataset.values.shape
    assert taken <= run_memory.READING_CSV * dataset.values.nbytes <= 2 * taken


@pytest.mark.django_db
def test_a_whole_run_by_blocks_takes_no_more_than_stated(trial, people, tmp_path, settings) -> None:
    settings.HUB_RUN_BLOCK_CELLS = 1
    matrix = wide_matrix(trial, people, tmp_path, features=20_000)
    sensitivity = [{"kind": "unharmonized"}]
    parameters = {"covariates": plan_document()["parameters"]["covariates"]}
    document = plan_document(parameters=parameters, sensitivity=sensitivity)
    row = run_services.start_run(actor=people.statistician, feature_set=matrix, specification=document)
    context = job_context()

    with traced() as peak:
        run_execution.execute_run(context, run_id=str(row.pk))
        taken = peak() + INTERPRETER_BYTES

    row.refresh_from_db()
    assert row.state == "succeeded", row.reason
    assert taken <= row.estimate["bytes"] <= 2.5 * taken
    assert "by blocks of" in row.estimate["how"]


@pytest.mark.django_db
def test_what_is_too_large_is_told_what_would_need_less(trial, people, features, tmp_path, settings) -> None:
    settings.HUB_RUN_MEMORY_LIMIT_MB = 100
    settings.HUB_RUN_BLOCK_CELLS = 1
    matrix = wide_matrix(trial, people, tmp_path, features=50)
    parameters = {"covariates": []}
    by_blocks = parse_plan(plan_document(parameters=parameters, sensitivity=[]))
    in_memory = parse_plan(plan_document(parameters=parameters, sensitivity=[], algorithm="covbat"))

    told = [
        run_memory.estimate_memory(plan, table)
        for plan, table in ((by_blocks, features), (in_memory, matrix))
    ]
    shared = run_memory.estimate_memory(by_blocks, matrix)

    assert "import the table as a matrix" in told[0].sentence and "plan combat" not in told[0].sentence
    assert "plan combat without calibration" in told[1].sentence and "as a matrix" not in told[1].sentence
    assert "pool of features" in shared.sentence and "plan combat" not in shared.sentence


@pytest.mark.django_db
def test_what_is_computed_whole_states_the_whole_result_too(trial, people, tmp_path, settings) -> None:
    settings.HUB_RUN_BLOCK_CELLS = 1
    matrix = wide_matrix(trial, people, tmp_path, features=500)
    plan = parse_plan(plan_document(parameters={"covariates": []}, sensitivity=[]))

    once, again = (run_memory.estimate_memory(plan, matrix, whole=whole) for whole in (False, True))

    assert again.bytes - once.bytes == 8 * matrix.row_count * 500


@pytest.mark.django_db
def test_levels_of_all_batch_variables_are_stated(trial, people, tmp_path) -> None:
    matrix = wide_matrix(trial, people, tmp_path, features=500)
    levels = {name: len({row[name] for row in matrix.rows}) for name in ("site", "sex", "diagnosis")}

    few, many = (
        run_memory.estimate_memory(
            parse_plan(
                plan_document(
                    algorithm="nested",
                    parameters={"covariates": [AGE], "batch_variables": names},
                    sensitivity=[],
                )
            ),
            matrix,
        )
        for names in (["site"], ["site", "sex", "diagnosis"])
    )

    further = levels["sex"] + levels["diagnosis"]
    assert many.bytes - few.bytes == 8 * 500 * run_memory.ARRAYS_BY_BATCH * further

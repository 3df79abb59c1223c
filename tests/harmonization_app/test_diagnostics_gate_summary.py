"""One look at the values for gate, fit and correction: shared when it is of these values and this design only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms import kernel
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.design import build_design
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.table import Examined, examined
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics import gate_summary
from harmonization_app.diagnostics.gate import check

PLAN = Specification(covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical")))


@pytest.fixture
def dataset() -> Dataset:
    return make_input({"A": 30, "B": 25, "C": 40, "D": 22}, seed=3)


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """Count the passes over values that give statistics."""
    seen: list[int] = []
    read = kernel.read_table

    def counted(values, grouping, covariates):
        seen.append(values.size)
        return read(values, grouping, covariates)

    monkeypatch.setattr(kernel, "read_table", counted)
    monkeypatch.setattr(gate_summary, "read_table", counted)
    return seen


def test_harmonizing_reads_the_values_once(dataset, reads) -> None:
    Combat().harmonize(dataset, PLAN)

    assert reads == [dataset.values.size]


def test_sharing_changes_no_bit(dataset) -> None:
    apart = Combat().apply(Combat().fit(dataset, PLAN), dataset)

    together = Combat().harmonize(dataset, PLAN)

    assert together.values.tobytes() == apart.values.tobytes()
    assert together.findings == apart.findings


def test_gate_and_harmonization_of_one_examined_dataset_share_the_look(dataset, reads) -> None:
    shared = examined(dataset)

    findings = check(shared, PLAN)
    Combat().harmonize(shared, PLAN)

    assert reads == [dataset.values.size]
    assert findings == check(dataset, PLAN)


def test_statistics_are_handed_over_once_and_read_anew_after(dataset, reads) -> None:
    shared = examined(dataset)

    first = Combat().harmonize(shared, PLAN)
    second = Combat().harmonize(shared, PLAN)

    assert len(reads) == 2
    assert first.values.tobytes() == second.values.tobytes()


@pytest.mark.parametrize("change", ["batches", "covariates", "values", "plan"])
def test_what_was_read_is_not_taken_for_another_table(dataset, change) -> None:
    shared, plan = examined(dataset), PLAN
    check(shared, PLAN)
    if change == "batches":
        other: Dataset = replace(shared, batches=tuple(reversed(shared.batches)))
    elif change == "covariates":
        ages = tuple(float(age) ** 2 for age in shared.covariates["age"])
        other = replace(shared, covariates={**shared.covariates, "age": ages})
    elif change == "values":
        other = replace(shared, values=shared.values**2)
    else:
        other, plan = shared, replace(PLAN, covariates=PLAN.covariates[:1])
    plain = Dataset(other.values, other.features, other.rows, other.batches, other.covariates)

    assert isinstance(other, Examined)
    assert (
        Combat().harmonize(other, plan).values.tobytes() == Combat().harmonize(plain, plan).values.tobytes()
    )
    assert check(other, plan) == check(plain, plan)


def test_cells_at_fault_are_named_again_when_a_model_is_applied(dataset) -> None:
    model = Combat().fit(dataset, PLAN)
    values = dataset.values.copy()
    values[4, 2] = np.inf

    with pytest.raises(HarmonizationRefused, match="S004.*region_02"):
        Combat().apply(model, examined(dataset.with_values(values)))


def test_cells_found_by_row_sums_are_those_found_by_batch(dataset) -> None:
    values = dataset.values.copy()
    values[[1, 1, 7], [2, 5, 2]] = np.nan
    values[3, 9] = np.inf
    values[8, 4], values[8, 6] = np.inf, -np.inf
    values[9] = 1.7e308
    damaged = dataset.with_values(values)
    design = build_design(damaged, PLAN)

    by_batch = gate_summary.summarize(damaged, design).cells
    by_row = gate_summary.find_cells(damaged)

    assert by_row.missing == by_batch.missing == 3
    for name in ("missing_rows", "missing_columns", "infinite_rows", "infinite_columns"):
        assert np.array_equal(getattr(by_row, name), getattr(by_batch, name)), name
    assert np.flatnonzero(by_row.infinite_rows).tolist() == [3, 8]
    assert by_row.infinite_columns.tolist() == [4, 6, 9]

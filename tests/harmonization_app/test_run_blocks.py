"""A run shared among workers: the same bits whoever takes the blocks, nothing lost with a worker, nothing left over."""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
from django.db import connection
from harmonization_cases import job_context

from harmonization_app.algorithms import block_memory, least_squares
from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.offline.computation import Computation
from harmonization_app.services import run_blocks
from hub.core.errors import StorageFull
from hub.core.jobs.heartbeat import JobContext
from hub.core.jobs.services import JobCancelled
from hub.core.models import Job
from hub.core.storage.blobs import root

SCANS, FEATURES, SITES = 80, 1500, 4
SPECIFICATION = Specification(covariates=(Covariate("age", "continuous"),))


def table(**changes) -> Dataset:
    random = np.random.default_rng(5)
    sites = random.permutation(np.arange(SCANS) % SITES)
    values = random.normal(2.5, 0.2, (SCANS, FEATURES)) + random.normal(0, 0.2, (SITES, FEATURES))[sites]
    values[7, 30] = np.nan
    columns = {
        "values": values,
        "features": tuple(f"f{index:04d}" for index in range(FEATURES)),
        "rows": tuple(f"S{index:03d}|V1" for index in range(SCANS)),
        "batches": tuple(f"site{index}" for index in sites),
        "covariates": {"age": tuple(random.uniform(20, 80, SCANS).tolist())},
    }
    return Dataset(**{**columns, **changes})


def computation(dataset: Dataset, **changes) -> Computation:
    given = {"mode": "fit", "algorithm": "combat", "specification": SPECIFICATION, "dataset": dataset}
    return Computation(**{**given, **changes})


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of the least width, so that the table has several."""
    monkeypatch.setattr(block_memory, "PREFERRED_BLOCK_BYTES", 1)
    monkeypatch.setattr(least_squares, "WIDEST_BLOCK", 256)


@pytest.fixture
def taken(monkeypatch):
    """Which thread took which block."""
    record: list[tuple[str, int, str]] = []
    for stage, name in ((run_blocks.STATISTICS, "_statistics"), (run_blocks.CORRECTION, "_correct")):
        original = getattr(run_blocks, name)

        def noted(shared, index, original=original, stage=stage):
            record.append((stage, index, threading.current_thread().name))
            original(shared, index)

        monkeypatch.setattr(run_blocks, name, noted)
    return record


def share(dataset: Dataset, run=None, context=None):
    return run_blocks.compute_by_blocks(
        context or job_context(), run or SimpleNamespace(pk=uuid4()), computation(dataset)
    )


@pytest.mark.django_db
def test_one_worker_alone_gets_the_bits_of_a_computation_in_memory(taken):
    dataset = table()
    chain = share(dataset)
    blocks = {index for _, index, _ in taken}
    assert len(blocks) > 3 and len(taken) == 2 * len(blocks)
    expected = Combat().harmonize(dataset, SPECIFICATION)
    np.testing.assert_array_equal(chain.main.values, expected.values)
    assert chain.main.iterations == expected.iterations
    assert list(root(run_blocks.AREA).glob("blocks-*")) == []


@pytest.mark.django_db
def test_other_workers_are_asked_to_help(settings):
    settings.HUB_RUN_HELPERS = 2
    run = SimpleNamespace(pk=uuid4())
    share(table(), run)
    asked = Job.objects.filter(kind=run_blocks.HELP_JOB)
    assert {job.arguments["stage"] for job in asked} == {"statistics", "correction"}
    assert asked.count() == 4 and {job.arguments["run_id"] for job in asked} == {str(run.pk)}


@pytest.mark.django_db
def test_a_helper_that_comes_too_late_ends_at_once():
    run_blocks.help_run(job_context(), run_id=str(uuid4()), stage="statistics", attempt=1)


@pytest.mark.django_db(transaction=True)
def test_two_workers_share_the_blocks_and_the_result_is_the_same(taken, monkeypatch):
    dataset, run = table(), SimpleNamespace(pk=uuid4())
    ended = threading.Event()
    # The leader waits for help within its first block, so that the helper is there while blocks are free.
    leading, arrived = threading.Event(), threading.Event()
    noted = run_blocks._statistics

    def patient(shared, index):
        if threading.current_thread().name == "helper":
            arrived.set()
        else:
            leading.set()
            arrived.wait(20)
        noted(shared, index)

    monkeypatch.setattr(run_blocks, "_statistics", patient)

    def help_out():
        leading.wait(20)
        try:
            while not ended.wait(0.01):
                for stage in (run_blocks.STATISTICS, run_blocks.CORRECTION):
                    run_blocks.help_run(job_context(), run_id=str(run.pk), stage=stage, attempt=1)
        finally:
            connection.close()

    helper = threading.Thread(target=help_out, name="helper")
    helper.start()
    try:
        chain = share(dataset, run)
    finally:
        ended.set()
        helper.join(30)
    who = {thread for stage, _, thread in taken if stage == run_blocks.STATISTICS}
    assert "helper" in who and len(who) == 2
    statistics = [index for stage, index, _ in taken if stage == run_blocks.STATISTICS]
    assert len(statistics) == len(set(statistics))
    np.testing.assert_array_equal(chain.main.values, Combat().harmonize(dataset, SPECIFICATION).values)


@pytest.mark.django_db(transaction=True)
def test_the_block_of_a_worker_that_dies_is_taken_over(taken):
    run = SimpleNamespace(pk=uuid4())
    claimed, let_go = threading.Event(), threading.Event()

    def die_with_a_claim():
        with run_blocks._claimed(f"blocks-{run.pk}-1", "statistics", 0) as mine:
            assert mine
            claimed.set()
            let_go.wait(20)
            connection.close()  # as the server does when the process is gone

    victim = threading.Thread(target=die_with_a_claim, name="victim")
    victim.start()
    claimed.wait(20)
    threading.Timer(0.5, let_go.set).start()
    chain = share(table(), run)
    victim.join(20)
    assert chain.main.values.shape == (SCANS, FEATURES)
    assert sorted(index for stage, index, _ in taken if stage == "statistics")[0] == 0
    assert [index for stage, index, _ in taken if stage == "statistics"][-1] == 0


@pytest.mark.django_db
def test_what_a_helper_of_a_dead_leader_says_is_not_heard(monkeypatch):
    run, dataset = SimpleNamespace(pk=uuid4()), table()
    noted = run_blocks._statistics

    def while_another_helps(shared, index):
        former = replace(shared, folder=run_blocks._folder(str(run.pk), 1), attempt=1)
        with suppress(FileNotFoundError):
            run_blocks._appear(former.done(run_blocks.CORRECTION, 0), b"")
        noted(shared, index)

    monkeypatch.setattr(run_blocks, "_statistics", while_another_helps)

    chain = share(dataset, run, JobContext(job_id=job_context().job_id, attempt=2))

    np.testing.assert_array_equal(chain.main.values, Combat().harmonize(dataset, SPECIFICATION).values)
    assert list(root(run_blocks.AREA).glob("blocks-*")) == []


@pytest.mark.django_db
def test_cancelling_stops_at_a_block_and_leaves_nothing():
    context = job_context()
    Job.objects.filter(pk=context.job_id).update(cancel_requested=True)
    with pytest.raises(JobCancelled):
        share(table(), context=context)
    assert list(root(run_blocks.AREA).glob("blocks-*")) == []


@pytest.mark.django_db
def test_the_gate_refuses_across_blocks():
    dataset = table()
    dataset.values[3, 1400] = np.inf
    with pytest.raises(HarmonizationRefused, match="Infinite values in row.s. S003"):
        share(dataset)
    assert list(root(run_blocks.AREA).glob("blocks-*")) == []


@pytest.mark.django_db
@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, StorageFull), (errno.EACCES, OSError)])
def test_only_a_full_disk_is_waited_for(monkeypatch, number, expected):
    def fail(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(run_blocks, "write_values", fail)
    with pytest.raises(expected):
        share(table())
    assert list(root(run_blocks.AREA).glob("blocks-*")) == []


def test_only_large_runs_of_combat_go_by_blocks(settings):
    dataset = table()
    settings.HUB_RUN_BLOCK_CELLS = dataset.values.size
    assert run_blocks.goes_by_blocks(computation(dataset))
    assert not run_blocks.goes_by_blocks(computation(dataset, algorithm="covbat"))
    assert not run_blocks.goes_by_blocks(computation(dataset, mode="apply"))
    assert not run_blocks.goes_by_blocks(computation(dataset, calibration=Specification()))
    settings.HUB_RUN_BLOCK_CELLS = dataset.values.size + 1
    assert not run_blocks.goes_by_blocks(computation(dataset))

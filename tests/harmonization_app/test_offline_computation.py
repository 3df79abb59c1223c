"""A harmonization as files gives the bits of the harmonization itself, in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset, HarmonizationRefused
from harmonization_app.algorithms.chain import ChainResult
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.pairwise import Pairwise
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.offline import computation as offline
from harmonization_app.offline.dataset_files import dataset_digest, read_dataset, write_dataset
from hub.core.errors import Conflict, InvalidInput

ROOT = Path(__file__).resolve().parents[2]


def dataset(scans: int = 40, batches: str = "AB", seed: int = 3) -> Dataset:
    random = np.random.default_rng(seed)
    values = random.normal(10, 2, (scans, 6))
    values[0, 0] = 0.1 + 0.2
    labels = tuple(batches[index % len(batches)] for index in range(scans))
    values += np.array([[3.0 if label == "B" else 0.0] for label in labels])
    return Dataset(
        values,
        tuple(f"f{index}" for index in range(6)),
        tuple(f"S{index}|v1" for index in range(scans)),
        labels,
        {"age": tuple(random.uniform(20, 80, scans).tolist())},
        ("mm",) * 6,
    )


SPECIFICATION = Specification(covariates=(Covariate("age", "continuous"),))


def run_in_process(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harmonization_app.offline.computation", str(folder)],
        cwd=ROOT,
        env=offline.process_environment(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_dataset_comes_back_bit_for_bit(tmp_path):
    given = dataset()
    given.values[3, 2] = np.nan

    write_dataset(tmp_path, given)
    back = read_dataset(tmp_path)

    assert np.array_equal(back.values.view(np.int64), given.values.view(np.int64))
    assert (back.rows, back.batches, back.units) == (given.rows, given.batches, given.units)
    assert dataset_digest(back) == dataset_digest(given)


def test_another_process_computes_the_same_bits(tmp_path):
    given = dataset()
    expected = Combat().harmonize(given, SPECIFICATION)
    offline.write_computation(tmp_path, offline.Computation("fit", "combat", SPECIFICATION, given))

    done = run_in_process(tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    outcome = offline.read_outcome(tmp_path / "result", given)
    assert outcome.document["pid"] != os.getpid()
    equality = offline.compare(expected.values, expected.iterations, outcome.result)
    assert equality == {"bitwise": True, "iterations_equal": True}
    assert outcome.result.main.flags == expected.flags
    assert outcome.result.main.findings == expected.findings


def test_the_process_needs_no_django(tmp_path):
    code = (
        "import sys; sys.modules['django'] = None; sys.modules['celery'] = None; sys.modules['psycopg2'] = None\n"
        "import harmonization_app.offline.computation"
    )

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("name", ["values.npy", "dataset.json"])
def test_a_changed_input_is_refused(tmp_path, name):
    offline.write_computation(tmp_path, offline.Computation("fit", "combat", SPECIFICATION, dataset()))
    content = bytearray((tmp_path / name).read_bytes())
    place = len(content) - 8 if name == "values.npy" else content.index(b"S7|")
    content[place] = ord("9")
    (tmp_path / name).write_bytes(bytes(content))

    with pytest.raises(InvalidInput, match="differs from the digest"):
        offline.read_computation(tmp_path)


def test_other_code_is_refused(tmp_path):
    offline.write_computation(tmp_path, offline.Computation("fit", "combat", SPECIFICATION, dataset()))
    path = tmp_path / "computation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code_digest": "0" * 64}))

    with pytest.raises(Conflict, match="is not the code of the run"):
        offline.read_computation(tmp_path)


def test_a_frozen_model_is_applied_and_extended(tmp_path):
    fitted = Combat().harmonize(dataset(), SPECIFICATION)
    models = {"main": fitted.model}
    new = dataset(24, "AC", seed=9)

    step = offline.Computation("add_batch", "combat", SPECIFICATION, new, models=models, batch="C")
    offline.write_computation(tmp_path, step)
    result = offline.compute(offline.read_computation(tmp_path))

    assert result.main.model.batches == ("A", "B", "C")
    former = fitted.model.arrays["gamma_star"]
    assert np.array_equal(result.main.model.arrays["gamma_star"][:2], former)
    in_a = [index for index, label in enumerate(new.batches) if label == "A"]
    applied = Combat().apply(fitted.model, new.select(in_a))
    assert np.array_equal(result.values[in_a], applied.values)


def test_a_pair_is_added_with_the_scans_of_its_reference(tmp_path):
    plan = replace(SPECIFICATION, reference_batch="A")
    whole = dataset(60, "ABC")
    labels = np.array(whole.batches)
    fitted = Pairwise().harmonize(whole.select(np.flatnonzero(labels != "C")), plan)
    with_reference = whole.select(np.flatnonzero(labels != "B"))

    step = offline.Computation(
        "add_batch", "pairwise", plan, with_reference, models={"main": fitted.model}, batch="C"
    )
    offline.write_computation(tmp_path, step)
    result = offline.compute(offline.read_computation(tmp_path))

    together = Pairwise().harmonize(whole, plan)
    assert result.main.model.batches == ("A", "B", "C")
    assert np.array_equal(result.values, together.values[labels != "B"])


def test_a_batch_that_is_not_there_is_refused():
    fitted = Combat().fit(dataset(), SPECIFICATION)
    step = offline.Computation(
        "add_batch", "combat", SPECIFICATION, dataset(), models={"main": fitted}, batch="Z"
    )

    with pytest.raises(HarmonizationRefused, match="No scan is of batch Z; the scans are of A, B"):
        offline.compute(step)


def test_a_difference_is_told_in_sd():
    fitted = Combat().harmonize(dataset(), SPECIFICATION)
    former = fitted.values.copy()
    former[:, 2] += 1e-6 * former[:, 2].std()

    answer = offline.compare(former, {}, ChainResult(dataset(), None, fitted))

    assert (answer["bitwise"], answer["iterations_equal"]) == (False, False)
    assert answer["max_difference_sd"] == pytest.approx(1e-6, rel=1e-6)


def test_tables_that_cannot_be_compared_have_no_difference():
    former = np.array([[1.0], [3.0], [5.0]])

    assert offline.largest_difference_sd(former, np.array([[np.nan], [3.0], [5.0]])) is None
    assert offline.largest_difference_sd(former, former[:2]) is None
    assert offline.largest_difference_sd(former * np.nan, former * np.nan) == 0.0


def test_a_damaged_result_is_refused(tmp_path):
    given = dataset()
    offline.write_computation(tmp_path, offline.Computation("fit", "combat", SPECIFICATION, given))
    assert offline.main([str(tmp_path)]) == 0
    path = tmp_path / "result" / "main.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(bytes(content))

    with pytest.raises(InvalidInput, match="differs from its own digest"):
        offline.read_outcome(tmp_path / "result", given)


def test_a_refusal_is_a_sentence_and_no_trace(tmp_path, capsys):
    confounded = Specification(covariates=(Covariate("site", "categorical"),))
    given = dataset()
    both = Dataset(
        given.values, given.features, given.rows, given.batches, {"site": given.batches}, given.units
    )
    offline.write_computation(tmp_path, offline.Computation("fit", "combat", confounded, both))

    assert offline.main([str(tmp_path)]) == 1
    assert "site" in capsys.readouterr().err

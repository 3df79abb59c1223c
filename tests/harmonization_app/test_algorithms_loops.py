"""The compiled loops give one set of bits: interpreted, on any processor, by any number of threads and blocks."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harmonization_app.algorithms import affine, statistics_loops, threads
from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.design import Design
from harmonization_app.algorithms.kernel import BatchEffects, apply_affine, fit_statistics, group_rows
from harmonization_app.algorithms.model import CovariateCoding
from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.diagnostics import gate
from harmonization_app.diagnostics.gate_products import batch_products

KEPT = """
import numpy as np
from harmonization_app.algorithms import statistics_loops
table, order, marks = np.zeros((4, 3)), np.arange(4), np.zeros(3, dtype=np.bool_)
statistics_loops._mark_constant(table, order, 0, 4, 0, 3, marks)
assert marks.all()
print("kept" if statistics_loops._mark_constant.stats.cache_hits else "compiled")
"""
# Prints what a process compiles that harmonizes by all loops, where `warm_up` ran before.
COMPILED = """
from harmonization_app.algorithms import correction_loops, shrinkage_loops, statistics_loops
from harmonization_app.algorithms.warm_up import compile_loops
from tests.harmonization_app.test_algorithms_loops import digest_of_all
compile_loops()
digest_of_all()
loops = [item for module in (correction_loops, shrinkage_loops, statistics_loops) for item in vars(module).values()]
print(sorted(item.__name__ for item in loops if getattr(item, "stats", None) and item.stats.cache_misses))
"""
PRINTED = "from tests.harmonization_app.test_algorithms_loops import digest_of_all; print(digest_of_all())"


def _table(features: int = 150, columns: int = 4, scans: int = 47):
    """Return values, batch codes and covariates; strong effects, so that some residuals are summed themselves."""
    random = np.random.default_rng(11)
    codes = random.permutation(np.arange(scans) % 3)
    covariates = random.normal(size=(scans, columns))
    values = 10.0 + random.normal(size=(scans, features)) + codes[:, None]
    values += covariates @ (
        random.normal(size=(columns, features)) * 10.0 ** random.integers(-1, 4, features)
    )
    values[:, 5] = 3.25
    values[codes == 1, 6] = 1.5
    return values, codes.astype(np.int64), covariates


def _all(features: slice = slice(None)) -> list[np.ndarray]:
    """Return the statistics and the corrected values of these features of the table."""
    values, codes, covariates = _table()
    values = np.ascontiguousarray(values[:, features])
    grouping = group_rows(codes, 3)
    found = fit_statistics(values, grouping, covariates)
    effects = BatchEffects(
        found.intercepts / 20,
        1.0 + found.residual_squares / (1.0 + found.residual_squares),
        np.full(values.shape[1], 0.5),
        found.intercepts.mean(axis=0),
        found.coefficients,
    )
    corrected = apply_affine(values, grouping, covariates, effects)
    return [
        found.intercepts,
        found.coefficients,
        found.residual_squares,
        found.constant,
        found.uniform,
        corrected,
    ]


def digest_of_all() -> str:
    return hashlib.sha256(b"".join(part.tobytes() for part in _all())).hexdigest()


@pytest.mark.parametrize(
    "variables",
    [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}],
    ids=["interpreted", "oldest processor"],
)
def test_bits_are_those_of_the_plain_python_loops_and_of_any_processor(variables, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRINTED],
        env=os.environ | variables | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == digest_of_all()


@pytest.mark.parametrize("bounds", [(0, 1, 150), (0, 37, 90, 150), (0, 64, 128, 150)])
def test_bits_do_not_depend_on_the_features_beside(bounds) -> None:
    parts = [_all(slice(start, stop)) for start, stop in zip(bounds, bounds[1:], strict=False)]

    for whole, *pieces in zip(_all(), *parts, strict=True):
        assert np.concatenate(pieces, axis=-1).tobytes() == whole.tobytes()


def test_bits_do_not_depend_on_threads(monkeypatch) -> None:
    alone = _all()

    monkeypatch.setattr(threads, "thread_limit", lambda: 3)
    monkeypatch.setattr(affine, "CHUNK_FEATURES", 16)

    shared = _all()
    assert [part.tobytes() for part in shared] == [part.tobytes() for part in alone]


def test_every_share_is_done_once_and_an_error_is_raised(monkeypatch) -> None:
    monkeypatch.setattr(threads, "thread_limit", lambda: 3)
    done = np.zeros(1_000, dtype=int)

    def count(first: int, last: int) -> None:
        done[first:last] += 1

    threads.spread(count, 1_000, 64)

    assert (done == 1).all()
    with pytest.raises(ZeroDivisionError):
        threads.spread(lambda first, last: 1 // first, 1_000, 64)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, 4), ({"OMP_NUM_THREADS": "1"}, 1), ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": ""}, 2)],
)
def test_threads_are_as_many_as_variables_and_processors_allow(monkeypatch, variables, expected) -> None:
    for name in threads.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)))

    assert threads.thread_limit() == expected


@pytest.mark.parametrize("processors", [1, 3])
def test_work_beside_takes_one_thread_and_its_error_comes_where_its_result_is_asked_for(
    monkeypatch, processors
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(processors)))
    for name in threads.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    with threads.beside(threads.thread_limit) as limit_there, threads.beside(lambda: 1 // 0) as failing:
        assert threads.thread_limit() == processors
        assert limit_there() == 1
        with pytest.raises(ZeroDivisionError):
            failing()


def test_the_gate_says_the_same_beside_the_statistics_as_after_them(monkeypatch) -> None:
    values, codes, covariates = _table(features=40)
    values[3, 4] = np.inf
    values[7] = values[8]
    table = Dataset(
        values,
        tuple(f"f{i}" for i in range(40)),
        tuple(f"r{i}" for i in range(len(values))),
        tuple("ABC"[code] for code in codes),
        {"age": tuple(covariates[:, 0])},
    )
    plan = Specification(covariates=(Covariate("age", "continuous"),))
    after = gate.check(table, plan)

    monkeypatch.setattr(threads, "thread_limit", lambda: 2)

    assert gate.check(table, plan) == after
    assert {"infinite_value", "duplicate_values"} <= {finding.code for finding in after}


def test_values_that_may_not_be_written_or_lie_otherwise_are_taken() -> None:
    values, codes, covariates = _table()
    values.flags.writeable = False
    grouping = group_rows(codes, 3)

    plain = fit_statistics(values, grouping, covariates)
    turned = fit_statistics(np.asfortranarray(values), grouping, covariates)
    swapped = fit_statistics(values.astype(">f8"), grouping, covariates)

    assert turned.residual_squares.tobytes() == plain.residual_squares.tobytes()
    assert swapped.residual_squares.tobytes() == plain.residual_squares.tobytes()


def _effects(batches: int, features: int, columns: int) -> BatchEffects:
    random = np.random.default_rng(5)
    return BatchEffects(
        random.normal(size=(batches, features)),
        random.uniform(0.5, 2.0, (batches, features)),
        random.uniform(0.5, 2.0, features),
        random.normal(size=features),
        random.normal(size=(columns, features)),
    )


@pytest.mark.parametrize("columns", [0, 1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize(
    ("scans", "features"), [(0, 5), (7, 0), (1, 1), (9, 5), (9, affine.CHUNK_FEATURES + 1)]
)
def test_correction_is_the_formula_also_where_batches_lack_scans(scans, features, columns) -> None:
    random = np.random.default_rng(6)
    codes = random.choice([0, 2, 3], scans)
    values, covariates = random.normal(size=(scans, features)), random.normal(size=(scans, columns))
    effects = _effects(5, features, columns)

    corrected = apply_affine(values, group_rows(codes, 5), covariates, effects)

    fitted = effects.grand_mean + covariates @ effects.coefficients
    expected = (values - fitted - effects.shift[codes] * effects.deviation) / np.sqrt(
        effects.scale[codes]
    ) + fitted
    np.testing.assert_allclose(corrected, expected, rtol=1e-12, atol=1e-12)


def test_effects_of_the_other_byte_order_are_the_same_numbers() -> None:
    values, codes, covariates = _table()
    effects = _effects(3, 150, 4)
    swapped = BatchEffects(
        *(getattr(effects, field.name).astype(">f8") for field in dataclasses.fields(BatchEffects))
    )
    grouping = group_rows(codes, 3)

    corrected = apply_affine(values, grouping, covariates, effects)

    assert apply_affine(values, grouping, covariates, swapped).tobytes() == corrected.tobytes()


@pytest.mark.parametrize(
    ("batches", "features", "columns", "named"),
    [(2, 150, 4, "shift"), (3, 149, 4, "shift"), (3, 150, 3, "covariates"), (3, 150, 5, "covariates")],
)
def test_effects_of_another_table_are_an_error_not_memory_beside_it(
    batches, features, columns, named
) -> None:
    values, codes, covariates = _table()

    with pytest.raises(ValueError, match=f"{named} has shape"):
        apply_affine(values, group_rows(codes, 3), covariates, _effects(batches, features, columns))


def test_batches_of_other_scans_are_an_error() -> None:
    values, codes, covariates = _table()
    design = Design(("A", "B", "C"), codes, covariates, CovariateCoding((), {}, {}))

    with pytest.raises(ValueError, match="46 scans of values, 47 scans in batches"):
        fit_statistics(values[:-1], group_rows(codes, 3), covariates)
    with pytest.raises(ValueError, match="46 scans of values, 47 scans in the design"):
        batch_products(values[:-1], design)


@pytest.mark.parametrize("kind", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"neither index nor machine code"])
def test_a_damaged_file_of_machine_code_is_made_anew(kind, content, tmp_path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", KEPT]
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(command, env=variables, check=True, capture_output=True)
    damaged = [path for path in tmp_path.rglob("statistics_loops._mark_constant*") if path.suffix == kind]
    for path in damaged:
        path.write_bytes(content)

    done = [
        subprocess.run(command, env=variables, check=True, capture_output=True, text=True) for _ in range(2)
    ]

    assert damaged
    assert [run.stdout for run in done] == ["compiled\n", "kept\n"]


def test_without_a_folder_for_machine_code_it_is_made_each_time(tmp_path) -> None:
    (tmp_path / "file").touch()
    source = tmp_path / "harmonization_app" / "algorithms"
    shutil.copytree(
        Path(statistics_loops.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__")
    )
    (source / "__pycache__").touch()
    (source.parent / "__init__.py").touch()
    variables = {
        "HOME": str(tmp_path / "file"),
        "XDG_CACHE_HOME": str(tmp_path / "file"),
        "NUMBA_CACHE_DIR": "",
    }

    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{KEPT}print(statistics_loops.__file__)",
        ],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == ["compiled", str(source / "statistics_loops.py")]


def test_covariates_that_batches_determine_have_no_effect_rather_than_any() -> None:
    values, codes, _ = _table()

    found = fit_statistics(values, group_rows(codes, 3), 2.0 * codes[:, None])
    without = fit_statistics(values, group_rows(codes, 3), np.empty((len(codes), 0)))

    assert not found.coefficients.any()
    assert found.residual_squares.tobytes() == without.residual_squares.tobytes()


def test_a_batch_without_scans_is_an_error_not_a_number() -> None:
    values, codes, covariates = _table()

    with pytest.raises(ValueError, match="every batch needs a scan"):
        fit_statistics(values, group_rows(codes, 4), covariates)


def test_nothing_is_compiled_after_the_warm_up(tmp_path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-m", "harmonization_app.algorithms.warm_up"], env=environment, check=True
    )

    done = subprocess.run(
        [sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
    assert any(tmp_path.rglob("*.nbc"))

"""Registry, digests, numerical environment, packaged suite."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from harmonization_app.algorithms import environment, registry
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.environment import numerical_environment, one_blas_thread
from harmonization_app.algorithms.registry import ALGORITHMS, describe, get_algorithm, source_digest
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification import verify
from harmonization_app.algorithms.verification.suite import build_suite, load_suite
from hub.core.errors import InvalidInput, NotFound


@pytest.mark.parametrize("algorithm_id", sorted(ALGORITHMS))
def test_description_holds_a_valid_schema(algorithm_id) -> None:
    description = describe(algorithm_id)

    jsonschema.Draft202012Validator.check_schema(description.parameters_schema)
    assert len(description.source_digest) == 64
    assert description.version.count(".") == 2
    assert len(set(description.limits)) == len(description.limits) > 1
    assert all(sentence.endswith(".") and len(sentence) > 20 for sentence in description.limits)


def test_unknown_algorithm_names_the_known_ones() -> None:
    with pytest.raises(NotFound, match="combat, .*neurocombat"):
        get_algorithm("combat2")


def test_source_digest_changes_with_source(monkeypatch) -> None:
    before = source_digest(Combat())

    monkeypatch.setattr(
        Combat, "source_modules", (*Combat.source_modules, "harmonization_app.diagnostics.movers")
    )

    assert source_digest(Combat()) != before


def test_source_digest_changes_with_the_schema(monkeypatch) -> None:
    before = source_digest(Combat())

    monkeypatch.setattr(Combat, "parameters_schema", lambda self: {"type": "object"})

    assert source_digest(Combat()) != before


def test_source_digest_covers_every_module_the_kernel_imports() -> None:
    import ast
    from pathlib import Path

    root = Path(registry.__file__).parents[2]
    for algorithm in ALGORITHMS.values():
        for module in algorithm.source_modules:
            if not module.startswith("harmonization_app"):
                continue
            tree = ast.parse((root / (module.replace(".", "/") + ".py")).read_text())
            body = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
            imported = {
                node.module for node in body if node.module and node.module.startswith("harmonization_app.")
            }
            modules = {name for name in imported if (root / (name.replace(".", "/") + ".py")).is_file()}
            assert modules <= set(algorithm.source_modules), (module, modules - set(algorithm.source_modules))


def test_environment_is_that_of_a_task_with_one_thread() -> None:
    found = numerical_environment()

    assert found.packages["numpy"] == np.__version__
    assert found.blas
    assert {library.threads for library in found.blas} == {1}
    assert found.digest == numerical_environment().digest
    assert len(found.digest) == 64
    json.dumps(found.to_json())


def _library(**changes):
    info = {
        "user_api": "blas",
        "internal_api": "openblas",
        "version": "1",
        "architecture": "Zen",
        "num_threads": 1,
    }
    return {**info, **changes}


@pytest.mark.parametrize(
    "change",
    [
        {"internal_api": "mkl"},
        {"version": "2"},
        {"architecture": "Haswell"},
        {"num_threads": 2},
        {"filepath": __file__},
    ],
    ids=str,
)
def test_environment_digest_changes_with_every_fact_of_a_blas_library(monkeypatch, change) -> None:
    monkeypatch.setattr(environment, "threadpool_info", lambda: [_library()])
    before = numerical_environment().digest

    monkeypatch.setattr(environment, "threadpool_info", lambda: [_library(**change)])

    assert numerical_environment().digest != before


@pytest.mark.parametrize("package", ["numpy", "scipy", "pandas"])
def test_environment_digest_changes_with_packages(monkeypatch, package) -> None:
    before = numerical_environment()
    version = environment.metadata.version
    monkeypatch.setattr(
        environment.metadata, "version", lambda name: "9" if name == package else version(name)
    )

    assert numerical_environment().digest != before.digest


def test_environment_digest_changes_with_cpu_kernels_and_builds(monkeypatch) -> None:
    before = numerical_environment()
    config = {"SIMD Extensions": {"baseline": ["X86_V2"], "found": []}, "Build Dependencies": {"blas": {}}}
    monkeypatch.setattr(np, "show_config", lambda mode: config)

    after = numerical_environment()

    assert (after.cpu_features, after.built_with["numpy"]) == (("X86_V2",), "unknown")
    assert len({before.digest, after.digest, replace(before, cpu_features=("X86_V2",)).digest}) == 3
    monkeypatch.setenv("OPENBLAS_CORETYPE", "changed")
    assert numerical_environment().digest != after.digest


def test_every_blas_library_is_named_with_its_file() -> None:
    found = numerical_environment()

    assert all(len(library.sha256) == 64 for library in found.blas)
    assert all(text != "unknown" for text in found.built_with.values())


def test_one_blas_thread_restores_the_setting() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> set[int]:
        return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == before


def test_stored_suite_is_that_of_the_plain_implementation() -> None:
    built = build_suite()["expected"]

    for case in load_suite():
        computed = np.array(built[case.name], dtype=np.float64)
        assert np.nanmax(np.abs(computed - case.expected)) < 1e-12
        assert np.array_equal(np.isnan(computed), np.isnan(case.expected))


def test_verification_without_reference_runs_the_suite() -> None:
    report = verify("combat")

    assert report.passed
    assert not report.with_reference_set
    assert len(report.cases) == len(load_suite())
    assert json.loads(json.dumps(report.to_json()))["passed"] is True


def test_refused_cases_of_neurocombat_do_not_pass() -> None:
    cases = {case.case: case for case in verify("neurocombat").cases}

    refused = cases["suite/missing_values"]
    assert refused.refused
    assert not refused.passed
    assert "missing" in refused.reason


def test_verification_of_a_method_that_refuses_everything_fails(monkeypatch) -> None:
    monkeypatch.setattr(Combat, "own_refusals", ("batch_too_small",))
    monkeypatch.setattr(Specification, "minimum_scans", property(lambda self: 1000))

    report = verify("combat")

    assert all(case.refused for case in report.cases)
    assert not report.passed


def test_folder_without_reference_results_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="INDEX.tsv"):
        verify("combat", tmp_path)

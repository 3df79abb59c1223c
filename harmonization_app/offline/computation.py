"""A harmonization as files, computed without a hub: one BLAS thread, inputs read from a folder, outputs written to it.

    python -m harmonization_app.offline.computation FOLDER

reads `computation.json`, the dataset and, where a frozen model is used, that model; writes the folder `result`. A hub
repeats runs so in a process of its own, and an exported run carries this module with the source of its method.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harmonization_app.algorithms.add_batch import add_batch
from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, Result
from harmonization_app.algorithms.chain import (
    CALIBRATION,
    MAIN,
    ChainResult,
    apply_chain,
    calibrate_then,
)
from harmonization_app.algorithms.design import feature_positions
from harmonization_app.algorithms.environment import (
    NUMERICAL_PREFIXES,
    THREADS_SUFFIX,
    numerical_environment,
    one_blas_thread,
)
from harmonization_app.algorithms.model import Model, ModelFiles, load_model, save_model
from harmonization_app.algorithms.registry import get_algorithm, source_digest
from harmonization_app.algorithms.specification import Specification
from harmonization_app.algorithms.verification.crosscheck import max_difference_sd
from harmonization_app.offline.dataset_files import (
    dataset_digest,
    plain_json,
    read_dataset,
    read_values,
    values_digest,
    write_dataset,
    write_values,
)
from hub.core.errors import Conflict, HubError, InvalidInput

Mode = Literal["fit", "apply", "add_batch"]

SCHEMA = "hub.harmonization-computation/1"
COMPARED_FEATURES = 4096
DOCUMENT, RESULT, OUTCOME = "computation.json", "result", "result.json"


@dataclass(frozen=True, slots=True, eq=False)
class Computation:
    """What is computed: a fit on `dataset`, or frozen `models` applied to it, one after `batch` was added.

    `models` has the step `main` and, where there is one, `calibration`, as `ChainResult.models`.
    """

    mode: Mode
    algorithm: str
    specification: Specification
    dataset: Dataset
    calibration: Specification | None = None
    models: Mapping[str, Model] | None = None
    batch: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a computation left in its folder; `document` says process, environment and digests."""

    result: ChainResult
    document: Mapping[str, Any]


def process_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a computing process: paths, what chooses kernels, one thread; no secret of a hub."""
    kept = {
        name: value
        for name, value in given.items()
        if name.startswith(NUMERICAL_PREFIXES) or name in ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
    }
    return kept | {f"{name}{THREADS_SUFFIX}": "1" for name in ("OPENBLAS", "OMP", "MKL")}


def compute(computation: Computation) -> ChainResult:
    """Carry out a computation. Raises HarmonizationRefused, and Conflict where the step is not defined."""
    algorithm = get_algorithm(computation.algorithm)
    if computation.mode == "fit":
        return calibrate_then(
            computation.calibration, algorithm, computation.dataset, computation.specification
        )
    models = dict(computation.models or {})
    if computation.mode == "add_batch":
        models[MAIN] = _extended(models, computation.dataset, computation.batch)
    return apply_chain(models.get(CALIBRATION), algorithm, models[MAIN], computation.dataset)


def _extended(models: Mapping[str, Model], dataset: Dataset, batch: str) -> Model:
    """Return the main model with `batch`, estimated from its rows of `dataset` alone."""
    if CALIBRATION in models:
        raise Conflict(
            "A batch cannot be added to a model behind a phantom calibration: its scanner was not calibrated."
            " Amend the plan and fit a new version."
        )
    return add_batch(models[MAIN], dataset, batch)


def write_computation(folder: Path, computation: Computation) -> None:
    """Write what `read_computation` reads."""
    document = {
        "schema": SCHEMA,
        "mode": computation.mode,
        "algorithm": computation.algorithm,
        "code_digest": source_digest(get_algorithm(computation.algorithm)),
        "specification": computation.specification.to_json(),
        "calibration": computation.calibration.to_json() if computation.calibration else None,
        "models": sorted(computation.models or {}),
        "batch": computation.batch,
        "input_digest": dataset_digest(computation.dataset),
    }
    (folder / DOCUMENT).write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False))
    write_dataset(folder, computation.dataset)
    for step, model in (computation.models or {}).items():
        _write_model(folder / "frozen", step, save_model(model))


def read_computation(folder: Path) -> Computation:
    """Return the computation of a folder.

    Raises InvalidInput where a file is missing, damaged, or not the input that the document names; Conflict where
    the code here is not the code that it names.
    """
    try:
        document = json.loads((folder / DOCUMENT).read_bytes())
        if document["schema"] != SCHEMA:
            raise InvalidInput(f"{DOCUMENT} is of another form: {document['schema']}.")
        _require_code(document)
        dataset = read_dataset(folder)
        if dataset_digest(dataset) != document["input_digest"]:
            raise InvalidInput("The input differs from the digest that was stored with the run.")
        calibration = document["calibration"]
        return Computation(
            mode=document["mode"],
            algorithm=document["algorithm"],
            specification=Specification.from_json(document["specification"]),
            dataset=dataset,
            calibration=Specification.from_json(calibration) if calibration else None,
            models={step: load_model(_read_model(folder / "frozen", step)) for step in document["models"]},
            batch=document["batch"],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"The computation cannot be read: {error!r}.") from error


def _require_code(document: Mapping[str, Any]) -> None:
    present = source_digest(get_algorithm(document["algorithm"]))
    if present != document["code_digest"]:
        raise Conflict(
            f"The code of {document['algorithm']} here ({present[:12]}…) is not the code of the run"
            f" ({document['code_digest'][:12]}…)."
        )


def write_outcome(folder: Path, result: ChainResult) -> None:
    """Write values, models and what was found at each step, and a document of how they were computed."""
    folder.mkdir()
    environment = numerical_environment()
    steps = _steps(result)
    document = {
        "pid": os.getpid(),
        "environment": environment.to_json(),
        "environment_digest": environment.digest,
        "values_digest": values_digest(result.values),
        "steps": {
            step: {
                "values_digest": values_digest(own.values),
                "findings": [finding.to_json() for finding in own.findings],
                "iterations": own.iterations,
                "flags": own.flags,
                "facts": own.facts,
            }
            for step, own in steps.items()
        },
    }
    (folder / OUTCOME).write_text(json.dumps(document, indent=1, sort_keys=True, default=_as_json))
    for step, own in steps.items():
        write_values(folder / f"{step}.npy", own.values)
        _write_model(folder, step, save_model(own.model))


def _steps(result: ChainResult) -> dict[str, Result]:
    first = {} if result.calibration is None else {CALIBRATION: result.calibration}
    return {**first, MAIN: result.main}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_outcome(folder: Path, dataset: Dataset) -> Outcome:
    """Return what a computation on `dataset` wrote.

    Raises InvalidInput where it is incomplete or differs from its own digests.
    """
    try:
        document = json.loads((folder / OUTCOME).read_bytes())
        steps = {step: _read_step(folder, step, own) for step, own in document["steps"].items()}
        main, calibration = steps[MAIN], steps.get(CALIBRATION)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"The result of the computation cannot be read: {error!r}.") from error
    if calibration is not None:
        values = dataset.values.copy()
        values[:, feature_positions(dataset, calibration.model.features)] = calibration.values
        dataset = dataset.with_values(values)
    return Outcome(ChainResult(dataset, calibration, main), document)


def _read_step(folder: Path, step: str, document: Mapping[str, Any]) -> Result:
    values = read_values(folder / f"{step}.npy")
    if values_digest(values) != document["values_digest"]:
        raise InvalidInput("The result of the computation differs from its own digest.")
    findings = tuple(
        Finding(**{**item, **{name: tuple(item[name]) for name in ("rows", "columns", "batches")}})
        for item in document["findings"]
    )
    flags = {code: tuple(names) for code, names in document["flags"].items()}
    model = load_model(_read_model(folder, step))
    return Result(values, model, findings, document["iterations"], flags, document["facts"])


def _write_model(folder: Path, step: str, files: ModelFiles) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{step}.json").write_bytes(files.document)
    (folder / f"{step}.npz").write_bytes(files.arrays)


def _read_model(folder: Path, step: str) -> ModelFiles:
    return ModelFiles((folder / f"{step}.json").read_bytes(), (folder / f"{step}.npz").read_bytes())


def compare(
    former: FloatArray, former_iterations: Mapping[str, Any], result: ChainResult, former_digest: str = ""
) -> dict[str, Any]:
    """Return whether a repetition is equal: {bitwise, iterations_equal, max_difference_sd where not bitwise}.

    `former_digest` is that of the former bits, where `former` was read back from text. The difference is in standard
    deviations of the former values of each feature; None where the tables cannot be compared: another shape, or a
    value missing on one side only, or not finite.
    """
    bitwise = (former_digest or values_digest(former)) == values_digest(result.values)
    bitwise = bitwise and former.shape == result.values.shape
    answer: dict[str, Any] = {
        "bitwise": bitwise,
        "iterations_equal": plain_json(former_iterations) == plain_json(result.main.iterations),
    }
    if not bitwise:
        answer["max_difference_sd"] = largest_difference_sd(former, result.values)
    return answer


def largest_difference_sd(former: FloatArray, again: FloatArray) -> float | None:
    """Return the largest difference in SD of the former values; None where the tables cannot be compared.

    By blocks of features: either table may be a file that is mapped and larger than memory.
    """
    if former.shape != again.shape:
        return None
    largest = 0.0
    for start in range(0, former.shape[1], COMPARED_FEATURES):
        block = slice(start, start + COMPARED_FEATURES)
        own = max_difference_sd(again[:, block], former[:, block], former[:, block])
        if not np.isfinite(own):
            return None
        largest = max(largest, own)
    return largest


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute the folder named; 0 when done, 1 with a sentence on standard error when refused."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 1:
        sys.stderr.write("usage: python -m harmonization_app.offline.computation FOLDER\n")
        return 2
    folder = Path(given[0])
    try:
        with one_blas_thread():
            write_outcome(folder / RESULT, compute(read_computation(folder)))
    except (HubError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

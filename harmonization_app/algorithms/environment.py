"""The numerical environment that results depend on, and its digest."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
import scipy
import scipy.linalg  # loads scipy's own BLAS, so that it is counted whatever was imported before
from threadpoolctl import threadpool_info, threadpool_limits

from hub.core.canonical import digest

TASK_BLAS_THREADS = 1
NUMERICAL_PREFIXES = ("OPENBLAS_", "OMP_", "MKL_", "GOTO_", "BLIS_", "NPY_", "NUMBA_")
THREADS_SUFFIX = "_NUM_THREADS"
# Where compiled loops are kept changes nothing.
PLACES = ("NUMBA_CACHE_DIR",)
PACKAGES = ("numpy", "scipy", "pandas", "neuroCombat", "threadpoolctl", "numba", "llvmlite")


@dataclass(frozen=True, slots=True)
class BlasLibrary:
    """One loaded BLAS library; `architecture` names the CPU kernel it chose, `sha256` is of its file: two builds of one
    version may round differently.
    """

    name: str
    version: str
    architecture: str
    threads: int
    sha256: str


@dataclass(frozen=True, slots=True)
class NumericalEnvironment:
    """Interpreter, packages, BLAS, CPU and C library: what may change the last bits of a result.

    `variables` are the environment variables that choose kernels and block sizes; threads are in `blas`. `built_with`
    names the BLAS that NumPy and SciPy were built with, which is all that is known of one not loaded as a library of
    its own (Accelerate).
    """

    python: str
    implementation: str
    machine: str
    c_library: str
    packages: dict[str, str]
    blas: tuple[BlasLibrary, ...]
    cpu_features: tuple[str, ...]
    variables: dict[str, str]
    built_with: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["blas"] = list(document["blas"])
        document["cpu_features"] = list(self.cpu_features)
        return document

    @property
    def digest(self) -> str:
        """SHA-256 over all of it: equal digests promise equal bits, other digests equality within 1e-9 SD."""
        return digest(self.to_json())


def one_blas_thread() -> threadpool_limits:
    """Return a context in which BLAS uses one thread, as every harmonization task must."""
    return threadpool_limits(TASK_BLAS_THREADS, user_api="blas")


def numerical_environment() -> NumericalEnvironment:
    """Return the environment of a harmonization task in this process, with the one BLAS thread it runs on."""
    with one_blas_thread():
        libraries = [_library(info) for info in threadpool_info() if info.get("user_api") == "blas"]
    return NumericalEnvironment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        machine=platform.machine(),
        c_library=" ".join(platform.libc_ver()).strip(),
        packages={name: _version(name) for name in PACKAGES},
        blas=tuple(sorted(libraries, key=lambda item: (item.name, item.version))),
        cpu_features=_cpu_features(),
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(NUMERICAL_PREFIXES)
            and not name.endswith(THREADS_SUFFIX)
            and name not in PLACES
        },
        built_with={"numpy": _built_with(np), "scipy": _built_with(scipy)},
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _library(info: dict[str, Any]) -> BlasLibrary:
    return BlasLibrary(
        name=str(info.get("internal_api") or info.get("user_api") or "unknown"),
        version=str(info.get("version") or "unknown"),
        architecture=str(info.get("architecture") or "unknown"),
        threads=int(info.get("num_threads") or 0),
        sha256=_file_digest(str(info.get("filepath") or "")),
    )


@cache
def _file_digest(path: str) -> str:
    """Return the SHA-256 of a loaded library's file; "unknown" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unknown"


def _built_with(package: ModuleType) -> str:
    found = package.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    named = (str(found.get(key) or "") for key in ("name", "version", "openblas configuration"))
    return " ".join(part for part in named if part) or "unknown"


def _cpu_features() -> tuple[str, ...]:
    """Return the CPU features that numpy dispatches on here."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return tuple(sorted({*found.get("baseline", ()), *found.get("found", ())}))

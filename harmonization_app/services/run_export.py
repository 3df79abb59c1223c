"""The export of one run: everything that went in and came out, with the code that repeats it offline."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from django.conf import settings

from harmonization_app.models import AlgorithmVersion, HarmonizationRun, RunState
from harmonization_app.offline.computation import write_computation
from harmonization_app.offline.dataset_files import dataset_csv
from harmonization_app.offline.rerun_package import SCHEMA
from harmonization_app.permissions import readable
from harmonization_app.services.algorithm import require_present_code
from harmonization_app.services.harmonized_table import harmonized_lines
from harmonization_app.services.package_writer import Files, PackageWriter
from harmonization_app.services.report import render_report
from harmonization_app.services.stored_input import stored_computation
from hub.core.audit.services import record
from hub.core.canonical import canonical_json, digest
from hub.core.errors import Conflict, NotFound
from hub.core.models import ElectronicSignature
from hub.core.signatures.keys import public_key, sign_bytes
from hub.core.storage.blobs import get_blob, require_free_space, root

AREA = "run-exports"
LIBRARIES = ("numpy", "scipy", "pandas", "numba", "threadpoolctl", "jsonschema", "neuroCombat")
SOURCES = (
    "hub/__init__.py",
    "hub/core/__init__.py",
    "hub/core/canonical.py",
    "hub/core/errors.py",
    "harmonization_app/__init__.py",
    "harmonization_app/algorithms/**/*.py",
    "harmonization_app/diagnostics/**/*.py",
    "harmonization_app/offline/**/*.py",
)
_PIECE_BYTES = 1 << 20

README = """{kind} harmonization run {run}
trial {trial}{why}

Repeat it offline (Python 3.11; no hub, no database, no network once the libraries are there):

    python3 -m pip install -r requirements.txt
    python3 rerun.py

rerun.py first holds every file against manifest.json, which the hub signed, and names each that was changed, is missing
or was added. Then it computes the run again with the source in this package and says whether the result is bitwise
equal, or how large the largest difference is in standard deviations. Bitwise equality needs the same library versions
and the same CPU kernel; environment.json names those of the run, rerun.py says what differs here.

The package was signed with the hub's public key

    {key}

Compare it with the one that the hub's operator made known in another way (rerun.py --public-key HEX does that).
Whoever can rewrite this package can rewrite its programs too: where that matters, run `rerun.py --verify-only` with
rerun.py and source/ taken from a package, or an installation, that you trust.

manifest.json           every file with its SHA-256, the run, its kind and its digests; signed by the hub
plan.json               the plan's document as it ran; plan_record.json its version, state and digest
computation/            what was computed: parameters with every default, input table (dataset.json, values.npy),
                        the frozen models where some were used
input/table.csv         the input table for people: rows, batches, covariates, features
result/                 data.csv (harmonized table), model.zip, diagnostics.json, report.json, report.html
algorithm.json          the algorithm version: code digest, environment, verification, state
environment.json        interpreter, libraries, BLAS, CPU of the run
requirements.txt        the exact versions of the libraries
signatures.json         electronic signatures of the plan and of the algorithm version
source/                 the code of the method, the second implementation and the verification, as it ran
"""


def export_run(*, actor: Any, run: HarmonizationRun) -> tuple[str, Iterator[bytes], int]:
    """Return name, pieces and size of the export of a succeeded run; the download is recorded.

    Raises NotFound where the actor may not read the run or stored content is damaged, Conflict where it did not
    succeed, DigestDiffers where its code is not installed any more, StoredInputDiffers.
    """
    if not readable(HarmonizationRun, actor).filter(pk=run.pk).exists():
        raise NotFound("There is no such run that you may see.")
    if run.state != RunState.SUCCEEDED:
        raise Conflict(f"This run is {run.state}; only a succeeded run can be exported.")
    require_present_code(run.algorithm_version)
    require_free_space()
    with tempfile.TemporaryDirectory(dir=root(AREA)) as folder:
        path = Path(folder) / "export.zip"
        manifest = write_export(run, path)
        # The open file outlives its name: nothing is left behind, however the download ends.
        stream = path.open("rb")
        size = path.stat().st_size
    record(actor=actor, action="harmonization_run.exported", obj=run, new={"manifest": digest(manifest)})
    return f"harmonization-{run.kind}-{run.pk}.zip", _pieces(stream), size


def _pieces(stream: Any) -> Iterator[bytes]:
    with stream:
        while piece := stream.read(_PIECE_BYTES):
            yield piece


def write_export(run: HarmonizationRun, path: Path) -> dict[str, Any]:
    """Write the package and return its manifest."""
    with PackageWriter(path) as package:
        package.add_all(_records(run))
        package.add_all(_results(run))
        package.add_all(source_files())
        _add_computation(package, run)
        manifest = _manifest(run, package.files)
        package.add("manifest.json", [canonical_json(manifest)])
    return manifest


def _manifest(run: HarmonizationRun, files: list[dict[str, Any]]) -> dict[str, Any]:
    version = run.algorithm_version
    body = {
        "schema": SCHEMA,
        "run": {
            "id": str(run.pk),
            "trial": run.trial.code,
            "kind": run.kind,
            "exploratory_reason": run.exploratory_reason,
            "mode": run.mode,
            "model_of": str(run.model_of_id) if run.model_of_id else None,
            "added_batch": run.added_batch,
            "step_reason": run.step_reason,
            "plan_digest": run.plan_digest,
            "algorithm": version.algorithm,
            "version": version.version,
            "code_digest": version.code_digest,
            "input_digest": run.input_digest,
            "values_digest": run.summary["values_digest"],
            "iterations": run.summary.get("iterations", {}),
            "environment": run.environment,
            "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        },
        "hub_version": settings.VERSION,
        "files": sorted(files, key=lambda item: str(item["path"])),
    }
    signature = sign_bytes(bytes.fromhex(digest(body)))
    return {**body, "public_key": public_key(), "hub_signature": signature}


def _records(run: HarmonizationRun) -> Files:
    why = f"\n{run.exploratory_reason}" if run.exploratory_reason else ""
    text = README.format(kind=run.kind.upper(), run=run.pk, trial=run.trial.code, why=why, key=public_key())
    yield "README.txt", [text.encode()]
    yield "plan.json", [canonical_json(run.specification)]
    if run.plan is not None:
        plan = run.plan
        yield (
            "plan_record.json",
            [
                canonical_json(
                    {
                        "id": str(plan.pk),
                        "name": plan.name,
                        "title": plan.title,
                        "version": plan.version,
                        "state": plan.state,
                        "digest": plan.digest,
                        "locked_at": plan.locked_at.isoformat() if plan.locked_at else None,
                        "amendment_reason": plan.amendment_reason,
                    }
                )
            ],
        )
    yield "algorithm.json", [canonical_json(_algorithm(run.algorithm_version))]
    yield "environment.json", [canonical_json(run.environment)]
    yield "requirements.txt", ["".join(f"{line}\n" for line in requirements()).encode()]
    yield "signatures.json", [canonical_json(_signatures(run))]


def _algorithm(version: AlgorithmVersion) -> dict[str, Any]:
    return {
        "id": str(version.pk),
        "algorithm": version.algorithm,
        "version": version.version,
        "title": version.title,
        "state": version.state,
        "code_digest": version.code_digest,
        "environment": version.environment,
        "environment_digest": version.environment_digest,
        "parameters_schema": version.parameters_schema,
        "verification": version.verification,
        "signatures_required": version.signatures_required,
    }


def _signatures(run: HarmonizationRun) -> list[dict[str, Any]]:
    version, plan = run.algorithm_version, run.plan
    made = [("algorithm version", version.signature), ("algorithm version", version.second_signature)]
    made += [("plan", plan.signature)] if plan is not None else []
    return [{"of": what, **_signature(row)} for what, row in made if row is not None]


def _signature(row: ElectronicSignature) -> Mapping[str, Any]:
    return {
        "id": str(row.pk),
        "printed_name": row.printed_name,
        "meaning": row.meaning,
        "signed_at": row.signed_at.isoformat(),
        "second_factor": row.second_factor,
        "object": f"{row.object_type} {row.object_id}",
        "digest": row.object_digest,
    }


def _results(run: HarmonizationRun) -> Files:
    yield "result/data.csv", harmonized_lines(run)
    yield "result/model.zip", [get_blob(run.model_digest)]
    if run.diagnostics_digest:
        yield "result/diagnostics.json", [get_blob(run.diagnostics_digest)]
    for form in ("json", "html"):
        yield f"result/report.{form}", [render_report(run, form)[0]]


def source_files() -> Files:
    """Yield the source that repeats a run: the pure packages, with the command `rerun.py` at the top."""
    base = Path(settings.BASE_DIR)
    yield "rerun.py", [(base / "harmonization_app/offline/rerun_package.py").read_bytes()]
    paths = {path for pattern in SOURCES for path in base.glob(pattern)}
    for path in sorted(paths):
        yield f"source/{path.relative_to(base).as_posix()}", [path.read_bytes()]


def _add_computation(package: PackageWriter, run: HarmonizationRun) -> None:
    computation = stored_computation(run)
    package.add("input/table.csv", dataset_csv(computation.dataset))
    with tempfile.TemporaryDirectory(dir=root(AREA)) as name:
        folder = Path(name)
        write_computation(folder, computation)
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            with path.open("rb") as stream:
                package.add(f"computation/{path.relative_to(folder).as_posix()}", _pieces(stream))


def requirements() -> list[str]:
    """Return the libraries of a computation, and what they need, in the exact versions that are installed here."""
    found: dict[str, str] = {}
    waiting = list(LIBRARIES)
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # A need of another platform or Python: the installation here works without it.
        if key in found:
            continue
        found[key] = f"{distribution.metadata['Name']}=={distribution.version}"
        waiting += [
            re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0]
            for need in distribution.requires or ()
            if "extra ==" not in need and "extra==" not in need
        ]
    return [found[key] for key in sorted(found)]

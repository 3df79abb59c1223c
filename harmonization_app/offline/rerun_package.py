"""Verify an exported harmonization run and compute it again, without a hub or a network:

    python3 -m pip install -r requirements.txt      # once: the exact versions that the run was computed with
    python3 rerun.py

Exit status: 0 the files are as exported and the result is equal; 1 something differs, and is named; 2 it could not be
computed here. The files are checked before any code of the package but this file is run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

MANIFEST, SOURCE, COMPUTATION = "manifest.json", "source", "computation"
SCHEMA = "hub.harmonization-run-export/1"
LARGEST_DIFFERENCE_SD = 1e-9
_PIECE_BYTES = 1 << 20


class Differs(Exception):
    """Something is not as it was exported; each sentence names one thing."""

    def __init__(self, *sentences: str) -> None:
        self.sentences = sentences
        super().__init__("\n".join(sentences))


class CannotRun(Exception):
    """The computation could not be carried out here; the message says what to do."""


def canonical_json(value: Any) -> bytes:
    """Return the form in which the hub digests and signs: UTF-8, sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest. Raises Differs where it is missing or is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["schema"] != SCHEMA:
            raise Differs(f"{MANIFEST} is of another form: {manifest['schema']!r}")
        return dict(manifest)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Differs(f"{MANIFEST} cannot be read: {error!r}") from error


def check_files(folder: Path, manifest: dict[str, Any]) -> int:
    """Return the number of files. Raises Differs naming every file that is changed, missing or added."""
    wanted = {item["path"]: item for item in manifest["files"]}
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    } - {MANIFEST}
    problems = [f"{name}: missing" for name in sorted(wanted.keys() - found)]
    problems += [f"{name}: not part of the export" for name in sorted(found - wanted.keys())]
    for name in sorted(wanted.keys() & found):
        path = folder / name
        if path.is_symlink() or file_digest(path) != wanted[name]["sha256"]:
            problems.append(f"{name}: its content was changed")
    if problems:
        raise Differs(*problems)
    return len(wanted)


def file_digest(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            hashed.update(piece)
    return hashed.hexdigest()


def check_signature(manifest: dict[str, Any], public_key: str) -> None:
    """Raise Differs unless the hub signed this manifest, and with `public_key` where one is given."""
    from harmonization_app.offline.verify_package import verify_ed25519

    body = {name: value for name, value in manifest.items() if name not in ("public_key", "hub_signature")}
    key = str(manifest.get("public_key", ""))
    if not verify_ed25519(
        hashlib.sha256(canonical_json(body)).digest(), str(manifest.get("hub_signature")), key
    ):
        raise Differs(f"{MANIFEST}: the hub's signature is not valid")
    if public_key and key != public_key.strip().lower():
        raise Differs(f"{MANIFEST}: it was signed with the key {key}, not with {public_key}")


def differing_requirements(folder: Path) -> list[str]:
    """Return a sentence for each package that is not here in the version of the run."""
    sentences = []
    for line in (folder / "requirements.txt").read_text().splitlines():
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line.strip())
        if not found:
            continue
        name, version = found.groups()
        try:
            present = metadata.version(name)
        except metadata.PackageNotFoundError:
            present = "not installed"
        if present != version:
            sentences.append(f"{name} {present} (the run: {version})")
    return sentences


def recompute(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Compute the run again; return the comparison, where the same environment would be needed, and a cross-check.

    Raises CannotRun where a library is missing or the computation refuses.
    """
    try:
        from harmonization_app.algorithms.environment import numerical_environment, one_blas_thread
        from harmonization_app.algorithms.verification.crosscheck import cross_check_chain
        from harmonization_app.offline import computation as offline
        from harmonization_app.offline.tables import read_harmonized
        from hub.core.errors import HubError
    except ImportError as error:
        raise CannotRun(
            f"A library is missing ({error}). Run: {sys.executable} -m pip install -r requirements.txt"
        ) from error
    run = manifest["run"]
    try:
        with one_blas_thread():
            given = offline.read_computation(folder / COMPUTATION)
            result = offline.compute(given)
            environment = numerical_environment()
    except HubError as error:
        raise CannotRun(f"The computation was refused: {error}") from error
    former = read_harmonized((folder / "result" / "data.csv").read_bytes()).values
    answer = offline.compare(former, run["iterations"], result, former_digest=run["values_digest"])
    answer["values"] = result.values.size
    answer["environment"] = _differing(run["environment"], environment.to_json())
    if given.mode == "fit":
        try:
            checks = cross_check_chain(given.dataset, result)
            answer["second_implementation_sd"] = max(check.max_difference_sd for check in checks.values())
        except HubError:
            answer["second_implementation_sd"] = None
    return answer


def _differing(former: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return a sentence for each part of the numerical environment that is not that of the run."""
    here = json.loads(json.dumps(here))
    return [
        f"{name}: {_short(here.get(name))} (the run: {_short(former[name])})"
        for name in sorted(former)
        if former[name] != here.get(name)
    ]


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 300 else f"{text[:297]}..."


def title(manifest: dict[str, Any]) -> str:
    """Return what kind of run this is, in the first words."""
    run = manifest["run"]
    why = f" ({run['exploratory_reason']})" if run["exploratory_reason"] else ""
    return f"{run['kind'].upper()} harmonization run {run['id']} of trial {run['trial']}{why}"


def report(answer: dict[str, Any]) -> tuple[bool, list[str]]:
    """Return whether the result is equal, and the lines that say so."""
    lines = [f"environment differs: {sentence}" for sentence in answer["environment"]]
    if not lines:
        lines.append("environment: the same as that of the run")
    check = answer.get("second_implementation_sd")
    if check is not None:
        lines.append(f"second, plain implementation: largest difference {check:.3g} SD")
    if not answer["iterations_equal"]:
        lines.append("RESULT DIFFERS: the steps of shrinkage are not those of the run")
        return False, lines
    if answer["bitwise"]:
        lines.append(f"result: BITWISE EQUAL ({answer['values']} values, equal iteration counts)")
        return True, lines
    largest = answer["max_difference_sd"]
    equal = largest is not None and largest <= LARGEST_DIFFERENCE_SD
    words = "the tables cannot be compared" if largest is None else f"largest difference {largest:.3g} SD"
    if equal:
        lines.append(f"result: EQUAL but not bit for bit: {words}, equal iteration counts")
    else:
        lines.append(f"RESULT DIFFERS: {words}")
    return equal, lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an exported run and compute it again, offline.")
    parser.add_argument(
        "--public-key", default="", help="the hub's public key, known from elsewhere (hexadecimal)"
    )
    parser.add_argument("--verify-only", action="store_true", help="check the files; compute nothing")
    given = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parent
    try:
        return _carry_out(folder, given.public_key, given.verify_only)
    except Differs as difference:
        for sentence in difference.sentences:
            sys.stderr.write(f"DIFFERS: {sentence}\n")
        return 1
    except CannotRun as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _carry_out(folder: Path, public_key: str, verify_only: bool) -> int:
    manifest = read_manifest(folder)
    sys.stdout.write(f"{title(manifest)}\n")
    count = check_files(folder, manifest)
    # What is imported from here on was just found to be what was exported; nothing may be written beside it.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder / SOURCE))
    check_signature(manifest, public_key)
    sys.stdout.write(f"files: all {count} as they were exported\n")
    sys.stdout.write(f"signed with the public key {manifest['public_key']}\n")
    if verify_only:
        return 0
    for name in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    for sentence in differing_requirements(folder):
        sys.stdout.write(f"library differs: {sentence}\n")
    sys.stdout.write(f"computing with Python {platform.python_version()}, one BLAS thread\n")
    equal, lines = report(recompute(folder, manifest))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.write(f"{title(manifest)}\n")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())

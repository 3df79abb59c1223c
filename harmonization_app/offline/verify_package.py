#!/usr/bin/env python3
"""Verify an export package of the imaging data hub, offline, with Python's standard library alone.

    python verify_package.py PACKAGE [--public-key HEX]

Exit 0: intact. Exit 1: it is not, with the first thing that differs. Exit 2: wrong call.
Checked in this order: the manifest's digest and the hub's signature on it; the signature on the package's list of
files; the size and SHA-256 of every file, none missing and none added; that versions, feature sets and runs are the
ones of the manifest; the Merkle root over all instances (and each image, where images are included); receipts; the
audit chain, event by event; its anchors; the electronic signatures.
A package can prove who signed it only as far as its public key is known from elsewhere: compare the key that is
printed with the one that the hub's operator published, or give it as --public-key.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INDEX_SCHEMA = "hub.export-package/1"
MANIFEST_SCHEMAS = {"locked": "hub.data-lock-manifest/1", "not locked": "hub.interim-manifest/1"}
PIECE_BYTES = 1 << 20
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
# Order, separator and null mark of what an audit event's hash is made of.
_HASHED = (
    "chain", "sequence", "recorded_at", "scope", "actor_id", "actor_name", "action", "object_type", "object_id",
    "payload", "items_root", "items_count", "previous_hash",
)  # fmt: skip
_SEPARATOR = "\x1f"


class Differs(Exception):
    """The first thing in which a package is not what was signed."""


@dataclass(frozen=True)
class Outcome:
    """Whether a package is intact; `summary` says what was found, `problem` what differs first."""

    intact: bool
    summary: str
    problem: str = ""
    public_key: str = ""


@dataclass
class Package:
    """An opened package and what the checks found in it so far."""

    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    manifest: dict[str, Any] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    event_hashes: dict[int, str] = field(default_factory=dict)
    signed_in_audit: dict[str, str] = field(default_factory=dict)
    locks_in_audit: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def public_key(self) -> str:
        return str(self.manifest.get("public_key", ""))

    @property
    def locked(self) -> bool:
        return self.index.get("status") == "locked"

    def pieces(self, name: str) -> Iterator[bytes]:
        if name not in self.members:
            raise Differs(f"{name} is missing")
        try:
            with self.archive.open(self.members[name]) as stream:
                while piece := stream.read(PIECE_BYTES):
                    yield piece
        except (
            zipfile.BadZipFile,
            EOFError,
            NotImplementedError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:
            raise Differs(f"{name} cannot be read: {error}") from error

    def read(self, name: str) -> bytes:
        return b"".join(self.pieces(name))

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a JSON Lines file."""
        rest = b""
        for piece in self.pieces(name):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (_object(name, line) for line in lines)
        if rest:
            raise Differs(f"{name}: the last line is cut short")


def canonical_json(value: Any) -> bytes:
    """Return the form in which the hub digests and signs: UTF-8, sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _object(name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Differs(f"{name} is no readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise Differs(f"{name} holds no JSON object")
    return value


# Ed25519 (RFC 8032, section 5.1), verification only, in extended homogeneous coordinates (X, Y, Z, T).

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


def _add(first: _Point, second: _Point) -> _Point:
    a = (first[1] - first[0]) * (second[1] - second[0]) % _P
    b = (first[1] + first[0]) * (second[1] + second[0]) % _P
    c = 2 * first[3] * second[3] * _D % _P
    d = 2 * first[2] * second[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    result = _NEUTRAL
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _decompress(content: bytes) -> _Point | None:
    """Return the point of 32 bytes (section 5.1.3), None where they are no point."""
    y = int.from_bytes(content, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _compress(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_BASE = _decompress((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))


def verify_ed25519(content: bytes, signature: str, public_key: str) -> bool:
    """Return whether `signature` (hexadecimal) is that of `public_key` (hexadecimal) over `content`."""
    try:
        raw, key = bytes.fromhex(signature), bytes.fromhex(public_key)
    except (ValueError, TypeError):
        return False
    point = _decompress(key) if len(key) == 32 and len(raw) == 64 else None
    scalar = int.from_bytes(raw[32:], "little")
    if point is None or _BASE is None or scalar >= _L:
        return False
    challenge = int.from_bytes(hashlib.sha512(raw[:32] + key + content).digest(), "little") % _L
    negative = (_P - point[0], point[1], point[2], _P - point[3])
    return _compress(_add(_times(scalar, _BASE), _times(challenge, negative))) == raw[:32]


def _require_signed(name: str, document: dict[str, Any], key: str) -> None:
    body = {part: value for part, value in document.items() if part not in ("public_key", "hub_signature")}
    digest = hashlib.sha256(canonical_json(body)).digest()
    if not verify_ed25519(digest, document.get("hub_signature", ""), key):
        raise Differs(f"{name}: the hub's signature is not valid")


def _check_manifest(package: Package) -> None:
    content = package.read("manifest.json")
    package.manifest = _object("manifest.json", content)
    if canonical_json(package.manifest) != content:
        raise Differs("manifest.json is not in its canonical form")
    _require_signed("manifest.json", package.manifest, package.public_key)
    package.digests["manifest.json"] = hashlib.sha256(content).hexdigest()


def _check_index(package: Package) -> None:
    package.index = index = _object("package.json", package.read("package.json"))
    if index.get("schema") != INDEX_SCHEMA:
        raise Differs(f"package.json: its schema is {index.get('schema')!r}, not {INDEX_SCHEMA!r}")
    if index.get("public_key") != package.public_key:
        raise Differs("package.json names another public key than manifest.json")
    _require_signed("package.json", index, package.public_key)
    if index["manifest"] != package.digests["manifest.json"]:
        raise Differs("manifest.json: its digest is not the one of package.json")
    if package.manifest.get("schema") != MANIFEST_SCHEMAS.get(index["status"]):
        raise Differs(f"manifest.json: its schema does not belong to a package that is {index['status']}")
    if package.manifest["trial"] != index["trial"]:
        raise Differs("manifest.json is of another trial than package.json")


def _check_files(package: Package) -> None:
    listed = {item["path"]: item for item in package.index["files"]}
    for path, item in listed.items():
        hashed, size = hashlib.sha256(), 0
        for piece in package.pieces(path):
            hashed.update(piece)
            size += len(piece)
        if size != item["size"]:
            raise Differs(f"{path}: it has {size} bytes, {item['size']} were signed")
        if hashed.hexdigest() != item["sha256"]:
            raise Differs(f"{path}: its SHA-256 is not the one that was signed")
        package.digests[path] = hashed.hexdigest()
    added = sorted(set(package.members) - set(listed) - {"package.json"})
    if added:
        raise Differs(f"{added[0]} was added: it is not in the signed list of files")
    package.counts["files"] = len(listed)


def _require_digest(package: Package, path: str, digest: str) -> None:
    if package.digests.get(path) != digest:
        raise Differs(
            f"{path}: " + ("not the content named by the manifest" if path in package.digests else "missing")
        )


def _table_name(package: Package, folder: str) -> str:
    """Return the file of a table: a matrix where there is one, else text. Both at once are never right."""
    matrix, text = (f"{folder}/{name}" in package.digests for name in ("data.npy", "data.csv"))
    if matrix and text:
        raise Differs(f"{folder}/data.npy: a table is stored as a matrix or as text, not as both")
    return "data.npy" if matrix else "data.csv"


def _check_contents(package: Package) -> None:
    """Versions, feature sets and runs are the ones whose digests the manifest holds."""
    manifest = package.manifest
    for kind in ("protocols", "qc_profiles", "harmonization_plans"):
        for row in manifest[kind]:
            _require_digest(package, f"{kind}/{row['id']}.json", row["digest"])
    for row in manifest["feature_sets"]:
        _require_digest(package, f"feature_sets/{row['id']}/identity.json", row["digest"])
        folder = f"feature_sets/{row['id']}"
        _require_digest(package, f"{folder}/{_table_name(package, folder)}", row["data"])
    for row in manifest["runs"]:
        folder = f"runs/{row['id']}"
        table = _table_name(package, folder)
        for name, part in ((table, "data"), ("model.zip", "model"), ("diagnostics.json", "diagnostics")):
            if row[part]:
                _require_digest(package, f"{folder}/{name}", row[part])
            elif f"{folder}/{name}" in package.digests:
                raise Differs(f"{folder}/{name}: the manifest says that this run has no such output")


def merkle_root(digests: Iterable[str]) -> str:
    """Return the root of the Merkle tree over hexadecimal digests, in order; leaf and node prefixes of RFC 9162."""
    level = [hashlib.sha256(b"\x00" + bytes.fromhex(item)).digest() for item in digests]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        nodes = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs]
        level = nodes + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()


def _check_instances(package: Package) -> None:
    instances = package.manifest["instances"]
    if merkle_root(item["sha256"] for item in instances) != package.manifest["instances_root"]:
        raise Differs("manifest.json: the Merkle root over the instances is not the one that was signed")
    package.counts["instances"] = len(instances)
    found = {path for path in package.digests if path.startswith("images/")}
    if not package.index["include_images"]:
        if found:
            raise Differs(f"{min(found)}: this package was signed as one without images")
        return
    for item in instances:
        path = f"images/{item['series']}/{item['sop_instance_uid']}.dcm"
        _require_digest(package, path, item["sha256"])
        found.discard(path)
    if found:
        raise Differs(f"{min(found)} is no instance of the manifest")


def _check_receipts(package: Package) -> None:
    for path in sorted(path for path in package.digests if path.startswith("receipts/")):
        receipt = _object(path, package.read(path))
        if receipt["public_key"] != package.public_key:
            raise Differs(f"{path}: signed with another key")
        if not verify_ed25519(canonical_json(receipt["receipt"]), receipt["signature"], package.public_key):
            raise Differs(f"{path}: the hub's signature is not valid")


def event_hash(event: dict[str, Any]) -> str:
    """Return the hash of an audit event over its columns in their order."""
    parts = ["-" if event[name] is None else str(event[name]) for name in _HASHED]
    return hashlib.sha256(_SEPARATOR.join(parts).encode()).hexdigest()


def _check_audit(package: Package) -> None:
    head, previous = package.index["audit"], "0" * 64
    for sequence, event in enumerate(package.rows("audit/events.jsonl"), start=1):
        where = f"audit/events.jsonl, event {sequence}"
        if event["chain"] != head["chain"] or event["sequence"] != sequence:
            raise Differs(f"{where}: it is event {event['sequence']} of chain {event['chain']}")
        if event["previous_hash"] != previous:
            raise Differs(f"{where}: it does not follow from the one before it")
        if event_hash(event) != event["hash"]:
            raise Differs(f"{where}: its content does not match its hash")
        previous = package.event_hashes[sequence] = event["hash"]
        _note_event(package, event)
    if head["chain"] != package.index["trial"]["id"]:
        raise Differs("package.json: the audit chain is not the one of the trial")
    if len(package.event_hashes) != head["sequence"] or previous != head["hash"]:
        raise Differs("audit/events.jsonl: the chain does not end with the event that package.json names")
    package.counts["events"] = len(package.event_hashes)


def _note_event(package: Package, event: dict[str, Any]) -> None:
    if event["action"] not in ("signature.made", "data_lock.locked"):
        return
    new = _object("audit payload", event["payload"].encode())["new"]
    if event["action"] == "signature.made":
        package.signed_in_audit[new["signature"]] = new["digest"]
    else:
        package.locks_in_audit.append((new["manifest"], event["items_root"]))


def _check_anchors(package: Package) -> None:
    last = count = 0
    for count, anchor in enumerate(package.rows("audit/anchors.jsonl"), start=1):
        where = f"audit/anchors.jsonl, line {count}"
        body = {name: value for name, value in anchor.items() if name != "signature"}
        if not verify_ed25519(canonical_json(body), anchor.get("signature", ""), package.public_key):
            raise Differs(f"{where}: the hub's signature is not valid")
        if anchor["chain"] != package.index["audit"]["chain"]:
            raise Differs(f"{where}: it is of another chain")
        if package.event_hashes.get(anchor["sequence"]) != anchor["hash"]:
            raise Differs(f"{where}: event {anchor['sequence']} is missing or was replaced")
        last = max(last, anchor["sequence"])
    if last != package.index["audit"]["sequence"]:
        raise Differs("audit/anchors.jsonl: the last event of the chain is not anchored")
    package.counts["anchors"] = count


def _check_signatures(package: Package) -> None:
    rows = {row["id"]: row for row in package.rows("signatures.jsonl")}
    for named in package.manifest["signatures"]:
        row = rows.get(named["id"])
        found = row and {
            "id": row["id"],
            "printed_name": row["printed_name"],
            "meaning": row["meaning"],
            "signed_at": row["signed_at"],
            "object": f"{row['object_type']} {row['object_id']}",
            "digest": row["object_digest"],
        }
        if found != named:
            raise Differs(f"signatures.jsonl: signature {named['id']} is not the one of the manifest")
    for identity, row in rows.items():
        # Algorithm versions belong to the hub: their signatures are in the hub's own chain.
        if row["scope"] and package.signed_in_audit.get(identity) != row["object_digest"]:
            raise Differs(f"signatures.jsonl: the audit chain does not hold signature {identity}")
    _check_algorithms(package, rows)
    if package.locked:
        _check_lock(package, rows)
    package.counts["signatures"] = len(rows)


def _check_algorithms(package: Package, signatures: dict[str, dict[str, Any]]) -> None:
    codes = set()
    for path in sorted(path for path in package.digests if re.fullmatch(r"algorithms/[^/]+\.json", path)):
        row = _object(path, package.read(path))
        codes.add(row["code_digest"])
        signed = {
            "algorithm": row["algorithm"],
            "version": row["version"],
            "code": row["code_digest"],
            "environment": row["environment_digest"],
            "verification": hashlib.sha256(canonical_json(row["verification"])).hexdigest(),
        }
        if row.get("signatures_required", 1) > 1:
            schema = canonical_json(row["parameters_schema"])
            signed["parameters_schema"] = hashlib.sha256(schema).hexdigest()
        digest = hashlib.sha256(canonical_json(signed)).hexdigest()
        made = [name for name in (row["signature"], row.get("second_signature")) if name]
        if any(signatures.get(name, {}).get("object_digest") != digest for name in made):
            raise Differs(f"{path}: a signature is not over this algorithm version")
        signers = {signatures[name]["signer"] for name in made}
        if row["state"] in ("locked", "retired") and len(signers) < row.get("signatures_required", 1):
            raise Differs(f"{path}: it says {row['state']}, but not enough different people signed it")
    for run in package.manifest["runs"]:
        if run["code_digest"] not in codes:
            raise Differs(f"algorithms/: the algorithm version of run {run['id']} is missing")


def _check_lock(package: Package, signatures: dict[str, dict[str, Any]]) -> None:
    expected = (package.digests["manifest.json"], package.manifest["instances_root"])
    if not package.manifest["instances"]:
        expected = (expected[0], "")
    if package.locks_in_audit != [expected]:
        raise Differs("audit/events.jsonl: the chain holds no lock of the data with this manifest")
    signed = {
        row["object_digest"]
        for row in signatures.values()
        if row["object_type"] == "harmonization_app.datalock"
    }
    if expected[0] not in signed:
        raise Differs("signatures.jsonl: nobody signed this manifest")


CHECKS: tuple[Callable[[Package], None], ...] = (
    _check_manifest, _check_index, _check_files, _check_contents, _check_instances, _check_receipts, _check_audit,
    _check_anchors, _check_signatures,
)  # fmt: skip


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for item in archive.infolist():
        if item.filename in members or not _PATH.fullmatch(item.filename):
            raise Differs(f"{item.filename!r}: a name that is not plain, or there twice")
        # A stored member cannot be larger than the archive, so that reading one is always safe.
        if item.compress_type != zipfile.ZIP_STORED or item.file_size != item.compress_size:
            raise Differs(f"{item.filename}: it is compressed; a package is not")
        members[item.filename] = item
    return members


def verify(path: Path, public_key: str = "") -> Outcome:
    """Return whether the package is intact, and signed with `public_key` where one is given."""
    package = None
    try:
        with zipfile.ZipFile(path) as archive:
            package = Package(archive, _members(archive))
            for check in CHECKS:
                check(package)
            if public_key and package.public_key != public_key.strip().lower():
                raise Differs(f"it was signed with the key {package.public_key}, not with {public_key}")
    except Differs as difference:
        return Outcome(False, "", str(difference), package.public_key if package else "")
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        return Outcome(False, "", f"{path} is no readable package: {error}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        key = package.public_key if package else ""
        return Outcome(False, "", f"a part of the package has not the form it should have: {error!r}", key)
    return Outcome(True, _summary(package), "", package.public_key)


def _summary(package: Package) -> str:
    images = "each image checked" if package.index["include_images"] else "digests only, no images included"
    counts = package.counts
    return (
        f"trial {package.index['trial']['code']}, {package.index['status'].upper()}; {counts['files']} files;"
        f" {counts['instances']} instances ({images}); {counts['events']} audit events, {counts['anchors']} anchors;"
        f" {counts['signatures']} signatures"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify an export package offline.")
    parser.add_argument("package", type=Path)
    parser.add_argument(
        "--public-key", default="", help="the hub's public key, known from elsewhere (hexadecimal)"
    )
    given = parser.parse_args(arguments)
    outcome = verify(given.package, given.public_key)
    if outcome.intact:
        sys.stdout.write(f"intact: {outcome.summary}\nsigned with the public key {outcome.public_key}\n")
        return 0
    sys.stderr.write(f"DIFFERS: {outcome.problem}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Every part of a package, tampered with: the verifier names the part. Most forgers here hold the hub's own key."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import call_command
from django.db import transaction
from django.test import override_settings
from export_cases import as_package, edited_lines, make_world, members_of, signed_again

from harmonization_app.offline.verify_package import event_hash, main, verify, verify_ed25519
from harmonization_app.services import export as export_services
from harmonization_app.services.export_contents import signed
from hub.core.canonical import canonical_json, digest
from hub.core.signatures.keys import public_key

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def package(django_db_setup, django_db_blocker, tmp_path_factory):
    """The members of an intact package of locked data with images, made once."""
    folder = tmp_path_factory.mktemp("export")
    places = {"HUB_STORAGE_ROOT": folder / "data", "HUB_ANCHOR_FILE": folder / "anchors.jsonl"}
    with django_db_blocker.unblock(), override_settings(**places), transaction.atomic():
        world = make_world()
        world.lock()
        export = world.export(include_images=True)
        content = export_services.package_path(export).read_bytes()
        transaction.set_rollback(True)
    return members_of(content)


@pytest.fixture
def problem_of(tmp_path):
    def check(members):
        path = tmp_path / "package.zip"
        path.write_bytes(members if isinstance(members, bytes) else as_package(members))
        outcome = verify(path)
        assert (main([str(path)]) == 0) is outcome.intact
        if outcome.intact:
            call_command("verify_lock", str(path))
        else:
            with pytest.raises(SystemExit) as left:
                call_command("verify_lock", str(path))
            assert left.value.code == 1
        return outcome.problem

    return check


def first(members, start, end=""):
    return min(name for name in members if name.startswith(start) and name.endswith(end))


def without_signature(document):
    return {key: value for key, value in document.items() if key not in ("public_key", "hub_signature")}


def with_manifest(package, edit):
    manifest = without_signature(json.loads(package["manifest.json"]))
    edit(manifest)
    return signed_again({**package, "manifest.json": canonical_json(signed(manifest))})


def test_the_untouched_package_is_intact(package, problem_of):
    assert problem_of(package) == ""
    assert problem_of(signed_again(package)) == ""


def test_a_changed_manifest(package, problem_of):
    changed = package["manifest.json"].replace(b'"code":"DEMO"', b'"code":"DEMI"')

    assert changed != package["manifest.json"]
    assert (
        problem_of({**package, "manifest.json": changed}) == "manifest.json: the hub's signature is not valid"
    )


def test_a_manifest_written_in_another_way(package, problem_of):
    assert "canonical form" in problem_of({**package, "manifest.json": package["manifest.json"] + b"\n"})


def test_a_manifest_of_another_package(package, problem_of):
    manifest = without_signature(json.loads(package["manifest.json"])) | {"hub_version": "other"}

    problem = problem_of({**package, "manifest.json": canonical_json(signed(manifest))})

    assert problem == "manifest.json: its digest is not the one of package.json"


def test_a_changed_list_of_files(package, problem_of):
    index = json.loads(package["package.json"]) | {"status": "not locked"}

    assert problem_of({**package, "package.json": canonical_json(index)}) == (
        "package.json: the hub's signature is not valid"
    )


@pytest.mark.parametrize(
    "start",
    [
        "protocols/", "qc_profiles/", "harmonization_plans/", "versions", "algorithms/", "feature_sets/", "runs/",
        "signatures", "receipts/", "records/", "audit/events", "audit/anchors", "images/", "README", "verify_package",
        "public_key",
    ],
)  # fmt: skip
def test_one_changed_byte_in_any_file(package, problem_of, start):
    name = first(package, start)
    content = bytearray(package[name])
    content[len(content) // 2] ^= 1

    assert (
        problem_of({**package, name: bytes(content)}) == f"{name}: its SHA-256 is not the one that was signed"
    )


def test_a_file_that_is_longer_missing_or_added(package, problem_of):
    name = first(package, "records/")
    rest = {key: value for key, value in package.items() if key != name}

    assert problem_of({**package, name: package[name] + b"\n"}).startswith(f"{name}: it has ")
    assert problem_of(rest) == f"{name} is missing"
    assert problem_of({**package, "records/zz.jsonl": b""}) == (
        "records/zz.jsonl was added: it is not in the signed list of files"
    )


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("protocols/", ".json"),
        ("qc_profiles/", ".json"),
        ("harmonization_plans/", ".json"),
        ("feature_sets/", "identity.json"),
        ("feature_sets/", "data.csv"),
        ("runs/", "data.csv"),
        ("runs/", "model.zip"),
        ("runs/", "diagnostics.json"),
        ("images/", ".dcm"),
    ],
)
def test_content_exchanged_by_who_can_sign(package, problem_of, start, end):
    name = first(package, start, end)
    rest = {key: value for key, value in package.items() if key != name}

    assert problem_of(signed_again({**package, name: b"other"})) == (
        f"{name}: not the content named by the manifest"
    )
    assert problem_of(signed_again(rest)) == f"{name}: missing"


def test_an_instance_exchanged_in_the_manifest(package, problem_of):
    def edit(manifest):
        manifest["instances"][0]["sha256"] = "ab" * 32

    assert "Merkle root over the instances" in problem_of(with_manifest(package, edit))


def test_images_that_no_manifest_names(package, problem_of):
    extra = signed_again({**package, "images/x/1.2.3.dcm": b"x"})
    unannounced = signed_again(package, include_images=False)

    assert problem_of(extra) == "images/x/1.2.3.dcm is no instance of the manifest"
    assert "signed as one without images" in problem_of(unannounced)


def test_a_forged_receipt(package, problem_of):
    name = first(package, "receipts/")
    receipt = json.loads(package[name])
    receipt["receipt"]["state"] = "accepted twice"

    assert problem_of(signed_again({**package, name: canonical_json(receipt)})) == (
        f"{name}: the hub's signature is not valid"
    )


def test_a_changed_audit_event(package, problem_of):
    events = edited_lines(package["audit/events.jsonl"], 4, lambda row: row.update(actor_name="Nobody"))

    assert problem_of(signed_again({**package, "audit/events.jsonl": events})) == (
        "audit/events.jsonl, event 5: its content does not match its hash"
    )


def test_a_removed_audit_event(package, problem_of):
    lines = package["audit/events.jsonl"].splitlines(keepends=True)

    problem = problem_of(signed_again({**package, "audit/events.jsonl": b"".join(lines[:3] + lines[4:])}))

    assert problem.startswith("audit/events.jsonl, event 4: it is event 5 ")


def test_the_end_of_the_audit_chain_cut_off(package, problem_of):
    lines = package["audit/events.jsonl"].splitlines(keepends=True)

    problem = problem_of(signed_again({**package, "audit/events.jsonl": b"".join(lines[:-1])}))

    assert "does not end with the event" in problem


def test_the_end_cut_off_with_its_head_repaired_is_found_by_the_anchor(package, problem_of):
    lines = package["audit/events.jsonl"].splitlines(keepends=True)[:-1]
    last = json.loads(lines[-1])
    head = {name: last[name] for name in ("chain", "sequence", "hash")}

    problem = problem_of(signed_again({**package, "audit/events.jsonl": b"".join(lines)}, audit=head))

    assert problem.startswith("audit/anchors.jsonl, line ")
    assert problem.endswith(f"event {last['sequence'] + 1} is missing or was replaced")


def test_a_whole_chain_computed_anew_is_found_by_the_anchors(package, problem_of):
    rows = [json.loads(line) for line in package["audit/events.jsonl"].splitlines()]
    rows[0]["actor_name"] = "Nobody"
    previous = "0" * 64
    for row in rows:
        row["previous_hash"] = previous
        row["hash"] = previous = event_hash(row)
    events = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    head = {name: rows[-1][name] for name in ("chain", "sequence", "hash")}

    problem = problem_of(signed_again({**package, "audit/events.jsonl": events}, audit=head))

    assert problem.startswith("audit/anchors.jsonl, line 1: event ")
    assert problem.endswith("is missing or was replaced")


def test_a_changed_or_missing_anchor(package, problem_of):
    changed = edited_lines(package["audit/anchors.jsonl"], 0, lambda row: row.update(time="2020"))
    missing = b"".join(package["audit/anchors.jsonl"].splitlines(keepends=True)[:-1])

    assert problem_of(signed_again({**package, "audit/anchors.jsonl": changed})) == (
        "audit/anchors.jsonl, line 1: the hub's signature is not valid"
    )
    assert problem_of(signed_again({**package, "audit/anchors.jsonl": missing})) == (
        "audit/anchors.jsonl: the last event of the chain is not anchored"
    )


def test_an_electronic_signature_changed_or_taken_away(package, problem_of):
    rows = package["signatures.jsonl"].splitlines(keepends=True)
    of_trial = next(number for number, row in enumerate(rows) if json.loads(row)["scope"])
    changed = edited_lines(package["signatures.jsonl"], of_trial, lambda row: row.update(meaning="I refuse"))
    taken = b"".join(rows[:of_trial] + rows[of_trial + 1 :])

    for signatures in (changed, taken):
        problem = problem_of(signed_again({**package, "signatures.jsonl": signatures}))
        assert problem.endswith("is not the one of the manifest")


def test_a_signature_that_the_audit_chain_does_not_hold(package, problem_of):
    added = json.loads(package["signatures.jsonl"].splitlines()[-1])
    added["id"] = "00000000-0000-7000-8000-000000000000"
    rows = package["signatures.jsonl"] + json.dumps(added).encode() + b"\n"

    assert problem_of(signed_again({**package, "signatures.jsonl": rows})) == (
        f"signatures.jsonl: the audit chain does not hold signature {added['id']}"
    )


def test_an_algorithm_version_other_than_the_signed_one(package, problem_of):
    name = first(package, "algorithms/")
    for change in (
        {"code_digest": "0" * 64},
        {"version": "9.9"},
        {"verification": {"passed": True}},
        {"parameters_schema": {}},
    ):
        record = json.loads(package[name]) | change
        assert problem_of(signed_again({**package, name: canonical_json(record)})) == (
            f"{name}: a signature is not over this algorithm version"
        )
    record = json.loads(package[name])
    for change in ({"second_signature": None}, {"second_signature": record["signature"]}):
        assert problem_of(signed_again({**package, name: canonical_json(record | change)})) == (
            f"{name}: it says locked, but not enough different people signed it"
        )
    rest = {key: value for key, value in package.items() if key != name}
    assert problem_of(signed_again(rest)).startswith("algorithms/: the algorithm version of run ")


def test_another_manifest_than_the_one_that_was_locked(package, problem_of):
    problem = problem_of(with_manifest(package, lambda manifest: manifest.update(hub_version="other")))

    assert problem == "audit/events.jsonl: the chain holds no lock of the data with this manifest"


def test_an_interim_package_is_not_passed_off_as_locked(package, problem_of):
    def edit(manifest):
        manifest["schema"] = "hub.interim-manifest/1"

    assert "does not belong to a package that is locked" in problem_of(with_manifest(package, edit))


def test_a_package_signed_by_somebody_else(package, tmp_path):
    key = Ed25519PrivateKey.generate()
    theirs = key.public_key().public_bytes_raw().hex()

    def forged(content):
        body = without_signature(content)
        return canonical_json(
            {**body, "public_key": theirs, "hub_signature": key.sign(bytes.fromhex(digest(body))).hex()}
        )

    manifest = forged(json.loads(package["manifest.json"]))
    index = json.loads(package["package.json"]) | {"manifest": hashlib.sha256(manifest).hexdigest()}
    index["files"] = [
        {**item, "sha256": hashlib.sha256(manifest).hexdigest(), "size": len(manifest)}
        if item["path"] == "manifest.json"
        else item
        for item in index["files"]
    ]
    path = tmp_path / "forged.zip"
    path.write_bytes(as_package({**package, "manifest.json": manifest, "package.json": forged(index)}))

    assert verify(path).intact is False
    assert verify(path).public_key == theirs
    assert verify(path, public_key()).intact is False


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_package(problem_of, content):
    assert problem_of(content) != ""


def test_every_cut_of_the_file_is_found(package, tmp_path):
    whole = as_package(package)
    path = tmp_path / "cut.zip"
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert verify(path).intact is False


def test_a_package_that_is_not_there_is_refused(tmp_path):
    assert main([str(tmp_path / "none.zip")]) == 1


def test_names_that_lead_out_of_the_package_are_refused(package, problem_of):
    assert "a name that is not plain" in problem_of({**package, "../x": b""})


def test_pure_python_ed25519_agrees_with_the_cryptography_package():
    for length in range(24):
        key, content = Ed25519PrivateKey.generate(), os.urandom(length)
        public, signature = key.public_key().public_bytes_raw(), bytearray(key.sign(content))
        assert verify_ed25519(content, signature.hex(), public.hex())
        assert not verify_ed25519(content + b"x", signature.hex(), public.hex())
        for place in (0, 31, 32, 63):
            flipped = bytearray(signature)
            flipped[place] ^= 1 << (length % 8)
            assert not verify_ed25519(content, flipped.hex(), public.hex())


@pytest.mark.parametrize(
    ("public", "message", "signature"),
    [  # RFC 8032, section 7.1, tests 1 to 3
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ],
)  # fmt: skip
def test_ed25519_agrees_with_the_rfc(public, message, signature):
    assert verify_ed25519(bytes.fromhex(message), signature, public)


def test_a_signature_that_is_malleable_is_refused():
    """RFC 8032, section 5.1.7: S must be less than the order of the group."""
    key = Ed25519PrivateKey.generate()
    signature = key.sign(b"x")
    order = 2**252 + 27742317777372353535851937790883648493
    larger = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")

    public = key.public_key().public_bytes_raw().hex()
    assert not verify_ed25519(b"x", (signature[:32] + larger).hex(), public)
    assert not verify_ed25519(b"x", signature.hex()[:-2], public)
    assert not verify_ed25519(b"x", "zz" * 64, public)
    assert not verify_ed25519(b"x", signature.hex(), "ff" * 32)

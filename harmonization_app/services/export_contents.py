"""What a package holds, file by file; nothing is held whole in memory but one instance or table at a time."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet

from harmonization_app.models import AlgorithmVersion, FeatureSet, HarmonizationPlan, HarmonizationRun
from harmonization_app.offline import verify_package
from harmonization_app.services.algorithm import lock_digest
from harmonization_app.services.harmonized_table import KEYS, is_matrix
from harmonization_app.services.package_writer import Files
from harmonization_app.services.plan import signed_content
from harmonization_app.services.report import render_report
from hub.core.audit.models import HASHED_COLUMNS, AuditEvent
from hub.core.canonical import canonical_json, digest
from hub.core.errors import Conflict
from hub.core.models import ElectronicSignature
from hub.core.signatures.keys import public_key, sign_bytes
from hub.core.storage.blobs import blob_pieces, get_blob
from qc_app.models import Protocol, QCProfile
from sites_app.ingest.packs import read_instance
from sites_app.models import Instance, Submission, Trial

RECORD_APPS = ("sites_app", "qc_app", "harmonization_app")
# Keyed digests of who a subject is: of use only to link subjects to people.
WITHHELD = {("subject", "patient_digest")}
_VERSION_MODELS: dict[str, Any] = {
    "protocols": Protocol,
    "qc_profiles": QCProfile,
    "harmonization_plans": HarmonizationPlan,
}
_UID = re.compile(r"[0-9.]{1,64}")
_ROWS_AT_ONCE = 2000
"""Rows fetched from the database at a time."""

README = """Export package of trial {code}: {status}
{title}

{note}

Verify it with nothing but Python 3.11 or newer:

    python3 verify_package.py {name}

or on a hub: python manage.py verify_lock {name}. Exit status 0 says that it is intact, 1 names the first thing that
differs. The package was signed with the hub's public key

    {key}

Compare this key with the one that the hub's operator made known to you in another way (--public-key checks it).

manifest.json           what was locked: the digest of every version, feature set, run, signature and instance, signed
package.json            every file of this package with its SHA-256, signed
protocols/ qc_profiles/ harmonization_plans/   each version as canonical JSON, the bytes that its digest is made of
versions.jsonl          state, title, signature and dates of those versions
algorithms/             the algorithm versions that were used, with their verification
feature_sets/           tables (CSV, UTF-8), with columns, units and covariates
runs/                   harmonized table (CSV), model (zip), diagnostics and report (JSON); run.json says whether the
                        run was primary or exploratory
records/                every record of the trial, one JSON object per line, a file per kind; people.jsonl names
                        the people that records refer to
receipts/               the signed receipt of every submission
signatures.jsonl        electronic signatures: who, when, meaning, and the digest of what was signed
audit/events.jsonl      the trial's audit chain from its first event on
audit/anchors.jsonl     signed heads of that chain, kept outside the database
images/                 de-identified DICOM, images/<series>/<SOP instance UID>.dcm{images}
"""
LOCKED_NOTE = (
    "The data of this trial were locked and signed; manifest.json is the manifest that was signed then."
)
NOT_LOCKED_NOTE = (
    "THE DATA OF THIS TRIAL WERE NOT LOCKED when this package was made. It is an interim copy and may change;\n"
    "manifest.json was made for this package and nobody signed it but the hub."
)


def manifest_files(trial: Trial, manifest: Mapping[str, Any]) -> Files:
    """Yield what the manifest names: versions, algorithms, feature sets and runs."""
    for kind, model in _VERSION_MODELS.items():
        for row in model.objects.filter(trial=trial).order_by("created_at"):
            yield f"{kind}/{row.pk}.json", [canonical_json(_signed_content(row))]
    yield "versions.jsonl", _lines(_version_records(trial))
    yield from _algorithm_files(trial)
    for row in FeatureSet.objects.filter(trial=trial).order_by("created_at"):
        yield from _feature_set_files(row)
    named = {item["id"]: item for item in manifest["runs"]}
    runs = HarmonizationRun.objects.filter(trial=trial).order_by("created_at")
    for run in runs.select_related("algorithm_version", "feature_set", "trial", "plan", "plan__signature"):
        yield from _run_files(run, named.get(str(run.pk)))


def _signed_content(row: Any) -> Any:
    """Return what the version's digest is of."""
    return signed_content(row) if isinstance(row, HarmonizationPlan) else row.document


def _version_records(trial: Trial) -> Iterator[dict[str, Any]]:
    for kind, model in _VERSION_MODELS.items():
        for row in model.objects.filter(trial=trial).order_by("created_at"):
            yield {"kind": kind, **_record(row, without=("document",))}


def _algorithm_files(trial: Trial) -> Files:
    used = AlgorithmVersion.objects.filter(Q(runs__trial=trial) | Q(plans__trial=trial)).distinct()
    for row in used.order_by("algorithm", "created_at"):
        signatures = [made for made in (row.signature, row.second_signature) if made is not None]
        if any(made.object_digest != lock_digest(row) for made in signatures):
            raise Conflict(f"{row} is not what its signature is over. Tell the administrator.")
        yield f"algorithms/{row.pk}.json", [_json(_record(row))]


def _feature_set_files(row: FeatureSet) -> Files:
    folder = f"feature_sets/{row.pk}"
    identity = {"data": row.data_digest, "columns": row.columns, "covariates": row.covariates}
    yield f"{folder}/identity.json", [canonical_json(identity)]
    yield f"{folder}/{_table_name(row)}", blob_pieces(row.data_digest)
    yield f"{folder}/record.json", [_json(_record(row))]


def _table_name(row: FeatureSet) -> str:
    """Return the name of a table's file: measurements that came as a matrix stay one."""
    return "data.npy" if row.origin == FeatureSet.Origin.MATRIX else "data.csv"


def _run_files(run: HarmonizationRun, named: Mapping[str, Any] | None) -> Files:
    """Yield the files of a run; what the manifest names is taken at its word, later runs as they are now."""
    folder = f"runs/{run.pk}"
    yield f"{folder}/run.json", [_json({**_record(run), "in_manifest": named is not None})]
    outputs = named or {
        "data": run.data_digest,
        "model": run.model_digest,
        "diagnostics": run.diagnostics_digest,
    }
    table = _table_name(run.feature_set)
    for part, name in (("data", table), ("model", "model.zip"), ("diagnostics", "diagnostics.json")):
        if outputs[part]:
            yield f"{folder}/{name}", blob_pieces(outputs[part])
    if is_matrix(run):
        yield f"{folder}/keys.csv", [get_blob(run.summary[KEYS])]
    if run.is_final:
        yield f"{folder}/report.json", [render_report(run, "json")[0]]


def record_files(trial: Trial) -> Files:
    """Yield every record of the trial, one file per model, and the people that they name by id."""
    yield "records/trial.jsonl", _lines([_record(trial)])
    for model in _record_models():
        yield f"records/{model._meta.model_name}.jsonl", _lines(_records(model, trial))
    people = get_user_model().objects.filter(memberships__trial=trial).distinct().order_by("pk")
    yield "records/people.jsonl", _lines({"id": row.pk, "name": str(row)} for row in people)
    submissions = Submission.objects.filter(trial=trial).exclude(receipt_digest="").order_by("pk")
    for pk, receipt in submissions.values_list("pk", "receipt_digest").iterator(chunk_size=_ROWS_AT_ONCE):
        yield f"receipts/{pk}.json", [get_blob(receipt)]


def _record_models() -> list[Any]:
    """Return every model whose rows belong to a trial, so that a model that is added later is exported too."""
    return [
        model
        for label in RECORD_APPS
        for model in sorted(
            apps.get_app_config(label).get_models(), key=lambda item: item._meta.model_name or ""
        )
        if any(field.attname == "trial_id" for field in model._meta.concrete_fields)
    ]


def _records(model: Any, trial: Trial) -> Iterator[dict[str, Any]]:
    rows = model.objects.filter(trial=trial).order_by("pk")
    yield from (_record(row) for row in rows.iterator(chunk_size=_ROWS_AT_ONCE))


def _record(row: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    name = row._meta.model_name
    return {
        field.attname.removesuffix("_id") if field.is_relation else field.attname: getattr(row, field.attname)
        for field in row._meta.concrete_fields
        if (name, field.attname) not in WITHHELD and field.attname not in without
    }


def signature_file(trial: Trial) -> Files:
    """Yield the electronic signatures of the trial and of the algorithm versions that it used."""
    versions = AlgorithmVersion.objects.filter(Q(runs__trial=trial) | Q(plans__trial=trial))
    rows: QuerySet = ElectronicSignature.objects.filter(
        Q(scope=trial.pk)
        | Q(pk__in=versions.values("signature_id"))
        | Q(pk__in=versions.values("second_signature_id"))
    ).order_by("signed_at", "pk")
    yield "signatures.jsonl", _lines(_record(row) for row in rows)


def image_files(trial: Trial) -> Files:
    """Yield every instance's de-identified Part 10 file. Raises NotFound where one is absent or damaged."""
    rows = Instance.objects.filter(trial=trial).order_by("series_id", "segment_id", "offset")
    for row in rows.select_related("series").iterator(chunk_size=_ROWS_AT_ONCE):
        if not _UID.fullmatch(row.sop_instance_uid):
            raise Conflict(f"Instance {row.pk} has a UID that is no UID; it cannot be exported.")
        yield f"images/{row.series_id}/{row.sop_instance_uid}.dcm", [read_instance(row)]


def anchor_lines(chain: str) -> list[dict[str, Any]]:
    """Return the anchors of a chain with their signatures. Raises Conflict where the file has an unreadable line."""
    anchors = []
    text = settings.HUB_ANCHOR_FILE.read_text() if settings.HUB_ANCHOR_FILE.exists() else ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            anchor = json.loads(line)
            if anchor["chain"] == chain:
                anchors.append(anchor)
        except (ValueError, KeyError, TypeError) as error:
            raise Conflict(
                f"Line {number} of the anchor file cannot be read, so the audit trail cannot be proven."
                " Run manage.py verify_audit and restore the anchor file."
            ) from error
    return anchors


def audit_files(chain: str, anchors: list[dict[str, Any]]) -> Files:
    """Yield the chain up to its last anchor, with the anchors."""
    last = anchors[-1]["sequence"]
    yield "audit/anchors.jsonl", _lines(anchors)
    columns = [*HASHED_COLUMNS, "hash"]
    rows = AuditEvent.objects.filter(chain=chain, sequence__lte=last).order_by("sequence").values(*columns)
    yield "audit/events.jsonl", _lines(_event(row) for row in rows.iterator(chunk_size=_ROWS_AT_ONCE))


def _event(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "recorded_at": row["recorded_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def guide_files(trial: Trial, *, locked: bool, include_images: bool, name: str) -> Files:
    """Yield what a reader without a hub needs: README, public key, verifier."""
    text = README.format(
        code=trial.code,
        title=trial.title,
        status="data locked" if locked else "NOT LOCKED",
        note=LOCKED_NOTE if locked else NOT_LOCKED_NOTE,
        name=name,
        key=public_key(),
        images="" if include_images else " (not included in this package)",
    )
    yield "README.txt", [text.encode()]
    yield "public_key.txt", [f"{public_key()}\n".encode()]
    yield "verify_package.py", [inspect.getsource(verify_package).encode()]


def interim_manifest(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest of data that are not locked: it must not be taken for one of a data lock."""
    kept = {
        name: value
        for name, value in body.items()
        if name not in ("locked_at", "public_key", "hub_signature")
    }
    return {**kept, "schema": verify_package.MANIFEST_SCHEMAS["not locked"], "made_at": body["locked_at"]}


def signed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the hub's key and signature over its digest."""
    return {
        **body,
        "public_key": public_key(),
        "hub_signature": sign_bytes(bytes.fromhex(digest(dict(body)))),
    }


def _lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for row in rows:
        yield _json(row) + b"\n"


def _json(row: Mapping[str, Any]) -> bytes:
    finite = {name: None if _is_not_finite(value) else value for name, value in row.items()}
    return json.dumps(finite, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_text).encode()


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)

"""The verdicts that the hub will give, from headers alone, before any image is sent."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from hub.core.errors import InvalidInput
from qc_app.models import Protocol
from qc_app.protocol.model import COMPLIANT, NOT_EVALUABLE
from qc_app.services.judgement import judge_protocol
from qc_app.services.shapes import Json, protocol_outcome
from qc_app.services.visit_check import protocol_in_force
from sites_app.deid.engine import Deidentifier
from sites_app.deid.policy import InstanceRefused
from sites_app.dicom.aggregate import aggregate
from sites_app.dicom.observations import InstanceFacts
from sites_app.ingest.pseudonyms import deidentifier_for
from sites_app.models import Submission
from sites_app.permissions import UPLOADERS, require_role

MAX_HEADERS = 5000
_LAST_HEADER_TAG = 0x7FDFFFFF
# An empty encapsulated (7FE0,0010) stands for the pixels that the header describes (PS3.5 A.4).
_NO_PIXELS = bytes.fromhex("e07f10004f420000fffffffffeff00e000000000feffdde000000000")
_WHOLE_SERIES = frozenset({"completeness", "count"})
_ONE_HEADER = "Only one header of this series was sent; this is judged when all of its images are there."


def precheck(*, actor: Any, submission: Submission, headers: Any) -> list[Json]:
    """Judge headers (DICOM JSON model, PS3.18 F, one per series or one per instance) for a submission's visit.

    They go through the same de-identifier, reader and rules as files do. Where a series has one header that is
    not multi-frame, what needs all images is not evaluable.

    Raises NotAllowed, InvalidInput where the body is no list of DICOM JSON objects.
    """
    require_role(
        actor, UPLOADERS, submission.trial_id, submission.site_id, "check images before sending them"
    )
    items = [headers] if isinstance(headers, Mapping) else headers
    if not isinstance(items, list) or not items or not all(isinstance(item, Mapping) for item in items):
        raise InvalidInput(
            "Send one DICOM JSON object, or a list of them: one per series or one per instance."
        )
    if len(items) > MAX_HEADERS:
        raise InvalidInput(f"Send at most {MAX_HEADERS} headers at once; these are {len(items)}.")
    with transaction.atomic():
        deidentifier = deidentifier_for(submission.subject, submission.profile)
    protocol = protocol_in_force(submission.trial_id)
    facts: dict[str, list[InstanceFacts]] = defaultdict(list)
    refused: dict[str, list[Json]] = defaultdict(list)
    for index, item in enumerate(items):
        uid, outcome = _read(deidentifier, item, index)
        if isinstance(outcome, InstanceFacts):
            facts[uid].append(outcome)
        else:
            refused[uid].append(outcome)
    code = submission.visit.definition.code
    return [
        _judge(uid, facts.get(uid, []), refused.get(uid, []), protocol, code)
        for uid in dict.fromkeys([*facts, *refused])
    ]


def _read(
    deidentifier: Deidentifier, item: Mapping[str, Any], index: int
) -> tuple[str, InstanceFacts | Json]:
    """Return the series' UID as sent, and the header's facts or why such a file would be refused."""
    uid = ""
    try:
        dataset = Dataset.from_json(dict(item), bulk_data_uri_handler=lambda *_: b"")
        uid = str(dataset.get("SeriesInstanceUID", ""))
        content = _part10(dataset)
    except Exception as error:
        # Any value of a foreign header may be refused by the parser; this header is named, the others go on.
        return uid, {
            "index": index,
            "code": "header_invalid",
            "detail": f"The header is no valid DICOM JSON ({type(error).__name__}).",
            "action": "Write the header with a DICOM library, as PS3.18 F.2 says.",
        }
    try:
        return uid, deidentifier.process(content).facts
    except InstanceRefused as refusal:
        return uid, {
            "index": index,
            "code": refusal.code,
            "detail": refusal.detail,
            "action": refusal.action,
        }


def _part10(dataset: Dataset) -> bytes:
    kept = Dataset(
        {tag: dataset[tag] for tag in dataset.keys() if 0x00080000 <= int(tag) <= _LAST_HEADER_TAG}
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(str(kept.get("SOPClassUID", "")))
    meta.MediaStorageSOPInstanceUID = UID(str(kept.get("SOPInstanceUID", "")))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kept.file_meta = meta
    stream = io.BytesIO()
    kept.save_as(stream, enforce_file_format=True)
    return stream.getvalue() + _NO_PIXELS


def _judge(
    uid: str,
    facts: Sequence[InstanceFacts],
    refused: Sequence[Json],
    protocol: Protocol | None,
    visit_code: str,
) -> Json:
    observation = aggregate(facts).to_json() if facts else {}
    judged = judge_protocol(protocol, observation, visit_code)
    alone = len(facts) == 1 and facts[0].frames == 1
    verdicts = [_withheld(verdict) if alone else verdict for verdict in judged.verdicts]
    outcome = protocol_outcome(verdicts)
    if refused and outcome == COMPLIANT:
        outcome = NOT_EVALUABLE
    return {
        "series_instance_uid": uid,
        "modality": facts[0].modality if facts else "",
        "headers": len(facts) + len(refused),
        "expected_series": judged.expected_key,
        "outcome": outcome,
        "reason": judged.match["reason"],
        "verdicts": verdicts,
        "refused": list(refused),
    }


def _withheld(verdict: Json) -> Json:
    if verdict["expected"].get("kind") not in _WHOLE_SERIES:
        return verdict
    return {**verdict, "outcome": NOT_EVALUABLE, "observed": None, "detail": _ONE_HEADER, "action": ""}

"""One pass over an upload: each file is de-identified and packed, or refused with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from hub.core.ids import uuid7
from sites_app.deid.engine import DeidentifiedInstance, Deidentifier, InstanceRefused
from sites_app.dicom.observations import InstanceFacts
from sites_app.dicom.sniff import HEAD_BYTES, FileKind, sniff
from sites_app.ingest import refusals
from sites_app.ingest.members import ReceivedFile
from sites_app.ingest.packs import PackWriter
from sites_app.ingest.quarantine_area import QuarantineArea
from sites_app.ingest.refusals import Refusal
from sites_app.models import FileOutcome

log = structlog.get_logger(__name__)

_MOST_OPEN_PACKS = 32
_DICOM_KINDS = frozenset({FileKind.DICOM, FileKind.DICOM_NO_PREAMBLE})

SeriesUID = tuple[str, str]
"""The mapped StudyInstanceUID and SeriesInstanceUID."""

Original = tuple[str, UUID]
"""The SHA-256 of an instance as received, and the visit it was received for."""


@dataclass(slots=True)
class FileRecord:
    """What became of one file; a row of SubmissionFile."""

    ordinal: int
    sha256: str
    size: int
    outcome: str
    code: str = ""
    detail: str = ""
    action: str = ""
    instance_id: UUID | None = None
    quarantine_id: UUID | None = None
    id: UUID = field(default_factory=uuid7)

    def refuse(self, refusal: Refusal) -> None:
        self.outcome, self.code = refusal.outcome, refusal.code
        self.detail, self.action = refusal.detail[:600], refusal.action[:400]
        self.instance_id = None


@dataclass(slots=True)
class PackedInstance:
    """One instance in a pack, waiting for its row."""

    file: FileRecord
    facts: InstanceFacts
    offset: int
    size: int
    sha256: str


@dataclass(slots=True)
class PackedSeries:
    """What this upload adds to one series."""

    pack: PackWriter
    instances: list[PackedInstance] = field(default_factory=list)
    actions: dict[str, set[str]] = field(default_factory=dict)

    @property
    def facts(self) -> InstanceFacts:
        return self.instances[0].facts


@dataclass(frozen=True, slots=True)
class Patient:
    """Whose images these must be: the subject's code, and the digest its first images were pinned to."""

    subject_code: str
    pinned_digest: str


class UploadSorter:
    """Sorts the files of one upload. `known_instances` gives what the site has stored of a series.

    Nothing is visible to others until the caller commits the rows; `discard` undoes what lies on disk.
    """

    def __init__(
        self,
        *,
        trial_id: UUID,
        visit_id: UUID,
        deidentifier: Deidentifier,
        patient: Patient,
        known_instances: Callable[[str], dict[str, Original]],
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.files: list[FileRecord] = []
        self.names: list[str] = []
        self.series: dict[SeriesUID, PackedSeries] = {}
        self.patient_digest = patient.pinned_digest
        self.quarantine = QuarantineArea()
        self._trial_id, self._visit_id = trial_id, visit_id
        self._deidentifier, self._patient = deidentifier, patient
        self._known_instances, self._progress = known_instances, progress
        self._known: dict[str, dict[str, Original]] = {}
        self._seen: dict[str, Original] = {}

    def run(self, files: Iterable[ReceivedFile]) -> None:
        """Sort every file, then make packs and quarantined files durable."""
        for received in files:
            self._sort(received)
            if len(self.files) % 200 == 0:
                self._progress(len(self.files))
        for series in self.series.values():
            series.pack.seal()
        self.quarantine.seal()

    def discard(self) -> None:
        for series in self.series.values():
            series.pack.discard()
        self.quarantine.discard()

    def _sort(self, received: ReceivedFile) -> None:
        record = FileRecord(
            ordinal=len(self.files),
            sha256="" if received.code else hashlib.sha256(received.data).hexdigest(),
            size=len(received.data),
            outcome=FileOutcome.REJECTED,
        )
        self.files.append(record)
        self.names.append(received.name)
        refusal = self._place(received, record)
        if refusal is not None:
            record.refuse(refusal)
            if refusal.outcome == FileOutcome.QUARANTINED:
                record.quarantine_id = self.quarantine.keep(received.data)

    def _place(self, received: ReceivedFile, record: FileRecord) -> Refusal | None:
        """Put the file where it belongs; return why it is not accepted."""
        if received.code:
            return refusals.of_member(received.code, received.detail, received.action)
        kind = sniff(received.data[:HEAD_BYTES])
        if kind not in _DICOM_KINDS:
            return refusals.of_kind(kind)
        try:
            instance = self._deidentifier.process(received.data)
        except InstanceRefused as refused:
            return refusals.of_instance(refused.code, refused.detail, refused.action)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            log.warning("file.unreadable", error=type(error).__name__)
            return refusals.unexpected(type(error).__name__)
        refusal = self._wrong_patient(instance) or self._repeated(instance, record)
        if refusal is None:
            self._pack(instance, record)
        return refusal

    def _wrong_patient(self, instance: DeidentifiedInstance) -> Refusal | None:
        if instance.claimed_patient_id_matches(self._patient.subject_code):
            return None
        if not instance.patient_digest:
            return refusals.PATIENT_UNKNOWN if self.patient_digest else None
        if self.patient_digest and instance.patient_digest != self.patient_digest:
            return refusals.OTHER_PATIENT if self._patient.pinned_digest else refusals.MIXED_PATIENTS
        self.patient_digest = instance.patient_digest
        return None

    def _repeated(self, instance: DeidentifiedInstance, record: FileRecord) -> Refusal | None:
        """Compare with what is stored of its series and what this upload brought before."""
        facts = instance.facts
        uid = facts.sop_instance_uid
        if facts.series_instance_uid not in self._known:
            self._known[facts.series_instance_uid] = self._known_instances(facts.series_instance_uid)
        original = self._seen.get(uid) or self._known[facts.series_instance_uid].get(uid)
        if original is None:
            self._seen[uid] = (record.sha256, self._visit_id)
            return None
        if original[0] != record.sha256:
            return refusals.CONFLICT
        return refusals.DUPLICATE if original[1] == self._visit_id else refusals.DUPLICATE_AT_OTHER_VISIT

    def _pack(self, instance: DeidentifiedInstance, record: FileRecord) -> None:
        facts = instance.facts
        key = (facts.study_instance_uid, facts.series_instance_uid)
        series = self.series.get(key)
        if series is None:
            self._limit_open_packs()
            pack = PackWriter(self._trial_id, self._visit_id, facts.series_instance_uid)
            series = self.series[key] = PackedSeries(pack)
        offset = series.pack.append(instance.data)
        record.outcome, record.instance_id = FileOutcome.ACCEPTED, uuid7()
        digest = hashlib.sha256(instance.data).hexdigest()
        series.instances.append(PackedInstance(record, facts, offset, len(instance.data), digest))
        for action, tags in instance.report.actions.items():
            series.actions.setdefault(action, set()).update(tags)

    def _limit_open_packs(self) -> None:
        if len(self.series) % _MOST_OPEN_PACKS == 0:
            for series in self.series.values():
                series.pack.pause()

"""The demonstration without a server: every submission through the pure packages, to see what is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hub.demo.plan import Submission, uploads
from hub.demo.protocol import protocol_document
from hub.demo.quality import qc_profile
from hub.demo.trial import TRIAL_CODE
from qc_app.metrics.compute import compute_metrics
from qc_app.metrics.pixels import load_series
from qc_app.metrics.profile import QCProfileSpec, judge, overall, parse_profile
from qc_app.protocol.evaluation import evaluate_series, evaluate_visit
from qc_app.protocol.matching import match_series
from qc_app.protocol.model import COMPLIANT, ProtocolSpec
from qc_app.protocol.schema import parse_protocol
from sites_app.deid.engine import DeidentifiedInstance, Deidentifier
from sites_app.deid.policy import InstanceRefused
from sites_app.deid.profile import DEFAULT_PROFILE
from sites_app.dicom.aggregate import aggregate

REHEARSAL_KEY = b"a key for rehearsals only"
DATE_OFFSET_DAYS = -1234
DUPLICATE, CONFLICT, WRONG_PATIENT = "duplicate", "conflict", "wrong_patient"


@dataclass(slots=True)
class Rehearsal:
    """What was found: verdicts that are not compliant, refused files, unmatched series, QC outcomes.

    `findings` holds (subject, visit, rule, outcome); `files` maps a file's name to why it was not accepted;
    `unmatched` holds (subject, visit, reason code); `quality` maps (subject, visit, expected series) to the
    outcome of the QC profile.
    """

    findings: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)
    unmatched: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    quality: dict[tuple[str, str, str], str] = field(default_factory=dict)
    accepted: int = 0


class _Hub:
    """Keeps between submissions what a hub remembers: each subject's digest and each instance's content."""

    def __init__(self, protocol: ProtocolSpec, profile: QCProfileSpec, with_quality: bool) -> None:
        self.protocol, self.profile, self.with_quality = protocol, profile, with_quality
        self.patients: dict[str, str] = {}
        self.contents: dict[str, bytes] = {}
        self.found = Rehearsal()

    def receive(self, submission: Submission) -> None:
        engine = Deidentifier(
            DEFAULT_PROFILE, REHEARSAL_KEY, submission.subject, DATE_OFFSET_DAYS, TRIAL_CODE
        )
        series: dict[str, list[DeidentifiedInstance]] = {}
        for upload in uploads(submission):
            for file in upload.files:
                try:
                    instance = engine.process(file.data)
                except InstanceRefused as refused:
                    self.found.files[file.name] = refused.code
                    continue
                reason = self._reason_to_refuse(submission, instance)
                if reason:
                    self.found.files[file.name] = reason
                else:
                    series.setdefault(instance.facts.series_instance_uid, []).append(instance)
                    self.found.accepted += 1
        self._judge(submission, series.values())

    def _reason_to_refuse(self, submission: Submission, instance: DeidentifiedInstance) -> str:
        uid = instance.facts.sop_instance_uid
        if uid in self.contents:
            return DUPLICATE if self.contents[uid] == instance.data else CONFLICT
        known = self.patients.setdefault(submission.subject, instance.patient_digest)
        if instance.patient_digest != known:
            return WRONG_PATIENT
        self.contents[uid] = instance.data
        return ""

    def _judge(self, submission: Submission, series: Iterable[list[DeidentifiedInstance]]) -> None:
        received: Counter[str] = Counter()
        for instances in series:
            observation = aggregate(instance.facts for instance in instances)
            match = match_series(self.protocol, observation, submission.visit)
            place = (submission.subject, submission.visit)
            if match.expected_key is None:
                self.found.unmatched[(*place, match.reason_code)] += 1
                continue
            received[match.expected_key] += 1
            for verdict in evaluate_series(self.protocol, match.expected_key, observation):
                if verdict.outcome != COMPLIANT:
                    self.found.findings[(*place, verdict.rule, verdict.outcome)] += 1
            if self.with_quality:
                pixels = load_series([instance.data for instance in instances])
                verdicts = judge(
                    self.profile, observation.modality, compute_metrics(pixels), match.expected_key
                )
                self.found.quality[(*place, match.expected_key)] = overall(verdicts)
        for verdict in evaluate_visit(self.protocol, submission.visit, received):
            if verdict.outcome != COMPLIANT:
                self.found.findings[
                    (submission.subject, submission.visit, verdict.rule, verdict.outcome)
                ] += 1


def rehearse(submissions: Iterable[Submission], *, with_quality: bool = False) -> Rehearsal:
    """Return what the pure packages find in these submissions, received in this order."""
    hub = _Hub(parse_protocol(protocol_document()), parse_profile(qc_profile()), with_quality)
    for submission in submissions:
        hub.receive(submission)
    return hub.found

"""The judgement of one series, before anything is written: protocol verdicts, metrics, preview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hub.core.canonical import canonical_json
from qc_app.metrics.compute import compute_metrics
from qc_app.metrics.errors import PixelsUnavailable
from qc_app.metrics.pixels import load_series
from qc_app.metrics.preview import render_preview
from qc_app.metrics.profile import QCProfileSpec, judge, overall, parse_profile
from qc_app.metrics.registry import Metric
from qc_app.models import Protocol, QCOutcome, QCProfile
from qc_app.protocol.evaluation import evaluate_series
from qc_app.protocol.matching import MATCHED, SEVERAL, SeriesMatch, match_series
from qc_app.protocol.model import NOT_EVALUABLE, ProtocolSpec, Verdict
from qc_app.protocol.schema import parse_protocol
from qc_app.services.shapes import NO_PROFILE, Json, metric_json, protocol_outcome, verdict_json
from sites_app.dicom.observations import SeriesObservation

NO_PROTOCOL = "no_protocol"
SERIES_NOT_EXPECTED = "series_not_expected"
SERIES_AMBIGUOUS = "series_ambiguous"


@dataclass(frozen=True)
class ProtocolJudgement:
    """Which expected series a received one is and how it complies; `verdicts` in the API's form."""

    match: Json
    expected_key: str
    verdicts: tuple[Json, ...]
    outcome: str


@dataclass(frozen=True)
class QualityJudgement:
    """The metrics in the API's form, the QC outcome with its reason, and the preview (PNG, may be empty)."""

    metrics: tuple[Json, ...]
    outcome: str
    reason: str
    preview: bytes = b""


def protocol_spec(protocol: Protocol) -> ProtocolSpec:
    """Return the parsed document of a protocol version."""
    return _parsed_protocol(canonical_json(protocol.document))


def profile_spec(profile: QCProfile) -> QCProfileSpec:
    """Return the parsed document of a QC profile version."""
    return _parsed_profile(canonical_json(profile.document))


@lru_cache(maxsize=32)
def _parsed_protocol(document: bytes) -> ProtocolSpec:
    import json

    return parse_protocol(json.loads(document))


@lru_cache(maxsize=32)
def _parsed_profile(document: bytes) -> QCProfileSpec:
    import json

    return parse_profile(json.loads(document))


def judge_protocol(
    protocol: Protocol | None, observation: Mapping[str, Any], visit_code: str
) -> ProtocolJudgement:
    """Match a series' observation (its JSON form) and judge it by a protocol version."""
    if protocol is None:
        reason = "The trial has no locked protocol, so the series cannot be judged. It is judged once one is locked."
        return ProtocolJudgement(
            {"code": NO_PROTOCOL, "reason": reason, "candidates": []}, "", (), NOT_EVALUABLE
        )
    spec = protocol_spec(protocol)
    if not observation:
        match = SeriesMatch(None, "no_match", "Nothing could be read from the headers of the series.")
    else:
        seen = SeriesObservation.from_json(observation)
        match = match_series(spec, seen, visit_code)
    shown = {"code": match.reason_code, "reason": match.reason, "candidates": list(match.candidates)}
    if match.reason_code != MATCHED or match.expected_key is None:
        return ProtocolJudgement(shown, "", (verdict_json(_unmatched(match), protocol),), NOT_EVALUABLE)
    verdicts = tuple(
        verdict_json(verdict, protocol) for verdict in evaluate_series(spec, match.expected_key, seen)
    )
    return ProtocolJudgement(shown, match.expected_key, verdicts, protocol_outcome(verdicts))


def _unmatched(match: SeriesMatch) -> Verdict:
    """Return the verdict on a series that is none, or more than one, of the expected series."""
    ambiguous = match.reason_code == SEVERAL
    return Verdict(
        rule=SERIES_AMBIGUOUS if ambiguous else SERIES_NOT_EXPECTED,
        parameter="ExpectedSeries",
        label="Expected series",
        expected={"kind": "expected_series", "text": "exactly one of the protocol's expected series"},
        observed=match.reason_code,
        unit="",
        source="matching conditions",
        outcome=NOT_EVALUABLE,
        severity="major" if ambiguous else "minor",
        detail=match.reason,
        action=(
            "Ask the trial's administrator to make the protocol's matching conditions tell these series apart."
            if ambiguous
            else "Check that this series belongs to the visit. If it does, ask the trial's data manager about it."
        ),
    )


def judge_quality(
    profile: QCProfile | None, modality: str, metrics: Sequence[Metric], expected_key: str
) -> QualityJudgement:
    """Judge measured metrics by a QC profile version; without one nothing is a pass."""
    if profile is None:
        shown = tuple(metric_json(metric, None, None) for metric in metrics)
        return QualityJudgement(shown, QCOutcome.NOT_EVALUABLE.value, NO_PROFILE)
    verdicts = judge(profile_spec(profile), modality, metrics, expected_key or None)
    by_name = {verdict.metric: verdict for verdict in verdicts}
    outcome = overall(verdicts)
    at_fault = [f"{item.label}: {item.detail}" for item in verdicts if item.outcome == outcome != "pass"]
    reason = (
        " ".join(at_fault) if verdicts else f"The QC profile has no bounds for {modality or 'this'} series."
    )
    return QualityJudgement(
        tuple(metric_json(metric, by_name.get(metric.name), profile) for metric in metrics),
        outcome,
        reason[:600],
    )


def measure_series(
    instances: Sequence[bytes | memoryview], profile: QCProfile | None, modality: str, expected_key: str
) -> QualityJudgement:
    """Measure and judge the pixels of a series in one pass; pixels that cannot be used are not evaluable."""
    try:
        pixels = load_series(instances)
        metrics = compute_metrics(pixels)
        preview = render_preview(pixels)
    except PixelsUnavailable as problem:
        return QualityJudgement((), QCOutcome.NOT_EVALUABLE.value, problem.detail[:600])
    judged = judge_quality(profile, modality, metrics, expected_key)
    return QualityJudgement(judged.metrics, judged.outcome, judged.reason, preview)

"""The JSON shapes of verdicts and metrics, as the API and the stored checks have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qc_app.metrics.profile import Band, MetricVerdict
from qc_app.metrics.registry import METRICS, METRICS_VERSION, Metric
from qc_app.models import Protocol, QCOutcome, QCProfile
from qc_app.protocol.model import COMPLIANT, DEVIANT, NOT_EVALUABLE, SEVERITIES, Verdict

Json = dict[str, Any]
NO_BOUNDS = "The QC profile in force sets no bounds for this metric."
NO_PROFILE = "The trial has no locked QC profile to judge by."


def version_json(version: Protocol | QCProfile | None) -> Json | None:
    """Return which version judged: {id, version, digest}, or None."""
    if version is None:
        return None
    return {"id": str(version.pk), "version": version.version, "digest": version.digest}


def verdict_json(verdict: Verdict, protocol: Protocol | None) -> Json:
    """Return the public form of a protocol verdict."""
    return {
        "rule": verdict.rule,
        "parameter": verdict.parameter,
        "label": verdict.label,
        "expected": dict(verdict.expected),
        "observed": verdict.observed,
        "unit": verdict.unit,
        "source": verdict.source,
        "outcome": verdict.outcome,
        "severity": verdict.severity,
        "detail": verdict.detail,
        "action": verdict.action,
        "instances": list(verdict.instances),
        "protocol": version_json(protocol),
    }


def metric_json(metric: Metric, verdict: MetricVerdict | None, profile: QCProfile | None) -> Json:
    """Return the public form of a metric; one that no bound judges is not evaluable, with the reason."""
    definition = METRICS[metric.name]
    if metric.value is None:
        outcome, reason = (
            QCOutcome.NOT_EVALUABLE.value,
            f"Not computable: {metric.reason or 'no reason was recorded'}.",
        )
    elif verdict is None:
        outcome, reason = QCOutcome.NOT_EVALUABLE.value, NO_BOUNDS if profile else NO_PROFILE
    else:
        outcome, reason = verdict.outcome, verdict.detail
    return {
        "name": metric.name,
        "label": definition.label,
        "value": metric.value,
        "unit": metric.unit,
        "outcome": outcome,
        "reason": reason,
        "threshold": _threshold(verdict),
        "slices": list(metric.slices),
        "profile": version_json(profile),
        "algorithm_version": METRICS_VERSION,
    }


def _threshold(verdict: MetricVerdict | None) -> Json | None:
    if verdict is None:
        return None
    return {"warn": _band(verdict.warn), "fail": _band(verdict.fail), "required": verdict.required}


def _band(band: Band | None) -> Json | None:
    return None if band is None else {"min": band.low, "max": band.high}


def metric_from_json(data: Mapping[str, Any]) -> Metric:
    """Return the metric that a stored check holds, to judge it by another profile."""
    reason = (
        None if data["value"] is not None else data["reason"].removeprefix("Not computable: ").rstrip(".")
    )
    return Metric(data["name"], data["value"], data["unit"], reason, tuple(data["slices"]))


def protocol_outcome(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return deviant, else not_evaluable, else compliant; nothing judged is not evaluable."""
    outcomes = {verdict["outcome"] for verdict in verdicts}
    if DEVIANT in outcomes:
        return DEVIANT
    return COMPLIANT if outcomes == {COMPLIANT} else NOT_EVALUABLE


def worst_severity(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return the highest severity among the verdicts that are not compliant, or ""."""
    found = [verdict["severity"] for verdict in verdicts if verdict["outcome"] != COMPLIANT]
    return max(found, key=SEVERITIES.index) if found else ""

"""Was it what was asked for, and is it good."""

from qc_app.models.check import MetricValue, ProtocolOutcome, QCOutcome, SeriesCheck, VisitCheck
from qc_app.models.deviation import Deviation, DeviationState, Query, QueryMessage, QueryState, Severity
from qc_app.models.monitoring import ChangeEvent, DriftAlert
from qc_app.models.protocol import Protocol, QCProfile, VersionState

__all__ = [
    "ChangeEvent",
    "Deviation",
    "DeviationState",
    "DriftAlert",
    "MetricValue",
    "Protocol",
    "ProtocolOutcome",
    "QCOutcome",
    "QCProfile",
    "Query",
    "QueryMessage",
    "QueryState",
    "SeriesCheck",
    "Severity",
    "VersionState",
    "VisitCheck",
]

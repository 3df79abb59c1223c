"""Small protocols and observations for the tests of the protocol engine."""

from __future__ import annotations

from typing import Any

from qc_app.protocol.evaluation import evaluate_series
from qc_app.protocol.model import ProtocolSpec, Verdict
from qc_app.protocol.schema import parse_protocol
from sites_app.dicom.catalogue import PARAMETERS
from sites_app.dicom.observations import (
    ObservedValue,
    ParameterObservation,
    SeriesGeometry,
    SeriesObservation,
)

WHOLE = SeriesGeometry(evaluable=True, positions=10, frames=10, pitch_mm=1.0)


def parameter(keyword: str, *values: Any, missing: int = 0, unparsable: int = 0) -> ParameterObservation:
    """One value per instance; instances are named keyword.index."""
    observed = tuple(
        ObservedValue(value, 1, (f"{keyword}.{index}",)) for index, value in enumerate(values, start=1)
    )
    return ParameterObservation(keyword, PARAMETERS[keyword].unit, "(test)", observed, missing, unparsable)


def observation(
    *parameters: ParameterObservation,
    geometry: SeriesGeometry = WHOLE,
    modality: str = "MR",
    instances: int = 10,
) -> SeriesObservation:
    return SeriesObservation(
        series_instance_uid="1.2.3",
        modality=modality,
        instances=instances,
        frames=instances,
        parameters={item.keyword: item for item in parameters},
        geometry=geometry,
    )


def rule(kind: str, keyword: str = "RepetitionTime", **settings: Any) -> dict[str, Any]:
    base = {"id": settings.pop("id", "r"), "kind": kind}
    return base | ({} if kind == "count" else {"parameter": keyword}) | settings


def series(*rules: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"key": "t1", "title": "T1", "modality": "MR", "match": [], "rules": list(rules)} | settings


def document(*expected: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {
        "schema": "hub.protocol/1",
        "name": "p",
        "title": "Protocol",
        "series": list(expected) or [series()],
    } | settings


def protocol(*rules: dict[str, Any], **settings: Any) -> ProtocolSpec:
    return parse_protocol(document(series(*rules, **settings)))


def verdicts(spec: ProtocolSpec, seen: SeriesObservation, key: str = "t1") -> dict[str, Verdict]:
    return {verdict.rule: verdict for verdict in evaluate_series(spec, key, seen)}


def judge(one_rule: dict[str, Any], *parameters: ParameterObservation, **settings: Any) -> Verdict:
    """Return the verdict of one rule on a series with these parameters."""
    return verdicts(protocol(one_rule), observation(*parameters, **settings))[one_rule["id"]]

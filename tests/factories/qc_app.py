"""Factories of protocols, QC profiles, judged series, deviations and queries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import factory
from django.utils import timezone
from factory.django import DjangoModelFactory

from hub.core.models import ElectronicSignature
from qc_app.metrics.default_profile import DEFAULT_PROFILE
from qc_app.metrics.profile import parse_profile
from qc_app.models import (
    Deviation,
    MetricValue,
    Protocol,
    QCProfile,
    Query,
    SeriesCheck,
    VersionState,
)
from qc_app.protocol.schema import parse_protocol
from sites_app.dicom.catalogue import PARAMETERS
from sites_app.dicom.observations import (
    ObservedValue,
    ParameterObservation,
    SeriesGeometry,
    SeriesObservation,
)
from sites_app.ingest.packs import pack_path
from sites_app.models import Instance, Series
from tests.factories.sites_app import (
    InstanceFactory,
    SeriesFactory,
    SeriesSegmentFactory,
    TrialFactory,
    UserFactory,
)


def protocol_document(**changes: Any) -> dict[str, Any]:
    """A T1 series with one rule per severity, and a FLAIR that may be left out."""
    return {
        "schema": "hub.protocol/1",
        "name": "head",
        "title": "Head",
        "series": [
            {
                "key": "t1",
                "title": "T1",
                "modality": "MR",
                "match": [{"kind": "range", "parameter": "EchoTime", "min": 1, "max": 20, "unit": "ms"}],
                "rules": [
                    {"id": "tr", "kind": "tolerance_absolute", "parameter": "RepetitionTime", "value": 2300,
                     "tolerance": 10, "unit": "ms", "severity": "critical"},
                    {"id": "flip", "kind": "tolerance_absolute", "parameter": "FlipAngle", "value": 9,
                     "tolerance": 1, "unit": "deg", "severity": "major"},
                    {"id": "bandwidth", "kind": "range", "parameter": "PixelBandwidth", "min": 200, "max": 300,
                     "unit": "Hz/px", "severity": "minor"},
                ],
            },
            {
                "key": "flair",
                "title": "FLAIR",
                "modality": "MR",
                "required": False,
                "match": [{"kind": "range", "parameter": "EchoTime", "min": 60, "max": 200, "unit": "ms"}],
                "rules": [],
            },
        ],
        **changes,
    }  # fmt: skip


GOOD = {"EchoTime": 3.0, "RepetitionTime": 2300.0, "FlipAngle": 9.0, "PixelBandwidth": 240.0}


def observation(*, modality: str = "MR", slices: int = 10, **values: Any) -> dict[str, Any]:
    """The JSON of a series as receipt leaves it: the compliant T1, changed by `values` (None: not recorded)."""
    parameters = {}
    for keyword, value in {**GOOD, **values}.items():
        if value is None:
            continue
        found = (ObservedValue(value, slices, ("2.25.1",)),)
        parameters[keyword] = ParameterObservation(keyword, PARAMETERS[keyword].unit, "(0018,0000)", found)
    geometry = SeriesGeometry(evaluable=True, positions=slices, frames=slices, pitch_mm=1.0)
    seen = SeriesObservation("2.25.2", modality, slices, slices, parameters, geometry)
    return seen.to_json()


class SignatureFactory(DjangoModelFactory):
    class Meta:
        model = ElectronicSignature

    signer = factory.SubFactory(UserFactory)
    printed_name = "Signer"
    meaning = "I approve"
    signed_at = factory.LazyFunction(timezone.now)
    object_type = "qc_app.protocol"
    object_id = "-"
    object_digest = "0" * 64


class ProtocolFactory(DjangoModelFactory):
    """A draft; with `locked=True` in force."""

    class Meta:
        model = Protocol

    class Params:
        locked = factory.Trait(
            state=VersionState.LOCKED,
            signature=factory.SubFactory(SignatureFactory),
            locked_at=factory.LazyFunction(timezone.now),
        )

    trial = factory.SubFactory(TrialFactory)
    version = 1
    title = "Head"
    document = factory.LazyFunction(lambda: dict(parse_protocol(protocol_document()).document))
    digest = factory.LazyAttribute(lambda row: parse_protocol(row.document).digest)


class QCProfileFactory(DjangoModelFactory):
    class Meta:
        model = QCProfile

    class Params:
        locked = factory.Trait(
            state=VersionState.LOCKED,
            signature=factory.SubFactory(SignatureFactory, object_type="qc_app.qcprofile"),
            locked_at=factory.LazyFunction(timezone.now),
        )

    trial = factory.SubFactory(TrialFactory)
    version = 1
    title = "Starting point"
    document = factory.LazyFunction(lambda: dict(DEFAULT_PROFILE))
    digest = factory.LazyAttribute(
        lambda row: hashlib.sha256(parse_profile(row.document).name.encode()).hexdigest()
    )


def store_instances(series: Series, files: Sequence[bytes]) -> None:
    """Write the files as a pack of the series, with their rows, as receipt does."""
    segment = SeriesSegmentFactory(series=series, size=sum(map(len, files)), instance_count=len(files))
    path = pack_path(series.trial_id, series.visit_id, series.series_instance_uid, segment.pk)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(files))
    offset = 0
    for number, content in enumerate(files, start=1):
        InstanceFactory(
            segment=segment,
            instance_number=number,
            offset=offset,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        offset += len(content)
    Series.objects.filter(pk=series.pk).update(instance_count=Instance.objects.filter(series=series).count())


class SeriesCheckFactory(DjangoModelFactory):
    class Meta:
        model = SeriesCheck

    series = factory.SubFactory(SeriesFactory)
    trial = factory.SelfAttribute("series.trial")
    site = factory.SelfAttribute("series.site")
    protocol_outcome = "not_evaluable"
    qc_outcome = "not_evaluable"


class DeviationFactory(DjangoModelFactory):
    class Meta:
        model = Deviation

    series = factory.SubFactory(SeriesFactory)
    trial = factory.SelfAttribute("series.trial")
    site = factory.SelfAttribute("series.site")
    subject = factory.SelfAttribute("series.subject")
    visit = factory.SelfAttribute("series.visit")
    protocol = factory.SubFactory(ProtocolFactory, locked=True, trial=factory.SelfAttribute("..trial"))
    protocol_digest = factory.SelfAttribute("protocol.digest")
    expected_key = "t1"
    rule = "tr"
    parameter = "RepetitionTime"
    label = "Repetition time"
    kind = "deviant"
    severity = "critical"
    verdict = factory.LazyFunction(
        lambda: {
            "rule": "tr", "parameter": "RepetitionTime", "label": "Repetition time", "outcome": "deviant",
            "expected": {"kind": "tolerance_absolute", "value": 2300, "tolerance": 10, "text": "2300 ± 10 ms"},
            "observed": 2400.0, "unit": "ms", "source": "(0018,0080)", "severity": "critical",
            "detail": "Repetition time is 2400 ms.", "action": "Set it to 2300 ms.", "instances": [],
        }
    )  # fmt: skip
    detail = "Repetition time is 2400 ms; the protocol wants 2300 ± 10 ms."
    action = "Set Repetition time to 2300 ms and repeat the series, or ask for a waiver."


class QueryFactory(DjangoModelFactory):
    class Meta:
        model = Query

    deviation = factory.SubFactory(DeviationFactory)
    trial = factory.SelfAttribute("deviation.trial")
    site = factory.SelfAttribute("deviation.site")
    subject = factory.SelfAttribute("deviation.subject")
    visit = factory.SelfAttribute("deviation.visit")
    series = factory.SelfAttribute("deviation.series")
    title = "Repetition time"
    text = "Repetition time is 2400 ms."


class MetricValueFactory(DjangoModelFactory):
    class Meta:
        model = MetricValue

    series = factory.SubFactory(SeriesFactory)
    trial = factory.SelfAttribute("series.trial")
    site = factory.SelfAttribute("series.site")
    scanner = factory.SelfAttribute("series.scanner")
    expected_key = "t1"
    name = "snr_residual"
    unit = "1"
    value = 20.0
    outcome = "pass"
    received_at = factory.SelfAttribute("series.received_at")

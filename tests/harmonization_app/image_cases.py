"""Images behind rows of the demonstration's feature set, as checks have left them."""

from __future__ import annotations

from typing import Any

from qc_app.models import Protocol
from sites_app.models import ScannerEpoch, Series, Subject, Trial, VisitDefinition
from tests.factories.qc_app import ProtocolFactory, SeriesCheckFactory
from tests.factories.sites_app import (
    ScannerEpochFactory,
    ScannerFactory,
    SeriesFactory,
    StudyFactory,
    VisitFactory,
)


def protocol_of(trial: Trial) -> Protocol:
    return Protocol.objects.filter(trial=trial).first() or ProtocolFactory(locked=True, trial=trial)


def image(
    trial: Trial, row: str, *, epoch: ScannerEpoch | None = None, key: str = "t1", **check: Any
) -> Series:
    """A checked series of the visit of a row (subject|visit), compliant and of good quality unless told."""
    subject, _, visit = row.partition("|")
    person = Subject.objects.get(trial=trial, code=subject)
    definition = VisitDefinition.objects.get(trial=trial, code=visit)
    place = person.visits.filter(definition=definition).first()
    place = place or VisitFactory(subject=person, definition=definition)
    series = SeriesFactory(
        study=StudyFactory(visit=place),
        scanner=epoch.scanner if epoch else None,
        scanner_epoch=epoch,
        state="checked",
    )
    outcomes = {"protocol_outcome": "compliant", "qc_outcome": "pass", **check}
    SeriesCheckFactory(series=series, expected_key=key, protocol=protocol_of(trial), **outcomes)
    return series


def epochs_of_a_scanner(trial: Trial, *software: str) -> list[ScannerEpoch]:
    """A scanner at the trial's first site with an epoch for each software version."""
    scanner = ScannerFactory(site=trial.sites.first(), serial_number="7001")
    return [
        ScannerEpochFactory(scanner=scanner, number=number, software_versions=version)
        for number, version in enumerate(software, start=1)
    ]

"""Scanners as images name them, and the epochs that their software versions begin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Max
from django.utils import timezone

from hub.core.audit.services import record
from hub.core.events import publish
from sites_app.dicom.observations import SeriesObservation
from sites_app.events import ScannerChanged
from sites_app.models import Scanner, ScannerEpoch, Series, Submission


def lock_scanners(*, submission: Submission, observations: Iterable[SeriesObservation]) -> None:
    """Lock the scanners that observations name, made where they are new, in the caller's transaction.

    All of them, in one order, before the first audit event locks the trial's chain: two submissions of the
    same scanners that finish at once wait for each other, and never in a circle.
    """
    by_name = {_name(observation): observation for observation in observations}
    created = []
    for (manufacturer, serial_number), observation in sorted(by_name.items(), key=lambda item: item[0]):
        if not manufacturer or not serial_number:
            continue
        scanner, is_new = Scanner.objects.select_for_update(no_key=True).get_or_create(
            site_id=submission.site_id,
            manufacturer=manufacturer,
            serial_number=serial_number,
            defaults={
                "trial_id": submission.trial_id,
                "model": _text(observation.value("ManufacturerModelName"))[:120],
                "modality": observation.modality[:16],
                "field_strength_t": _number(observation.value("MagneticFieldStrength")),
            },
        )
        if is_new:
            created.append(scanner)
    for scanner in created:
        new = {"manufacturer": scanner.manufacturer, "serial_number": scanner.serial_number}
        record(actor=None, action="scanner.first_seen", obj=scanner, new=new)


def identify_scanner(
    *, series: Series, observation: SeriesObservation
) -> tuple[Scanner | None, ScannerEpoch | None]:
    """Return the scanner of a series, which `lock_scanners` has locked, and its epoch, made where it is new.

    (None, None) where manufacturer or serial number is missing or varies; no epoch where the software version
    is: it cannot be evaluated, and nothing is guessed. Publishes ScannerChanged for a version never seen on a
    scanner that had another one. Epochs are dated by the day of receipt: dates in images are shifted by
    another offset for each subject, so they do not order events of a scanner.
    """
    manufacturer, serial_number = _name(observation)
    if not manufacturer or not serial_number:
        return None, None
    scanner = Scanner.objects.get(
        site_id=series.site_id, manufacturer=manufacturer, serial_number=serial_number
    )
    return scanner, _epoch(scanner, series, _text(observation.value("SoftwareVersions"))[:300])


def _name(observation: SeriesObservation) -> tuple[str, str]:
    """Return manufacturer and serial number, "" for what is missing or varies."""
    return _text(observation.value("Manufacturer"))[:120], _text(observation.value("DeviceSerialNumber"))[
        :120
    ]


def _epoch(scanner: Scanner, series: Series, software_versions: str) -> ScannerEpoch | None:
    if not software_versions:
        return None
    today = timezone.now().date()
    found = ScannerEpoch.objects.filter(scanner=scanner, software_versions=software_versions).first()
    if found is not None:
        if found.last_seen_on != today:
            found.first_seen_on = found.first_seen_on or today
            found.last_seen_on = today
            found.save(update_fields=["first_seen_on", "last_seen_on"])
        return found
    last = ScannerEpoch.objects.filter(scanner=scanner).aggregate(number=Max("number"))["number"] or 0
    previous = ScannerEpoch.objects.filter(scanner=scanner, number=last).first()
    epoch = ScannerEpoch.objects.create(
        trial_id=scanner.trial_id,
        site_id=scanner.site_id,
        scanner=scanner,
        number=last + 1,
        software_versions=software_versions,
        first_seen_on=today,
        last_seen_on=today,
    )
    if previous is not None:
        record(
            actor=None,
            action="scanner.changed",
            obj=scanner,
            old={"software_versions": previous.software_versions},
            new={"software_versions": software_versions, "series": str(series.pk)},
        )
        publish(
            ScannerChanged(
                scanner_id=scanner.pk,
                epoch_id=epoch.pk,
                previous_epoch_id=previous.pk,
                series_id=series.pk,
            )
        )
    return epoch


def _text(value: Any) -> str:
    if value is None:
        return ""
    parts = value if isinstance(value, tuple) else (value,)
    return "\\".join(str(part).strip() for part in parts)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

"""Every submission of the demonstration trial and the series in it, made when asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from hub.demo.cohort import BASELINE, MONTH_12, Subject, subject, visits_in_order
from hub.demo.encoding import make_uid
from hub.demo.headers import Acquisition, Equipment
from hub.demo.packaged import packaged_submissions
from hub.demo.phantom import ScannerEffect
from hub.demo.planted import (
    DRIFT_PER_VISIT,
    DRIFT_SITE,
    DRIFT_STARTS_AT,
    PlantedDeviation,
    PlantedFile,
    deviations_at,
    files_at,
)
from hub.demo.scanners import CT_SLICES, FLAIR_SLICES, PET_SLICES, T1_SLICES, Scanner, scanner_of
from hub.demo.simulator import (
    NO_CHANGES,
    Changes,
    SimulatedFile,
    SimulatedSeries,
    simulate_ct,
    simulate_enhanced_mr,
    simulate_mr,
    simulate_pet,
    simulate_secondary_capture,
)

PET_SUBJECTS = ("S01-001", "S01-002", "S01-003", "S01-004")
SLICES: Mapping[str, int] = {"t1": T1_SLICES, "flair": FLAIR_SLICES, "ct": CT_SLICES, "pet": PET_SLICES}
MODALITIES: Mapping[str, str] = {"t1": "MR", "flair": "MR", "ct": "CT", "pet": "PT"}
MINUTES: Mapping[str, int] = {"t1": 0, "flair": 12, "ct": 45, "pet": 120}
ATROPHY: Mapping[str, float] = {"CN": 0.1, "MCI": 0.4, "AD": 0.8}
DAMAGED_BYTES = 900

SCAN_TO_SCAN, BIAS_CHANGE, GHOST_CHANGE = 0.04, 0.3, 0.25
"""Largest relative changes of noise, bias field and ghost from scan to scan."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One zip archive of a submission: a series, or the planted extra files."""

    key: str
    files: tuple[SimulatedFile, ...]


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission: which site sends it, for whom and for which visit."""

    site: str
    subject: str
    visit: str

    @property
    def key(self) -> str:
        return f"{self.subject}/{self.visit}"


def simulated_submissions() -> tuple[Submission, ...]:
    """Return the submissions with simulated data, in the order of acquisition."""
    return tuple(Submission(item.site, item.code, visit) for item, visit in visits_in_order())


def real_submissions() -> tuple[Submission, ...]:
    """Return the submissions with real files found in installed packages."""
    return tuple(Submission(item.site, item.subject, item.visit) for item in packaged_submissions())


def expected_series(code: str, visit: str) -> tuple[str, ...]:
    """Return the keys of the series acquired at a visit, planted omissions aside."""
    keys = ["t1", "flair"]
    if visit == BASELINE:
        keys.append("ct")
    if visit == MONTH_12 and code in PET_SUBJECTS:
        keys.append("pet")
    return tuple(keys)


def uploads(submission: Submission) -> Iterator[Upload]:
    """Yield the archives of a submission, each made when it is reached."""
    for item in packaged_submissions():
        if (item.subject, item.visit) == (submission.subject, submission.visit):
            for key, files in item.series.items():
                yield Upload(key, files)
            return
    person = subject(submission.subject)
    first: SimulatedSeries | None = None
    for key, series in _series(person, submission.visit):
        first = first or series
        yield Upload(key, series.files)
    extras = tuple(
        _extra_file(planted, person, first) for planted in files_at(submission.subject, submission.visit)
    )
    if extras:
        yield Upload("extra", extras)


def _series(person: Subject, visit: str) -> Iterator[tuple[str, SimulatedSeries]]:
    planted = {item.series: item for item in deviations_at(person.code, visit)}
    for number, key in enumerate(expected_series(person.code, visit), start=2):
        deviation = planted.get(key)
        if deviation is not None and deviation.missing:
            continue
        yield key, _simulate(person, visit, key, number, deviation)
        if deviation is not None and deviation.repeated:
            yield f"{key}-repeat", _simulate(person, visit, key, number + 10, deviation, "-repeat")


def _simulate(
    person: Subject,
    visit: str,
    key: str,
    number: int,
    deviation: PlantedDeviation | None = None,
    suffix: str = "",
) -> SimulatedSeries:
    scanner = scanner_of(person.site, MODALITIES[key])
    taken = person.taken(visit, MINUTES[key])
    epoch = scanner.epoch(taken.date())
    changes = deviation.changes if deviation is not None else NO_CHANGES
    arguments: dict[str, Any] = {
        "slices": SLICES[key],
        "seed": int(make_uid(person.code, visit, key, suffix)[-9:]),
        "acquisition": Acquisition(
            person.identity, taken, f"{person.code} {visit} {MODALITIES[key]}", f"{key}{suffix}", number,
            person.weight_kg,
        ),
        "equipment": Equipment(
            scanner.manufacturer, scanner.model, scanner.serial, epoch.software_version, epoch.coil,
            scanner.field_strength_t,
        ),
        "parameters": dict(scanner.sequences[key]),
        "size": person.head_size,
        "changes": changes,
    }  # fmt: skip
    if key == "pet":
        return simulate_pet(**arguments)
    if key == "ct":
        return simulate_ct(effect=epoch.effect, **arguments)
    effect = _effect_at(scanner, person, visit, epoch.effect)
    simulate = simulate_enhanced_mr if scanner.enhanced else simulate_mr
    return simulate(contrast=key, effect=effect, atrophy=ATROPHY[person.diagnosis], **arguments)


def _effect_at(scanner: Scanner, person: Subject, visit: str, effect: ScannerEffect) -> ScannerEffect:
    """Return the effect at this visit; the noise of the drifting scanner rises with every later visit.

    Scan-to-scan changes follow multiples of irrational numbers, so that any few scans cover the whole range:
    drawn at random, a first few alike would make a control chart signal where nothing was planted.
    """
    order = [(item.code, when) for item, when in visits_in_order() if item.site == scanner.site]
    scan = order.index((person.code, visit))

    def change(largest: float, step: float) -> float:
        return 1 + largest * (2 * (scan * step % 1) - 1)

    steps = max(0, scan + 1 - DRIFT_STARTS_AT) if scanner.site == DRIFT_SITE else 0
    return replace(
        effect,
        noise=effect.noise * change(SCAN_TO_SCAN, math.sqrt(5)) * (1 + DRIFT_PER_VISIT * steps),
        bias=effect.bias * change(BIAS_CHANGE, math.sqrt(2)),
        ghost=effect.ghost * change(GHOST_CHANGE, math.sqrt(3)),
    )


def _extra_file(planted: PlantedFile, person: Subject, first: SimulatedSeries | None) -> SimulatedFile:
    if first is None:
        raise ValueError(f"{planted.id}: the visit {planted.visit} of {planted.subject} has no series.")
    sample = first.files[0]
    if planted.kind == "damaged":
        whole = _scout(person, planted)
        return SimulatedFile(planted.name, whole.data[:DAMAGED_BYTES], whole.sop_instance_uid)
    if planted.kind == "text":
        return SimulatedFile(planted.name, b"Exported from the console; see the transfer form.\n", "")
    if planted.kind == "duplicate":
        return SimulatedFile(planted.name, sample.data, sample.sop_instance_uid)
    if planted.kind == "conflict":
        return SimulatedFile(planted.name, _with_other_pixels(sample.data), sample.sop_instance_uid)
    if planted.kind == "wrong_patient":
        return replace(_scout(_neighbour(person), planted), name=planted.name)
    if planted.kind == "burned_in":
        capture = simulate_secondary_capture(acquisition=_scout_acquisition(person, planted))
        return replace(capture.files[0], name=planted.name)
    raise ValueError(f"{planted.kind!r} is not a kind of planted file.")


def _neighbour(person: Subject) -> Subject:
    number = int(person.code[-3:])
    return subject(f"{person.site}-{number + 1:03d}")


def _scout_acquisition(person: Subject, planted: PlantedFile) -> Acquisition:
    taken = person.taken(planted.visit) - timedelta(minutes=3)
    return Acquisition(person.identity, taken, f"{planted.id} {person.code} {planted.visit}", "scout", 1)


def _scout(person: Subject, planted: PlantedFile) -> SimulatedFile:
    scanner = scanner_of(person.site, "MR")
    epoch = scanner.epoch(person.visit_dates[planted.visit])
    equipment = Equipment(
        scanner.manufacturer, scanner.model, scanner.serial, epoch.software_version, epoch.coil,
        scanner.field_strength_t,
    )  # fmt: skip
    parameters = {**scanner.sequences["t1"], "SeriesDescription": "SCOUT"}
    series = simulate_mr(
        slices=1,
        seed=1,
        acquisition=_scout_acquisition(person, planted),
        equipment=equipment,
        parameters=parameters,
        changes=Changes(),
    )
    return series.files[0]


def _with_other_pixels(data: bytes) -> bytes:
    """Return the file with the lowest bit of its last pixel turned."""
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]

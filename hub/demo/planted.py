"""What is planted in the demonstration trial, as a machine-readable manifest of what the hub has to find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hub.demo.cohort import BASELINE, MONTH_12
from hub.demo.scanners import CT_SLICES, FLAIR_SLICES, T1_SLICES, UPGRADE_DATE
from hub.demo.simulator import Changes

COMPLIANT, DEVIANT, NOT_EVALUABLE = "compliant", "deviant", "not_evaluable"


@dataclass(frozen=True, slots=True)
class PlantedDeviation:
    """A departure from the protocol: the change that makes it and the verdicts that have to follow.

    `verdicts` maps a rule's id to its outcome. `series` is the key of the expected series; `missing` and
    `repeated` say that the series is not sent, or sent twice.
    """

    id: str
    kind: str
    subject: str
    visit: str
    series: str
    verdicts: Mapping[str, str]
    changes: Changes = field(default_factory=Changes)
    missing: bool = False
    repeated: bool = False

    @property
    def site(self) -> str:
        return self.subject.split("-")[0]


@dataclass(frozen=True, slots=True)
class PlantedFile:
    """A file that may not be accepted as it is; `outcomes` are the outcomes that count as found."""

    id: str
    kind: str
    subject: str
    visit: str
    name: str
    outcomes: tuple[str, ...]

    @property
    def site(self) -> str:
        return self.subject.split("-")[0]


@dataclass(frozen=True, slots=True)
class PlantedScannerEvent:
    """A change or a drift of one scanner."""

    id: str
    kind: str
    site: str
    serial: str
    detail: str


def _deviation(
    kind: str, subject: str, visit: str, series: str, verdicts: Mapping[str, str], **changes: Any
) -> PlantedDeviation:
    return PlantedDeviation(
        f"{kind}.{subject}.{visit}", kind, subject, visit, series, verdicts, Changes(**changes)
    )


DEVIATIONS: tuple[PlantedDeviation, ...] = (
    _deviation(
        "equals",
        "S03-004",
        BASELINE,
        "t1",
        {"t1-acquisition-type": DEVIANT},
        values={"MRAcquisitionType": "2D"},
    ),
    _deviation("one_of", "S02-003", BASELINE, "ct", {"ct-tube-voltage": DEVIANT}, values={"KVP": 80.0}),
    _deviation(
        "range", "S04-002", BASELINE, "t1", {"t1-bandwidth": DEVIANT}, values={"PixelBandwidth": 130.0}
    ),
    _deviation(
        "tolerance_absolute",
        "S01-005",
        BASELINE,
        "t1",
        {"t1-tr-siemens": DEVIANT},
        values={"RepetitionTime": 2400.0},
    ),
    _deviation(
        "tolerance_relative", "S02-006", MONTH_12, "t1", {"t1-te-philips": DEVIANT}, values={"EchoTime": 3.4}
    ),
    _deviation(
        "regex",
        "S03-002",
        BASELINE,
        "ct",
        {"ct-kernel-ge": DEVIANT},
        values={"ConvolutionKernel": "BONEPLUS"},
    ),
    _deviation("present", "S03-007", MONTH_12, "t1", {"t1-coil": DEVIANT}, removed=("ReceiveCoilName",)),
    _deviation(
        "absent",
        "S04-005",
        MONTH_12,
        "t1",
        {"t1-contrast-agent": DEVIANT},
        values={"ContrastBolusAgent": "GADOBUTROL"},
    ),
    _deviation(
        "vector",
        "S02-008",
        BASELINE,
        "t1",
        {"t1-pixel-spacing": DEVIANT},
        values={"PixelSpacing": [2.6, 2.6]},
    ),
    _deviation(
        "count", "S03-009", BASELINE, "t1", {"t1-slices": DEVIANT}, dropped=(T1_SLICES - 2, T1_SLICES - 1)
    ),
    _deviation(
        "missing_value",
        "S01-012",
        MONTH_12,
        "t1",
        {"t1-ti-siemens": NOT_EVALUABLE},
        removed=("InversionTime",),
    ),
    _deviation(
        "varying_value",
        "S04-007",
        BASELINE,
        "t1",
        {"t1-flip-angle-siemens": DEVIANT},
        at={index: {"FlipAngle": 9.3} for index in range(T1_SLICES // 2, T1_SLICES)},
    ),
    _deviation(
        "missing_slice",
        "S02-004",
        BASELINE,
        "flair",
        {"flair-slices": DEVIANT, "completeness.gaps": DEVIANT},
        dropped=(FLAIR_SLICES // 2,),
    ),
    _deviation(
        "missing_slice",
        "S05-008",
        BASELINE,
        "flair",
        {"flair-slices": DEVIANT, "completeness.gaps": DEVIANT},
        dropped=(FLAIR_SLICES // 2,),
    ),
    _deviation(
        "tolerance_absolute",
        "S05-006",
        BASELINE,
        "t1",
        {"t1-tr-siemens": DEVIANT},
        values={"RepetitionTime": 2000.0},
    ),
    _deviation("count", "S05-002", BASELINE, "ct", {"ct-slices": DEVIANT}, dropped=(0, CT_SLICES - 1)),
    PlantedDeviation(
        "missing_series.S05-003.month-12",
        "missing_series",
        "S05-003",
        MONTH_12,
        "flair",
        {"visit.flair": DEVIANT},
        missing=True,
    ),
    PlantedDeviation(
        "repeated_series.S01-015.baseline",
        "repeated_series",
        "S01-015",
        BASELINE,
        "t1",
        {"visit.t1": DEVIANT},
        repeated=True,
    ),
)

REFUSED = ("quarantined", "rejected")

FILES: tuple[PlantedFile, ...] = (
    PlantedFile("damaged", "damaged", "S01-003", BASELINE, "extra/damaged.dcm", REFUSED),
    PlantedFile("text", "text", "S02-001", BASELINE, "extra/readme.txt", (*REFUSED, "ignored")),
    PlantedFile("duplicate", "duplicate", "S03-001", BASELINE, "extra/duplicate.dcm", ("duplicate",)),
    PlantedFile("conflict", "conflict", "S03-003", BASELINE, "extra/conflict.dcm", REFUSED),
    PlantedFile("wrong_patient", "wrong_patient", "S04-003", MONTH_12, "extra/wrong-patient.dcm", REFUSED),
    PlantedFile("burned_in", "burned_in", "S05-001", BASELINE, "extra/screen-capture.dcm", REFUSED),
)

DRIFT_SITE = "S04"
DRIFT_STARTS_AT = 10
"""How many MR visits the drifting scanner makes before its noise begins to rise."""

DRIFT_PER_VISIT = 0.2
"""By which fraction of the first noise each later visit adds."""

SCANNER_EVENTS: tuple[PlantedScannerEvent, ...] = (
    PlantedScannerEvent(
        "upgrade", "software_upgrade", "S01", "166001", f"syngo MR E11 -> syngo MR XA30 on {UPGRADE_DATE}"
    ),
    PlantedScannerEvent("drift", "drift", DRIFT_SITE, "145204", "noise rises over time from month 12 on"),
)


def deviations_at(subject: str, visit: str) -> tuple[PlantedDeviation, ...]:
    """Return what is planted at one subject's visit."""
    return tuple(item for item in DEVIATIONS if (item.subject, item.visit) == (subject, visit))


def files_at(subject: str, visit: str) -> tuple[PlantedFile, ...]:
    """Return the files planted at one subject's visit."""
    return tuple(item for item in FILES if (item.subject, item.visit) == (subject, visit))


def expected_findings() -> frozenset[tuple[str, str, str, str]]:
    """Return (subject, visit, rule, outcome) of every verdict that is not compliant."""
    return frozenset(
        (item.subject, item.visit, rule, outcome)
        for item in DEVIATIONS
        for rule, outcome in item.verdicts.items()
    )


def manifest() -> dict[str, Any]:
    """Return all planted events as a JSON document."""
    return {
        "deviations": [
            {
                "id": item.id,
                "kind": item.kind,
                "site": item.site,
                "subject": item.subject,
                "visit": item.visit,
                "series": item.series,
                "verdicts": dict(item.verdicts),
            }
            for item in DEVIATIONS
        ],
        "files": [{**asdict(item), "outcomes": list(item.outcomes), "site": item.site} for item in FILES],
        "scanners": [asdict(item) for item in SCANNER_EVENTS],
    }

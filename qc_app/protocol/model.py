"""The parsed acquisition protocol: expected series, the conditions that recognise them and their rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

ENGINE_VERSION = "1.0.0"
"""Version of the judging rules; raised whenever a verdict could come out differently."""

SCHEMA_NAME = "hub.protocol/1"

COMPLIANT = "compliant"
DEVIANT = "deviant"
NOT_EVALUABLE = "not_evaluable"
OUTCOMES = (COMPLIANT, DEVIANT, NOT_EVALUABLE)

SEVERITIES = ("info", "minor", "major", "critical")

COUNTABLE = {
    "instances": "NumberOfInstances",
    "positions": "NumberOfPositions",
    "frames": "NumberOfFrames",
    "volumes": "NumberOfVolumes",
}
"""What a `count` rule counts, and the parameter name under which its verdict is reported."""


class CatalogueEntry(Protocol):
    """What the engine needs to know of an acquisition parameter; `sites_app.dicom.catalogue` provides it."""

    @property
    def tag(self) -> tuple[int, ...]: ...

    @property
    def label(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def kind(self) -> str: ...


def format_tag(path: tuple[int, ...]) -> str:
    """Write a path of tags as DICOM does, "(0054,0016) (0018,1074)"; a derived parameter has none."""
    return " ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in path) or "derived"


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison of one parameter: a kind and its arguments, with the unit all numbers are in."""

    kind: str
    parameter: str
    label: str
    unit: str
    tag: str
    arguments: Mapping[str, Any]

    __test__ = False

    def expected(self, text: str) -> dict[str, Any]:
        """Return the expectation as a JSON structure for programs with `text` for people."""
        return {"kind": self.kind, **self.arguments, "text": text}


@dataclass(frozen=True, slots=True)
class AppliesTo:
    """The scanners a rule is for; criteria are ANDed, an empty criterion does not restrict.

    `field_strength_t` is an inclusive (min, max) in tesla; either may be None.
    """

    manufacturers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    model_pattern: str = ""
    field_strength_t: tuple[float | None, float | None] | None = None
    software_pattern: str = ""

    def restricts(self) -> bool:
        return self != AppliesTo()


@dataclass(frozen=True, slots=True)
class Rule:
    """What one parameter of an expected series has to be, for which scanners, and how much it matters.

    `action`, where given, replaces the engine's own words on what to do about a departure.
    """

    id: str
    test: Test
    severity: str
    applies_to: AppliesTo = field(default_factory=AppliesTo)
    allow_missing: bool = False
    allow_varying: bool = False
    note: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Exemption:
    """A stated decision that the named scanners need no rule for a parameter which has rules for others."""

    parameter: str
    applies_to: AppliesTo
    reason: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One explicit matching condition; with `negate` a recorded value must not satisfy the test."""

    test: Test
    negate: bool = False


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternatives, of which one must hold; each alternative is a tuple of conditions that hold together."""

    alternatives: tuple[tuple[Condition, ...], ...]


@dataclass(frozen=True, slots=True)
class Completeness:
    """What the slice geometry of a complete series may show; everything not allowed is a deviation."""

    require_geometry: bool = True
    allow_gaps: bool = False
    allow_irregular_spacing: bool = False
    allow_duplicate_positions: bool = False
    allow_several_orientations: bool = False
    severity: str = "major"


@dataclass(frozen=True, slots=True)
class SeriesCount:
    """How many series a visit has of one expected series (inclusive); `maximum` None sets no upper bound."""

    minimum: int = 1
    maximum: int | None = 1
    severity: str = "major"


@dataclass(frozen=True, slots=True)
class ExpectedSeries:
    """One series that the protocol expects; `visits` None means every visit."""

    key: str
    title: str
    modality: str
    required: bool
    visits: tuple[str, ...] | None
    count: SeriesCount
    match: tuple[Condition | AnyOf, ...]
    rules: tuple[Rule, ...]
    exemptions: tuple[Exemption, ...]
    completeness: Completeness

    def expected_at(self, visit_code: str) -> bool:
        return self.visits is None or visit_code in self.visits


@dataclass(frozen=True, slots=True)
class ProtocolSpec:
    """A valid protocol version. `document` is its canonical JSON form, `digest` the SHA-256 over it."""

    name: str
    title: str
    series: tuple[ExpectedSeries, ...]
    document: Mapping[str, Any]
    digest: str

    def get(self, key: str) -> ExpectedSeries | None:
        return next((series for series in self.series if series.key == key), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one rule on one series or visit.

    `expected` and `observed` are JSON values; `detail` says what was found and `action` what to do about it.
    `instances` names SOP instances (at most five per value) that differ from what was wanted.
    """

    rule: str
    parameter: str
    label: str
    expected: Mapping[str, Any]
    observed: Any
    unit: str
    source: str
    outcome: str
    severity: str
    detail: str
    action: str = ""
    instances: tuple[str, ...] = ()

"""Whether a rule is for the scanner that made a series: yes, no, or impossible to say."""

from __future__ import annotations

from typing import Any

from qc_app.protocol.model import AppliesTo
from qc_app.protocol.patterns import PatternInvalid, matches
from qc_app.protocol.values import is_empty, is_number, items, normalise, within
from sites_app.dicom.observations import SeriesObservation

MAX_FIELD_STRENGTH_T = 25.0
"""Above any magnet used for imaging; a larger number is a field strength in another unit (15000 gauss)."""


class Undecidable(Exception):
    """The series does not record what decides; the message names it."""


def applies(applies_to: AppliesTo, observation: SeriesObservation) -> bool:
    """Tell whether every criterion holds for the series' scanner.

    One criterion known not to hold decides, whatever else is missing.
    Raises Undecidable where the rest would decide and is missing, unreadable or varies inside the series.
    """
    unknown: list[str] = []
    for check in (_manufacturer, _model, _field_strength, _software):
        try:
            if not check(applies_to, observation):
                return False
        except Undecidable as reason:
            unknown.append(str(reason))
    if unknown:
        raise Undecidable("; ".join(unknown))
    return True


def _known(observation: SeriesObservation, keyword: str) -> Any:
    value = observation.value(keyword)
    if value is None or is_empty(value):
        found = observation.parameters.get(keyword)
        if found is not None and len(found.values) > 1:
            raise Undecidable(f"{keyword} has {len(found.values)} different values inside the series")
        if found is not None and found.unparsable:
            raise Undecidable(f"{keyword} could not be read")
        if found is not None and found.values:
            raise Undecidable(f"{keyword} is missing in {found.missing} images")
        raise Undecidable(f"{keyword} is not recorded")
    return value


def _texts(observation: SeriesObservation, keyword: str) -> list[str]:
    parts = items(_known(observation, keyword))
    if not all(isinstance(part, str) for part in parts):
        raise Undecidable(f"{keyword} is not text")
    return [part.strip() for part in parts]


def _named(observation: SeriesObservation, keyword: str, names: tuple[str, ...]) -> bool:
    wanted = {normalise(keyword, name) for name in names}
    return any(normalise(keyword, text) in wanted for text in _texts(observation, keyword))


def _formed(observation: SeriesObservation, keyword: str, pattern: str) -> bool:
    try:
        return any(matches(pattern, text) for text in _texts(observation, keyword))
    except PatternInvalid as error:
        raise Undecidable(f"{keyword}: {error}") from error


def _manufacturer(applies_to: AppliesTo, observation: SeriesObservation) -> bool:
    return not applies_to.manufacturers or _named(observation, "Manufacturer", applies_to.manufacturers)


def _model(applies_to: AppliesTo, observation: SeriesObservation) -> bool:
    keyword = "ManufacturerModelName"
    if applies_to.models and not _named(observation, keyword, applies_to.models):
        return False
    return not applies_to.model_pattern or _formed(observation, keyword, applies_to.model_pattern)


def _field_strength(applies_to: AppliesTo, observation: SeriesObservation) -> bool:
    if applies_to.field_strength_t is None:
        return True
    value = _known(observation, "MagneticFieldStrength")
    parts = items(value)
    if len(parts) != 1 or not is_number(parts[0]) or not 0 < parts[0] <= MAX_FIELD_STRENGTH_T:
        raise Undecidable(f"MagneticFieldStrength {value} is no field strength in tesla")
    low, high = applies_to.field_strength_t
    return within(float(parts[0]), low, high)


def _software(applies_to: AppliesTo, observation: SeriesObservation) -> bool:
    pattern = applies_to.software_pattern
    return not pattern or _formed(observation, "SoftwareVersions", pattern)

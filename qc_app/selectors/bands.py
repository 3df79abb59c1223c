"""Where a metric lies among its limits, as the parts of a small picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 100.0
MARK_WIDTH = 1.6
# A value far outside is drawn at the edge: this many times the span of the limits is shown at most.
_FARTHEST_SPANS = 3.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the axis, 0 to WIDTH; `tone` is good, warn or fail."""

    x: float
    width: float
    tone: str


@dataclass(frozen=True, slots=True)
class BandPicture:
    """The axis in segments and the place of the value, None where there is no value."""

    segments: tuple[Segment, ...]
    mark: float | None
    text: str

    @property
    def mark_start(self) -> float | None:
        """The left edge of the mark, which is drawn MARK_WIDTH wide."""
        return None if self.mark is None else round(self.mark - MARK_WIDTH / 2, 2)


def band_picture(value: float | None, threshold: Mapping[str, Any] | None) -> BandPicture | None:
    """Return the picture of a value among its warn and fail limits; None where no limit is set."""
    limits = sorted({limit for limit in _limits(threshold)})
    if threshold is None or not limits:
        return None
    low, high = _axis(value, limits)
    edges = [low, *limits, high]
    segments = []
    for start, end in zip(edges, edges[1:], strict=False):
        if end > start:
            tone = _tone((start + end) / 2, threshold)
            segments.append(
                Segment(_place(start, low, high), _place(end, low, high) - _place(start, low, high), tone)
            )
    mark = None if value is None else min(max(_place(value, low, high), 1.0), WIDTH - 1.0)
    return BandPicture(tuple(segments), mark, band_text(threshold))


def band_text(threshold: Mapping[str, Any] | None) -> str:
    """Return the limits in words, for example `warn below 10, fail below 5`."""
    parts = []
    for kind in ("warn", "fail"):
        band = (threshold or {}).get(kind) or {}
        if band.get("min") is not None:
            parts.append(f"{kind} below {band['min']:.4g}")
        if band.get("max") is not None:
            parts.append(f"{kind} above {band['max']:.4g}")
    return ", ".join(parts)


def _limits(threshold: Mapping[str, Any] | None) -> list[float]:
    bands = [(threshold or {}).get(kind) or {} for kind in ("warn", "fail")]
    return [float(band[side]) for band in bands for side in ("min", "max") if band.get(side) is not None]


def _axis(value: float | None, limits: list[float]) -> tuple[float, float]:
    span = limits[-1] - limits[0] or abs(limits[-1]) or 1.0
    low, high = limits[0] - span / 2, limits[-1] + span / 2
    if value is not None:
        low = min(low, max(value - span / 10, limits[0] - _FARTHEST_SPANS * span))
        high = max(high, min(value + span / 10, limits[-1] + _FARTHEST_SPANS * span))
    return low, high


def _place(value: float, low: float, high: float) -> float:
    return round((value - low) / (high - low) * WIDTH, 2)


def _tone(value: float, threshold: Mapping[str, Any]) -> str:
    for kind in ("fail", "warn"):
        band = threshold.get(kind) or {}
        below = band.get("min") is not None and value < band["min"]
        above = band.get("max") is not None and value > band["max"]
        if below or above:
            return kind
    return "good"

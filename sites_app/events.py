"""What this layer tells the ones above it (`hub.core.events`)."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class SeriesReceived:
    """All instances of a series in a finished submission are stored; it waits to be checked."""

    series_id: UUID


@dataclass(frozen=True)
class SubmissionFinished:
    """A submission reached a final state."""

    submission_id: UUID


@dataclass(frozen=True)
class ScannerChanged:
    """A scanner was seen with another software version; `epoch_id` is the span that begins with it."""

    scanner_id: UUID
    epoch_id: UUID
    previous_epoch_id: UUID | None
    series_id: UUID

"""The stored instances of a series, read in place."""

from __future__ import annotations

import mmap

from qc_app.metrics.errors import PixelsUnavailable
from sites_app.ingest.packs import pack_path
from sites_app.models import Instance, Series, SubmissionState

_UNFINISHED = (SubmissionState.OPEN, SubmissionState.RECEIVED, SubmissionState.PROCESSING)


def read_instances(series: Series) -> list[memoryview]:
    """Return every received instance of a series as a view of its mapped pack, in order of instance number.

    What an unfinished submission has brought is not received yet: it may still be cancelled.

    Raises PixelsUnavailable where a pack is absent or shorter than its index says, or instances lack.
    """
    packs: dict[object, memoryview] = {}
    for segment in series.segments.exclude(upload__submission__state__in=_UNFINISHED):
        path = pack_path(series.trial_id, series.visit_id, series.series_instance_uid, segment.pk)
        try:
            with path.open("rb") as stream:
                packs[segment.pk] = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise PixelsUnavailable("unreadable", "The stored files of this series are not there.") from error
    rows = Instance.objects.filter(series=series, segment__in=packs).order_by("instance_number", "id")
    found = []
    for segment_id, offset, size in rows.values_list("segment_id", "offset", "size"):
        pack = packs[segment_id]
        if offset + size > len(pack):
            raise PixelsUnavailable("truncated", "The stored files of this series are shorter than recorded.")
        found.append(pack[offset : offset + size])
    if packs and len(found) != series.instance_count:
        detail = f"Of {series.instance_count} images of this series, {len(found)} are stored."
        raise PixelsUnavailable("unreadable", detail)
    return found

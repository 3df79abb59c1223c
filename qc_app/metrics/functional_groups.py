"""Where the attributes of each frame live: the data set itself, or functional groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from qc_app.metrics import elements
from qc_app.metrics.errors import PixelsUnavailable

_SHARED = 0x52009229
_PER_FRAME = 0x52009230
_GROUPS = (
    0x00209113,  # Plane Position
    0x00209116,  # Plane Orientation
    0x00289110,  # Pixel Measures
    0x00289145,  # Pixel Value Transformation
    0x00289132,  # Frame VOI LUT
    0x00209111,  # Frame Content
    0x00189114,  # MR Echo
    0x00189117,  # MR Diffusion
    0x00189125,  # MR FOV/Geometry
)


def multiframe_facts(dataset: Dataset, frame_count: int) -> tuple[tuple[Dataset, ...], ...]:
    """Return, per frame, the data sets that may hold its attributes, the most specific first.

    Raises PixelsUnavailable (bad_geometry) when the per-frame groups do not match the number of frames.
    """
    per_frame = elements.items(dataset, _PER_FRAME)
    if not per_frame:
        if frame_count > 1:
            raise PixelsUnavailable(
                "bad_geometry",
                "A multi-frame image without Per-frame Functional Groups: slice positions are unknown.",
            )
        return ((dataset,),)
    if len(per_frame) != frame_count:
        raise PixelsUnavailable(
            "bad_geometry",
            f"{len(per_frame)} Per-frame Functional Groups for {frame_count} frames. Export it again.",
        )
    shared_item = elements.first_item(dataset, _SHARED)
    shared = _group_items(shared_item) if shared_item is not None else ()
    return tuple((*_group_items(item), *shared, dataset) for item in per_frame)


def _group_items(item: Dataset) -> tuple[Dataset, ...]:
    return tuple(group for tag in _GROUPS if (group := elements.first_item(item, tag)) is not None)

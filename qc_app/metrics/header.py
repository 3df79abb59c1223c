"""What the quality layer needs from the header of one instance, read once."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from qc_app.metrics import elements
from qc_app.metrics.errors import PixelsUnavailable
from qc_app.metrics.functional_groups import multiframe_facts
from qc_app.metrics.part10 import MAX_DECODED_BYTES, OpenedInstance, open_instance

_MAX_FRAMES = 200_000


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """How the pixels of one instance are stored (PS3.3 C.7.6.3 and C.7.6.24)."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    floating: bool
    photometric: str
    transfer_syntax: str

    @property
    def total_bytes(self) -> int:
        return self.rows * self.columns * self.frames * self.bits_allocated // 8


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """Where one frame lies, how its stored values become real ones, and what tells it from its neighbours.

    `position` and `orientation` are Image Position and Orientation (Patient), in mm and direction cosines,
    () when absent. `order` sorts frames at one position: temporal position, echo time, instance and frame
    number.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    slope: float
    intercept: float
    order: tuple[float, ...]
    window: tuple[float, float] | None
    echo_time_ms: float | None
    b_value: float | None
    pixel_spacing_mm: tuple[float, ...]
    rescale_present: bool
    phase_encoding: str


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """The header of one instance: its layout, its frames and the bytes of its pixels."""

    opened: OpenedInstance
    layout: PixelLayout
    frames: tuple[FrameFacts, ...]
    modality: str
    padding: tuple[float, float] | None

    @property
    def dataset(self) -> Dataset:
        return self.opened.dataset


def read_header(data: bytes | memoryview) -> InstanceHeader:
    """Read one Part 10 instance up to its pixels.

    Raises PixelsUnavailable (unreadable, no_pixel_data, unsupported_pixels, too_large, bad_rescale,
    bad_geometry).
    """
    opened = open_instance(data)
    dataset = opened.dataset
    try:
        layout = _read_layout(opened)
        per_frame = multiframe_facts(dataset, layout.frames)
        frames = tuple(_frame_facts(facts, dataset, index) for index, facts in enumerate(per_frame))
        return InstanceHeader(
            opened, layout, frames, elements.text(dataset, 0x00080060), _padding(dataset, layout)
        )
    except PixelsUnavailable:
        raise
    except Exception as error:
        raise PixelsUnavailable(
            "unreadable",
            f"The image attributes cannot be read ({type(error).__name__}). Export it again.",
        ) from error


def _read_layout(opened: OpenedInstance) -> PixelLayout:
    dataset = opened.dataset
    rows, columns = elements.short(dataset, 0x00280010), elements.short(dataset, 0x00280011)
    allocated = opened.floating_bits or elements.short(dataset, 0x00280100)
    if not rows or not columns or not allocated:
        raise PixelsUnavailable("unsupported_pixels", "Rows, Columns or Bits Allocated is missing or zero.")
    if (elements.short(dataset, 0x00280002) or 1) != 1:
        raise PixelsUnavailable(
            "unsupported_pixels", "The image is in colour; quality metrics need grey-scale pixels."
        )
    frames = 1
    if dataset.get_item(0x00280008) is not None:
        declared = elements.number(dataset, 0x00280008)
        if declared is None or declared < 1 or declared != int(declared) or declared > _MAX_FRAMES:
            raise PixelsUnavailable(
                "unsupported_pixels", "Number of Frames (0028,0008) is not a usable count."
            )
        frames = int(declared)
    stored = elements.short(dataset, 0x00280101) or allocated
    high_bit = elements.short(dataset, 0x00280102)
    layout = PixelLayout(
        rows, columns, frames, allocated, stored, stored - 1 if high_bit is None else high_bit,
        elements.short(dataset, 0x00280103) == 1, bool(opened.floating_bits),
        elements.text(dataset, 0x00280004) or "MONOCHROME2", opened.transfer_syntax,
    )  # fmt: skip
    _check_layout(layout)
    return layout


def _check_layout(layout: PixelLayout) -> None:
    if layout.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise PixelsUnavailable(
            "unsupported_pixels",
            f"Photometric Interpretation is {layout.photometric[:20]}, not MONOCHROME1 or 2.",
        )
    if not layout.floating:
        if layout.bits_allocated not in (8, 16, 32):
            raise PixelsUnavailable(
                "unsupported_pixels", f"Bits Allocated is {layout.bits_allocated}, not 8, 16 or 32."
            )
        if not layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated:
            raise PixelsUnavailable(
                "unsupported_pixels", "Bits Stored, High Bit and Bits Allocated contradict each other."
            )
    if layout.total_bytes > MAX_DECODED_BYTES:
        raise PixelsUnavailable(
            "too_large",
            f"The pixels would take {layout.total_bytes / 1e9:.1f} GB; the limit is 1 GB an instance.",
        )


def _frame_facts(groups: tuple[Dataset, ...], dataset: Dataset, index: int) -> FrameFacts:
    """Collect one frame's facts from the data sets that may hold them, the most specific first."""
    slope, intercept, rescale_present = _rescale(groups)
    orientation = _first(groups, 0x00200037)
    position = _first(groups, 0x00200032)
    if len(position) not in (0, 3) or len(orientation) not in (0, 6):
        raise PixelsUnavailable(
            "bad_geometry", "Image Position or Orientation (Patient) has a wrong number of values."
        )
    temporal = _first(groups, 0x00200100) or _first(groups, 0x00209128)
    echo = _first(groups, 0x00189082) or _first(groups, 0x00180081)
    b_value = _first(groups, 0x00189087)
    instance_number = elements.number(dataset, 0x00200013) or 0.0
    return FrameFacts(
        position, orientation, slope, intercept,
        (temporal[0] if temporal else 0.0, echo[0] if echo else 0.0, instance_number, float(index)),
        _window(groups), echo[0] if echo else None, b_value[0] if b_value else None,
        _first(groups, 0x00280030), rescale_present,
        next((value for group in groups if (value := elements.text(group, 0x00181312))), ""),
    )  # fmt: skip


def _first(groups: tuple[Dataset, ...], tag: int) -> tuple[float, ...]:
    return next((values for group in groups if (values := elements.numbers(group, tag))), ())


def _rescale(groups: tuple[Dataset, ...]) -> tuple[float, float, bool]:
    """Return slope, intercept and whether both were there; a value that is there but unusable is refused."""
    for group in groups:
        if group.get_item(0x00281053) is None and group.get_item(0x00281052) is None:
            continue
        slope, intercept = elements.number(group, 0x00281053), elements.number(group, 0x00281052)
        if slope is None or intercept is None or slope == 0:
            raise PixelsUnavailable(
                "bad_rescale",
                "Rescale Slope (0028,1053) or Intercept (0028,1052) is empty, zero or not a number.",
            )
        return slope, intercept, True
    return 1.0, 0.0, False


def _window(groups: tuple[Dataset, ...]) -> tuple[float, float] | None:
    for group in groups:
        centre, width = elements.number(group, 0x00281050), elements.number(group, 0x00281051)
        if centre is not None and width is not None and width >= 1:
            return centre, width
    return None


def _padding(dataset: Dataset, layout: PixelLayout) -> tuple[float, float] | None:
    """Return the range of stored values that mean "no image here" (PS3.3 C.7.5.1.1.2), or None."""
    value = _stored_value(dataset, 0x00280120, layout)
    if value is None:
        return None
    limit = _stored_value(dataset, 0x00280121, layout)
    low, high = sorted((value, value if limit is None else limit))
    return low, high


def _stored_value(dataset: Dataset, tag: int, layout: PixelLayout) -> float | None:
    unsigned = elements.short(dataset, tag)
    if unsigned is None:
        return None
    return float(unsigned - 0x10000 if layout.signed and unsigned >= 0x8000 else unsigned)

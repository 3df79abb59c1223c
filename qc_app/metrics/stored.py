"""Turn the pixel data of a series into one array of stored values, without copying more than once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.codec import decode_instances
from qc_app.metrics.errors import PixelsUnavailable
from qc_app.metrics.header import InstanceHeader, PixelLayout
from qc_app.metrics.part10 import BIG_ENDIAN, MAX_DECODED_BYTES, UNCOMPRESSED, UNDEFINED_LENGTH


def read_stored(headers: Sequence[InstanceHeader], order: NDArray[np.intp]) -> NDArray[Any]:
    """Return the stored values (frames, rows, columns) of all instances.

    `order[k]` is where frame k (instances in the order given, then frames) goes in the result.

    Raises PixelsUnavailable (mixed_matrix, too_large, truncated, wrong_length, undecodable, decode_timeout,
    ...).
    """
    first = headers[0].layout
    if any((h.layout.rows, h.layout.columns) != (first.rows, first.columns) for h in headers):
        raise PixelsUnavailable(
            "mixed_matrix",
            "The instances of this series differ in Rows or Columns, so they form no single volume.",
        )
    total = sum(header.layout.total_bytes for header in headers)
    if total > MAX_DECODED_BYTES:
        raise PixelsUnavailable(
            "too_large", f"The series holds {total / 1e9:.1f} GB of pixels; the limit is 1 GB."
        )
    dtype = np.result_type(*{_native_dtype(header.layout) for header in headers})
    result = np.empty((len(order), first.rows, first.columns), dtype)
    compressed = [h for h in headers if h.layout.transfer_syntax not in UNCOMPRESSED]
    decoded = decode_instances(compressed)
    target = 0
    for header in headers:
        if header.layout.transfer_syntax in UNCOMPRESSED:
            frames = _uncompressed(header)
        else:
            frames = next(decoded).view(_native_dtype(header.layout))
        result[order[target : target + header.layout.frames]] = _keep_stored_bits(frames, header.layout)
        target += header.layout.frames
    if dtype.kind == "f" and not np.isfinite(result).all():
        raise PixelsUnavailable(
            "unsupported_pixels", "The floating-point pixels hold NaN or infinite values."
        )
    return result


def _native_dtype(layout: PixelLayout) -> np.dtype[Any]:
    kind = "f" if layout.floating else "i" if layout.signed else "u"
    return np.dtype(f"{kind}{layout.bits_allocated // 8}")


def _uncompressed(header: InstanceHeader) -> NDArray[Any]:
    layout, opened = header.layout, header.opened
    expected, declared = layout.total_bytes, opened.declared_length
    if declared == UNDEFINED_LENGTH:
        raise PixelsUnavailable("wrong_length", "Uncompressed pixel data must have a defined length.")
    if declared not in (expected, expected + expected % 2):
        raise PixelsUnavailable(
            "wrong_length",
            f"Pixel Data is {declared} bytes long; Rows, Columns, frames and Bits Allocated need {expected}.",
        )
    if len(opened.pixel_bytes) < expected:
        raise PixelsUnavailable(
            "truncated",
            f"The file ends after {len(opened.pixel_bytes)} of {expected} bytes of pixels. Send it again.",
        )
    dtype = _native_dtype(layout).newbyteorder(">" if layout.transfer_syntax == BIG_ENDIAN else "<")
    return np.frombuffer(opened.pixel_bytes, dtype, expected // dtype.itemsize).reshape(
        layout.frames, layout.rows, layout.columns
    )


def _keep_stored_bits(frames: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Drop what lies outside Bits Stored (overlays in old files) and extend the sign (PS3.5 8.1.1)."""
    if layout.floating or layout.bits_stored == layout.bits_allocated:
        return frames
    left = layout.bits_allocated - 1 - layout.high_bit
    right = layout.bits_allocated - layout.bits_stored
    return (frames << left) >> right

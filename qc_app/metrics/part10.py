"""Open a Part 10 byte string up to its pixel data, with a limit on what a deflated one may inflate to."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from qc_app.metrics.errors import PixelsUnavailable
from qc_app.metrics.plain_header import read_plain_header

MAX_DECODED_BYTES = 1_000_000_000
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN})
UNDEFINED_LENGTH = 0xFFFFFFFF
_META_GROUP_LENGTH_END = 144
_FLOAT_BITS = {0x0008: 32, 0x0009: 64, 0x0010: 0}


@dataclass(frozen=True, slots=True)
class OpenedInstance:
    """A header and the bytes of the pixel data element that follows it.

    `pixel_bytes` runs to the end of the file when the length is undefined (encapsulated).
    `floating_bits` is 32 or 64 for Float and Double Float Pixel Data (7FE0,0008/0009), else 0.
    """

    dataset: Dataset
    transfer_syntax: str
    pixel_bytes: memoryview
    declared_length: int
    floating_bits: int


def open_instance(data: bytes | memoryview) -> OpenedInstance:
    """Read the header of one Part 10 file and find its pixel data.

    Raises PixelsUnavailable (unreadable, no_pixel_data, truncated, too_large).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset, syntax, source, offset = _read_header(data)
    except PixelsUnavailable:
        raise
    except Exception as error:
        # A hostile header fails in any of the parser's ways, RecursionError and struct.error among them.
        raise PixelsUnavailable(
            "unreadable",
            f"The header cannot be read as DICOM ({type(error).__name__}). Export it again.",
        ) from error
    return _find_pixels(dataset, syntax, source, offset)


def _read_header(data: bytes | memoryview) -> tuple[Dataset, str, memoryview, int]:
    if DEFLATED.encode() in bytes(data[:1024]):
        return _read_deflated(data)
    plain = read_plain_header(data)
    if plain is not None:
        dataset, syntax, offset = plain
        return dataset, syntax, memoryview(data), offset
    stream = io.BytesIO(data)
    dataset = dcmread(stream, stop_before_pixels=True)
    return dataset, str(dataset.file_meta.get("TransferSyntaxUID", "")), memoryview(data), stream.tell()


def _read_deflated(data: bytes | memoryview) -> tuple[Dataset, str, memoryview, int]:
    """Inflate a deflated data set (PS3.5 A.5) up to the pixel limit; the parser would inflate without one."""
    (meta_length,) = struct.unpack_from("<I", data, _META_GROUP_LENGTH_END - 4)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(data[_META_GROUP_LENGTH_END + meta_length :], MAX_DECODED_BYTES)
    if inflater.unconsumed_tail:
        raise PixelsUnavailable(
            "too_large", "The deflated data set inflates to more than 1 GB. Send it uncompressed."
        )
    stream = io.BytesIO(inflated)
    dataset = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >= 0x7FE00008)
    return dataset, DEFLATED, memoryview(inflated), stream.tell()


def _find_pixels(dataset: Dataset, syntax: str, source: memoryview, offset: int) -> OpenedInstance:
    order = ">" if syntax == BIG_ENDIAN else "<"
    head = bytes(source[offset : offset + 12])
    if len(head) < 8:
        raise PixelsUnavailable("no_pixel_data", "The instance has no pixel data element (7FE0,0010).")
    group, element = struct.unpack(f"{order}HH", head[:4])
    if group != 0x7FE0 or element not in _FLOAT_BITS:
        raise PixelsUnavailable("no_pixel_data", "The instance has no pixel data element (7FE0,0010).")
    if head[4:6] in (b"OW", b"OB", b"OF", b"OD", b"UN"):
        if len(head) < 12:
            raise PixelsUnavailable("truncated", "The file ends inside the pixel data element.")
        (length,) = struct.unpack(f"{order}I", head[8:12])
        start = offset + 12
    else:
        (length,) = struct.unpack(f"{order}I", head[4:8])
        start = offset + 8
    return OpenedInstance(dataset, syntax, source[start:], length, _FLOAT_BITS[element])

"""Decode compressed frames; run as a child process only, because a codec may crash, hang or eat memory.

    python -I decode.py REQUEST_JSON  < encapsulated pixel data  > decoded frames

Standard input holds the value of Pixel Data (7FE0,0010) of one or more instances, one after the other.
Standard output receives the frames in order, C order, little endian, Bits Allocated wide. A failure ends
with status 1 and one line on standard error. This module imports nothing of the hub, so that it starts fast
and in isolated mode.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

_BASE_ADDRESS_SPACE_BYTES = 1_500_000_000
_MESSAGE_BYTES = 65_536
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{suffix}" for suffix in (50, 51, 57, 70))
_JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})


def main() -> int:
    """Decode what the request on the command line describes and return the exit status."""
    request = json.loads(sys.argv[1])
    _limit_resources(request)
    try:
        for instance in request["instances"]:
            value = sys.stdin.buffer.read(instance["length"])
            for frame in _decode_instance(value, instance):
                sys.stdout.buffer.write(frame)
        sys.stdout.buffer.flush()
    except BaseException as error:  # pyo3's PanicException is no Exception
        sys.stderr.write(f"{type(error).__name__}: {str(error)[:300]}\n")
        return 1
    return 0


def _limit_resources(request: dict[str, Any]) -> None:
    seconds, output = int(request["cpu_seconds"]), int(request["output_bytes"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output + _MESSAGE_BYTES, output + _MESSAGE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    space = _BASE_ADDRESS_SPACE_BYTES + 4 * output
    resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _decode_instance(value: bytes, instance: dict[str, Any]) -> Any:
    from pydicom.encaps import generate_frames

    count = 0
    for encoded in generate_frames(value, number_of_frames=instance["frames"]):
        count += 1
        if count > instance["frames"]:
            raise ValueError("more frames than Number of Frames (0028,0008) says")
        yield _decode_frame(encoded, instance)
    if count != instance["frames"]:
        raise ValueError(f"{count} of {instance['frames']} frames are present")


def _decode_frame(encoded: bytes, instance: dict[str, Any]) -> bytes:
    import numpy as np

    syntax = instance["transfer_syntax"]
    if syntax in _JPEG or syntax in _JPEG_LS:
        pixels = _decode_jpeg(encoded, syntax)
    else:
        pixels = _decode_with_pydicom(encoded, instance)
    if pixels.shape != (instance["rows"], instance["columns"]):
        raise ValueError(
            f"decoded to {pixels.shape}, the header says {instance['rows']} x {instance['columns']}"
        )
    allocated = instance["bits_allocated"]
    if pixels.dtype.itemsize * 8 > allocated and int(pixels.max()) >= 1 << allocated:
        raise ValueError(f"decoded values need more than {allocated} bits")
    unsigned = np.dtype(f"<u{allocated // 8}")
    signed = np.dtype(f"<i{allocated // 8}")
    return bytes(pixels.astype(signed if pixels.dtype.kind == "i" else unsigned).tobytes())


def _decode_jpeg(encoded: bytes, syntax: str) -> Any:
    import imagecodecs

    if syntax in _JPEG_LS:
        return imagecodecs.jpegls_decode(encoded)
    return imagecodecs.jpeg8_decode(encoded)


def _decode_with_pydicom(encoded: bytes, instance: dict[str, Any]) -> Any:
    """Decode RLE, JPEG 2000 and HTJ2K with the plug-ins that pydicom finds."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {
        "rows": instance["rows"],
        "columns": instance["columns"],
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": instance["photometric"],
        "pixel_representation": int(instance["signed"]),
        "bits_allocated": instance["bits_allocated"],
        "bits_stored": instance["bits_stored"],
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(instance["transfer_syntax"])
    pixels, _ = decoder.as_array(encapsulate([encoded]), raw=True, index=0, **options)
    return pixels


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())

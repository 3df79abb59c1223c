"""Compressed pixels: every codec against the uncompressed truth, and hostile data that must not hurt the parent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from metrics_factories import compressed, make_dataset, to_bytes
from pydicom import dcmread
from pydicom.data import get_testdata_file

from qc_app.metrics import codec
from qc_app.metrics.pixels import PixelsUnavailable, load_series

RLE, J2K, J2K_LOSSLESS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.90"
BASELINE, EXTENDED, LOSSLESS, LOSSLESS_SV1, JPEG_LS = (
    f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80)
)  # fmt: skip


def _packaged(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert path is not None, f"pydicom no longer packages {name}"
    return Path(str(path)).read_bytes()


def _image(bits: int) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[0:48, 0:40]
    smooth = (np.sin(x / 9) + np.cos(y / 7) + 2) / 4 * (2**bits - 1)
    return smooth.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"]
)
def test_lossless_files_equal_their_uncompressed_original(name: str) -> None:
    expected = dcmread(get_testdata_file("MR_small.dcm", download=False)).pixel_array

    pixels = load_series([_packaged(name)])

    assert np.array_equal(pixels.values()[0], expected)


@pytest.mark.parametrize("name", ["J2K_pixelrep_mismatch.dcm", "693_J2KI.dcm", "JPEG2000.dcm"])
def test_signed_jpeg_2000_equals_pydicom(name: str) -> None:
    expected = dcmread(get_testdata_file(name, download=False)).pixel_array

    assert np.array_equal(load_series([_packaged(name)]).stored[0], expected)


def test_jpeg_lossless_keeps_signed_values() -> None:
    truth = (_image(12).astype(np.int32) - 2048).astype(np.int16)
    dataset = make_dataset(truth, BitsStored=12, HighBit=11)
    encoded = imagecodecs.ljpeg_encode(truth.view(np.uint16) & 0x0FFF, bitspersample=12)

    for syntax in (LOSSLESS, LOSSLESS_SV1):
        assert np.array_equal(load_series([compressed(dataset, syntax, [encoded])]).values()[0], truth)


def test_lossy_jpeg_is_close_to_the_truth() -> None:
    eight = _image(8)
    encoded = imagecodecs.jpeg8_encode(eight, level=95)

    pixels = load_series([compressed(make_dataset(eight), BASELINE, [encoded])])

    assert np.abs(pixels.values()[0] - eight).max() <= 4


def test_twelve_bit_extended_jpeg_is_decoded() -> None:
    pixels = load_series([_packaged("JPGExtended.dcm")])

    assert pixels.stored.shape == (1, 1024, 256)
    assert pixels.stored.max() > 255


def test_several_compressed_instances_share_a_batch_and_keep_their_order() -> None:
    planes = [np.full((16, 16), 100 * n, np.uint16) for n in range(1, 5)]
    instances = []
    for n, plane in enumerate(planes):
        dataset = make_dataset(plane, number=n + 1, position=(0, 0, n))
        instances.append(compressed(dataset, JPEG_LS, [imagecodecs.jpegls_encode(plane)]))
    instances[2] = to_bytes(make_dataset(planes[2], number=3, position=(0, 0, 2)))

    pixels = load_series(instances[::-1])

    assert pixels.values()[:, 0, 0].tolist() == [100.0, 200.0, 300.0, 400.0]


@pytest.mark.parametrize("syntax", [RLE, J2K, J2K_LOSSLESS, BASELINE, EXTENDED, LOSSLESS_SV1, JPEG_LS])
@pytest.mark.parametrize("garbage", [b"\xff\x4f\xff\x51" + bytes(range(256)) * 2, b"\0" * 64, b"\xff" * 64])
def test_garbage_is_undecodable_and_the_parent_lives(syntax: str, garbage: bytes) -> None:
    data = compressed(make_dataset(_image(12), BitsStored=12, HighBit=11), syntax, [garbage])

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([data])

    assert refused.value.code == "undecodable"
    assert "Traceback" not in refused.value.detail


def test_a_truncated_stream_is_undecodable() -> None:
    truth = _image(12)
    encoded = imagecodecs.jpegls_encode(truth)

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([compressed(make_dataset(truth), JPEG_LS, [encoded[: len(encoded) // 2]])])

    assert refused.value.code == "undecodable"


def test_a_stream_of_another_size_than_the_header_is_undecodable() -> None:
    encoded = imagecodecs.jpegls_encode(_image(12)[:40])

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([compressed(make_dataset(_image(12)), JPEG_LS, [encoded])])

    assert refused.value.code == "undecodable"
    assert "48 x 40" in refused.value.detail


def test_fewer_frames_than_the_header_says_is_undecodable() -> None:
    data = compressed(make_dataset(_image(12)), JPEG_LS, [])

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([data])

    assert refused.value.code == "undecodable"


def test_an_unknown_transfer_syntax_is_named() -> None:
    with pytest.raises(PixelsUnavailable) as refused:
        load_series([compressed(make_dataset(_image(12)), "1.2.840.10008.1.2.4.100", [b"\0\0"])])

    assert refused.value.code == "unsupported_transfer_syntax"
    assert "1.2.840.10008.1.2.4.100" in refused.value.detail


def _child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    script = tmp_path / "child.py"
    script.write_text(body)
    monkeypatch.setattr(codec, "_CHILD", script)


def _load_jpeg_ls() -> None:
    load_series([compressed(make_dataset(_image(12)), JPEG_LS, [imagecodecs.jpegls_encode(_image(12))])])


def test_a_decoder_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    _child(
        tmp_path,
        monkeypatch,
        f"import os,time\nopen({str(pid_file)!r},'w').write(str(os.getpid()))\ntime.sleep(60)\n",
    )
    monkeypatch.setattr(codec, "WALL_SECONDS", 1)

    with pytest.raises(PixelsUnavailable) as refused:
        _load_jpeg_ls()

    assert refused.value.code == "decode_timeout"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_decoder_that_crashes_is_one_refused_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch, "import os,signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")

    with pytest.raises(PixelsUnavailable) as refused:
        _load_jpeg_ls()

    assert refused.value.code == "undecodable"
    assert "signal 11" in refused.value.detail


def test_the_decoder_sees_no_secret_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "environment"
    _child(tmp_path, monkeypatch, f"import os\nopen({str(seen)!r},'w').write(repr(dict(os.environ)))\n")
    monkeypatch.setenv("HUB_DATABASE_PASSWORD", "correct horse")

    with pytest.raises(PixelsUnavailable):
        _load_jpeg_ls()

    assert "OPENBLAS_NUM_THREADS" in seen.read_text()
    assert "HUB_" not in seen.read_text()


def test_a_decoder_that_returns_too_little_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _child(tmp_path, monkeypatch, "import sys\nsys.stdout.buffer.write(b'12')\n")

    with pytest.raises(PixelsUnavailable) as refused:
        _load_jpeg_ls()

    assert refused.value.code == "undecodable"


def test_pixel_data_that_is_not_encapsulated_is_refused() -> None:
    dataset = make_dataset(_image(12))
    data = to_bytes(dataset).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")

    with pytest.raises(PixelsUnavailable) as refused:
        load_series([data])

    assert refused.value.code == "undecodable"

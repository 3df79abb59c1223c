"""The fast header reader: equal to pydicom where it answers, silent where anything is unusual."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from hub.demo.simulator import simulate_ct, simulate_mr, simulate_pet
from qc_app.metrics.plain_header import read_plain_header


def _file() -> bytes:
    return simulate_mr(slices=1, rows=16, columns=16).files[0].data


def _rewritten(dataset: Dataset, **options: bool) -> bytes:
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True, **options)
    return stream.getvalue()


@pytest.mark.parametrize("simulate", [simulate_mr, simulate_ct, simulate_pet])
def test_it_reads_what_pydicom_reads(simulate) -> None:  # type: ignore[no-untyped-def]
    for file in simulate().files:
        stream = io.BytesIO(file.data)
        expected = dcmread(stream, stop_before_pixels=True)
        plain = read_plain_header(memoryview(file.data))
        assert plain is not None
        dataset, syntax, offset = plain
        assert syntax == expected.file_meta.TransferSyntaxUID
        assert offset == stream.tell()
        assert list(dataset.keys()) == list(expected.keys())
        assert [element.value for element in dataset] == [element.value for element in expected]


def test_a_sequence_of_defined_length_is_read() -> None:
    changed = dcmread(io.BytesIO(_file()))
    item = Dataset()
    item.CodeValue = "113038"
    changed.RequestAttributesSequence = Sequence([item])
    plain = read_plain_header(_rewritten(changed))
    assert plain is not None
    assert plain[0].RequestAttributesSequence[0].CodeValue == "113038"


def test_a_sequence_of_undefined_length_is_left_to_pydicom() -> None:
    changed = dcmread(io.BytesIO(_file()))
    changed.RequestAttributesSequence = Sequence([Dataset()])
    changed["RequestAttributesSequence"].is_undefined_length = True
    assert read_plain_header(_rewritten(changed)) is None


def test_implicit_vr_is_left_to_pydicom() -> None:
    changed = dcmread(io.BytesIO(_file()))
    changed.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert read_plain_header(_rewritten(changed, implicit_vr=True, little_endian=True)) is None


def test_a_tag_out_of_order_is_left_to_pydicom() -> None:
    content = _file()
    modality = content.index(b"\x08\x00\x60\x00CS")
    assert read_plain_header(content[:modality] + b"\x07" + content[modality + 1 :]) is None


def test_an_unknown_vr_is_left_to_pydicom() -> None:
    assert read_plain_header(_file().replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00QQ")) is None


def test_a_file_that_breaks_off_before_its_pixels_is_left_to_pydicom() -> None:
    content = _file()
    pixels = content.index(b"\xe0\x7f\x10\x00")
    assert read_plain_header(content) is not None
    assert all(read_plain_header(content[:length]) is None for length in range(0, pixels, 7))


def test_a_file_without_preamble_is_left_to_pydicom() -> None:
    assert read_plain_header(_file()[132:]) is None

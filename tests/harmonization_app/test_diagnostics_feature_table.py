"""Feature tables from CSV: what is taken, what is refused and where, canonical bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from harmonization_app.diagnostics.feature_table import CsvLayout, FeatureTableInvalid, read_feature_csv
from hub.core.errors import InvalidInput

LAYOUT = CsvLayout(visit="visit", metadata=("site", "age"))
GOOD = b"""subject,visit,site,age,thickness,volume
unit,,,,mm,mm3
S2,V1,B,60,2.5,1000
S1,V2,A,50.5,,1.1e3
S1,V1,A,50,2.25,900
"""


def _faults(data: bytes | str, layout: CsvLayout = LAYOUT) -> list[tuple[str, str]]:
    content = data.encode() if isinstance(data, str) else data
    with pytest.raises(FeatureTableInvalid) as refusal:
        read_feature_csv(content, layout)
    return [(error["field"], error["message"]) for error in refusal.value.errors]


def test_table_is_read_in_canonical_order() -> None:
    table = read_feature_csv(GOOD, LAYOUT)

    assert table.rows == ("S1|V1", "S1|V2", "S2|V1")
    assert table.features == ("thickness", "volume")
    assert table.units == ("mm", "mm3")
    assert table.metadata == {"site": ("A", "A", "B"), "age": ("50", "50.5", "60")}
    np.testing.assert_array_equal(table.values, [[2.25, 900.0], [np.nan, 1100.0], [2.5, 1000.0]])


@pytest.mark.parametrize(
    "variant",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"2.5", b'"2.5"').replace(b"S2,", b" S2 ,"),
        GOOD.replace(b",,1.1e3", b",NA,1100"),
        b"\n".join([*GOOD.splitlines()[:2], *reversed(GOOD.splitlines()[2:])]),
        b"volume,thickness,age,site,visit,subject\nmm3,mm,,,,unit\n1000,2.5,60,B,V1,S2\n900,2.25,50,A,V1,S1\n"
        b"1.1e3,,50.5,A,V2,S1\n",
    ],
    ids=["byte-order mark", "CRLF", "quotes and spaces", "NA", "row order", "column order"],
)
def test_equal_content_has_one_digest(variant) -> None:
    assert read_feature_csv(variant, LAYOUT).digest == read_feature_csv(GOOD, LAYOUT).digest


@pytest.mark.parametrize(
    "variant",
    [
        GOOD.replace(b"2.25", b"2.2500000000000004"),
        GOOD.replace(b"mm3", b"ml"),
        GOOD.replace(b"S2", b"S3"),
        GOOD.replace(b"B,60", b"C,60"),
    ],
)
def test_other_content_has_another_digest(variant) -> None:
    assert read_feature_csv(variant, LAYOUT).digest != read_feature_csv(GOOD, LAYOUT).digest


def test_canonical_bytes_are_read_back_to_the_same_bits() -> None:
    random = np.random.default_rng(0)
    table = read_feature_csv(GOOD, LAYOUT).with_values(
        random.normal(size=(3, 2)) * 10.0 ** random.integers(-9, 9, 2)
    )

    again = read_feature_csv(table.canonical, LAYOUT)

    assert again.values.tobytes() == table.values.tobytes()
    assert again.canonical == table.canonical
    assert table.digest == hashlib.sha256(table.canonical).hexdigest()


def test_units_may_come_from_the_layout() -> None:
    without = b"\n".join(line for line in GOOD.splitlines() if not line.startswith(b"unit"))

    table = read_feature_csv(
        without,
        CsvLayout(visit="visit", metadata=("site", "age"), units={"volume": "mm3", "thickness": "mm"}),
    )

    assert table.digest == read_feature_csv(GOOD, LAYOUT).digest
    assert _faults(without) == [
        ("units, column thickness", 'The unit is missing; write it in a units row ("1" for a plain number).'),
        ("units, column volume", 'The unit is missing; write it in a units row ("1" for a plain number).'),
    ]


@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_wrong_delimiter_is_named(delimiter, name) -> None:
    assert _faults(GOOD.decode().replace(",", delimiter)) == [
        ("header", f"The columns are separated by {name}; export the file with commas.")
    ]


def test_quoted_decimal_comma_is_named_by_row_and_column() -> None:
    assert _faults(GOOD.replace(b"2.25", b'"2,25"')) == [
        ("row 5, column thickness", "'2,25' has a decimal comma; use a decimal point.")
    ]


def test_decimal_comma_that_splits_cells_is_named_by_row() -> None:
    faults = _faults(GOOD.replace(b"2.25", b"2,25"))

    assert faults == [
        ("row 5", "The row has 7 cells, the header 6. Decimal commas split cells: use a decimal point.")
    ]


@pytest.mark.parametrize(
    "cell", ["abc", "1_000", "0x10", "1e", "--1", "1 2", "٣", "-", ".", "<0.5", "#DIV/0!", "1.5mm", "true"]
)
def test_cell_that_is_no_number_is_named_by_row_and_column(cell) -> None:
    faults = _faults(GOOD.decode().replace("2.25", cell))

    assert faults == [
        (
            "row 5, column thickness",
            f"'{cell}' is not a number. Leave the cell empty if the measurement is missing.",
        )
    ]


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999"])
def test_infinite_cell_is_named(cell) -> None:
    [(where, message)] = _faults(GOOD.decode().replace("2.25", cell))

    assert where == "row 5, column thickness"
    assert "infinite" in message


def test_column_of_texts_is_named_once() -> None:
    text = "subject,site,a\nunit,,mm\nS1,x,good\nS2,x,bad\n"

    assert _faults(text, CsvLayout(metadata=("site",))) == [
        ("column a", "The column holds no numbers; name it as metadata, or leave it out.")
    ]


def test_duplicate_subject_and_visit_names_both_rows() -> None:
    faults = _faults(GOOD.replace(b"S1,V2", b"S1,V1"))

    assert faults == [("row 5", "subject S1, visit V1 is in row 4 already; keep one of the two.")]


def test_unknown_subjects_and_visits_are_named_by_row() -> None:
    layout = CsvLayout(visit="visit", metadata=("site", "age"), subjects={"S1"}, visits={"V1"})

    assert _faults(GOOD, layout) == [
        ("row 3, column subject", "The trial has no subject 'S2'."),
        ("row 4, column visit", "The trial has no visit 'V2'."),
    ]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ((b"S2,V1", b",V1"), "row 3, column subject"),
        ((b"S2,V1", b"S2,"), "row 3, column visit"),
        ((b"60,2.5,1000", b"60,2.5"), "row 3"),
        ((b"thickness,volume", b"volume,volume"), "header, column 6"),
        ((b"thickness,volume", b"thickness,"), "header, column 6"),
        ((b"subject,visit", b"subject,timepoint"), "header"),
    ],
)
def test_faulty_structure_is_named(change, where) -> None:
    assert [fault[0] for fault in _faults(GOOD.replace(*change))] == [where]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"PK\x03\x04\x00\x00", "not text"),
        (GOOD.decode().encode("utf-16"), "UTF-16"),
        (GOOD.replace(b"S2", b"S\xe9"), "Row 3 is not UTF-8"),
        (GOOD.replace(b"S2", b'"S2'), "cannot be read as CSV"),
        (b"subject,visit,site,age\nS1,V1,A,3\n", "no feature column"),
        (b"subject,visit,site,age,x\n", "no row below the header"),
        (b"subject\nS1\n", "one column only"),
    ],
)
def test_file_that_is_no_feature_table_is_refused(data, message) -> None:
    with pytest.raises(FeatureTableInvalid, match=message):
        read_feature_csv(data, LAYOUT)


def test_many_faults_are_counted_and_the_first_hundred_named() -> None:
    rows = "".join(f"S{i},x,1{i}%\n" for i in range(250))

    with pytest.raises(FeatureTableInvalid, match="250 faults in all") as refusal:
        read_feature_csv(f"subject,site,a\nunit,,mm\n{rows}".encode(), CsvLayout(metadata=("site",)))

    assert len(refusal.value.errors) == 100


def test_a_hundred_thousand_columns_are_read() -> None:
    names = [f"f{i:06d}" for i in range(100_000)]
    lines = ["subject,site," + ",".join(names)]
    lines += [f"S{row},x," + ",".join(f"{row}.5" for _ in names) for row in range(2)]

    table = read_feature_csv("\n".join(lines).encode(), CsvLayout(metadata=("site",), units_required=False))

    assert table.values.shape == (2, 100_000)
    assert table.values[1, 99_999] == 1.5


def test_too_many_columns_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("harmonization_app.diagnostics.csv_reading.MAXIMUM_COLUMNS", 5)

    assert _faults(GOOD)[0][1] == "6 columns are more than the 5 allowed."


def test_dataset_takes_batch_and_covariates_from_metadata() -> None:
    dataset = read_feature_csv(GOOD.replace(b"B,60", b",60"), LAYOUT).to_dataset("site", ["age"])

    assert dataset.batches == ("A", "A", None)
    assert dataset.covariates == {"age": ("50", "50.5", "60")}
    assert dataset.units == ("mm", "mm3")
    with pytest.raises(InvalidInput, match="no column scanner"):
        read_feature_csv(GOOD, LAYOUT).to_dataset("scanner")


def test_harmonized_values_take_the_place_of_the_raw_ones() -> None:
    table = read_feature_csv(GOOD, LAYOUT)

    other = table.with_values(table.values + 1)

    assert other.values[0, 0] == 3.25
    assert other.digest != table.digest
    with pytest.raises(InvalidInput, match="shape"):
        table.with_values(np.zeros((2, 2)))

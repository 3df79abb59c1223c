"""The description of a table: each field of the wrong type is named, none ends in an error of the hub."""

from __future__ import annotations

import pytest
from harmonization_cases import plan_document

from harmonization_app.diagnostics.csv_reading import FeatureTableInvalid, read_header
from harmonization_app.plan_document import PlanInvalid, parse_plan
from harmonization_app.services.feature_set import _metadata_columns, refuse_row_key
from harmonization_app.services.table_metadata import TableMetadata
from hub.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"units": [1]}, "metadata.units"),
        ({"units": "mm"}, "metadata.units"),
        ({"units": {"f1": 5}}, "metadata.units"),
        ({"columns": "f1"}, "metadata.columns"),
        ({"columns": [{"unit": "mm"}]}, "metadata.columns"),
        ({"columns": [{"name": 1}]}, "metadata.columns[0].name"),
        ({"columns": [{"name": "f1", "unit": 3}]}, "metadata.columns[0].unit"),
        ({"columns": [{"name": "f1", "pool": ["a"]}]}, "metadata.columns[0].pool"),
        ({"covariates": [{"name": ["age"]}]}, "metadata.covariates[0].name"),
        ({"covariates": [{"name": "age", "kind": "number"}]}, "metadata.covariates[0].kind"),
        ({"metadata": [1]}, "metadata.metadata"),
        ({"batch": ["site"]}, "metadata.batch"),
        ({"batch": {"name": "site"}}, "metadata.batch"),
        ({"covariates": [{"name": "age\x00"}]}, "metadata.covariates.0.name"),
        ({"covariates": [{"name": "age", "least": float("nan")}]}, "metadata.covariates.0.least"),
        ({"units": {"f\ud800": "mm"}}, "metadata.units.f\\ud800"),
    ],
)
def test_field_of_the_wrong_type_is_named(given, field) -> None:
    with pytest.raises(InvalidInput) as refusal:
        TableMetadata.parse(given)

    assert refusal.value.errors[0]["field"] == field


def test_description_is_read() -> None:
    found = TableMetadata.parse(
        {
            "columns": [{"name": "f1", "unit": "mm", "pool": "thickness"}, {"name": "f2"}],
            "covariates": [{"name": "age", "kind": "continuous"}],
            "batch": "site",
            "metadata": ["site", "scanner"],
            "units": {"f3": "mm3"},
        }
    )

    assert found.units == {"f1": "mm", "f2": "", "f3": "mm3"}
    assert found.pools == {"f1": "thickness", "f2": ""}
    assert (found.other, found.features) == (("site", "scanner"), ("f1", "f2"))


def test_header_is_read_as_the_table_is() -> None:
    described = TableMetadata.parse({"covariates": [{"name": "age"}]})

    assert _metadata_columns(b'subject,visit,"thick\nness",age\rS1,v1,2,50\r', described) == ("age",)
    assert read_header(b"\xef\xbb\xbf\n , \nsubject, visit\n") == ["subject", "visit"]
    assert read_header(b"") == []
    with pytest.raises(FeatureTableInvalid, match="field limit"):
        read_header(b"s" * 200_000 + b",batch\n")
    with pytest.raises(FeatureTableInvalid, match="UTF-16"):
        read_header("subject,visit\n".encode("utf-16"))


def test_name_of_the_row_key_is_no_column() -> None:
    refuse_row_key(("age", "site"))
    with pytest.raises(InvalidInput, match="rename the column"):
        refuse_row_key(("age", "row"))


def test_plan_with_a_text_that_cannot_be_kept_is_refused_by_its_place() -> None:
    document = {**plan_document(), "title": "ComBat\x00", "rationale": "because\ud800"}

    with pytest.raises(PlanInvalid) as refusal:
        parse_plan(document)

    assert [fault["field"] for fault in refusal.value.errors] == ["/title", "/rationale"]

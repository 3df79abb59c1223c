"""Models as JSON and NPZ, specifications as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harmonization_app.algorithms.base import Finding, without_rows
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.model import ModelFiles, load_model, save_model
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    FeaturePool,
    Specification,
    parameters_schema,
)
from harmonization_app.algorithms.verification.suite import make_input
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput

SPECIFICATION = Specification(
    covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical", "M"))
)


@pytest.fixture
def dataset():
    return make_input({"A": 30, "B": 25}, seed=3)


@pytest.fixture
def files(dataset) -> ModelFiles:
    return save_model(Combat().fit(dataset, SPECIFICATION))


def test_stored_model_corrects_with_the_same_bits(dataset, files) -> None:
    direct = Combat().harmonize(dataset, SPECIFICATION)

    stored = Combat().apply(load_model(files), dataset)

    assert stored.values.tobytes() == direct.values.tobytes()
    assert load_model(files).iterations == direct.model.iterations


def test_the_same_model_gives_the_same_bytes(dataset, files) -> None:
    assert save_model(Combat().fit(dataset, SPECIFICATION)) == files
    assert save_model(load_model(files)) == files


def test_no_row_of_the_data_is_in_the_model(dataset, files) -> None:
    assert all(row.encode() not in files.document for row in dataset.rows)


def test_changed_arrays_are_refused(files) -> None:
    damaged = bytearray(files.arrays)
    damaged[len(damaged) // 2] ^= 1

    with pytest.raises(InvalidInput, match="damaged or changed"):
        load_model(ModelFiles(files.document, bytes(damaged)))


def test_arrays_other_than_described_are_refused(files) -> None:
    document = json.loads(files.document)
    document["arrays"]["gamma_star"][1] = [3, 3]

    with pytest.raises(InvalidInput, match="other names, types or shapes"):
        load_model(ModelFiles(canonical_json(document), files.arrays))


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"\xff", b'{"format": 99}'])
def test_unreadable_document_is_refused(files, document) -> None:
    with pytest.raises(InvalidInput):
        load_model(ModelFiles(document, files.arrays))


def test_pickled_arrays_are_refused(files) -> None:
    import hashlib
    import io

    buffer = io.BytesIO()
    np.savez(buffer, gamma_star=np.array([{"a": 1}], dtype=object))
    document = json.loads(files.document)
    document["arrays_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()

    with pytest.raises(InvalidInput, match="cannot be read"):
        load_model(ModelFiles(canonical_json(document), buffer.getvalue()))


def test_specification_survives_json() -> None:
    specification = Specification(
        covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical", "F", ("F", "M"))),
        eb=False,
        reference_batch="A",
        features=("b", "a"),
        pools=(FeaturePool("all", ("a", "b")),),
        merge_batches={"B2": "B"},
        batch_size=BatchSizePolicy(stop_below=8),
        seed=4,
    )

    assert Specification.from_json(json.loads(canonical_json(specification.to_json()))) == specification


def test_empty_document_gives_the_defaults_of_the_schema() -> None:
    document = Specification.from_json({}).to_json()

    for name, property_schema in parameters_schema()["properties"].items():
        if name not in {"batch_size", "overlap"}:
            assert document[name] == property_schema["default"], name
    for name in ("batch_size", "overlap"):
        properties = parameters_schema()["properties"][name]["properties"]
        assert document[name] == {key: value["default"] for key, value in properties.items()}


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"eb": "yes"}, "$.eb"),
        ({"covariates": [{"name": "age"}]}, "$.covariates[0]"),
        ({"covariates": [{"name": "age", "kind": "ordinal"}]}, "$.covariates[0].kind"),
        ({"batch_size": {"stop_below": 0}}, "$.batch_size.stop_below"),
        ({"unknown": 1}, "$"),
        ({"maximum_condition": 0}, "$.maximum_condition"),
    ],
)
def test_wrong_parameters_are_named(document, where) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Specification.from_json(document)

    assert [error["field"] for error in refusal.value.errors] == [where]


def test_a_model_names_no_row_in_what_the_gate_found() -> None:
    findings = (
        Finding("duplicate_values", "warn", "Rows S1|V1, S2|V1 are equal.", rows=("S1|V1", "S2|V1")),
        Finding("small_batch", "warn", "Batch A has 12 scans.", batches=("A",)),
    )

    kept = without_rows(findings)

    assert "S1" not in str(kept) and kept[0]["code"] == "duplicate_values"
    assert kept[0]["message"] == "2 rows; the gate of the run names them."
    assert kept[1] == findings[1].to_json()

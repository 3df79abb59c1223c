"""Measurements that come as a matrix: stored in canonical order, downloaded as CSV, refused when faulty."""

from __future__ import annotations

import io

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from harmonization_app.models import FeatureSet
from harmonization_app.services import feature_matrix as matrix_services
from harmonization_app.services import feature_set as feature_services
from hub.core.storage.blobs import root
from sites_app.models import Subject

pytestmark = pytest.mark.django_db
FEATURES = 7


def npy(values) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.fixture
def subjects(trial):
    """Five subjects in an order that is not theirs in the table."""
    codes = sorted(Subject.objects.filter(trial=trial).values_list("code", flat=True))[:5]
    return [codes[index] for index in (3, 0, 4, 1, 2)]


@pytest.fixture
def labels(subjects):
    lines = [f'{code},baseline,"SITE {index % 2}, north"' for index, code in enumerate(subjects)]
    return ("subject,visit,batch\n" + "\n".join(lines) + "\n").encode()


@pytest.fixture
def values():
    table = np.random.default_rng(3).normal(2.5, 0.2, (5, FEATURES))
    table[1, 2] = np.nan
    return table


@pytest.fixture
def send(trial, people):
    client = APIClient()
    client.force_authenticate(people.statistician)

    def post(matrix, labels, metadata='{"unit": "mm"}', **more):
        files = {"matrix": SimpleUploadedFile("m.npy", matrix), "file": SimpleUploadedFile("l.csv", labels)}
        body = {"trial": str(trial.pk), "name": "Voxels", "metadata": metadata, **files, **more}
        return client.post("/api/v1/feature-sets/", {k: v for k, v in body.items() if v}, format="multipart")

    post.client = client
    return post


def test_a_matrix_is_stored_in_canonical_order(send, subjects, labels, values):
    answer = send(npy(values), labels)
    assert answer.status_code == 201, answer.json()
    row = FeatureSet.objects.get(pk=answer.json()["id"])
    assert (row.origin, row.row_count, row.column_count, row.missing_count) == ("matrix", 5, FEATURES, 1)
    table = feature_services.load_table(row)
    assert table.subjects == tuple(sorted(subjects))
    assert table.metadata["batch"][0] == "SITE 1, north"
    assert table.features[:2] == ("v000000", "v000001") and set(table.units) == {"mm"}
    order = np.argsort(subjects)
    np.testing.assert_array_equal(table.values, values[order])
    assert list(root("spool").iterdir()) == []


def test_the_same_matrix_is_the_same_feature_set(send, labels, values):
    assert send(npy(values), labels).json()["id"] == send(npy(values), labels).json()["id"]


def test_single_precision_is_kept_as_its_exact_doubles(send, labels, values):
    row = FeatureSet.objects.get(pk=send(npy(values.astype("<f4")), labels).json()["id"])
    table = feature_services.load_table(row)
    assert table.values.dtype == np.float64
    assert np.nanmax(np.abs(table.values - np.float32(table.values))) == 0


def test_its_csv_reads_back_as_the_same_table(send, labels, values):
    row = FeatureSet.objects.get(pk=send(npy(values), labels).json()["id"])
    answer = send.client.get(f"/api/v1/feature-sets/{row.pk}/data/")
    content = b"".join(answer.streaming_content)
    layout = feature_services.CsvLayout(subject="subject", visit="visit", metadata=("batch",))
    read, stored = feature_services.read_feature_csv(content, layout), feature_services.load_table(row)
    np.testing.assert_array_equal(read.values, stored.values)
    assert (read.rows, read.metadata, read.units) == (stored.rows, stored.metadata, stored.units)


@pytest.mark.parametrize(
    ("matrix", "metadata", "message"),
    [
        (b"not a matrix", '{"unit": "mm"}', "not a whole NPY file"),
        (b"PK\x03\x04" + bytes(100), '{"unit": "mm"}', "not a whole NPY file"),
        (npy(np.zeros((5, 2))).replace(b"(5, 2)", b"(True, 2)"), '{"unit": "mm"}', "not a whole NPY file"),
        (npy(np.zeros((5, 2))) + bytes(16), '{"unit": "mm"}', "16 bytes behind the matrix"),
        (npy(np.zeros((5, 2)))[:-8], '{"unit": "mm"}', "not a whole NPY file"),
        (npy(np.zeros((5, 2), dtype=object)), '{"unit": "mm"}', "not a whole NPY file"),
        (npy(np.zeros((5, 2), dtype=np.int64)), '{"unit": "mm"}', "float64 or float32"),
        (npy(np.zeros((5, 2, 2))), '{"unit": "mm"}', "table [scans x features]"),
        (npy(np.asfortranarray(np.ones((5, 2)))), '{"unit": "mm"}', "Fortran order"),
        (npy(np.zeros((5, 0))), '{"unit": "mm"}', "empty"),
        (npy(np.zeros((4, 2))), '{"unit": "mm"}', "5 rows, the matrix has 4"),
        (npy(np.zeros((5, 2))), "{}", "unit of v000000 is missing"),
        (npy(np.full((5, 2), np.inf)), '{"unit": "mm"}', "infinite at row 1, column 0"),
        (
            npy(np.zeros((5, 2))),
            '{"columns": [{"name": "a", "unit": "mm"}]}',
            "1 columns are named, the matrix has 2",
        ),
        (
            npy(np.zeros((5, 2))),
            '{"unit": "mm", "columns": [{"name": "a"}, {"name": "a"}]}',
            "'a' stands twice",
        ),
    ],
)
def test_a_faulty_matrix_is_refused_whole(send, labels, matrix, metadata, message):
    answer = send(matrix, labels, metadata)
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert message in answer.json()["detail"]
    assert not FeatureSet.objects.filter(origin="matrix").exists()
    assert list(root("spool").iterdir()) == []


def test_labels_name_subjects_of_the_trial(send, values, labels):
    answer = send(npy(values), labels.replace(b"baseline", b"NOWHERE", 1))
    assert answer.status_code == 400 and "no visit 'NOWHERE'" in answer.json()["detail"]
    assert send(npy(values), b"").status_code == 400


def test_labels_do_not_tell_the_treatment_arm(send, values, labels):
    answer = send(npy(values), labels.replace(b"batch", b"treatment_arm", 1))
    assert answer.status_code == 400 and "treatment arm" in answer.json()["detail"]


def test_a_csv_over_the_limit_is_told_to_come_as_a_matrix(settings, trial, people):
    settings.HUB_TABLE_LIMIT_BYTES = 10
    client = APIClient()
    client.force_authenticate(people.statistician)
    body = {"trial": str(trial.pk), "name": "x", "file": SimpleUploadedFile("t.csv", b"subject,visit,f\n")}
    answer = client.post("/api/v1/feature-sets/", body, format="multipart")
    assert answer.status_code == 413 and "matrix" in answer.json()["detail"]


def test_wide_pieces_are_written_alike(monkeypatch, tmp_path, values):
    whole, pieces = tmp_path / "whole.npy", tmp_path / "pieces.npy"
    order = [4, 2, 0, 1, 3]
    matrix_services.write_matrix(values, order, whole)
    monkeypatch.setattr("harmonization_app.diagnostics.feature_matrix.PIECE_BYTES", 8 * FEATURES * 2)
    stored = matrix_services.write_matrix(values, order, pieces)
    assert whole.read_bytes() == pieces.read_bytes() and stored.missing == 1


def test_rows_left_out_of_a_matrix_stay_on_disk(send, labels, values, subjects):
    row = FeatureSet.objects.get(pk=send(npy(values), labels).json()["id"])
    whole = feature_services.load_table(row).to_dataset("batch")
    chosen = matrix_services.select_rows(whole, [4, 1])
    assert isinstance(chosen.values.base, np.memmap)
    assert list(root("computations").glob("rows-*")) == []
    np.testing.assert_array_equal(chosen.values, whole.values[[4, 1]])
    assert (chosen.rows, chosen.batches) == (
        (whole.rows[4], whole.rows[1]),
        (whole.batches[4], whole.batches[1]),
    )

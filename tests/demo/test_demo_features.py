"""The feature table holds the effects that it says it holds, and ComBat removes the scanners' alone."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.specification import Specification
from hub.demo.effects import measure_effects, read_values
from hub.demo.features import COVARIATES, KEY_COLUMNS, as_csv, feature_table, metadata
from hub.demo.scanners import SCANNERS
from hub.demo.trial import harmonization_plan_document


def column(name: str) -> list[str]:
    return [row[KEY_COLUMNS.index(name)] for row in feature_table().rows]


def test_there_is_one_row_per_visit_and_a_batch_per_scanner_and_software():
    table = feature_table()

    assert table.values.shape == (120, 24)
    assert len(set(zip(column("subject"), column("visit"), strict=True))) == 120
    epochs = [epoch for scanner in SCANNERS if scanner.modality == "MR" for epoch in scanner.epochs]
    assert len(table.batches) == len(epochs) == 6
    assert np.bincount(table.batch_of_row).tolist() == [20] * 6


def test_the_upgraded_scanner_is_two_batches_parted_by_the_visit():
    parted = {
        (batch, visit)
        for batch, visit in zip(column("batch"), column("visit"), strict=True)
        if "166001" in batch
    }

    assert parted == {("166001 syngo MR E11", "baseline"), ("166001 syngo MR XA30", "month-12")}


def test_values_are_possible_measurements():
    table = feature_table()
    thickness = [feature.unit == "mm" for feature in table.features]

    assert (table.values > 0).all()
    assert table.values[:, thickness].min() > 1.0
    assert table.values[:, thickness].max() < 4.5


def test_the_planted_scanner_effects_are_the_truth_of_the_table():
    table = feature_table()
    sd = np.array([feature.sd for feature in table.features])
    # Location and scale act on what age, sex and diagnosis leave over: y - clean = sd (gamma + (delta - 1) spread).
    batch = table.batch_of_row
    difference = (table.values - table.without_scanner) / sd

    for index in range(len(table.batches)):
        rows = batch == index
        spread_of_clean = difference[rows] - table.gamma[index]
        scale = table.delta[index] - 1
        spread = spread_of_clean / scale
        clean = table.values[rows] - sd * (table.gamma[index] + table.delta[index] * spread)
        assert np.allclose(clean + sd * spread, table.without_scanner[rows], rtol=1e-9)


def test_scanner_effects_are_large_and_absent_without_scanners():
    table = feature_table()

    with_scanner, without = measure_effects(table.values), measure_effects(table.without_scanner)

    assert with_scanner.mean_eta_squared > 0.25
    assert without.mean_eta_squared < 0.12
    assert with_scanner.mean_relative_age_slope == pytest.approx(1.0, abs=0.15)


def test_combat_under_the_plan_removes_the_scanners_and_keeps_age():
    table = feature_table()
    covariates = {name: column(name) for name in COVARIATES}
    dataset = Dataset(
        table.values,
        tuple(feature.name for feature in table.features),
        tuple(f"{row[0]} {row[1]}" for row in table.rows),
        tuple(column("batch")),
        {**covariates, "age": [float(age) for age in covariates["age"]]},
        tuple(feature.unit for feature in table.features),
    )
    specification = Specification.from_json(harmonization_plan_document()["parameters"])
    combat = Combat()

    findings = combat.validate(dataset, specification)
    harmonized = combat.apply(combat.fit(dataset, specification), dataset).values

    before, after = measure_effects(table.values), measure_effects(harmonized)
    # Two visits of a subject are alike, which the test of equal slopes takes for evidence: it may warn.
    assert {finding.code for finding in findings if finding.severity != "info"} <= {"unlike_slopes"}
    assert after.mean_eta_squared < 0.02 < before.mean_eta_squared
    assert after.mean_relative_age_slope == pytest.approx(before.mean_relative_age_slope, abs=0.05)
    error = np.abs(harmonized - table.without_scanner).mean(axis=0)
    assert (error < np.abs(table.values - table.without_scanner).mean(axis=0)).mean() > 0.9


def test_the_csv_gives_back_the_values():
    rows = list(csv.DictReader(io.StringIO(as_csv())))

    assert len(rows) == 120
    assert np.allclose(read_values(as_csv()), feature_table().values, atol=1e-6)
    assert list(rows[0])[: len(KEY_COLUMNS)] == list(KEY_COLUMNS)


def test_metadata_has_the_unit_and_pool_of_every_column():
    header = as_csv().splitlines()[0].split(",")

    assert [item["name"] for item in metadata()["columns"]] == header[len(KEY_COLUMNS) :]
    assert {(item["unit"], item["pool"]) for item in metadata()["columns"]} == {
        ("mm", "thickness"),
        ("mm3", "volume"),
    }


def test_a_table_without_a_row_or_a_value_is_named():
    lines = as_csv().splitlines()

    with pytest.raises(ValueError, match="no row of subject S05-010, visit month-12"):
        read_values("\n".join(lines[:-1]))
    cells = lines[1].split(",")
    cells[len(KEY_COLUMNS)] = ""
    with pytest.raises(ValueError, match="no thickness_entorhinal_left for subject S01-001, visit baseline"):
        read_values("\n".join([lines[0], ",".join(cells), *lines[2:]]))

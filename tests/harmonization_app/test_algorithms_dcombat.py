"""Federated ComBat: equal to pooled ComBat, nothing but statistics in the files, every refusal at the site."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harmonization_app.algorithms.base import HarmonizationRefused
from harmonization_app.algorithms.combat import Combat
from harmonization_app.algorithms.dcombat import DCombat, combine_summaries, summarize_batches
from harmonization_app.algorithms.dcombat_site import main
from harmonization_app.algorithms.dcombat_summary import load_summary, save_summary
from harmonization_app.algorithms.specification import BatchSizePolicy, Covariate, Specification
from harmonization_app.algorithms.verification import max_difference_sd
from harmonization_app.algorithms.verification.suite import make_input
from hub.core.errors import InvalidInput

PLAN = Specification(
    covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical", "F", ("F", "M")))
)
MODES = {
    "eb": {},
    "without_eb": {"eb": False},
    "mean_only": {"mean_only": True},
    "nonparametric": {"parametric": False},
    "reference_batch": {"reference_batch": "B"},
    "without_covariates": {"covariates": ()},
}


@pytest.fixture
def dataset():
    return make_input({"A": 30, "B": 25, "C": 40}, seed=3)


def _sites(dataset):
    labels = np.array(dataset.batches)
    return [dataset.select(np.flatnonzero(np.isin(labels, own))) for own in (["A", "C"], ["B"])]


def _summaries(dataset, plan):
    return [load_summary(save_summary(summarize_batches(site, plan))) for site in _sites(dataset)]


@pytest.mark.parametrize("holes", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("mode", MODES)
def test_sites_together_equal_pooled_combat(dataset, mode, holes) -> None:
    plan = replace(PLAN, **MODES[mode])
    if holes:
        absent = np.random.default_rng(2).random(dataset.values.shape) < 0.04
        dataset = dataset.with_values(np.where(absent, np.nan, dataset.values))

    model = combine_summaries(_summaries(dataset, plan), plan)

    pooled = Combat().harmonize(dataset, plan)
    for site in _sites(dataset):
        own = [dataset.rows.index(row) for row in site.rows]
        corrected = DCombat().apply(model, site).values
        assert max_difference_sd(corrected, pooled.values[own], dataset.values) < 1e-12
    assert model.iterations == pooled.iterations


def test_far_values_keep_their_digits(dataset) -> None:
    far = dataset.with_values(dataset.values + 1e5)

    near, result = (DCombat().harmonize(table, PLAN).values for table in (dataset, far))

    assert max_difference_sd(result - 1e5, near, dataset.values) < 1e-8


def test_a_summary_is_smaller_than_the_rows_and_names_none(dataset) -> None:
    content = save_summary(summarize_batches(_sites(dataset)[0], PLAN))

    assert not any(row.encode() in content for row in dataset.rows)
    summary = load_summary(content)
    assert {array.shape[0] for array in (summary.batches["A"].mean, summary.batches["A"].counts)} == {12}
    assert summary.batches["A"].scans == 30


def test_constant_and_partly_constant_features_are_treated_as_pooled(dataset) -> None:
    values = dataset.values.copy()
    values[:, 0] = 2.5
    values[np.array(dataset.batches) == "A", 3] = 2.1

    table = dataset.with_values(values)
    model = combine_summaries(_summaries(table, PLAN), PLAN)

    pooled = Combat().harmonize(table, PLAN)
    assert model.flags == pooled.model.flags
    assert max_difference_sd(DCombat().apply(model, table).values, pooled.values, table.values) < 1e-12


def test_another_plan_is_refused(dataset) -> None:
    summaries = _summaries(dataset, PLAN)

    with pytest.raises(InvalidInput, match="another plan"):
        combine_summaries(summaries, replace(PLAN, eb=False))


def test_a_batch_of_two_sites_is_refused(dataset) -> None:
    first, second = _summaries(dataset, PLAN)

    with pytest.raises(InvalidInput, match="Batch A, C is in two summaries"):
        combine_summaries([first, second, first], PLAN)


def test_other_features_are_refused(dataset) -> None:
    first, second = _summaries(dataset, PLAN)

    with pytest.raises(InvalidInput, match="other features"):
        combine_summaries([first, replace(second, features=second.features[::-1])], PLAN)


def test_small_batch_leaves_no_statistics(dataset) -> None:
    with pytest.raises(HarmonizationRefused, match="Batch B has fewer than 30 scans"):
        summarize_batches(dataset, replace(PLAN, batch_size=BatchSizePolicy(stop_below=30)))


def test_covariate_that_only_differs_between_sites_is_refused(dataset) -> None:
    age = tuple({"A": 50.0, "B": 60.0, "C": 70.0}[batch] for batch in dataset.batches)
    confounded = replace(dataset, covariates={**dataset.covariates, "age": age})

    with pytest.raises(HarmonizationRefused, match="cannot be told apart"):
        combine_summaries(_summaries(confounded, PLAN), PLAN)


def test_levels_must_be_planned(dataset) -> None:
    plan = replace(PLAN, covariates=(Covariate("sex", "categorical"),))

    with pytest.raises(HarmonizationRefused, match="levels of sex"):
        summarize_batches(dataset, plan)
    with pytest.raises(HarmonizationRefused, match="levels of sex"):
        DCombat().fit(dataset, plan)


@pytest.mark.parametrize(
    ("covariates", "message"),
    [
        ({"sex": "X"}, "sex is missing or none of F, M in S000"),
        ({"age": None}, "age is missing or no number in S000"),
    ],
)
def test_faulty_rows_are_named_at_the_site(dataset, covariates, message) -> None:
    name, value = next(iter(covariates.items()))
    columns = {**dataset.covariates, name: (value, *dataset.covariates[name][1:])}

    with pytest.raises(HarmonizationRefused, match=message):
        summarize_batches(replace(dataset, covariates=columns), PLAN)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}"])
def test_damaged_summary_is_refused(content) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_summary(content)


def test_summary_with_a_number_that_is_none_is_refused(dataset) -> None:
    summary = summarize_batches(dataset, PLAN)
    broken = replace(summary.batches["A"], mean=np.full(12, np.nan))

    with pytest.raises(InvalidInput, match="mean of batch 0 is not finite"):
        load_summary(save_summary(replace(summary, batches={**summary.batches, "A": broken})))


def _write_csv(path, dataset) -> None:
    header = ",".join(["subject", "scanner", "age", "sex", *dataset.features])
    lines = [header, ",".join(["unit", "", "", "", *dataset.units])]
    for index, row in enumerate(dataset.rows):
        cells = [
            row,
            dataset.batches[index],
            dataset.covariates["age"][index],
            dataset.covariates["sex"][index],
        ]
        lines.append(",".join(map(str, [*cells, *(repr(float(value)) for value in dataset.values[index])])))
    path.write_text("\n".join(lines) + "\n")


def test_command_from_tables_to_corrected_tables(dataset, tmp_path, capsys) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(PLAN.to_json()))
    plan = ["--plan", str(tmp_path / "plan.json")]
    for name, site in zip(("one", "two"), _sites(dataset), strict=True):
        _write_csv(tmp_path / f"{name}.csv", site)
        data = ["--data", str(tmp_path / f"{name}.csv"), "--batch", "scanner"]
        assert main(["summarize", *plan, *data, "--out", str(tmp_path / f"{name}.npz")]) == 0
    summaries = [str(tmp_path / "one.npz"), str(tmp_path / "two.npz")]
    assert main(["combine", *plan, "--out", str(tmp_path / "model.zip"), *summaries]) == 0
    model = [
        "--model",
        str(tmp_path / "model.zip"),
        "--data",
        str(tmp_path / "two.csv"),
        "--batch",
        "scanner",
    ]

    assert main(["apply", *model, "--out", str(tmp_path / "out.csv")]) == 0

    lines = [line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines()]
    pooled = Combat().harmonize(dataset, PLAN).values
    for cells in lines[2:]:
        own = np.array([float(cell) for cell in cells[-12:]])
        assert np.abs(own - pooled[dataset.rows.index(cells[0])]).max() < 1e-12
    assert len(lines) == 2 + 25
    assert main(["apply", *model, "--out", str(tmp_path / "out.csv")]) == 1
    assert "out.csv" in capsys.readouterr().err


def test_command_refuses_in_a_sentence(tmp_path) -> None:
    (tmp_path / "plan.json").write_text("{")
    command = [sys.executable, "-m", "harmonization_app.algorithms.dcombat_site", "summarize"]
    command += ["--plan", "plan.json", "--data", "none.csv", "--batch", "scanner", "--out", "out.npz"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "plan.json is not JSON" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.npz").exists()

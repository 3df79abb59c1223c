"""Labels that look alike and are not: refused where a table is read, stopped by the gate where they got through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harmonization_app.algorithms.specification import Covariate, Specification
from harmonization_app.algorithms.verification.suite import make_input
from harmonization_app.diagnostics.feature_table import CsvLayout, FeatureTableInvalid, read_feature_csv
from harmonization_app.diagnostics.gate import check
from harmonization_app.diagnostics.gate_labels import look_alikes

LAYOUT = CsvLayout(visit="visit", metadata=("batch",))
HEAD = "subject,visit,batch,f1,f2\nunit,,,mm,mm\n"


def _read(row: str, layout: CsvLayout = LAYOUT, head: str = HEAD):
    return read_feature_csv(f"{head}{row}\nS2,v1,B,1.5,2.5\n".encode(), layout)


@pytest.mark.parametrize(
    ("row", "place", "words"),
    [
        ("S1,v1,A\u200b,1,2", "row 3, column batch", "U+200B ZERO WIDTH SPACE"),
        ("S1,v1,A\u00a0B,1,2", "row 3, column batch", "U+00A0 NO-BREAK SPACE"),
        ("S1\u00ad,v1,A,1,2", "row 3, column subject", "U+00AD SOFT HYPHEN"),
        ("S1,v1,\ufeffA,1,2", "row 3, column batch", "U+FEFF"),
        ("S1,v1,null,1,2", "row 3, column batch", "is no label"),
        ("S1,v1,#N/A,1,2", "row 3, column batch", "is no label"),
        ("S1,v1,A,1e-400,2", "row 3, column f1", "would become 0"),
        ("S1,v1,A,\u22121.5,2", "row 3, column f1", "is not a number"),
        ("S1,v1,A,1,2,,", "row 3", "Remove the commas at its end"),
        ("S1,v1,A,1,2,5,3", "row 3", "decimal point"),
    ],
)
def test_text_that_means_another_than_it_shows_is_refused_by_row_and_column(row, place, words) -> None:
    with pytest.raises(FeatureTableInvalid) as refusal:
        _read(row)

    assert refusal.value.errors[0]["field"] == place
    assert words in refusal.value.errors[0]["message"]


def test_zero_and_small_numbers_are_taken() -> None:
    assert _read("S1,v1,A,0.000,-0").values[0].tolist() == [0.0, 0.0]
    assert _read("S1,v1,A,1e-300,0e5").values[0].tolist() == [1e-300, 0.0]


def test_names_with_invisible_characters_are_refused_and_a_stored_table_is_read_as_it_is() -> None:
    head = HEAD.replace("f2", "f1\u200b")

    with pytest.raises(FeatureTableInvalid, match="U\\+200B"):
        _read("S1,v1,A,1,2", head=head)
    stored = _read("S1,v1,A\u00a0B,1,2", replace(LAYOUT, as_stored=True), head)

    assert stored.features == ("f1", "f1\u200b")
    assert stored.metadata["batch"] == ("A\u00a0B", "B")


def test_separator_line_of_a_spreadsheet_is_told() -> None:
    for line in ("sep=;", "sep=,", "SEP=;"):
        with pytest.raises(FeatureTableInvalid, match="separator line"):
            read_feature_csv(f"{line}\n{HEAD}S1,v1,A,1,2\n".encode(), LAYOUT)


def test_labels_are_alike_but_for_spelling() -> None:
    composed, decomposed = "Z\u00fcrich", "Zu\u0308rich"

    assert look_alikes(["S01", "s01", "S02", "S1"]) == [("S01", "s01")]
    assert look_alikes([composed, decomposed]) == [(decomposed, composed)]
    assert look_alikes(["1", "01", "1.0", "10", "1.5"]) == [("01", "1", "1.0")]
    assert look_alikes(["Site A", "site  a", "Site\u200b A", "Site B"]) == [
        ("Site A", "Site\u200b A", "site  a")
    ]
    assert look_alikes(["A-1", "A1", "A+", "A"]) == []


def test_gate_stops_on_a_batch_written_in_two_ways_until_the_plan_merges_them() -> None:
    dataset = make_input({"S01": 30, "s01": 30, "B": 30}, seed=3)
    plan = Specification(covariates=(Covariate("age", "continuous"),))

    found = {finding.code: finding for finding in check(dataset, plan)}
    merged = {finding.code for finding in check(dataset, replace(plan, merge_batches={"s01": "S01"}))}

    assert found["labels_look_alike"].severity == "stop"
    assert found["labels_look_alike"].batches == ("S01", "s01")
    assert "'S01', 's01'" in found["labels_look_alike"].message
    assert "labels_look_alike" not in merged


def test_gate_stops_on_a_level_written_in_two_ways_unless_the_plan_names_both() -> None:
    dataset = make_input({"A": 40, "B": 40}, seed=3)
    sex = list(dataset.covariates["sex"])
    sex[:10] = [text.lower() for text in sex[:10]]
    dataset = replace(dataset, covariates={**dataset.covariates, "sex": tuple(sex)})

    def codes(levels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        plan = Specification(covariates=(Covariate("sex", "categorical", None, levels),))
        return {finding.code: finding.columns for finding in check(dataset, plan)}

    assert codes(())["labels_look_alike"] == ("sex",)
    assert "labels_look_alike" not in codes(("F", "M", "f", "m"))


@pytest.mark.parametrize(("values", "warned"), [((0, 1, 2), True), ((0, 1), False), ((0, 1, 2.5), False)])
def test_a_few_whole_numbers_planned_as_continuous_are_warned_of(values, warned) -> None:
    dataset = make_input({"A": 40, "B": 40}, seed=3)
    codes = tuple(np.random.default_rng(1).choice(values, 80).tolist())
    dataset = replace(dataset, covariates={"code": codes})
    plan = Specification(covariates=(Covariate("code", "continuous"),))

    found = [finding for finding in check(dataset, plan) if finding.code == "codes_as_numbers"]

    assert bool(found) is warned
    assert all(finding.severity == "warn" and finding.columns == ("code",) for finding in found)
    timed = check(dataset, replace(plan, time="code"))
    assert "codes_as_numbers" not in {finding.code for finding in timed}

"""What a plan may say, and how its faults are named."""

from __future__ import annotations

import pytest
from harmonization_cases import plan_document

from harmonization_app.plan_document import ImageRows, PlanInvalid, parse_plan
from harmonization_app.selectors.plan import specification_rows
from hub.demo.trial import harmonization_plan_document

OLD = {
    "schema": "hub.harmonization-plan/1",
    "name": "old",
    "title": "Old",
    "algorithm": "combat",
    "batch": "batch",
    "analysis_plan": "Section 7.3",
    "parameters": {},
}
MEASUREMENT = {
    "batch": "A",
    "first_day": "2026-01-01",
    "last_day": "2026-12-31",
    "feature": "volume",
    "known": [1.0, 2.0],
    "measured": [1.1, 2.1],
}


def faults(**changes):
    with pytest.raises(PlanInvalid) as refused:
        parse_plan(plan_document(**changes))
    return {item["field"]: item["message"] for item in refused.value.errors}


def test_a_plan_that_says_nothing_new_is_blinded_and_silent() -> None:
    plan = parse_plan(OLD)

    assert plan.blinded is True
    assert plan.image_rows == ImageRows(None, None, ())
    assert (plan.scanner_changes, plan.calibration, plan.sensitivity) == (None, None, ())
    assert plan.companions == ()


def test_the_demonstrations_plan_names_its_analyses_and_companions() -> None:
    plan = parse_plan(harmonization_plan_document())

    assert [item.name for item in plan.sensitivity] == ["unharmonized", "leave_one_batch_out", "longcombat"]
    assert plan.companions == ("longcombat",)
    assert plan.image_rows == ImageRows("keep", "exclude", ("t1",))
    assert plan.scanner_changes == "split"
    assert plan.columns == ("age", "sex", "diagnosis", "subject")


def test_another_algorithm_inherits_what_describes_the_data() -> None:
    plan = parse_plan(harmonization_plan_document())
    own, other = plan.specification, plan.sensitivity[2].specification

    assert other is not None
    assert (other.covariates, other.features, other.pools) == (own.covariates, own.features, own.pools)
    assert (other.subject, own.subject) == ("subject", None)


def test_another_algorithm_does_not_inherit_what_it_does_not_know() -> None:
    plan = parse_plan(plan_document(sensitivity=[{"kind": "algorithm", "algorithm": "z-score"}]))

    assert plan.sensitivity[0].specification is not None
    assert plan.sensitivity[0].specification.eb is False


def test_parameters_of_an_analysis_are_held_against_its_own_method() -> None:
    found = faults(sensitivity=[{"kind": "algorithm", "algorithm": "longcombat"}])

    assert list(found) == ["/sensitivity/0/parameters/subject"]


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"sensitivity": [{"kind": "algorithm"}]}, "/sensitivity/0", "algorithm"),
        ({"sensitivity": [{"kind": "unharmonized", "algorithm": "combat"}]}, "/sensitivity/0", "only"),
        (
            {"sensitivity": [{"kind": "algorithm", "algorithm": "magic"}]},
            "/sensitivity/0/algorithm",
            "combat",
        ),
        ({"sensitivity": [{"kind": "unharmonized"}, {"kind": "unharmonized"}]}, "/sensitivity/1", "once"),
        ({"plausible_ranges": {}}, "/plausible_ranges", "non-empty"),
        ({"plausible_ranges": {"mm3": [5, 4]}}, "/plausible_ranges/mm3", "the least value 5 is above"),
        ({"plausible_ranges": {"a/b": [5, 4]}}, "/plausible_ranges/a~1b", "above"),
        ({"plausible_ranges": {"mm3": ["0", 4]}}, "/plausible_ranges/mm3/0", "number"),
        ({"plausible_ranges": {"mm3": [True, 4]}}, "/plausible_ranges/mm3/0", "number"),
        ({"plausible_ranges": {"mm3": [0]}}, "/plausible_ranges/mm3", "short"),
        ({"plausible_ranges": {"mm3": [None, None]}}, "/plausible_ranges/mm3", "judges nothing"),
        ({"plausible_ranges": {"mm3": [0, float("inf")]}}, "/plausible_ranges/mm3", "finite"),
        ({"plausible_ranges": {"mm3": [float("nan"), 1]}}, "/plausible_ranges/mm3", "finite"),
        ({"image_rows": {}}, "/image_rows", "non-empty"),
        ({"image_rows": {"deviant": "drop"}}, "/image_rows/deviant", "keep"),
        ({"scanner_changes": "guess"}, "/scanner_changes", "split"),
        ({"blinded": False, "rationale": " "}, "/rationale", "unblinded"),
        ({"blinded": "no"}, "/blinded", "boolean"),
        ({"analysis_plan": {"document": "SAP"}}, "/analysis_plan", "version"),
        (
            {"parameters": {"pools": [{"name": "a/b", "features": 1}]}},
            "/parameters/pools/0/features",
            "array",
        ),
        ({"calibration": {}}, "/calibration", "parameters"),
        ({"calibration": {"parameters": {"eb": 1}}}, "/calibration/parameters/eb", "boolean"),
        (
            {"calibration": {"parameters": {"time": "day", "options": {"measurements": []}}}},
            "/calibration/parameters/options/measurements",
            "[]",
        ),
    ],
)
def test_a_fault_is_named_by_its_pointer(changes, field, words) -> None:
    found = faults(**changes)

    assert field in found
    assert words in found[field]


def test_plausible_ranges_are_parsed_with_open_ends() -> None:
    plan = parse_plan(plan_document(plausible_ranges={"mm3": [0, 9000.5], "thickness_left": [1, None]}))

    assert plan.plausible_ranges == {"mm3": (0, 9000.5), "thickness_left": (1, None)}
    assert parse_plan(plan_document()).plausible_ranges == {}


def test_plausible_ranges_are_a_line_of_the_readable_plan() -> None:
    ranges = {"mm3": [0, 9000.5], "mm": [1, None], "thickness_left": [None, 5]}

    said, silent = (
        next(row for row in specification_rows(document) if row.name == "Plausible ranges")
        for document in (plan_document(plausible_ranges=ranges), plan_document())
    )

    assert (said.value, said.default) == ("mm3: 0 to 9000.5; mm: 1 or more; thickness_left: 5 or less", False)
    assert (silent.value, silent.default) == ("none: no value is judged by its size", True)


def test_a_calibration_before_the_calibration_itself_is_refused() -> None:
    parameters = {"time": "day", "options": {"measurements": [MEASUREMENT]}, "covariates": []}
    found = faults(algorithm="phantom-calibration", calibration={"parameters": parameters})

    assert list(found) == ["/calibration"]


def test_a_calibration_is_a_companion_that_needs_a_lock() -> None:
    parameters = {"time": "scan_day", "options": {"measurements": [MEASUREMENT]}}

    plan = parse_plan(plan_document(calibration={"parameters": parameters}))

    assert plan.companions == ("phantom-calibration",)
    assert "scan_day" in plan.columns
    assert plan.calibration is not None
    assert plan.calibration.eb is False


def test_a_reference_to_the_analysis_plan_may_be_a_sentence_or_its_parts() -> None:
    reference = {"document": "SAP", "version": "2.0", "section": "7.3", "sha256": "0" * 64}

    parse_plan(plan_document(analysis_plan=reference))
    parse_plan(plan_document(analysis_plan="SAP, section 7.3"))


def test_an_unblinded_plan_says_why() -> None:
    plan = parse_plan(plan_document(blinded=False, rationale="The trial has one arm."))

    assert plan.blinded is False

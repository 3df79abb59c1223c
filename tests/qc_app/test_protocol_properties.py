from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from protocol_factories import document, judge, observation, parameter, rule, series

from qc_app.protocol.capture import capture, capture_series
from qc_app.protocol.evaluation import evaluate_series
from qc_app.protocol.matching import match_series
from qc_app.protocol.schema import parse_protocol

FINITE = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)
TEXT = st.text(min_size=1, max_size=64).filter(lambda text: text.strip() != "")
ANY = st.one_of(FINITE, st.floats(), TEXT, st.integers(), st.booleans(), st.lists(FINITE).map(tuple))
NUMBER_RULES = st.one_of(
    FINITE.map(lambda value: rule("equals", value=value)),
    st.lists(FINITE, min_size=1, max_size=5).map(lambda values: rule("one_of", values=values)),
    st.tuples(FINITE, FINITE).map(lambda pair: rule("range", min=min(pair), max=max(pair))),
    st.tuples(FINITE, st.floats(0, 1e9)).map(
        lambda pair: rule("tolerance_absolute", value=pair[0], tolerance=pair[1])
    ),
    st.just(rule("present")),
)
FEW = settings(max_examples=60, deadline=None)


@FEW
@given(NUMBER_RULES, st.booleans(), st.lists(ANY, max_size=3), st.integers(0, 3), st.integers(0, 3))
def test_missing_and_unreadable_are_never_compliant(entry, varying, values, missing, unparsable):
    seen = parameter("RepetitionTime", *values, missing=missing, unparsable=unparsable)

    verdict = judge({**entry, "allow_varying": varying}, seen)

    if missing or unparsable or not values:
        assert verdict.outcome != "compliant"
    assert verdict.outcome in ("compliant", "deviant", "not_evaluable")
    assert verdict.detail


@FEW
@given(FINITE)
def test_a_number_equals_itself(value):
    assert judge(rule("equals", value=value), parameter("RepetitionTime", value)).outcome == "compliant"


@FEW
@given(TEXT)
def test_a_text_equals_itself_in_any_case(text):
    entry = rule("equals", "SeriesDescription", value=text)

    assert judge(entry, parameter("SeriesDescription", text)).outcome == "compliant"
    assert judge(entry, parameter("SeriesDescription", f"  {text.casefold()} ")).outcome == "compliant"


@FEW
@given(FINITE, st.floats(0, 1e6), st.floats(-2, 2))
def test_a_tolerance_is_a_range_around_the_value(value, tolerance, share):
    seen = parameter("RepetitionTime", value + share * tolerance)

    absolute = judge(rule("tolerance_absolute", value=value, tolerance=tolerance), seen)
    between = judge(rule("range", min=value - tolerance, max=value + tolerance), seen)

    if abs(abs(share) - 1) * tolerance > 3e-6 * (abs(value) + 2 * tolerance):
        assert absolute.outcome == between.outcome


@FEW
@given(FINITE, FINITE)
def test_the_order_of_values_does_not_change_the_outcome(one, other):
    entry = rule("range", min=-10, max=10)

    there = judge(entry, parameter("RepetitionTime", one, other))
    back = judge(entry, parameter("RepetitionTime", other, one))

    assert there.outcome == back.outcome


@FEW
@given(
    st.floats(1, 1e4), st.lists(st.floats(0, 3000), min_size=1, max_size=12), st.floats(0.1, 5), st.booleans()
)
def test_a_captured_series_complies_with_its_own_rules_and_matches(tr, b_values, voxel, named):
    vendor = [parameter("Manufacturer", "UIH")] if named else []
    seen = observation(
        *vendor,
        parameter("RepetitionTime", tr),
        parameter("DiffusionBValue", *b_values),
        parameter("VoxelSize", (voxel, voxel, voxel)),
        parameter("ScanningSequence", ("EP", "SE")),
        parameter("EchoTime", 80.0, missing=1),
    )

    spec = parse_protocol(document(capture_series(seen, "dti", "Diffusion")))

    assert match_series(spec, seen, "V1").expected_key == "dti"
    assert {verdict.outcome for verdict in evaluate_series(spec, "dti", seen)} == {"compliant"}
    assert "EchoTime" not in {entry.get("parameter") for entry in capture(seen)}


def test_capture_makes_vendor_words_conditional_and_keeps_unreadable_geometry_out():
    seen = observation(
        parameter("Manufacturer", "SIEMENS"), parameter("RepetitionTime", 2300.0), parameter("Rows", 256)
    )

    rules = {entry["id"]: entry for entry in capture(seen)}

    assert rules["repetition-time"]["applies_to"] == {"manufacturer": ["SIEMENS"]}
    assert rules["repetition-time"]["tolerance"] == 11.5
    assert "applies_to" not in rules["rows"]
    assert (rules["count-positions"]["min"], rules["count-positions"]["max"]) == (10, 10)


def test_an_empty_series_captures_an_empty_draft():
    assert parse_protocol(document(series(*capture(observation(instances=0))))).digest

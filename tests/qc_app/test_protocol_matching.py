from __future__ import annotations

from protocol_factories import document, observation, parameter, protocol, series

from qc_app.protocol.matching import match_series
from qc_app.protocol.schema import parse_protocol

THREE_D = {"parameter": "MRAcquisitionType", "kind": "equals", "value": "3D"}
LONG_TI = {"parameter": "InversionTime", "kind": "range", "min": 1500}
NOT_FLAIR = {"parameter": "SeriesDescription", "kind": "regex", "pattern": ".*flair.*", "negate": True}


def spec():
    return parse_protocol(
        document(
            series(key="t1", match=[THREE_D, NOT_FLAIR]),
            series(key="flair", title="FLAIR", match=[THREE_D, LONG_TI], visits=["V1"]),
        )
    )


def seen(description="t1_mprage", ti=900.0, kind="3D"):
    return observation(
        parameter("MRAcquisitionType", kind),
        parameter("SeriesDescription", description),
        parameter("InversionTime", ti),
    )


def test_one_series_whose_conditions_all_hold():
    match = match_series(spec(), seen(), "V1")

    assert (match.expected_key, match.reason_code, match.candidates) == ("t1", "matched", ("t1",))


def test_none_names_the_failed_conditions_of_the_nearest():
    match = match_series(spec(), seen(kind="2D", ti=2000.0), "V1")

    assert (match.expected_key, match.reason_code) == (None, "no_match")
    assert match.candidates == ("t1", "flair")
    assert "MR acquisition type is 2D, wanted 3D" in match.reason


def test_several_names_the_candidates():
    match = match_series(spec(), seen(description="weird", ti=2000.0), "V1")

    assert (match.expected_key, match.reason_code) == (None, "several_matches")
    assert match.candidates == ("t1", "flair")


def test_a_modality_that_the_protocol_does_not_expect():
    match = match_series(spec(), observation(modality="CT"), "V1")

    assert (match.expected_key, match.reason_code) == (None, "modality_not_expected")


def test_a_series_of_another_visit():
    match = match_series(spec(), seen(description="flair", ti=2000.0), "V2")

    assert (match.expected_key, match.reason_code, match.candidates) == (
        None,
        "not_expected_at_visit",
        ("flair",),
    )


def test_a_missing_or_unreadable_value_never_satisfies_a_condition_even_negated():
    without = observation(parameter("MRAcquisitionType", "3D"))
    unreadable = observation(
        parameter("MRAcquisitionType", "3D"), parameter("SeriesDescription", unparsable=2)
    )

    assert "Series description is not recorded" in match_series(spec(), without, "V1").reason
    assert "Series description cannot be read" in match_series(spec(), unreadable, "V1").reason


def test_one_of_several_alternatives_is_enough():
    either = {"any_of": [LONG_TI, {"all_of": [THREE_D, NOT_FLAIR]}]}

    assert match_series(protocol(match=[either]), seen(), "V1").expected_key == "t1"
    assert match_series(protocol(match=[either]), seen(kind="2D", ti=2000.0), "V1").expected_key == "t1"
    failed = match_series(protocol(match=[either]), seen(kind="2D"), "V1")
    assert failed.expected_key is None
    assert "none of the alternatives holds" in failed.reason


def test_every_recorded_value_has_to_satisfy_a_condition():
    mixed = observation(parameter("MRAcquisitionType", "3D", "2D"), parameter("SeriesDescription", "t1"))

    assert match_series(spec(), mixed, "V1").expected_key is None

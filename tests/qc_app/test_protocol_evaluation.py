from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from protocol_factories import (
    WHOLE,
    document,
    judge,
    observation,
    parameter,
    protocol,
    rule,
    series,
    verdicts,
)

from hub.core.canonical import canonical_json
from qc_app.protocol.evaluation import evaluate_series, evaluate_visit
from qc_app.protocol.schema import parse_protocol

TR, SPACING = "RepetitionTime", "PixelSpacing"
KINDS = [
    (rule("equals", TR, value=500), 500.0, 501.0),
    (rule("equals", "MRAcquisitionType", value="3d"), "3D", "2D"),
    (rule("equals", "ScanningSequence", value=["GR", "IR"]), ("IR", "GR"), ("GR",)),
    (rule("equals", "PartialFourier", value=True), True, False),
    (rule("one_of", "KVP", values=[100, 120]), 120.0, 110.0),
    (rule("one_of", "Manufacturer", values=["SIEMENS", "GE"]), "GE MEDICAL SYSTEMS", "Philips"),
    (rule("one_of", "DiffusionBValue", values=[0, 1000], tolerance=80), 928.3, 900.0),
    (rule("range", TR, min=400, max=600), 600.0, 600.1),
    (rule("range", SPACING, max=1), (1.0, 0.9), (1.0, 1.1)),
    (rule("tolerance_absolute", TR, value=2300, tolerance=10), 2310.0, 2310.1),
    (rule("tolerance_relative", TR, value=2000, tolerance_percent=5), 2100.0, 2100.1),
    (rule("vector", SPACING, value=[1, 1], tolerance=0.05), (1.05, 0.95), (1.06, 1.0)),
    (rule("vector", SPACING, value=[1, 1], tolerance=[0.1, 0.2]), (1.1, 1.2), (1.2, 1.1)),
    (rule("regex", "SoftwareVersions", pattern="syngo MR E\\d+"), ("syngo MR E11",), ("syngo MR XA30",)),
    (rule("contains", "ImageType", all=["original"], any=["M", "P"], none=["DERIVED"]),
     ("ORIGINAL", "PRIMARY", "M"), ("ORIGINAL", "PRIMARY", "M", "DERIVED")),
    (rule("present", TR), 1.0, None),
    (rule("absent", "ContrastBolusAgent"), None, "Gadobutrol"),
]  # fmt: skip
IDS = [f"{entry['kind']}-{entry['parameter']}" for entry, _, _ in KINDS]


def seen_of(entry, value):
    return [] if value is None else [parameter(entry["parameter"], value)]


@pytest.mark.parametrize(("entry", "good", "bad"), KINDS, ids=IDS)
def test_a_value_that_is_as_wanted_is_compliant(entry, good, bad):
    verdict = judge(entry, *seen_of(entry, good))

    assert verdict.outcome == "compliant"
    assert verdict.action == ""


@pytest.mark.parametrize(("entry", "good", "bad"), KINDS, ids=IDS)
def test_a_value_that_is_not_as_wanted_is_deviant_and_says_what_to_do(entry, good, bad):
    verdict = judge(entry, *seen_of(entry, bad))

    assert verdict.outcome == "deviant"
    assert verdict.detail and verdict.action


@pytest.mark.parametrize(("entry", "good", "bad"), KINDS, ids=IDS)
def test_a_missing_value_is_never_compliant_but_for_absent(entry, good, bad):
    verdict = judge(entry)

    expected = {"absent": "compliant", "present": "deviant"}.get(entry["kind"], "not_evaluable")
    assert verdict.outcome == expected
    assert verdict.observed is None


@pytest.mark.parametrize(("entry", "good", "bad"), KINDS, ids=IDS)
def test_a_value_missing_in_one_instance_is_not_compliant(entry, good, bad):
    value = good if good is not None else bad

    verdict = judge(entry, parameter(entry["parameter"], value, value, missing=1))

    expected = {"absent": "deviant", "present": "deviant"}.get(entry["kind"], "not_evaluable")
    assert verdict.outcome == expected


@pytest.mark.parametrize("values", [0, 1])
@pytest.mark.parametrize(("entry", "good", "bad"), KINDS, ids=IDS)
def test_an_unreadable_value_is_never_compliant(entry, good, bad, values):
    readable = [good if good is not None else bad][:values]

    verdict = judge(entry, parameter(entry["parameter"], *readable, unparsable=1))

    assert verdict.outcome == ("deviant" if entry["kind"] == "absent" else "not_evaluable")


@pytest.mark.parametrize(("entry", "good", "bad"), KINDS[:-2], ids=IDS[:-2])
def test_one_deviating_instance_makes_the_series_deviant_and_is_named(entry, good, bad):
    verdict = judge(entry, parameter(entry["parameter"], good, bad))

    assert verdict.outcome == "deviant"
    assert verdict.instances == (f"{entry['parameter']}.2",)
    assert "in 1 of 2 images" in verdict.detail


def test_values_that_comply_but_vary_are_deviant_unless_the_rule_lets_them_vary():
    entry = rule("tolerance_absolute", TR, value=2300, tolerance=10)
    seen = parameter(TR, 2300.0, 2305.0)

    strict, lenient = judge(entry, seen), judge({**entry, "allow_varying": True}, seen)

    assert (strict.outcome, lenient.outcome) == ("deviant", "compliant")
    assert strict.instances == ("RepetitionTime.2",)
    assert strict.observed == {
        "values": [{"value": 2300.0, "count": 1}, {"value": 2305.0, "count": 1}],
        "missing": 0,
        "unparsable": 0,
    }


def test_each_value_has_to_comply_where_values_may_vary():
    entry = rule("range", TR, min=2290, max=2310, allow_varying=True)

    assert judge(entry, parameter(TR, 2300.0, 2311.0)).outcome == "deviant"


def test_float_noise_is_no_variation_and_no_difference():
    philips = judge(rule("equals", TR, value=500), parameter(TR, 499.999786, 500.0))

    assert philips.outcome == "compliant"
    assert judge(rule("equals", TR, value=500), parameter(TR, 499.99)).outcome == "deviant"


def test_bounds_are_inclusive_despite_binary_fractions():
    entry = rule("tolerance_absolute", "EchoTime", value=2.9, tolerance=0.1)

    assert judge(entry, parameter("EchoTime", 3.0)).outcome == "compliant"
    assert judge(entry, parameter("EchoTime", 2.8)).outcome == "compliant"
    assert judge(entry, parameter("EchoTime", 3.001)).outcome == "deviant"


@pytest.mark.parametrize(
    "value", ["2300", (2300.0, 2300.0), float("nan"), float("inf"), True, "", (), 10**400]
)
def test_a_value_that_is_no_number_is_not_evaluable_for_a_number(value):
    verdict = judge(rule("range", "EchoTime", min=0), parameter("EchoTime", value))
    scalar = judge(rule("tolerance_absolute", TR, value=2300, tolerance=10), parameter(TR, value))

    assert scalar.outcome == "not_evaluable"
    assert verdict.outcome == ("compliant" if value == (2300.0, 2300.0) else "not_evaluable")
    canonical_json(json.loads(json.dumps(asdict(scalar))))


def test_number_for_text_and_text_for_number_cannot_be_compared():
    assert judge(rule("equals", "KVP", value=120), parameter("KVP", "120")).outcome == "not_evaluable"
    assert judge(rule("equals", "Units", value="BQML"), parameter("Units", 7)).outcome == "not_evaluable"
    assert judge(rule("regex", "Units", pattern="7"), parameter("Units", 7)).outcome == "not_evaluable"


def test_vectors_of_another_length_are_deviant():
    entry = rule("vector", SPACING, value=[1, 1], tolerance=0.1)

    assert judge(entry, parameter(SPACING, (1.0, 1.0, 1.0))).outcome == "deviant"


def test_a_parameter_read_in_another_unit_is_not_evaluable():
    seconds = replace(parameter(TR, 2.3), unit="s")

    verdict = judge(rule("range", TR, min=1, max=3), seconds)

    assert verdict.outcome == "not_evaluable"
    assert "“s”" in verdict.detail


def test_allow_missing_accepts_only_what_is_missing():
    entry = rule("equals", TR, value=500, allow_missing=True)

    assert judge(entry).outcome == "compliant"
    assert judge(entry, parameter(TR, 500.0, missing=3)).outcome == "compliant"
    assert judge(entry, parameter(TR, 400.0, missing=3)).outcome == "deviant"
    assert judge(entry, parameter(TR, unparsable=1)).outcome == "not_evaluable"


def test_a_series_without_instances_is_never_compliant():
    absent = judge(rule("absent", "ContrastBolusAgent"), instances=0)

    assert absent.outcome == "not_evaluable"
    assert judge(rule("count", of="instances", min=0), instances=0).outcome == "deviant"


def test_the_words_say_what_was_found_what_was_wanted_and_what_to_do():
    verdict = judge(rule("tolerance_absolute", TR, value=2300, tolerance=10), parameter(TR, 2500.0))

    assert verdict.detail == "TR is 2500 ms; the protocol wants 2300 ± 10 ms."
    assert verdict.action == "Set TR to 2300 ms and repeat the series, or ask for a waiver."
    assert verdict.expected == {
        "kind": "tolerance_absolute",
        "value": 2300,
        "tolerance": 10,
        "text": "2300 ± 10 ms",
    }
    assert (verdict.observed, verdict.unit, verdict.source) == (2500.0, "ms", "(test)")


def test_a_rule_can_say_itself_what_to_do():
    entry = rule("equals", TR, value=500, action="Load the trial's own exam card.")

    assert judge(entry, parameter(TR, 400.0)).action == "Load the trial's own exam card."
    assert judge(entry).action == "Load the trial's own exam card."
    assert judge(entry, parameter(TR, 500.0)).action == ""


def test_a_missing_value_names_its_tag():
    verdict = judge(rule("equals", TR, value=500))

    assert "(0018,0080)" in verdict.detail
    assert verdict.source == "(0018,0080)"


@pytest.mark.parametrize(
    ("of", "number", "outcome"),
    [("instances", 10, "compliant"), ("positions", 10, "compliant"), ("frames", 10, "compliant"),
     ("volumes", 1, "compliant"), ("instances", 11, "deviant"), ("positions", 9, "deviant")],
)  # fmt: skip
def test_counts(of, number, outcome):
    assert judge(rule("count", of=of, min=number, max=number)).outcome == outcome


def test_positions_without_geometry_cannot_be_counted():
    blind = replace(WHOLE, evaluable=False, reason="no ImagePositionPatient")

    verdict = judge(rule("count", of="positions", min=10), geometry=blind)

    assert verdict.outcome == "not_evaluable"
    assert "no ImagePositionPatient" in verdict.detail


def vendor_rules(**settings):
    return protocol(
        rule("equals", TR, id="siemens", value=2300, applies_to={"manufacturer": ["Siemens"]}),
        rule("equals", TR, id="philips", value=6.5, applies_to={"manufacturer": ["Philips Healthcare"]}),
        **settings,
    )


def test_only_the_rule_for_the_scanner_is_judged():
    seen = observation(parameter("Manufacturer", "Siemens Healthineers"), parameter(TR, 2300.0))

    found = verdicts(vendor_rules(), seen)

    assert found["siemens"].outcome == "compliant"
    assert "philips" not in found


def test_a_scanner_without_any_rule_for_a_ruled_parameter_is_not_evaluable():
    seen = observation(parameter("Manufacturer", "GE MEDICAL SYSTEMS"), parameter(TR, 7.0))

    found = verdicts(vendor_rules(), seen)["RepetitionTime.no_applicable_rule"]

    assert found.outcome == "not_evaluable"
    assert "GE MEDICAL SYSTEMS" in found.detail


def test_an_exemption_is_the_only_way_to_leave_a_scanner_without_a_rule():
    exempt = [{"parameter": TR, "applies_to": {"manufacturer": ["GE"]}, "reason": "not comparable"}]
    spec = vendor_rules(exempt=exempt)

    ge = observation(parameter("Manufacturer", "GEHC"), parameter(TR, 7.0))
    uih = observation(parameter("Manufacturer", "UIH"), parameter(TR, 7.0))

    assert not any(verdict.parameter == TR for verdict in evaluate_series(spec, "t1", ge))
    assert verdicts(spec, uih)["RepetitionTime.no_applicable_rule"].outcome == "not_evaluable"


@pytest.mark.parametrize(
    "manufacturer",
    [[], [parameter("Manufacturer", "SIEMENS", "GE")], [parameter("Manufacturer", unparsable=1)],
     [parameter("Manufacturer", "SIEMENS", missing=1)], [parameter("Manufacturer", "")]],
)  # fmt: skip
def test_undecidable_applicability_is_not_evaluable_for_every_rule(manufacturer):
    found = verdicts(vendor_rules(), observation(*manufacturer, parameter(TR, 2300.0)))

    assert (found["siemens"].outcome, found["philips"].outcome) == ("not_evaluable", "not_evaluable")
    assert "Manufacturer" in found["siemens"].detail


@pytest.mark.parametrize(
    ("applies_to", "seen", "outcome"),
    [
        ({"model": ["Prisma_fit"]}, parameter("ManufacturerModelName", "MAGNETOM Prisma Fit"), "compliant"),
        ({"model_pattern": "prisma.*"}, parameter("ManufacturerModelName", "Prisma"), "compliant"),
        ({"field_strength": {"min": 2.8}}, parameter("MagneticFieldStrength", 2.89), "compliant"),
        ({"field_strength": {"max": 2}}, parameter("MagneticFieldStrength", 1.494), "compliant"),
        ({"field_strength": {"min": 2.8}}, parameter("MagneticFieldStrength", 30000.0), "not_evaluable"),
        ({"field_strength": {"min": 2.8}}, parameter("MagneticFieldStrength", 1.5), None),
        ({"software_pattern": ".*XA\\d+"}, parameter("SoftwareVersions", ("syngo MR XA30",)), "compliant"),
        ({"software_pattern": ".*XA\\d+"}, parameter("SoftwareVersions", ("x" * 300,)), "not_evaluable"),
    ],
)
def test_applicability_by_model_field_and_software(applies_to, seen, outcome):
    found = verdicts(
        protocol(rule("equals", TR, value=500, applies_to=applies_to)),
        observation(seen, parameter(TR, 500.0)),
    )

    assert (found["r"].outcome if "r" in found else None) == outcome


def test_a_criterion_known_not_to_hold_decides_although_another_is_missing():
    spec = protocol(
        rule("equals", TR, id="xa", value=1, applies_to={"manufacturer": ["GE"], "software_pattern": "XA.*"}),
        rule("equals", TR, id="any", value=500, applies_to={"manufacturer": ["Siemens"]}),
    )

    found = verdicts(spec, observation(parameter("Manufacturer", "SIEMENS"), parameter(TR, 500.0)))

    assert "xa" not in found
    assert found["any"].outcome == "compliant"


@pytest.mark.parametrize(
    ("change", "name", "setting"),
    [
        ({"missing_slices": 2, "gaps": ((4, 3.0),)}, "gaps", "allow_gaps"),
        ({"gaps": ((4, 3.0),)}, "gaps", "allow_gaps"),
        ({"irregular": True}, "spacing", "allow_irregular_spacing"),
        ({"duplicates": 1}, "duplicates", "allow_duplicate_positions"),
        ({"orientations": 3}, "orientation", "allow_several_orientations"),
    ],
)
def test_an_incomplete_series_is_deviant_unless_the_protocol_allows_it(change, name, setting):
    seen = observation(geometry=replace(WHOLE, **change))

    strict = verdicts(protocol(), seen)
    lenient = verdicts(protocol(completeness={setting: True}), seen)

    assert [rule_id for rule_id, found in strict.items() if found.outcome != "compliant"] == [
        f"completeness.{name}"
    ]
    assert strict[f"completeness.{name}"].outcome == "deviant"
    assert strict[f"completeness.{name}"].action
    assert f"completeness.{name}" not in lenient


def test_several_orientations_are_deviant_although_gaps_cannot_be_checked():
    seen = observation(
        geometry=replace(
            WHOLE, evaluable=False, reason="The series holds 3 slice orientations.", orientations=3
        )
    )

    found = verdicts(protocol(), seen)

    assert found["completeness.orientation"].outcome == "deviant"
    assert found["completeness.geometry"].outcome == "not_evaluable"
    assert not found["completeness.geometry"].detail.endswith("..")


def test_the_slices_of_a_mosaic_are_counted_by_what_it_says():
    mosaic = replace(WHOLE, evaluable=False, reason="A mosaic has no position per slice.")
    entry = rule("count", of="positions", min=60, max=60)

    verdict = judge(entry, parameter("NumberOfPositions", 60), geometry=mosaic)

    assert verdict.outcome == "compliant"
    assert judge(entry, parameter("NumberOfPositions", 59), geometry=mosaic).outcome == "deviant"


def test_slices_missing_from_a_volume_leave_no_gap_but_are_missing():
    seen = observation(geometry=replace(WHOLE, missing_slices=1, volumes=5))

    detail = verdicts(protocol(), seen)["completeness.gaps"].detail

    assert detail.startswith("1 slice is missing in some of the volumes;")


def test_the_gap_is_named():
    seen = observation(geometry=replace(WHOLE, missing_slices=2, gaps=((4, 3.0),)))

    detail = verdicts(protocol(), seen)["completeness.gaps"].detail

    assert (
        detail
        == "2 slices are missing after position 5 (3 mm); neighbouring slices are 1 mm apart elsewhere."
    )


def test_geometry_that_cannot_be_evaluated_is_reported_where_it_is_required():
    seen = observation(geometry=replace(WHOLE, evaluable=False, reason="no positions"))

    strict = verdicts(protocol(), seen)

    assert {found.outcome for found in strict.values()} == {"not_evaluable"}
    assert verdicts(protocol(completeness={"require_geometry": False}), seen) == {}


def test_an_unknown_series_key_is_an_error():
    with pytest.raises(KeyError, match="expects no series 'flair'"):
        evaluate_series(protocol(), "flair", observation())


def visit_spec():
    return parse_protocol(
        document(
            series(key="t1", count={"min": 1, "max": 1, "severity": "critical"}),
            series(key="dti", count={"min": 2, "max": None}, visits=["V1"]),
            series(key="opt", required=False, count={"min": 1, "max": 2}),
        )
    )


@pytest.mark.parametrize(
    ("visit", "received", "outcomes"),
    [
        ("V1", {"t1": 1, "dti": 2}, ["compliant", "compliant", "compliant"]),
        ("V1", {"t1": 2, "dti": 9, "opt": 3}, ["deviant", "compliant", "deviant"]),
        ("V1", {}, ["deviant", "deviant", "compliant"]),
        ("V2", {"t1": 1}, ["compliant", "compliant"]),
        ("V2", {"t1": 1, "dti": 2}, ["compliant", "deviant", "compliant"]),
        ("V2", {"t1": 1, "pet": 1}, ["compliant", "compliant", "not_evaluable"]),
    ],
)
def test_the_number_of_series_of_a_visit(visit, received, outcomes):
    found = evaluate_visit(visit_spec(), visit, received)

    assert [verdict.outcome for verdict in found] == outcomes
    assert found[0].severity == "critical"


def test_a_missing_series_says_so():
    found = evaluate_visit(visit_spec(), "V2", {})[0]

    assert found.detail == "Visit V2 has 0 series “T1”; the protocol wants 1."
    assert found.action == "Acquire and send the series “T1”, or record why it cannot be had."

from __future__ import annotations

from copy import deepcopy

import pytest
from jsonschema import Draft202012Validator
from protocol_factories import document, rule, series

from qc_app.protocol.kind_schema import KINDS
from qc_app.protocol.schema import PROTOCOL_SCHEMA, ProtocolInvalid, parse_protocol

TR_RULE = rule("tolerance_absolute", value=2300, tolerance=10)


def faults(data, **settings):
    with pytest.raises(ProtocolInvalid) as caught:
        parse_protocol(data, **settings)
    return dict(caught.value.problems)


def test_the_schema_is_a_valid_schema_and_describes_every_property():
    Draft202012Validator.check_schema(PROTOCOL_SCHEMA)

    undescribed = []

    def walk(node, path):
        if isinstance(node, dict):
            for name, child in node.get("properties", {}).items():
                if "description" not in child and "$ref" not in child:
                    undescribed.append(f"{path}/{name}")
            if node.get("type") == "object":
                assert node["additionalProperties"] is False, path
            for key, child in node.items():
                walk(child, f"{path}/{key}")
        elif isinstance(node, list):
            for index, child in enumerate(node):
                walk(child, f"{path}/{index}")

    walk(PROTOCOL_SCHEMA, "")
    assert undescribed == []


def test_defaults_and_number_spelling_do_not_change_the_digest():
    short = parse_protocol(document(series(TR_RULE)))
    written = parse_protocol(
        document(
            series(
                TR_RULE
                | {"value": 2300.0, "unit": "ms", "severity": "major", "allow_missing": False, "note": ""},
                required=True,
                visits=None,
                count={"min": 1, "max": 1},
                exempt=[],
                completeness={"allow_gaps": False},
            ),
            description="",
        )
    )

    assert short.digest == written.digest
    assert parse_protocol(short.document).digest == short.digest


def test_any_setting_changes_the_digest():
    base = parse_protocol(document(series(TR_RULE))).digest

    for change in ({"tolerance": 11}, {"severity": "minor"}, {"allow_varying": True}, {"id": "x"}):
        assert parse_protocol(document(series(TR_RULE | change))).digest != base


def test_the_input_is_left_alone():
    data = document(series(TR_RULE))
    before = deepcopy(data)

    parse_protocol(data)

    assert data == before


RULE = "/series/0/rules/0"


@pytest.mark.parametrize(
    ("bad", "pointer", "words"),
    [
        (rule("rang", min=1), f"{RULE}/kind", "one of equals"),
        (rule("range", minimum=1), RULE, "'minimum' is no setting here"),
        (rule("range"), RULE, "needs min, max or both"),
        (rule("range", min=3, max=2), f"{RULE}/min", "larger than max"),
        (rule("tolerance_absolute", value=1), RULE, "'tolerance' is missing"),
        (rule("tolerance_absolute", value=1, tolerance=-1), f"{RULE}/tolerance", "at least 0"),
        (rule("tolerance_absolute", value="1", tolerance=1), f"{RULE}/value", "wrong type"),
        (rule("tolerance_relative", value=0, tolerance_percent=1), f"{RULE}/value", "tolerance_absolute"),
        (rule("equals", value=2.3, unit="s"), f"{RULE}/unit", "judged in ms, not in s"),
        (rule("equals", "RepetitionTimes", value=2), f"{RULE}/parameter", "Did you mean RepetitionTime"),
        (rule("equals", "RepetitionTime", value="2"), f"{RULE}/value", "holds a number"),
        (rule("equals", "RepetitionTime", value=[2, 3]), f"{RULE}/value", "holds a number"),
        (rule("equals", "Units", value=2), f"{RULE}/value", "holds text"),
        (rule("range", "Units", min=2), f"{RULE}/kind", "Units holds text"),
        (rule("tolerance_absolute", "PixelSpacing", value=1, tolerance=1), f"{RULE}/kind", "vector"),
        (rule("vector", "PixelSpacing", value=[1, 1], tolerance=[1]), f"{RULE}/tolerance", "1 tolerances for 2"),
        (rule("regex", "Units", pattern="("), f"{RULE}/pattern", "not a regular expression"),
        (rule("regex", "Units", pattern="(?!a)"), f"{RULE}/pattern", "Look-around"),
        (rule("regex", "Units", pattern="a" * 201), f"{RULE}/pattern", "at most 200"),
        (rule("contains", "ImageType"), RULE, "needs all, any or none"),
        (rule("contains", "ImageType", all=["M"], none=["m"]), f"{RULE}/all/0", "both wanted and forbidden"),
        (rule("one_of", "Units", values=["BQML"], tolerance=1), f"{RULE}/tolerance", "needs numbers"),
        (rule("count", of="slices", min=1), f"{RULE}/of", "one of instances"),
        (rule("count", of="frames", min=2, max=1), f"{RULE}/min", "larger than max"),
        (rule("count", "X", of="frames", min=1, allow_missing=True), RULE, "'allow_missing' is no setting"),
        (rule("present", allow_missing=True), f"{RULE}/allow_missing", "cannot leave it open"),
        (rule("present", severity="fatal"), f"{RULE}/severity", "one of info"),
        (rule("present", id="a b"), f"{RULE}/id", "no valid name"),
        (rule("present", id="a\n"), f"{RULE}/id", "line break"),
        (rule("present", applies_to={}), f"{RULE}/applies_to", "at least one criterion"),
        (rule("present", applies_to={"vendor": ["GE"]}), f"{RULE}/applies_to", "'vendor' is no setting"),
        (rule("present", applies_to={"manufacturer": []}), f"{RULE}/applies_to/manufacturer", "at least 1"),
        (rule("present", applies_to={"software_pattern": "["}), f"{RULE}/applies_to/software_pattern", "regular"),
        (rule("present", applies_to={"field_strength": {"min": 3, "max": 1}}),
         f"{RULE}/applies_to/field_strength/min", "larger than max"),
        (rule("equals", value=float("nan")), f"{RULE}/value", "not finite"),
        (rule("equals", value=10**400), f"{RULE}/value", "too large"),
    ],
)  # fmt: skip
def test_a_faulty_rule_is_named_with_what_to_do(bad, pointer, words):
    found = faults(document(series(bad)))

    assert list(found) == [pointer]
    assert words in found[pointer]


@pytest.mark.parametrize(
    ("bad", "pointer", "words"),
    [
        (series(key=""), "/series/0/key", "no valid name"),
        (series(colour="red"), "/series/0", "'colour' is no setting"),
        (series(count={"min": 3, "max": 2}), "/series/0/count/min", "larger than max"),
        (series(count={"min": 0}), "/series/0/count/min", "required to false"),
        (series(visits=["V1", "V1"]), "/series/0/visits/1", "named twice"),
        (series(visits=["V9"]), "/series/0/visits/0", "no visit 'V9'"),
        (series(rule("present"), rule("absent", id="R")), "/series/0/rules/1/id", "already the id of entry 0"),
        (series(match=[{"parameter": "Units", "kind": "regex", "pattern": "("}]), "/series/0/match/0/pattern",
         "regular expression"),
        (series(match=[{"any_of": [{"parameter": "Units", "kind": "present"}]}]), "/series/0/match/0/any_of",
         "at least two"),
        (series(match=[{"parameter": "Units", "kind": "absent"}]), "/series/0/match/0/kind", "one of equals"),
        (series(match=[{"parameter": "Units", "kind": "present", "negate": True}]), "/series/0/match/0/negate",
         "nothing can satisfy"),
        (series(match=[7]), "/series/0/match/0", "fits none"),
        (series(visits={}), "/series/0/visits", "fits none"),
        (series(exempt=[{"parameter": "KVP", "applies_to": {"model": ["x"]}, "reason": "r"}]),
         "/series/0/exempt/0/parameter", "No rule of this series"),
    ],
)  # fmt: skip
def test_a_faulty_series_is_named_with_what_to_do(bad, pointer, words):
    found = faults(document(bad), visit_codes=["V1"])

    assert list(found) == [pointer]
    assert words in found[pointer]


def test_repeated_series_keys_are_refused():
    assert list(faults(document(series(), series(key="T1")))) == ["/series/1/key"]


@pytest.mark.parametrize("data", [None, [], "x", 7, {}, {"schema": "hub.protocol/2"}, {"series": {}}])
def test_what_is_no_protocol_is_refused(data):
    assert faults(data)


def test_deep_nesting_is_refused():
    nested: list = []
    for _ in range(5000):
        nested = [nested]

    assert "nested more than" in str(faults(document(series(rule("equals", value=nested)))))


def test_all_faults_are_reported_at_once_as_a_problem_document():
    data = document(series(rule("range", min=3, max=2), rule("equals", "Nope", id="n", value=1)))

    with pytest.raises(ProtocolInvalid) as caught:
        parse_protocol(data)

    problem = caught.value.as_problem()
    assert problem["code"] == "protocol_invalid"
    assert [error["field"] for error in problem["errors"]] == [f"{RULE}/min", "/series/0/rules/1/parameter"]


def test_every_kind_is_in_the_published_schema():
    published = {entry["properties"]["kind"]["const"] for entry in PROTOCOL_SCHEMA["$defs"]["rule"]["oneOf"]}

    assert published == set(KINDS)

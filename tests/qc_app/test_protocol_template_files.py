from __future__ import annotations

import json
from pathlib import Path

import pytest
from protocol_factories import document, observation, parameter, rule, series, verdicts

from qc_app.protocol.changes import diff
from qc_app.protocol.kind_schema import KINDS
from qc_app.protocol.schema import parse_protocol
from qc_app.protocol.template_files import load_template, template_names


@pytest.mark.parametrize("name", template_names())
def test_every_template_is_a_valid_protocol_with_its_sources(name):
    data = load_template(name)

    spec = parse_protocol(data)

    assert spec.name == name
    assert spec.document["sources"]
    assert all(expected.rules for expected in spec.series)


def test_there_are_templates_for_mr_ct_and_pet():
    modalities = {item["modality"] for name in template_names() for item in load_template(name)["series"]}

    assert modalities == {"MR", "CT", "PT"}


def test_an_unknown_template_names_the_known_ones():
    with pytest.raises(KeyError, match="fdg-pet"):
        load_template("../secrets")


@pytest.mark.parametrize(
    ("manufacturer", "tr", "te", "ti", "flip"),
    [
        ("Siemens Healthineers", 2300.0, 2.98, 900.0, 9.0),
        ("Philips", 6.499999, 2.93, 900.0, 9.0),
        ("GE MEDICAL SYSTEMS", 7.3, 3.04, 400.0, 11.0),
    ],
)
def test_the_t1_template_judges_each_vendor_by_its_own_timing(manufacturer, tr, te, ti, flip):
    spec = parse_protocol(load_template("adni3-like-t1"))
    seen = observation(
        parameter("Manufacturer", manufacturer),
        parameter("RepetitionTime", tr),
        parameter("EchoTime", te),
        parameter("InversionTime", ti),
        parameter("FlipAngle", flip),
    )

    found = verdicts(spec, seen)

    vendor = manufacturer.split()[0].lower()
    assert {found[f"{name}-{vendor}"].outcome for name in ("tr", "te", "ti", "flip-angle")} == {"compliant"}
    assert sum(verdict.parameter == "RepetitionTime" for verdict in found.values()) == 1


def test_a_protocol_does_not_differ_from_itself():
    spec = parse_protocol(load_template("adni3-like-t1"))

    assert diff(spec, spec) == []


def test_an_amendment_is_told_in_sentences():
    before = parse_protocol(
        document(series(rule("tolerance_absolute", value=2300, tolerance=10)), series(key="old"))
    )
    after = parse_protocol(
        document(
            series(
                rule("tolerance_absolute", value=2300, tolerance=20),
                rule("equals", "KVP", id="kvp", value=120, severity="critical"),
                visits=["V1"],
                match=[{"parameter": "Units", "kind": "equals", "value": "BQML"}],
                completeness={"allow_gaps": True},
            ),
            series(key="new", title="New"),
            title="Protocol 2",
        )
    )

    assert diff(before, after) == [
        "The title changes from “Protocol” to “Protocol 2”.",
        "Series t1: the visits changes from “all visits” to V1.",
        "Series t1: completeness, allow gaps changes from no to yes.",
        "Series t1: the matching condition “Units is BQML” is new.",
        "Series t1: rule r changes from RepetitionTime 2300 ± 10 ms (tolerance_absolute), major to "
        "RepetitionTime 2300 ± 20 ms (tolerance_absolute), major.",
        "Series t1: rule kvp is new: KVP 120 kV (equals), critical.",
        "Series “New” (new) is new, with 0 rules.",
        "Series “T1” (old) is no longer expected.",
    ]


@pytest.mark.parametrize("change", [
    {"severity": "minor"}, {"allow_missing": True}, {"allow_varying": True}, {"note": "why"}, {"action": "do"},
    {"applies_to": {"model": ["Prisma"]}}, {"kind": "tolerance_relative", "tolerance_percent": 1},
])  # fmt: skip
def test_every_changed_setting_of_a_rule_is_told(change):
    rule_before = rule("tolerance_absolute", value=2300, tolerance=10)
    rule_after = rule_before | change
    if "tolerance_percent" in change:
        del rule_after["tolerance"]

    told = diff(parse_protocol(document(series(rule_before))), parse_protocol(document(series(rule_after))))

    assert len(told) == 1
    first, second = told[0].split(" to ", 1)
    assert first.split(" from ")[1] != second.rstrip(".")


def test_the_documented_example_is_valid():
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    example = page.split("```json\n")[1].split("```")[0]

    spec = parse_protocol(json.loads(example), visit_codes=["BASELINE", "MONTH12"])

    assert [expected.key for expected in spec.series] == ["t1"]
    for kind in KINDS:
        assert f"| `{kind}` |" in page

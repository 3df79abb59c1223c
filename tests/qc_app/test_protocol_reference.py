"""The templates judged on real series of several vendors, read as the hub reads them at receipt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from qc_app.protocol.evaluation import evaluate_series
from qc_app.protocol.matching import match_series
from qc_app.protocol.schema import parse_protocol
from qc_app.protocol.template_files import load_template
from sites_app.deid.engine import Deidentifier, InstanceRefused
from sites_app.deid.profile import DEFAULT_PROFILE
from sites_app.dicom.aggregate import aggregate
from sites_app.dicom.observations import InstanceFacts

pytestmark = pytest.mark.reference

FactsOf = Callable[[str], list[InstanceFacts]]


@pytest.fixture
def facts_of(reference_data: Path) -> FactsOf:
    engine = Deidentifier(DEFAULT_PROFILE, b"k" * 32, "S-001", -10, "T")

    def read(name: str) -> list[InstanceFacts]:
        found = []
        for path in sorted((reference_data / "dicom" / name).iterdir()):
            try:
                found.append(engine.process(path.read_bytes()).facts)
            except InstanceRefused as refusal:
                assert refusal.code == "sop_class_not_accepted"
        return found

    return read


def outcomes(template: str, facts: list[InstanceFacts]) -> dict[str, str]:
    spec = parse_protocol(load_template(template))
    seen = aggregate(facts)
    match = match_series(spec, seen, "V1")
    assert match.reason_code == "matched", match.reason
    return {found.rule: found.outcome for found in evaluate_series(spec, match.expected_key, seen)}


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("phantom_acr_ge_artist_15t_t1", "acr-phantom-t1"),
        ("phantom_acr_philips_achieva_3t_t1", "acr-phantom-t1"),
        ("phantom_acr_siemens_aera_15t_t1", "acr-phantom-t1"),
        ("phantom_acr_siemens_solafit_xa51_t1", "acr-phantom-t1"),
        ("mr_philips_ingenia_adni_mprage", "adni3-like-t1"),
        ("pt_dro_0_0", "fdg-pet"),
    ],
)
def test_a_series_acquired_after_the_protocol_is_compliant(facts_of, name, template):
    assert set(outcomes(template, facts_of(name)).values()) == {"compliant"}


def test_an_enhanced_series_lacks_only_the_attribute_that_enhanced_objects_do_not_have(facts_of):
    found = outcomes("acr-phantom-t1", facts_of("phantom_acr_siemens_sola_xa61_enhanced_t1"))

    assert [rule for rule, outcome in found.items() if outcome != "compliant"] == ["sequence"]
    assert found["sequence"] == "not_evaluable"


def test_a_slice_taken_out_is_missed(facts_of):
    facts = facts_of("phantom_acr_ge_artist_15t_t1")
    middle = sorted(facts, key=lambda item: item.positions[0][2])[5]

    found = outcomes("acr-phantom-t1", [item for item in facts if item is not middle])

    assert {rule for rule, outcome in found.items() if outcome == "deviant"} == {
        "slices",
        "completeness.gaps",
    }


def test_suv_images_are_not_activity_images(facts_of):
    found = outcomes("fdg-pet", facts_of("pt_ge_discoveryst_sts003"))

    assert [rule for rule, outcome in found.items() if outcome != "compliant"] == ["units"]


def test_a_vendor_without_rules_is_not_evaluable_and_its_values_are_judged_where_they_can_be(facts_of):
    found = outcomes("abcd-like-dmri", facts_of("mr_uih_umr770_dti_ap"))

    counts = Counter(found.values())
    assert found["RepetitionTime.no_applicable_rule"] == "not_evaluable"
    assert found["b-values"] == "deviant"
    assert counts["not_evaluable"] == 4

"""The plan's submissions, the manifest, and that the pure packages find exactly what was planted."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, time

import pytest

from hub.demo import cohort, plan, planted
from hub.demo.cohort import BASELINE, MONTH_12, SUBJECTS_PER_SITE, subjects
from hub.demo.comparison import Comparison, compare_files, compare_findings
from hub.demo.packaged import packaged_series
from hub.demo.plan import Submission
from hub.demo.protocol import protocol_document
from hub.demo.quality import DRIFT_METRICS, EXPECTED_OUTCOMES
from hub.demo.rehearsal import rehearse
from hub.demo.scanners import SCANNERS, UPGRADE_DATE
from hub.demo.trial import trial_document
from qc_app.metrics.compute import compute_metrics
from qc_app.metrics.drift import ChangePoint, assess
from qc_app.metrics.pixels import load_series
from qc_app.metrics.profile import parse_profile
from qc_app.protocol.document_schema import KINDS
from qc_app.protocol.schema import parse_protocol


@pytest.fixture(scope="module")
def rehearsal():
    return rehearse((*plan.real_submissions(), *plan.simulated_submissions()))


def test_every_planted_deviation_is_found_and_nothing_else_is(rehearsal):
    assert set(rehearsal.findings) == planted.expected_findings()
    assert max(rehearsal.findings.values()) == 1


def test_every_planted_file_is_refused_for_its_reason_and_no_other_file_is(rehearsal):
    assert {name: reason for name, reason in rehearsal.files.items() if reason} == {
        "extra/damaged.dcm": "length_invalid",
        "extra/readme.txt": "not_dicom",
        "extra/duplicate.dcm": "duplicate",
        "extra/conflict.dcm": "conflict",
        "extra/wrong-patient.dcm": "wrong_patient",
        "extra/screen-capture.dcm": "burned_in_risk",
    }
    assert set(rehearsal.files) == {item.name for item in planted.FILES}


def test_only_the_real_files_match_no_expected_series(rehearsal):
    series = Counter((item.subject, item.visit) for item in plan.real_submissions())

    assert {(subject, visit) for subject, visit, _ in rehearsal.unmatched} == set(series)
    assert sum(rehearsal.unmatched.values()) == len(packaged_series())


def test_quality_fails_where_slices_are_missing_and_nowhere_else():
    places = {(subject, visit) for subject, visit, _ in EXPECTED_OUTCOMES}
    others = {("S01-001", MONTH_12), ("S02-001", BASELINE), ("S03-001", BASELINE), ("S04-010", MONTH_12)}
    submissions = [
        item for item in plan.simulated_submissions() if (item.subject, item.visit) in places | others
    ]

    found = rehearse(submissions, with_quality=True).quality

    assert {key: outcome for key, outcome in found.items() if outcome != "pass"} == dict(EXPECTED_OUTCOMES)
    assert len(found) == sum(len(plan.expected_series(item.subject, item.visit)) for item in submissions)


def test_the_drifting_scanner_signals_and_no_other_does():
    values: dict[tuple[str, str], list[tuple[datetime, float | None]]] = {}
    for submission in plan.simulated_submissions():
        taken = cohort.subject(submission.subject).taken(submission.visit)
        upload = next(iter(plan.uploads(submission)))
        for metric in compute_metrics(load_series([file.data for file in upload.files])):
            if metric.name in DRIFT_METRICS:
                values.setdefault((submission.site, metric.name), []).append((taken, metric.value))
    upgrade = [ChangePoint(datetime.combine(UPGRADE_DATE, time()), "upgrade")]

    signalling = set()
    for (site, name), points in values.items():
        changes = upgrade if site == "S01" else []
        assessment = assess([value for _, value in points], [when for when, _ in points], changes)
        if assessment.alerts:
            signalling.add((site, name))
            assert min(alert.index for alert in assessment.alerts) >= planted.DRIFT_STARTS_AT

    assert signalling == {(planted.DRIFT_SITE, name) for name in DRIFT_METRICS}


def test_the_trial_has_the_promised_size():
    counts = Counter(person.site for person in subjects())

    assert counts == Counter(SUBJECTS_PER_SITE)
    assert len(subjects()) >= 40
    assert len({scanner.manufacturer.split()[0].casefold() for scanner in SCANNERS}) >= 3
    assert {scanner.modality for scanner in SCANNERS} >= {"MR", "CT"}
    assert set(cohort.VISIT_DAYS) == {BASELINE, MONTH_12}


def test_the_demonstration_stays_small():
    files = [
        file
        for item in plan.simulated_submissions()
        for upload in plan.uploads(item)
        for file in upload.files
    ]

    assert 3_000 <= len(files) <= 5_000
    assert sum(len(file.data) for file in files) < 150e6
    # The duplicate and the conflicting file repeat an instance; the text file is none; the damaged one is cut.
    uids = Counter(file.sop_instance_uid for file in files)
    assert sorted(uid for uid, number in uids.items() if number > 1) == sorted(
        {next(iter(plan.uploads(Submission(site, subject, BASELINE)))).files[0].sop_instance_uid
         for site, subject in (("S03", "S03-001"), ("S03", "S03-003"))}
    )  # fmt: skip


def test_making_a_submission_twice_gives_the_same_bytes():
    submission = Submission("S04", "S04-003", MONTH_12)

    first, second = list(plan.uploads(submission)), list(plan.uploads(submission))

    assert first == second


def test_every_rule_kind_is_in_the_protocol_and_planted():
    spec = parse_protocol(protocol_document())
    in_protocol = {rule.test.kind for series in spec.series for rule in series.rules}

    assert in_protocol == set(KINDS) - {"contains"}
    assert {item.kind for item in planted.DEVIATIONS} >= in_protocol | {
        "missing_value", "varying_value", "missing_slice", "missing_series",
    }  # fmt: skip


def test_planted_rules_exist_and_have_the_kind_they_are_planted_for():
    spec = parse_protocol(protocol_document())
    kinds = {rule.id: rule.test.kind for series in spec.series for rule in series.rules}

    for item in planted.DEVIATIONS:
        for rule in item.verdicts:
            assert rule in kinds or rule.startswith(("completeness.", "visit."))
        if item.kind in KINDS:
            assert {kinds[rule] for rule in item.verdicts} == {item.kind}


def test_nothing_is_planted_twice_in_one_series():
    places = Counter((item.subject, item.visit, item.series) for item in planted.DEVIATIONS)

    assert set(places.values()) == {1}


def test_planted_places_are_in_the_plan():
    visits = {(item.subject, item.visit) for item in plan.simulated_submissions()}

    for item in planted.DEVIATIONS:
        assert item.series in plan.expected_series(item.subject, item.visit)
    assert {(item.subject, item.visit) for item in planted.FILES} <= visits


def test_the_manifest_is_json():
    manifest = json.loads(json.dumps(planted.manifest()))

    assert [len(manifest[key]) for key in ("deviations", "files", "scanners")] == [
        len(planted.DEVIATIONS),
        len(planted.FILES),
        len(planted.SCANNER_EVENTS),
    ]


def test_all_baselines_of_the_upgraded_scanner_precede_the_upgrade():
    people = [person for person in subjects() if person.site == "S01"]

    assert all(
        person.visit_dates[BASELINE] < UPGRADE_DATE <= person.visit_dates[MONTH_12] for person in people
    )


def test_visits_lie_inside_their_windows():
    window = next(item for item in trial_document()["visit_definitions"] if item["code"] == MONTH_12)

    for person in subjects():
        days = (person.visit_dates[MONTH_12] - person.visit_dates[BASELINE]).days
        assert -window["window_before"] <= days - window["day"] <= window["window_after"]


def test_real_files_come_from_several_manufacturers_and_both_modalities():
    series = packaged_series()

    assert {item.modality for item in series} == {"MR", "CT"}
    assert len({item.manufacturer for item in series if item.manufacturer}) >= 4
    assert all(item.files for item in series)


def test_the_trial_file_agrees_with_itself():
    document = json.loads(json.dumps(trial_document()))
    sites = {item["code"] for item in document["sites"]}
    users = {item["username"] for item in document["users"]}
    visits = {item["code"] for item in document["visit_definitions"]}

    assert len(sites) >= 4
    assert {item["site"] for item in (*document["scanners"], *document["subjects"])} <= sites
    assert {item["user"] for item in document["memberships"]} == users
    assert all(set(series["visits"]) <= visits for series in document["protocol"]["series"])
    assert {item["subject"] for item in planted.manifest()["deviations"]} <= {
        item["code"] for item in document["subjects"]
    }
    parse_profile(document["qc_profile"])


def test_the_comparison_names_what_was_missed_and_what_was_not_planted():
    expected = planted.expected_findings()
    missed = min(expected)
    extra = ("S01-001", BASELINE, "t1-coil", "deviant")

    lines = compare_findings((expected - {missed}) | {extra})

    assert Comparison(compare_findings(expected)).ok
    assert not Comparison(lines).ok
    assert [(item.what, item.planted, item.found) for item in lines if not (item.planted and item.found)] == [
        (" ".join(missed), True, False),
        (" ".join(extra), False, True),
    ]


def test_a_refused_file_that_nobody_planted_is_named():
    outcomes = [(item.subject, item.visit, item.outcomes[0]) for item in planted.FILES]

    assert Comparison(compare_files(outcomes)).ok
    assert not Comparison(compare_files([*outcomes, ("S01-001", BASELINE, "rejected")])).ok
    assert not Comparison(compare_files(outcomes[1:])).ok

"""Rows and their images: what a silent plan stops on, what a plan that speaks leaves out, keeps and splits."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone
from harmonization_cases import plan_document
from image_cases import epochs_of_a_scanner, image

from harmonization_app.plan_document import parse_plan
from harmonization_app.services import plan as plan_services
from harmonization_app.services.feature_set import load_table
from harmonization_app.services.preparation import prepare
from sites_app.models import Arm, ScannerEpoch, Subject, Trial
from tests.factories.qc_app import DeviationFactory
from tests.factories.sites_app import (
    SubjectFactory,
    TrialFactory,
    UserFactory,
    VisitDefinitionFactory,
)


@pytest.fixture
def rows(features):
    """Three rows of one batch."""
    batches: dict[str, list[str]] = {}
    for item in features.rows:
        batches.setdefault(item["batch"], []).append(item["row"])
    return next(own for own in batches.values() if len(own) >= 10)[:3]


def check(people, features, **changes):
    document = plan_document(**{"image_rows": None, "scanner_changes": None, **changes})
    document = {name: value for name, value in document.items() if value is not None}
    found = plan_services.check_document(
        actor=people.statistician, trial=features.trial, document=document, feature_set=features
    )
    return {finding.code: finding for finding in found}


def prepared(features, **changes):
    return prepare(parse_plan(plan_document(**changes)), features)


def test_rows_whose_images_the_hub_does_not_have_are_a_warning(people, features) -> None:
    found = check(people, features)

    assert found["images_unknown"].severity == "warn"
    assert len(found["images_unknown"].rows) == len(features.rows)
    assert not [code for code, finding in found.items() if finding.severity == "stop"]


def test_a_silent_plan_stops_where_images_are_deviant_and_says_what_to_write(
    trial, people, features, rows
) -> None:
    image(trial, rows[0], protocol_outcome="deviant")
    image(trial, rows[1], protocol_outcome="not_evaluable")
    image(trial, rows[2])

    found = check(people, features)["deviant_rows_unplanned"]

    assert (found.severity, found.rows) == ("stop", (rows[0], rows[1]))
    assert '"image_rows": {"deviant": "exclude"}' in found.message
    assert f"{rows[0]} (t1 departs from the protocol)" in found.message
    assert f"{rows[1]} (t1 could not be judged by the protocol)" in found.message


def test_a_silent_plan_stops_where_images_failed_quality_control(trial, people, features, rows) -> None:
    image(trial, rows[0], qc_outcome="fail")

    found = check(people, features, image_rows={"deviant": "exclude"})

    assert found["qc_failed_rows_unplanned"].rows == (rows[0],)
    assert '{"qc_failed": "exclude"}' in found["qc_failed_rows_unplanned"].message


def test_excluded_rows_are_left_out_with_the_reason(trial, people, features, rows) -> None:
    image(trial, rows[0], protocol_outcome="deviant")
    image(trial, rows[1], qc_outcome="fail")
    policy = {"deviant": "exclude", "qc_failed": "exclude"}

    ready = prepared(features, image_rows=policy)

    assert ready.decisions.excluded == {
        rows[0]: "t1 departs from the protocol",
        rows[1]: "failed QC: t1",
    }
    assert set(features_of(features)) - set(ready.dataset.rows) == {rows[0], rows[1]}
    assert check(people, features, image_rows=policy)["deviant_rows_excluded"].severity == "info"


def features_of(features):
    return [item["row"] for item in features.rows]


def test_kept_rows_stay_with_a_warning(trial, people, features, rows) -> None:
    image(trial, rows[0], protocol_outcome="deviant")

    ready = prepared(features, image_rows={"deviant": "keep"})

    assert ready.decisions.kept == {rows[0]: "t1 departs from the protocol"}
    assert rows[0] in ready.dataset.rows
    assert check(people, features, image_rows={"deviant": "keep"})["deviant_rows_kept"].severity == "warn"


def test_rows_that_the_plan_excludes_by_name_need_no_policy(trial, people, features, rows) -> None:
    image(trial, rows[0], protocol_outcome="deviant")

    found = check(people, features, exclude_rows=[{"row": rows[0], "reason": "claustrophobia"}])

    assert "deviant_rows_unplanned" not in found


def test_an_open_deviation_counts_and_a_waived_one_does_not(trial, people, features, rows) -> None:
    first, second = (image(trial, row, protocol_outcome="deviant", verdicts=[VERDICT]) for row in rows[:2])
    protocol = first.checks.get().protocol
    DeviationFactory(series=first, protocol=protocol)
    waived(second, protocol)

    found = check(people, features)["deviant_rows_unplanned"]

    assert found.rows == (rows[0],)
    assert "open deviation: Repetition time" in found.message


def test_a_waiver_that_ran_out_covers_nothing(trial, people, features, rows) -> None:
    series = image(trial, rows[0], protocol_outcome="deviant", verdicts=[VERDICT])
    yesterday = (timezone.now() - timedelta(days=2)).date().isoformat()
    waived(series, series.checks.get().protocol, expires_on=yesterday)

    assert check(people, features)["deviant_rows_unplanned"].rows == (rows[0],)


def test_a_waiver_of_one_rule_does_not_cover_another(trial, people, features, rows) -> None:
    other = {**VERDICT, "rule": "flip"}
    series = image(trial, rows[0], protocol_outcome="deviant", verdicts=[VERDICT, other])
    waived(series, series.checks.get().protocol)

    assert check(people, features)["deviant_rows_unplanned"].rows == (rows[0],)


VERDICT = {"rule": "tr", "outcome": "deviant"}


def waived(series, protocol, expires_on=None):
    DeviationFactory(
        series=series,
        protocol=protocol,
        state="waived",
        waiver={"scope": "series", "expires_on": expires_on},
        closed_by=UserFactory(),
        closed_at=timezone.now(),
    )


def test_a_series_that_a_better_one_replaced_does_not_count(trial, people, features, rows) -> None:
    better = image(trial, rows[0])
    image(trial, rows[0], protocol_outcome="deviant", replaced_by=better)

    assert "deviant_rows_unplanned" not in check(people, features)


def test_only_the_series_that_the_features_come_from_count_where_the_plan_names_them(
    trial, people, features, rows
) -> None:
    image(trial, rows[0])
    image(trial, rows[0], key="flair", protocol_outcome="deviant", qc_outcome="fail")

    found = check(people, features, image_rows={"series": ["t1"]})

    assert not {"deviant_rows_unplanned", "qc_failed_rows_unplanned"} & set(found)
    assert check(people, features)["deviant_rows_unplanned"].rows == (rows[0],)


def test_a_visit_without_the_series_that_the_features_come_from_is_deviant(
    trial, people, features, rows
) -> None:
    image(trial, rows[0], key="flair")

    found = check(people, features, image_rows={"series": ["t1"]})

    assert "no image of t1" in found["deviant_rows_unplanned"].message


def test_a_series_that_the_protocol_does_not_know_stops(trial, people, features, rows) -> None:
    image(trial, rows[0])

    found = check(people, features, image_rows={"series": ["t2"]})

    assert found["unknown_image_series"].severity == "stop"
    assert "flair, t1" in found["unknown_image_series"].message


def test_images_that_are_still_being_checked_stop(trial, people, features, rows) -> None:
    series = image(trial, rows[0])
    type(series).objects.filter(pk=series.pk).update(state="checking")

    assert check(people, features)["images_being_checked"].rows == (rows[0],)


def test_a_check_that_failed_is_not_a_pass(trial, people, features, rows) -> None:
    series = image(trial, rows[0])
    series.checks.all().delete()
    type(series).objects.filter(pk=series.pk).update(state="failed")

    assert "could not be checked" in check(people, features)["deviant_rows_unplanned"].message


def test_quality_that_could_not_be_judged_is_a_warning(trial, people, features, rows) -> None:
    image(trial, rows[0], qc_outcome="not_evaluable")

    assert check(people, features)["image_quality_unknown"].rows == (rows[0],)


def test_images_of_another_trial_do_not_count(people, features, rows) -> None:
    other: Trial = TrialFactory()
    subject, _, visit = rows[0].partition("|")
    SubjectFactory(site__trial=other, code=subject)
    VisitDefinitionFactory(trial=other, code=visit)
    image(other, rows[0], protocol_outcome="deviant", qc_outcome="fail")

    found = check(people, features)

    assert "deviant_rows_unplanned" not in found
    assert rows[0] in found["images_unknown"].rows


def changed(trial, rows):
    first, second = epochs_of_a_scanner(trial, "VE11C", "XA30")
    image(trial, rows[0], epoch=first)
    image(trial, rows[1], epoch=first)
    image(trial, rows[2], epoch=second)


def test_a_silent_plan_stops_where_a_scanner_changed_inside_a_batch(trial, people, features, rows) -> None:
    changed(trial, rows)

    found = check(people, features)["scanner_change_unplanned"]

    assert found.severity == "stop"
    assert found.batches == (batch_of(features, rows[0]),)
    assert "7001 VE11C: 2 rows; 7001 XA30: 1 rows" in found.message
    assert '"scanner_changes": "split"' in found.message


def batch_of(features, row):
    return next(item["batch"] for item in features.rows if item["row"] == row)


def test_a_change_splits_the_batch_and_the_gate_sees_the_new_sizes(trial, people, features, rows) -> None:
    changed(trial, rows)
    batch = batch_of(features, rows[0])

    ready = prepared(features, scanner_changes="split")
    labels = dict(zip(ready.dataset.rows, ready.dataset.batches, strict=True))
    found = check(people, features, scanner_changes="split")

    assert [labels[row] for row in rows] == [
        f"{batch} / software VE11C",
        f"{batch} / software VE11C",
        f"{batch} / software XA30",
    ]
    assert found["scanner_change_split"].severity == "info"
    assert found["batch_too_small"].batches == (f"{batch} / software VE11C", f"{batch} / software XA30")


def test_a_change_is_kept_as_planned_with_a_warning(trial, people, features, rows) -> None:
    changed(trial, rows)

    ready = prepared(features, scanner_changes="keep")

    assert ready.decisions.batches == {}
    assert check(people, features, scanner_changes="keep")["scanner_change_kept"].severity == "warn"


def test_batches_that_name_the_software_hold_no_change(trial, people, features) -> None:
    batches: dict[str, str] = {}
    for item in features.rows:
        batches.setdefault(item["batch"], item["row"])
    first, second = epochs_of_a_scanner(trial, "VE11C", "XA30")
    for epoch, row in zip((first, second), batches.values(), strict=False):
        image(trial, row, epoch=epoch)

    assert not [code for code in check(people, features) if code.startswith("scanner_change")]


def test_a_row_that_cannot_be_placed_around_a_change_stops_the_split(trial, people, features, rows) -> None:
    changed(trial, rows)
    other = next(
        row for row in features_of(features) if batch_of(features, row) == batch_of(features, rows[0])
        and row not in rows
    )  # fmt: skip
    epoch = epochs_known(trial)[0]
    series = image(trial, other, epoch=epoch)
    type(series).objects.filter(pk=series.pk).update(scanner_epoch=None)

    found = check(people, features, scanner_changes="split")

    assert found["scanner_epoch_unclear"].rows == (other,)
    assert found["scanner_software_unknown"].rows == (other,)


def epochs_known(trial):
    return list(ScannerEpoch.objects.filter(trial=trial).order_by("number"))


def test_rows_left_out_for_their_images_make_no_change(trial, people, features, rows) -> None:
    first, second = epochs_of_a_scanner(trial, "VE11C", "XA30")
    image(trial, rows[0], epoch=first)
    image(trial, rows[1], epoch=second, protocol_outcome="deviant")

    found = check(people, features, image_rows={"deviant": "exclude"})

    assert "scanner_change_unplanned" not in found


def test_a_covariate_that_tells_the_arm_stops_a_blinded_plan(trial, people, features) -> None:
    arms = dict(enumerate(Arm.objects.filter(trial=trial).order_by("code")))
    sex = {item["row"].partition("|")[0]: item["sex"] for item in features.rows}
    for subject in Subject.objects.filter(trial=trial, code__in=sex):
        Subject.objects.filter(pk=subject.pk).update(arm=arms[sex[subject.code] == "M"])

    found = check(people, features)
    open_label = check(people, features, blinded=False, rationale="The treatment is known to all.")

    assert (found["covariate_tells_arm"].severity, found["covariate_tells_arm"].columns) == ("stop", ("sex",))
    assert found["covariate_tells_arm"].rows == ()
    assert "covariate_tells_arm" not in open_label
    assert open_label["not_blinded"].severity == "warn"


def test_a_plan_that_leaves_no_row_stops(people, features) -> None:
    everything = [{"row": row, "reason": "test"} for row in features_of(features)]

    found = check(people, features, exclude_rows=everything)

    assert found["no_rows_left"].severity == "stop"


def test_values_outside_the_plausible_ranges_of_the_plan_stop(people, features) -> None:
    table = load_table(features)
    column = table.features.index("thickness_precuneus_left")
    least = float(np.nanmin(table.values[:, column]))
    lowest = table.rows[int(np.nanargmin(table.values[:, column]))]

    found = check(people, features, plausible_ranges={"thickness_precuneus_left": [least + 1e-9, None]})
    inside = check(people, features, plausible_ranges={"thickness_precuneus_left": [least, None]})
    slip = check(people, features, plausible_ranges={"thicknes_precuneus_left": [0, 1]})

    assert found["implausible_value"].severity == "stop"
    assert found["implausible_value"].rows == (lowest,)
    assert found["implausible_value"].columns == ("thickness_precuneus_left",)
    assert "implausible_value" not in inside
    assert slip["plausible_range_unknown"].severity == "stop"

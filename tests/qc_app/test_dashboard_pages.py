"""Dashboards, scanners, the protocol and the QC profile as pages."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client
from django.urls import reverse

from qc_app.models import ChangeEvent, Deviation, DriftAlert, Protocol, QCProfile, SeriesCheck, VersionState
from qc_app.protocol.schema import parse_protocol
from sites_app.models import LockState, Role, Series, Trial, Visit
from tests.factories.qc_app import (
    DeviationFactory,
    MetricValueFactory,
    ProtocolFactory,
    QCProfileFactory,
    SeriesCheckFactory,
    protocol_document,
)
from tests.factories.sites_app import (
    PASSWORD,
    ArmFactory,
    MembershipFactory,
    ScannerEpochFactory,
    ScannerFactory,
    SeriesFactory,
    SiteFactory,
    StudyFactory,
    SubjectFactory,
    SubmissionFactory,
    TrialFactory,
    UserFactory,
    VisitDefinitionFactory,
    VisitFactory,
)

HTMX = {"hx-request": "true"}
ALL_PAGES = ("trial-dashboard", "trial-scanners", "trial-protocol", "trial-qc-profile")


@pytest.fixture
def trial(db):
    """Two sites, two subjects each, two visits; everybody sent the first one, one series of which departs."""
    trial = TrialFactory(code="DASH")
    protocol = ProtocolFactory(trial=trial, locked=True)
    QCProfileFactory(trial=trial, locked=True)
    definitions = [
        VisitDefinitionFactory(trial=trial, code=code, title=code, position=place)
        for place, code in enumerate(("baseline", "month-12"))
    ]
    arm = ArmFactory(trial=trial, code="arm-x", title="Verum arm")
    for code in ("S01", "S02"):
        site = SiteFactory(trial=trial, code=code)
        user = UserFactory(full_name=f"Coordinator of {code}", username=f"coordinator-{code}")
        MembershipFactory(user=user, trial=trial, site=site, role=Role.SITE_COORDINATOR)
        scanner = ScannerFactory(site=site, serial_number=f"{code}-1")
        epoch = ScannerEpochFactory(scanner=scanner, number=1)
        for number in (1, 2):
            subject = SubjectFactory(site=site, code=f"{code}-{number:03d}", arm=arm)
            visit = VisitFactory(subject=subject, definition=definitions[0])
            submission = SubmissionFactory(
                visit=visit, state="accepted", profile__trial=trial, created_by=user
            )
            series = SeriesFactory(
                study=StudyFactory(visit=visit), submission=submission, scanner=scanner, scanner_epoch=epoch,
                state="checked",
            )  # fmt: skip
            SeriesCheckFactory(
                series=series, protocol=protocol, expected_key="t1", protocol_outcome="compliant",
                qc_outcome="fail" if (code, number) == ("S01", 1) else "pass",
            )  # fmt: skip
            MetricValueFactory(series=series, name="snr_residual", value=20.0 + number)
    first = Series.objects.get(subject__code="S01-001")
    DeviationFactory(series=first, protocol=protocol)
    return trial


def client_for(trial: Trial, role: Role, site=None) -> Client:
    user = MembershipFactory(trial=trial, role=role, site=site).user
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def sponsor(trial):
    return client_for(trial, Role.SPONSOR)


@pytest.fixture
def admin(trial):
    return client_for(trial, Role.TRIAL_ADMINISTRATOR)


def figure(html: str, name: str) -> str:
    found = re.search(rf'data-figure="{name}">([^<]*)<', html)
    assert found is not None, name
    return found[1].strip()


def options(html: str, name: str):
    found = re.search(rf'<script id="{name}" type="application/json">(.*?)</script>', html, re.S)
    assert found is not None, name
    return json.loads(found[1])


def page(client: Client, name: str, *args, **query) -> str:
    answer = client.get(reverse(name, args=["DASH", *args]), query)
    assert answer.status_code == 200, answer.content[:500]
    return answer.content.decode()


def test_the_figures_are_those_of_the_database(trial, sponsor):
    html = page(sponsor, "trial-dashboard")

    assert figure(html, "subjects") == "4"
    assert figure(html, "visits-received") == str(Visit.objects.filter(trial=trial).count()) == "4"
    assert figure(html, "visits-expected") == "8"
    assert figure(html, "series") == str(Series.objects.filter(trial=trial).count())
    assert figure(html, "first-pass") == "75 %"
    assert figure(html, "open-deviations") == "1"
    assert figure(html, "qc-failures") == str(
        SeriesCheck.objects.filter(trial=trial, qc_outcome="fail").count()
    )
    assert figure(html, "quarantined") == "0"


def test_the_grid_says_what_became_of_each_visit_and_filters_by_site(sponsor):
    html = page(sponsor, "trial-dashboard-grid")
    one_site = page(sponsor, "trial-dashboard-grid", site="S02")

    assert 'title="S01-001, baseline: failed QC, 1 series, 1 open deviation"' in html
    assert 'title="S01-001, month-12: nothing received"' in html
    assert "S02-001" in one_site and "S01-001" not in one_site
    assert sponsor.get(reverse("trial-dashboard-grid", args=["DASH"]), {"site": "S99"}).status_code == 404


def test_a_visit_without_expected_images_is_no_gap(trial, sponsor):
    row = Protocol.objects.get(trial=trial)
    document = protocol_document()
    document["series"][0]["visits"] = ["baseline"]
    parsed = parse_protocol(document)
    Protocol.objects.filter(pk=row.pk).update(state=VersionState.SUPERSEDED)
    ProtocolFactory(trial=trial, version=2, locked=True, document=dict(parsed.document), digest=parsed.digest)

    html = page(sponsor, "trial-dashboard")

    assert figure(html, "visits-expected") == "4"
    assert 'title="S01-001, month-12: the protocol asks for no images"' in html


def test_the_charts_show_the_numbers_of_the_tables(sponsor):
    html = page(sponsor, "trial-dashboard", metric="snr_residual", series="t1")
    pareto, sites, boxes = (options(html, name) for name in ("pareto-data", "by-site-data", "boxes-data"))
    over_time = options(html, "over-time-0")

    assert pareto["yAxis"]["data"] == ["Repetition time"]
    assert [(item["name"], item["data"][0]["value"]) for item in pareto["series"][:1]] == [("S01", 1)]
    assert sites["series"][0]["name"] == "critical"
    assert sites["series"][0]["data"][0] == {
        "value": 1, "name": "S01: 1 critical", "href": reverse("site-dashboard", args=["DASH", "S01"]),
    }  # fmt: skip
    assert boxes["yAxis"]["data"] == ["S02 · S02-1", "S01 · S01-1"]
    assert boxes["series"][0]["data"][0]["value"] == pytest.approx([21.05, 21.25, 21.5, 21.75, 21.95])
    assert [point["value"][1] for point in over_time["series"][0]["data"]] == [21.0, 22.0]


def test_scorecards_export_as_csv_safe_for_spreadsheets(trial, sponsor):
    trial.sites.filter(code="S02").update(name="=cmd()")

    answer = sponsor.get(reverse("trial-dashboard", args=["DASH"]), {"format": "csv"})

    lines = b"".join(answer.streaming_content).decode().splitlines()
    assert lines[0].startswith("site,name,submissions,series_received,visits,first_pass_visits")
    assert lines[1].startswith("S01,Site S01,2,2,2,1,50.0,1,0,0,0,1,0,1,0,1,0")
    assert lines[2].startswith("S02,'=cmd(),")


def test_a_sponsor_sees_neither_arms_nor_site_staff(trial, sponsor):
    pages = [page(sponsor, name) for name in ALL_PAGES]
    pages.append(page(sponsor, "site-dashboard", "S01"))

    for html in pages:
        assert "arm-x" not in html and "Verum" not in html
        assert "Coordinator of" not in html and "coordinator-S01" not in html
    assert sponsor.get(reverse("trial-people", args=["DASH"])).status_code == 403


def test_a_coordinator_sees_the_own_site_alone(trial):
    client = Client()
    client.force_login(trial.sites.get(code="S01").memberships.get().user)

    assert client.get(reverse("trial-dashboard", args=["DASH"])).status_code == 403
    assert figure(page(client, "site-dashboard", "S01"), "series") == "2"
    assert client.get(reverse("site-dashboard", args=["DASH", "S02"])).status_code == 404
    assert "S02-1" not in page(client, "trial-scanners")
    assert "S02-1" not in page(client, "trial-dashboard-metric", metric="snr_residual", series="t1")


@pytest.mark.parametrize("name", ALL_PAGES)
def test_who_has_no_part_in_the_trial_finds_nothing(trial, name):
    client = Client()
    client.force_login(UserFactory())

    assert client.get(reverse(name, args=["DASH"])).status_code == 404
    assert Client().get(reverse(name, args=["DASH"])).status_code == 302


@pytest.mark.parametrize("name", ALL_PAGES)
def test_an_empty_trial_says_what_to_do(db, name):
    trial = TrialFactory(code="DASH")

    assert 'class="empty"' in page(client_for(trial, Role.SPONSOR), name)


def scanner_with_history(trial, *, epochs: int = 1):
    """A scanner with 24 values of one metric: 20 about 20 (sd about 1), then 4 at 26, in one epoch or in two."""
    site = trial.sites.get(code="S01")
    scanner = ScannerFactory(site=site, serial_number="DRIFT")
    rows = [ScannerEpochFactory(scanner=scanner, number=number + 1) for number in range(epochs)]
    visit = Visit.objects.filter(site=site).first()
    for place in range(24):
        epoch = rows[-1] if place >= 20 else rows[0]
        series = SeriesFactory(
            study=StudyFactory(visit=visit), scanner=scanner, scanner_epoch=epoch, state="checked",
            submission=SubmissionFactory(visit=visit, state="accepted", profile__trial=trial),
        )  # fmt: skip
        MetricValueFactory(series=series, value=26.0 if place >= 20 else 19.0 + 2 * (place % 2))
    return scanner


def test_the_control_chart_draws_ewma_and_limits_after_the_baseline(trial, sponsor):
    scanner = scanner_with_history(trial)

    chart = options(page(sponsor, "trial-scanner", scanner.pk), "control-data")
    by_name = {item["name"]: item["data"] for item in chart["series"] if item["name"] != "EWMA limits"}
    lower, upper = (item["data"] for item in chart["series"] if item["name"] == "EWMA limits")

    assert [point["value"][1] for point in by_name["value"]][18:22] == [19.0, 21.0, 26.0, 26.0]
    assert [value for _, value in by_name["EWMA"][:20]] == [None] * 20
    # Baseline mean 20; EWMA = 20 + 0.2 x 6 at the first later scan; limit 2.962 sd 0.2, with sd = sqrt(20/19).
    assert by_name["EWMA"][20] == pytest.approx([21, 21.2])
    assert lower[20][1] == pytest.approx(20 - 2.962 * 0.2 * (20 / 19) ** 0.5)
    assert upper[20][1] == pytest.approx(20 + 2.962 * 0.2 * (20 / 19) ** 0.5)
    assert by_name["baseline mean"][:2] == [[1, pytest.approx(20.0)], [24, pytest.approx(20.0)]]


def test_a_scanner_change_begins_a_new_baseline(trial, sponsor):
    scanner = scanner_with_history(trial, epochs=2)

    html = page(sponsor, "trial-scanner-control", scanner.pk)
    chart = options(html, "control-data")

    (changes,) = [item["markLine"]["data"] for item in chart["series"] if item["name"] == "baseline mean"]
    assert [(item["xAxis"], item["label"]["formatter"]) for item in changes] == [(21, "epoch 2")]
    assert "Epoch 2, scans 21 to 24: too few scans to judge" in html


def make_alert(scanner) -> DriftAlert:
    return DriftAlert.objects.create(
        trial=scanner.trial, site=scanner.site, scanner=scanner, expected_key="t1", metric="snr_residual",
        chart="ewma", direction="up", signalled_by=scanner.series.order_by("pk").last(), detail="It left its limits.",
    )  # fmt: skip


def test_an_alert_is_drawn_listed_and_reviewed(trial, sponsor):
    scanner = scanner_with_history(trial)
    alert = make_alert(scanner)
    path = reverse("drift-alert-review-page", args=["DASH", alert.pk])

    chart = options(page(sponsor, "trial-scanner", scanner.pk), "control-data")
    refused = sponsor.post(path, {"comment": "seen"})
    reviewer = client_for(trial, Role.IMAGING_REVIEWER)
    silent = reviewer.post(path, {"comment": " "})
    reviewed = reviewer.post(path, {"comment": "Coil replaced."})

    (raised,) = [item["data"] for item in chart["series"] if item["name"] == "drift alert"]
    assert raised == [{"value": [24, 26.0], "name": "drift alert (open)\nIt left its limits."}]
    assert (refused.status_code, silent.status_code, reviewed.status_code) == (403, 400, 302)
    alert.refresh_from_db()
    assert (alert.state, alert.comment) == ("reviewed", "Coil replaced.")


def test_a_refused_review_answers_beside_its_form_and_names_the_field(trial):
    alert = make_alert(scanner_with_history(trial))
    path = reverse("drift-alert-review-page", args=["DASH", alert.pk])
    reviewer = client_for(trial, Role.IMAGING_REVIEWER)

    form = page(reviewer, "trial-scanner", alert.scanner_id)
    silent = reviewer.post(path, {"comment": " "}, headers=HTMX)
    reviewed = reviewer.post(path, {"comment": "Coil replaced."}, headers=HTMX)
    again = reviewer.post(path, {"comment": "Seen twice."}, headers=HTMX)

    assert f'hx-post="{path}" hx-target="find .form-answer"' in form
    assert 'data-field="comment" data-message="Say what you found."' in silent.content.decode()
    assert "This drift alert was reviewed already." in again.content.decode()
    assert all("<html" not in answer.content.decode() for answer in (silent, again))
    assert (silent.status_code, reviewed.status_code, again.status_code) == (400, 200, 409)
    assert reviewed["HX-Redirect"] == reverse("trial-scanner", args=["DASH", alert.scanner_id])
    alert.refresh_from_db()
    assert (alert.state, alert.comment) == ("reviewed", "Coil replaced.")


def test_a_change_is_marked_over_time_and_reviewed(trial, admin):
    series = Series.objects.filter(site__code="S02").order_by("received_at").last()
    epoch = ScannerEpochFactory(scanner=series.scanner, number=2)
    event = ChangeEvent.objects.create(
        trial=trial,
        site=series.site,
        scanner=series.scanner,
        epoch=epoch,
        old="A",
        new="B",
        first_series=series,
    )

    html = page(admin, "trial-dashboard-metric", metric="snr_residual", series="t1")
    answer = admin.post(reverse("change-event-review-page", args=["DASH", event.pk]), {"comment": "Planned."})

    lines = options(html, "over-time-1")["series"][-1]["markLine"]["data"]
    assert [line["xAxis"] for line in lines if "xAxis" in line] == [series.received_at.isoformat()]
    event.refresh_from_db()
    assert (answer.status_code, event.state) == (302, "reviewed")


def test_everybody_reads_the_protocol_in_words(trial, sponsor):
    html = page(sponsor, "trial-protocol")
    row = Protocol.objects.get(trial=trial)

    assert "2300 ± 10 ms" in html and "200 to 300 Hz/px" in html
    assert row.digest in html and row.signature.meaning in html and row.signature.printed_name in html
    assert 'name="document"' not in html and "Sign and lock" not in html
    assert sponsor.post(reverse("trial-protocol-amend", args=["DASH"]), {"reason": "x"}).status_code == 403


def amended(trial, admin) -> Protocol:
    admin.post(reverse("trial-protocol-amend", args=["DASH"]), {"reason": "Wider tolerance"})
    return Protocol.objects.get(trial=trial, state="draft")


def test_a_protocol_is_amended_edited_tried_out_and_locked(trial, admin):
    draft = amended(trial, admin)
    document = protocol_document()
    document["series"][0]["rules"][0]["tolerance"] = 20
    posted = {"digest": draft.digest, "title": "Head, amended", "document": json.dumps(document)}

    saved = admin.post(reverse("trial-protocol-save", args=["DASH"]), posted)
    html = page(admin, "trial-protocol-draft")
    draft.refresh_from_db()
    tried = page(admin, "trial-protocol-dry-run")
    signature = {"digest": draft.digest, "meaning": "I approve", "otp": ""}
    wrong = admin.post(reverse("trial-protocol-lock", args=["DASH"]), signature | {"password": "no"})
    locked = admin.post(reverse("trial-protocol-lock", args=["DASH"]), signature | {"password": PASSWORD})

    assert saved.status_code == 302
    assert "rule tr changes from RepetitionTime 2300 ± 10 ms" in html and "Wider tolerance" in html
    assert "of 4 series would be judged differently" in tried
    assert (wrong.status_code, locked.status_code) == (403, 302)
    draft.refresh_from_db()
    assert (draft.state, draft.title, draft.signature.meaning) == ("locked", "Head, amended", "I approve")


def test_a_faulty_document_is_refused_with_pointers_and_nothing_changes(trial, admin):
    draft = amended(trial, admin)
    path = reverse("trial-protocol-save", args=["DASH"])
    document = protocol_document()
    document["series"][0]["rules"][0]["severity"] = "terrible"

    syntax = admin.post(path, {"digest": draft.digest, "document": '{"a": }'}, HTTP_HX_REQUEST="true")
    fault = admin.post(
        path, {"digest": draft.digest, "document": json.dumps(document)}, HTTP_HX_REQUEST="true"
    )

    assert syntax.status_code == 400 and b"line 1, column 7" in syntax.content
    assert fault.status_code == 400 and b"/series/0/rules/0/severity" in fault.content
    before = draft.digest
    draft.refresh_from_db()
    assert draft.digest == before


@pytest.mark.parametrize("act", ["save", "lock", "discard"])
def test_what_was_changed_meanwhile_must_be_read_again(trial, admin, act):
    amended(trial, admin)

    answer = admin.post(
        reverse(f"trial-protocol-{act}", args=["DASH"]),
        {"digest": "0" * 64, "document": "{}", "password": PASSWORD, "meaning": "I approve"},
    )

    assert answer.status_code == 409
    assert Protocol.objects.filter(trial=trial, state="draft").exists()


def test_series_come_from_a_template_and_from_a_reference_series(trial, admin, world):
    draft = amended(trial, admin)
    reference = world.receive()
    Series.objects.filter(trial=trial, subject__code="S01-001").update(observation=reference.observation)
    series = Series.objects.get(trial=trial, subject__code="S01-001")
    capture = reverse("trial-protocol-capture", args=["DASH"])

    taken = admin.post(reverse("trial-protocol-import-template", args=["DASH"]), {"template": "flair-3d"})
    imported = admin.post(reverse("trial-protocol-import-template", args=["DASH"]), {"template": "fdg-pet"})
    page_address = f"http://testserver{reverse('series-page', args=['DASH', series.pk])}"
    captured = admin.post(capture, {"series": page_address, "key": "like-it", "title": "Like it"})
    no_id = admin.post(capture, {"series": "that one", "key": "b", "title": "B"})
    foreign = admin.post(capture, {"series": str(reference.pk), "key": "c", "title": "C"})

    assert (taken.status_code, imported.status_code, captured.status_code) == (409, 302, 302)
    assert (no_id.status_code, foreign.status_code) == (400, 404)
    draft.refresh_from_db()
    keys = [item["key"] for item in draft.document["series"]]
    assert keys[:2] == ["t1", "flair"] and keys[-1] == "like-it" and len(keys) >= 4


def test_a_first_draft_comes_from_a_template(db):
    trial = TrialFactory(code="DASH")
    VisitDefinitionFactory(trial=trial)
    admin = client_for(trial, Role.TRIAL_ADMINISTRATOR)

    answer = admin.post(reverse("trial-protocol-create", args=["DASH"]), {"template": "flair-3d"})
    unknown = admin.post(reverse("trial-protocol-create", args=["DASH"]), {"template": "../x"})

    assert (answer.status_code, unknown.status_code) == (302, 404)
    assert Protocol.objects.get(trial=trial).version == 1


def test_a_qc_profile_is_drafted_changed_and_locked(trial, admin):
    admin.post(reverse("trial-qc-profile-amend", args=["DASH"]), {"reason": "Our scanners are better"})
    draft = QCProfile.objects.get(trial=trial, state="draft")
    document = json.loads(json.dumps(draft.document))
    rule = next(item for item in document["modalities"]["MR"] if item["metric"] == "snr_residual")
    rule["warn"] = {"min": 15}

    admin.post(
        reverse("trial-qc-profile-save", args=["DASH"]),
        {"digest": draft.digest, "document": json.dumps(document)},
    )
    html = page(admin, "trial-qc-profile-draft")
    draft.refresh_from_db()
    locked = admin.post(
        reverse("trial-qc-profile-lock", args=["DASH"]),
        {"digest": draft.digest, "meaning": "I approve", "password": PASSWORD},
    )

    change = (
        "MR: SNR (residual noise) changes from optional, warn outside at least 10, fail outside at least 5"
    )
    assert change in html and "to optional, warn outside at least 15" in html
    assert locked.status_code == 302
    assert QCProfile.objects.get(trial=trial, state="locked").pk == draft.pk


def test_a_locked_trial_offers_no_changes(trial, admin):
    Trial.objects.filter(pk=trial.pk).update(lock_state=LockState.LOCKED)

    html = page(admin, "trial-protocol")

    assert "Amend" not in html
    assert admin.post(reverse("trial-protocol-amend", args=["DASH"]), {"reason": "x"}).status_code == 409


def test_no_page_has_inline_styles_or_scripts(trial, admin):
    amended(trial, admin)
    names = [(name,) for name in (*ALL_PAGES, "trial-protocol-draft", "trial-people")]
    names += [("site-dashboard", "S01"), ("trial-scanner", trial.scanners.first().pk)]

    for name in names:
        html = page(admin, *name)
        assert " style=" not in html and "javascript:" not in html and " onclick=" not in html, name
        scripts = re.findall(r"<script(?![^>]*src=)([^>]*)>", html)
        assert all('type="application/json"' in attributes for attributes in scripts), name


def test_deviations_that_are_rejected_leave_figures_and_pareto(trial, sponsor):
    Deviation.objects.filter(trial=trial).update(state="rejected")

    html = page(sponsor, "trial-dashboard")

    assert figure(html, "open-deviations") == "0"
    assert figure(html, "first-pass") == "100 %"
    assert 'id="pareto-data"' not in html


def test_the_choice_of_metrics_follows_the_chosen_series(trial, sponsor):
    document = protocol_document()
    document["series"].append({"key": "ct", "title": "CT", "modality": "CT", "match": [], "rules": []})
    parsed = parse_protocol(document)
    Protocol.objects.filter(trial=trial).update(state=VersionState.SUPERSEDED)
    ProtocolFactory(trial=trial, version=2, locked=True, document=dict(parsed.document), digest=parsed.digest)

    html = page(
        sponsor, "trial-dashboard-metric", series="ct", metric="snr_residual", site="S01", fixed="yes"
    )

    assert '<option value="air_hu"' in html and "snr_residual" not in html
    assert '<input type="hidden" name="site" value="S01">' in html

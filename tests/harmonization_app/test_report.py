"""The report of a run: complete, deterministic, and never mistaken for one of the other kind."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from xml.etree import ElementTree

import pytest
from django.test import RequestFactory
from django.urls import reverse
from harmonization_cases import job_context, locked_combat, plan_document

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.selectors.run import FeatureEffect, row_flow
from harmonization_app.selectors.run_evidence import NO_HEADLINE
from harmonization_app.services import figures, run_execution
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services.report import render_report
from harmonization_app.services.run import load_diagnostics
from harmonization_app.views.run_sections import sections
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput
from hub.core.models import Job
from hub.core.storage.blobs import put_blob
from tests.factories.sites_app import PASSWORD


@pytest.fixture
def primary(trial, people, features):
    locked_combat(people.admin)
    draft = plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())
    plan = plan_services.lock_plan(
        actor=people.admin, plan=draft, password=PASSWORD, meaning="I approve this plan"
    )
    return finished(people, features, plan=plan)


@pytest.fixture
def exploratory(people, features):
    return finished(people, features, specification=plan_document())


def finished(people, features, **what):
    run = run_services.start_run(actor=people.statistician, feature_set=features, **what)
    run_execution.execute_run(job_context(), run_id=str(run.pk))
    Job.objects.update(state="succeeded")
    run.refresh_from_db()
    return run


def html_of(run):
    return render_report(run, "html")[0].decode()


def test_the_primary_report_names_plan_signature_and_evidence(primary):
    html = html_of(primary)

    signature = primary.plan.signature
    assert "PRIMARY RUN" in html
    assert "EXPLORATORY" not in html.split("</style>")[1]
    for part in (
        primary.plan_digest,
        signature.printed_name,
        f"{signature.signed_at:%Y-%m-%d %H:%M:%S} UTC",
        "I approve this plan",
        primary.data_digest,
        primary.algorithm_version.code_digest,
        "HELD-OUT: fitted on one half",
        "IN-SAMPLE: descriptive only",
        "Second implementation",
        "agrees",
    ):
        assert part in html


def test_the_exploratory_report_says_so_in_head_sections_margins_and_watermark(exploratory):
    html = html_of(exploratory)

    assert '<body class="exploratory">' in html
    assert '<div class="watermark"' in html
    assert "EXPLORATORY (post hoc): not for primary analysis" in html
    assert html.count('<span class="tag exploratory">') == html.count("<h2>")
    assert "PRIMARY RUN" not in html


def test_the_report_is_self_contained_and_holds_no_style_attribute_or_script(primary):
    html = html_of(primary)

    assert not re.search(r"<[^>]+\sstyle=", html)
    assert "<script" not in html
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]+"', html) == []


def test_equal_reports_have_equal_bytes(primary):
    for form in ("html", "json"):
        assert render_report(primary, form) == render_report(primary, form)


def test_the_json_report_holds_everything_that_was_decided(primary):
    content, content_type = render_report(primary, "json")

    document = json.loads(content)
    assert content_type == "application/json"
    assert (document["kind"], document["plan"]["digest"]) == ("primary", primary.plan_digest)
    assert document["plan"]["signature"]["meaning"] == "I approve this plan"
    assert [(step["title"], step["rows"]) for step in document["row_flow"]] == [
        ("Rows in the feature set", 120),
        ("Excluded by the plan", 0),
        ("Rows harmonized", 120),
        ("Rows whose images the hub does not have", 120),
    ]
    assert document["headline"]["evidence"][0]["held_out"] is True
    assert document["notice"] == "PRIMARY: under a locked plan, before data lock"
    assert document["limits"] == list(ALGORITHMS["combat"].limits)
    assert document["algorithm"]["second_signature"]["meaning"] == "I approve this version"
    (batch, *_) = document["batches"]
    assert batch["scans"] == 20
    assert 0 < batch["shift_shrunk"] <= batch["shift_raw"]
    assert document["memory_estimate"]["bytes"] > 0
    assert document["summary"]["cross_check"]["passed"] is True
    assert document["diagnostics"]["held_out"]["evaluable"] is True


def without(run, *keys):
    """Make the run one of an earlier version: its diagnostics lack what was added since."""
    diagnostics = load_diagnostics(run)
    kept = {key: value for key, value in diagnostics.items() if key not in keys}
    run.diagnostics_digest = put_blob(canonical_json(kept))
    run.row_decisions, run.estimate = {}, {}
    run.summary = {key: value for key, value in run.summary.items() if key not in keys}
    return run


def test_a_run_made_before_a_figure_was_computed_still_has_page_and_report(client, people, trial, primary):
    added = ("headline", "sensitivity", "group_contrast", "covariate_effects", "limits", "flags", "scope")
    old = without(primary, *added, "repeated", "travelling_subjects", "within_subject", "stability")

    html = html_of(old)

    assert NO_HEADLINE in html
    assert "The plan names no sensitivity analysis." in html
    assert html.count('<span class="tag primary">') == html.count("<h2>")
    context = sections(RequestFactory().get("/"), old)
    assert context["headline"]["evidence"][0]["after"] == context["diagnostics"]["held_out"]["held_out_after"]
    assert context["contrasts"] == []
    assert render_report(old, "pdf")[0].startswith(b"%PDF-")


def test_held_out_evidence_leads_and_in_sample_evidence_says_what_it_is(primary):
    html = html_of(primary)

    evidence = html.index("What the evidence says")
    assert evidence < html.index("<h2>Plan ")
    assert html.index("HELD-OUT", evidence) < html.index("IN-SAMPLE", evidence)
    assert "in-sample: always looks perfect" in html


def test_rows_left_out_for_their_images_are_in_the_flow_with_their_reasons(primary):
    primary.row_decisions = {
        "excluded": {f"S-{number}|baseline": "failed QC" for number in range(25)},
        "kept": {"S-99|baseline": "open deviation: TR"},
        "batches": {},
        "without_images": 0,
    }

    flow = {step.title: step for step in row_flow(primary)}

    excluded = flow["Excluded for their images (deviant or failed QC)"]
    assert excluded.rows == 25
    assert excluded.note.endswith("S-19|baseline: failed QC; and 5 more")
    assert flow["of these, kept in spite of their images"].note == "S-99|baseline: open deviation: TR"


def test_the_pdf_is_a_pdf_and_deterministic(exploratory):
    first, content_type = render_report(exploratory, "pdf")
    again, _ = render_report(exploratory, "pdf")

    assert content_type == "application/pdf"
    assert first.startswith(b"%PDF-")
    assert first == again


def test_a_refused_run_has_a_report_with_the_gate(people, features):
    document = plan_document()
    document["parameters"] = {
        **document["parameters"],
        "covariates": [{"name": "site", "kind": "categorical"}],
    }
    run = finished(people, features, specification=document)

    html = html_of(run)

    assert "Stops the run" in html
    assert "HELD-OUT" not in html


def test_an_unknown_form_is_refused(primary):
    with pytest.raises(InvalidInput) as refused:
        render_report(primary, "docx")

    assert refused.value.errors[0]["field"] == "as"


def test_the_served_report_is_allowed_its_own_style_and_no_other(client, people, trial, primary):
    client.force_login(people.auditor)

    answer = client.get(reverse("run-report", args=[trial.code, primary.pk]))

    style = re.search(r"<style>(.*?)</style>", answer.content.decode(), re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["Content-Security-Policy"]
    assert f"style-src 'self' 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy


def test_figures_escape_names_and_carry_no_style():
    effect = FeatureEffect("<b>&$left$", "mm", 0.5, 0.1, 0.4, 0.1, 0.01, 0.9, 0.2, 0.8)

    svg = figures.effect_figure([effect], 0.05)

    assert "<b>" not in svg
    assert "style=" not in svg
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "<b>&$left$" in "".join(root.itertext())

"""Forms of the harmonization pages: what a refusal answers, what stays chosen, and what can be downloaded."""

from __future__ import annotations

import csv
import io
import json
from uuid import uuid4

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from harmonization_cases import job_context, plan_document

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.models import FeatureSet, HarmonizationPlan
from harmonization_app.selectors.algorithm import NEEDS_REPEATS, capabilities_of
from harmonization_app.selectors.run_evidence import multivariate_rows
from harmonization_app.services import feature_set as feature_services
from harmonization_app.services import plan as plan_services
from harmonization_app.services import run as run_services
from harmonization_app.services import run_execution
from hub.demo.features import as_csv, metadata
from sites_app.models import Role, Subject
from tests.factories.sites_app import MembershipFactory, TrialFactory

pytestmark = pytest.mark.django_db
HTMX = {"hx-request": "true"}


def draft_of(people, trial):
    return plan_services.save_draft(actor=people.statistician, trial=trial, document=plan_document())


def npy(values) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def send_matrix(client, trial, labels: str, values, **metadata):
    return client.post(
        reverse("feature-set-new", args=[trial.code]),
        {
            "file": SimpleUploadedFile("labels.csv", labels.encode()),
            "matrix": SimpleUploadedFile("values.npy", npy(values)),
            "name": "Vertices",
            "metadata": json.dumps(metadata),
        },
        headers=HTMX,
    )


def labels_of(trial, count: int) -> str:
    codes = Subject.objects.filter(trial=trial).order_by("code").values_list("code", flat=True)[:count]
    return "subject,visit,batch\n" + "".join(f"{code},baseline,A\n" for code in codes)


def test_a_wrong_password_answers_beside_the_form_and_names_its_field(client, trial, people):
    plan = draft_of(people, trial)
    client.force_login(people.admin)

    answer = client.post(
        reverse("plan-lock", args=[trial.code, plan.pk]),
        {"password": "wrong", "meaning": "I approve"},
        headers=HTMX,
    )

    text = answer.content.decode()
    assert answer.status_code == 403
    assert "<html" not in text
    assert 'data-field="password"' in text
    plan.refresh_from_db()
    assert plan.state == "draft"


@pytest.mark.parametrize(
    ("came_from", "offered"),
    [
        ("http://testserver/t/DEMO/lock/", True),
        ("https://elsewhere.example/t/DEMO/lock/", False),
        ("javascript:alert(1)", False),
        ("", False),
    ],
)
def test_a_problem_page_leads_back_within_this_hub_only(client, trial, people, came_from, offered):
    client.force_login(people.statistician)

    answer = client.post(
        reverse("data-lock-freeze", args=[trial.code]), {"reason": "x"}, headers={"referer": came_from}
    )

    text = answer.content.decode()
    assert answer.status_code == 403
    assert ("Back to the page before" in text) is offered
    assert (f'href="{came_from}"' in text) is offered
    assert f'href="{reverse("home")}"' in text


def test_a_form_sent_in_place_goes_on_to_its_page(client, trial, people):
    client.force_login(people.admin)

    answer = client.post(
        reverse("data-lock-freeze", args=[trial.code]), {"reason": "Last visit"}, headers=HTMX
    )

    assert answer.status_code == 200
    assert answer.headers["HX-Redirect"] == reverse("data-lock", args=[trial.code])


def test_a_matrix_is_imported_by_page(client, trial, people):
    client.force_login(people.statistician)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)

    answer = send_matrix(client, trial, labels_of(trial, 3), values, unit="mm", metadata=["batch"])

    row = FeatureSet.objects.get()
    assert answer.headers["HX-Redirect"] == reverse("feature-set", args=[trial.code, row.pk])
    assert (row.origin, row.row_count, row.column_count) == (FeatureSet.Origin.MATRIX, 3, 4)
    assert [column["name"] for column in row.columns] == ["v000000", "v000001", "v000002", "v000003"]
    assert {column["unit"] for column in row.columns} == {"mm"}
    assert feature_services.load_table(row).values.tolist() == values.tolist()


def test_the_columns_of_a_matrix_take_the_names_that_the_page_read(client, trial, people):
    client.force_login(people.statistician)
    named = [{"name": "left", "unit": "mm3", "pool": "volume"}, {"name": "right"}]

    send_matrix(client, trial, labels_of(trial, 3), np.ones((3, 2)), unit="mm", columns=named)

    assert FeatureSet.objects.get().columns == [
        {"name": "left", "unit": "mm3", "pool": "volume"},
        {"name": "right", "unit": "mm", "pool": ""},
    ]


@pytest.mark.parametrize(
    ("rows", "values", "said"),
    [
        (3, np.ones((4, 2)), "The labels name 3 rows, the matrix has 4."),
        (3, np.ones((3, 2), dtype=int), "little-endian float64 or float32"),
        (3, np.asfortranarray(np.ones((3, 2))), "Fortran order"),
        (3, np.array([[1.0], [np.inf], [1.0]]), "infinite"),
    ],
)
def test_a_faulty_matrix_is_refused_beside_the_form(client, trial, people, rows, values, said):
    client.force_login(people.statistician)

    answer = send_matrix(client, trial, labels_of(trial, rows), values, unit="mm")

    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert FeatureSet.objects.count() == 0


def test_gate_editor_and_runs_keep_the_feature_set_of_the_address(client, trial, people, features):
    lines = as_csv().splitlines()
    newer = feature_services.import_feature_set(
        actor=people.statistician,
        trial=trial,
        name="Newer",
        content="\n".join(lines[:-1]).encode(),
        metadata=metadata(),
    )
    plan = draft_of(people, trial)
    client.force_login(people.statistician)
    pages = [
        reverse("plan", args=[trial.code, plan.pk]),
        reverse("plan-edit", args=[trial.code, plan.pk]),
        reverse("plan-new", args=[trial.code]),
        reverse("runs", args=[trial.code]),
        reverse("plan-compare", args=[trial.code]),
    ]

    for address in pages:
        assert client.get(address).context["chosen_set"] == newer
        assert client.get(address, {"feature_set": str(features.pk)}).context["chosen_set"] == features
        assert client.get(address, {"feature_set": str(uuid4())}).context["chosen_set"] == newer
        assert client.get(address, {"feature_set": "nonsense"}).context["chosen_set"] == newer


def test_a_feature_set_of_another_trial_is_not_chosen_by_its_address(client, trial, people, features):
    other = TrialFactory()
    stranger = MembershipFactory(trial=other, role=Role.STATISTICIAN).user
    client.force_login(stranger)

    shown = client.get(reverse("plan-new", args=[other.code]), {"feature_set": str(features.pk)})

    assert shown.context["chosen_set"] is None
    assert str(features.pk) not in shown.content.decode()


def test_the_plan_of_a_run_is_checked_on_the_feature_set_of_that_run(client, trial, people, features):
    plan = draft_of(people, trial)
    run = run_services.start_run(actor=people.statistician, feature_set=features, plan=plan)
    feature_services.import_feature_set(
        actor=people.statistician,
        trial=trial,
        name="Newer",
        content="\n".join(as_csv().splitlines()[:-1]).encode(),
        metadata=metadata(),
    )
    client.force_login(people.statistician)

    shown = client.get(reverse("plan", args=[trial.code, plan.pk]))

    assert shown.context["chosen_set"] == run.feature_set


def test_storing_a_draft_goes_on_with_the_feature_set_of_the_editor(client, trial, people, features):
    client.force_login(people.statistician)

    answer = client.post(
        reverse("plan-new", args=[trial.code]),
        {"document": json.dumps(plan_document()), "feature_set": str(features.pk)},
        headers=HTMX,
    )

    plan = HarmonizationPlan.objects.get()
    address = reverse("plan", args=[trial.code, plan.pk])
    assert answer.headers["HX-Redirect"] == f"{address}?feature_set={features.pk}"


def test_the_gate_speaks_of_the_data_before_the_plan_has_a_name(client, trial, people, features):
    document = plan_document() | {"name": "", "title": ""}
    client.force_login(people.statistician)
    ask = {"document": json.dumps(document), "feature_set": str(features.pk)}

    answer = client.post(reverse("plan-gate", args=[trial.code]), ask, headers=HTMX)
    stored = client.post(reverse("plan-new", args=[trial.code]), ask, headers=HTMX)

    assert answer.context["passes"] is True
    assert "To store the draft it still needs a name and a title." in answer.content.decode()
    assert stored.status_code == 400
    assert 'data-field="/name"' in stored.content.decode()
    assert HarmonizationPlan.objects.count() == 0


def test_a_plan_is_downloaded_as_its_document(client, trial, people):
    plan = draft_of(people, trial)
    client.force_login(people.auditor)

    answer = client.get(reverse("plan", args=[trial.code, plan.pk]), {"format": "json"})

    assert json.loads(answer.content) == plan_document()
    assert f'filename="plan-{plan.name}-v1-draft.json"' in answer.headers["Content-Disposition"]


def test_a_dictionary_names_every_column_of_the_table(client, trial, people, features):
    client.force_login(people.auditor)
    address = reverse("feature-set-data", args=[trial.code, features.pk])

    dictionary = client.get(address, {"as": "dictionary"})
    table = client.get(address)

    rows = list(csv.DictReader(io.StringIO(dictionary.getvalue().decode())))
    header = next(csv.reader(io.StringIO(table.content.decode())))
    assert [row["column"] for row in rows] == header
    by_name = {row["column"]: row for row in rows}
    assert by_name["age"] == {
        "column": "age",
        "role": "covariate",
        "kind": "continuous",
        "unit": "",
        "pool": "",
    }
    assert by_name["site"]["role"] == "label"
    assert by_name["thickness_entorhinal_left"]["unit"] == "mm"


def test_every_figure_of_fitted_scans_is_labelled_on_page_and_report(client, trial, people, features):
    run = run_services.start_run(
        actor=people.statistician, feature_set=features, specification=plan_document()
    )
    run_execution.execute_run(job_context(), run_id=str(run.pk))
    client.force_login(people.auditor)

    shown = client.get(reverse("run", args=[trial.code, run.pk])).content.decode()
    report = client.get(reverse("run-report", args=[trial.code, run.pk])).content.decode()

    look = shown[shown.index("One feature, before and after") : shown.index('id="look"')]
    assert "IN-SAMPLE" in look
    assert f'data-figure-note="EXPLORATORY run {run.pk}"' in shown
    covariates = report[report.index("<h2>Effects of the covariates") :]
    assert covariates.index("IN-SAMPLE") < covariates.index("<table")


def test_a_held_out_figure_that_was_not_evaluable_says_what_it_counts():
    refused = {"evaluable": False, "reason": "A batch has fewer than 5 scans."}
    stages = {"classification": {"before": refused, "after": refused}}

    held_out, in_sample = multivariate_rows({"held_out": stages, **stages})

    assert held_out.note == (
        "A batch has fewer than 5 scans. Counted are the scans of the half not fitted; of a subject with several, one."
    )
    assert in_sample.note == "A batch has fewer than 5 scans."


def test_a_method_says_whether_it_needs_repeated_scans():
    needs = {name: dict(capabilities_of(method))[NEEDS_REPEATS] for name, method in ALGORITHMS.items()}

    assert {name for name, needed in needs.items() if needed} == {"longcombat", "travelling-subject"}

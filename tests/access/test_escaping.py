"""Text that people and images bring is shown as text: no page holds it as markup, no CSV cell as a formula."""

from __future__ import annotations

import csv
import io

import pytest
from django.test import Client
from django.utils.html import escape

from hub.core.csv_export import safe_cell
from qc_app.models import Deviation, Query, QueryMessage
from sites_app.models import Arm, Scanner, Site, Subject, Trial, VisitDefinition
from tests.access.matrix import RULES, SUPERUSER
from tests.access.requests import path_arguments
from tests.access.world import World

MARKUP = "<script>alert('hub')</script>\"'><img src=x onerror=alert(1)>"
FORMULA = "=HYPERLINK(1)"


def _mark(world: World, text: str) -> None:
    """Write the text wherever people, files or images can bring some."""
    Trial.objects.update(title=text)
    Site.objects.update(name=text, country=text[:80])
    Arm.objects.update(title=text)
    VisitDefinition.objects.update(title=text)
    Scanner.objects.update(model=text)
    Subject.objects.filter(pk=world.subject.pk).update(code=text[:60])
    Deviation.objects.update(label=text, detail=text, action=text, reason=text)
    Query.objects.update(title=text, text=text, closing_reason=text)
    QueryMessage.objects.update(text=text)
    world.series.description = text
    world.series.save(update_fields=["description"])
    for user in world.users.values():
        type(user).objects.filter(pk=user.pk).update(full_name=text)


def test_no_page_shows_text_as_markup(world: World, subtests: pytest.Subtests) -> None:
    _mark(world, MARKUP)
    client = Client()
    client.force_login(world.users[SUPERUSER])
    escaped = 0
    for rule in RULES:
        if rule.method != "GET" or rule.route.startswith("api/"):
            continue
        path = "/" + rule.route
        for part, value in path_arguments(world, rule).items():
            path = path.replace(part, str(value))
        with subtests.test(rule.key):
            response = client.get(path, follow=True)
            content = response.getvalue().decode(errors="replace")
            assert "<script>alert" not in content
            assert "<img src=x" not in content
            escaped += escape(MARKUP)[:20] in content

    assert escaped > 20


@pytest.mark.parametrize("address", ["/api/v1/deviations/export/", "/t/FIRST/deviations/?format=csv"])
def test_no_cell_of_a_download_begins_like_a_formula(world: World, address: str) -> None:
    _mark(world, FORMULA)
    client = Client()
    client.force_login(world.users[SUPERUSER])

    rows = list(csv.reader(io.StringIO(client.get(address).getvalue().decode())))

    cells = [cell for row in rows for cell in row]
    assert f"'{FORMULA}" in cells
    assert [cell for cell in cells if cell.startswith(("=", "+", "@"))] == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\tx", "\rx"])
def test_a_text_like_a_formula_gets_an_apostrophe(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("number", [-1, -1.5, 0, 3.25])
def test_numbers_stay_numbers(number: float) -> None:
    assert safe_cell(number) == repr(number)

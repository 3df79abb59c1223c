"""Where a metric lies among its limits."""

from __future__ import annotations

import pytest

from qc_app.selectors.bands import band_picture, band_text

ONE_SIDED = {"warn": {"min": 10, "max": None}, "fail": {"min": 5, "max": None}, "required": False}
TWO_SIDED = {"warn": {"min": -4, "max": 4}, "fail": {"min": -10, "max": 10}, "required": False}


def test_limits_part_the_axis_by_tone() -> None:
    picture = band_picture(0.0, TWO_SIDED)

    assert picture is not None
    assert [part.tone for part in picture.segments] == ["fail", "warn", "good", "warn", "fail"]
    assert sum(part.width for part in picture.segments) == pytest.approx(100, abs=0.05)
    assert picture.mark == 50.0


def test_a_one_sided_limit_is_good_on_the_open_side() -> None:
    picture = band_picture(7.5, ONE_SIDED)

    assert picture is not None
    assert [part.tone for part in picture.segments] == ["fail", "warn", "good"]
    assert picture.segments[1].x < picture.mark < picture.segments[2].x


@pytest.mark.parametrize(("value", "tone"), [(1e9, "good"), (-1e9, "fail")])
def test_a_value_far_outside_is_drawn_inside_the_picture_at_its_side(value: float, tone: str) -> None:
    picture = band_picture(value, ONE_SIDED)

    assert picture is not None and picture.mark is not None
    assert 0 < picture.mark < 100
    part = next(part for part in picture.segments if part.x <= picture.mark <= part.x + part.width)
    assert part.tone == tone


def test_without_a_value_there_is_no_mark_and_without_limits_no_picture() -> None:
    picture = band_picture(None, ONE_SIDED)

    assert picture is not None
    assert picture.mark is None
    assert picture.mark_start is None
    assert band_picture(3.0, None) is None
    assert band_picture(3.0, {"warn": None, "fail": None, "required": True}) is None


def test_limits_in_words() -> None:
    assert band_text(ONE_SIDED) == "warn below 10, fail below 5"
    assert band_text(TWO_SIDED) == "warn below -4, warn above 4, fail below -10, fail above 10"

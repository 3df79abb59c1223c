"""The demonstration trial's subjects and visits: 60 subjects at five sites, all drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache

from hub.demo.identifiers import Identity, birth_date_for, make_identity

SEED = 20250203
FIRST_BASELINE = date(2025, 2, 3)
ENROLMENT_DAYS = 190
SUBJECTS_PER_SITE: Mapping[str, int] = {"S01": 20, "S02": 10, "S03": 10, "S04": 10, "S05": 10}
BASELINE, MONTH_12, TEST_VISIT = "baseline", "month-12", "test-scan"
VISIT_DAYS: Mapping[str, int] = {BASELINE: 0, MONTH_12: 365}
YOUNGEST, OLDEST = 58.0, 82.0
HEAD_SIZES = (0.96, 0.98, 1.0, 1.02, 1.04)
DIAGNOSES = ("CN", "MCI", "AD")


@dataclass(frozen=True, slots=True)
class Subject:
    """One simulated subject; `age_years` is the age at baseline."""

    code: str
    site: str
    arm: str
    age_years: float
    sex: str
    diagnosis: str
    weight_kg: float
    head_size: float
    identity: Identity
    visit_dates: Mapping[str, date]

    def age_at(self, visit: str) -> float:
        """Return the age in years at a visit, to a tenth."""
        days = (self.visit_dates[visit] - self.visit_dates[BASELINE]).days
        return round(self.age_years + days / 365.25, 1)

    def taken(self, visit: str, minutes: int = 0) -> datetime:
        """Return when the visit's first series was acquired, plus some minutes."""
        hour = 9 + sum(self.code.encode()) % 7
        return datetime.combine(self.visit_dates[visit], time(hour, 12)) + timedelta(minutes=minutes)


@cache
def subjects() -> tuple[Subject, ...]:
    """Return all subjects, by site and in the order of enrolment."""
    draw = random.Random(SEED)
    return tuple(
        _subject(draw, site, number, count)
        for site, count in SUBJECTS_PER_SITE.items()
        for number in range(1, count + 1)
    )


def _subject(draw: random.Random, site: str, number: int, count: int) -> Subject:
    code = f"{site}-{number:03d}"
    baseline = FIRST_BASELINE + timedelta(days=round(ENROLMENT_DAYS * (number - 1) / (count - 1)))
    month_12 = baseline + timedelta(days=VISIT_DAYS[MONTH_12] + draw.randint(-10, 10))
    # Multiples of the golden ratio spread the ages of every site over the whole range.
    age = round(YOUNGEST + (OLDEST - YOUNGEST) * ((number + int(site[1:]) / 7) * 0.618034 % 1), 1)
    sex = "F" if number % 2 else "M"
    return Subject(
        code=code,
        site=site,
        arm="A" if draw.random() < 0.5 else "B",
        age_years=age,
        sex=sex,
        diagnosis=DIAGNOSES[(number + number // 3) % 3],
        weight_kg=float(draw.randint(52, 98)),
        head_size=HEAD_SIZES[2 * number % len(HEAD_SIZES)],
        identity=make_identity(code, site, birth_date_for(age, baseline), sex),
        visit_dates={BASELINE: baseline, MONTH_12: month_12},
    )


def subject(code: str) -> Subject:
    """Return one subject.

    Raises LookupError where the trial has no such subject.
    """
    for item in subjects():
        if item.code == code:
            return item
    raise LookupError(f"The demonstration trial has no subject {code!r}.")


def visits_in_order() -> Iterator[tuple[Subject, str]]:
    """Yield every (subject, visit) in the order of acquisition."""
    pairs = [(item, visit) for item in subjects() for visit in VISIT_DAYS]
    yield from sorted(pairs, key=lambda pair: (pair[0].visit_dates[pair[1]], pair[0].code))

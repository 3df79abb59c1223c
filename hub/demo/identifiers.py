"""Identifiers planted in every simulated file, so that removing them is really exercised.

None belongs to a person: each text carries PLANTED_MARK, to be searched for in whatever the hub stores.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

PLANTED_MARK = "ZZPLANTED"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a hospital's scanner would write about one subject and the people around the scan."""

    patient_name: str
    patient_id: str
    birth_date: date
    sex: str
    address: str
    telephone: str
    referring_physician: str
    operator: str
    institution: str
    station: str
    accession_number: str

    def texts(self) -> tuple[str, ...]:
        """Return every planted text; none may be found in a de-identified file."""
        return (
            self.patient_name,
            self.patient_id,
            self.address,
            self.telephone,
            self.referring_physician,
            self.operator,
            self.institution,
            self.station,
            self.accession_number,
        )


def make_identity(subject: str, site: str, birth_date: date, sex: str) -> Identity:
    """Return the planted identity of a subject; it holds neither the subject's nor the site's code."""
    own = _mark(subject)
    place = _mark(site)
    return Identity(
        patient_name=f"{PLANTED_MARK}-FAMILY-{own}^{PLANTED_MARK}-GIVEN",
        patient_id=f"{PLANTED_MARK}-MRN-{own}",
        birth_date=birth_date,
        sex=sex,
        address=f"{PLANTED_MARK} STREET {own}",
        telephone=f"{PLANTED_MARK}T{own}",
        referring_physician=f"{PLANTED_MARK}-PHYSICIAN-{place}",
        operator=f"{PLANTED_MARK}-OPERATOR-{place}",
        institution=f"{PLANTED_MARK} HOSPITAL {place}",
        station=f"{PLANTED_MARK}{place}",
        accession_number=f"{PLANTED_MARK}A{own}",
    )


def birth_date_for(age_years: float, on: date) -> date:
    """Return a birth date such that the subject is `age_years` old on the day `on`."""
    return on - timedelta(days=round(age_years * 365.25))


def _mark(text: str) -> str:
    return hashlib.sha256(f"planted {text}".encode()).hexdigest()[:6].upper()

"""The identifying values of one file: what descriptors are cleaned of and what the written bytes must not hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import tag_for_keyword

from sites_app.dicom.parameters import decode_text
from sites_app.dicom.reader import Dataset, ParsedFile, UnreadableInstance

MINIMUM_CHARACTERS = 4
MAXIMUM_IDENTIFIERS = 200
"""Each is searched for in the whole header; real files hold fewer than fifty."""

_WHOLE = (
    "PatientID AccessionNumber StudyID PatientBirthDate InstitutionName InstitutionAddress"
    " InstitutionalDepartmentName OtherPatientIDs PatientAddress PatientTelephoneNumbers MedicalRecordLocator"
    " MilitaryRank AdmissionID IssuerOfPatientID RequestedProcedureID ScheduledProcedureStepID"
    " PerformedProcedureStepID FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest"
    " PersonAddress PersonTelephoneNumbers ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers"
    " EthnicGroup Occupation PatientReligiousPreference CountryOfResidence RegionOfResidence"
    " ResponsibleOrganization InsurancePlanIdentification CurrentPatientLocation PatientInstitutionResidence"
    " AdditionalPatientHistory PatientComments"
).split()
_NAMES = (
    "PatientName OtherPatientNames PatientBirthName PatientMotherBirthName ReferringPhysicianName"
    " PerformingPhysicianName OperatorsName NameOfPhysiciansReadingStudy PhysiciansOfRecord"
    " RequestingPhysician ResponsiblePerson ConsultingPhysicianName ScheduledPerformingPhysicianName"
    " PersonName VerifyingObserverName OrderEnteredBy OrderEntererLocation"
).split()
WHOLE_TAGS = frozenset(tag for tag in map(tag_for_keyword, _WHOLE) if tag)
NAME_TAGS = frozenset(tag for tag in map(tag_for_keyword, _NAMES) if tag)
_BIRTH_DATE = 0x00100030
_MAKER_TAGS = (0x00080070, 0x00081090)

_PLACEHOLDERS = frozenset(
    "anonymized anonymised anonymous anonym anon unknown none removed deidentified de-identified phantom test"
    " research volunteer patient subject hospital clinic qa qc na n/a null empty default".split()
)
_TECHNICAL_WORDS = _PLACEHOLDERS | frozenset(
    "acr mri mrt pet ct mr dwi dti asl swi flair mprage bold rest brain head neck spine knee chest abdomen"
    " pelvis body axial sagittal coronal tra sag cor localizer scout daily weekly monthly dro t1w t2w dicom"
    " adni scan series study image field map phan".split()
)
_BLANK_DATES = frozenset({"00010101", "19000101", "18000101", "19700101", "11111111", "99991231", "00000000"})
_NAME_SEPARATORS = re.compile(r"[\^=\\,\s]+")


@dataclass(frozen=True, slots=True)
class Identifiers:
    """Identifying texts of one file: `whole` values and the `words` of persons' names."""

    whole: frozenset[str]
    words: frozenset[str]

    @property
    def for_cleaning(self) -> frozenset[str]:
        return self.whole | self.words


def collect(parsed: ParsedFile, subject_code: str) -> Identifiers:
    """Return the identifying values found anywhere in the file, at every nesting level.

    Left out are values shorter than four characters (three for the words of a name, which are matched as whole
    words), placeholders such as ANONYMIZED, technical words, the maker's own name and the subject code.

    Raises UnreadableInstance where there are so many that the search would take minutes.
    """
    whole: set[str] = set()
    words: set[str] = set()
    charset = parsed.text(0x00080005).split("\\")[0]
    _collect(parsed, parsed.elements, charset, whole, words)
    if len(whole) + len(words) > MAXIMUM_IDENTIFIERS:
        raise UnreadableInstance(
            "too_many_names",
            f"The header names more than {MAXIMUM_IDENTIFIERS} persons, institutions and identifiers.",
            "Ask a data manager to look at the file.",
        )
    makers = {parsed.text(tag).casefold() for tag in _MAKER_TAGS}
    return _telling(frozenset(whole), frozenset(words), frozenset(makers | {subject_code.casefold()}))


@lru_cache(maxsize=8)
def _telling(whole: frozenset[str], words: frozenset[str], excluded: frozenset[str]) -> Identifiers:
    """Return those that tell whose image it is; remembered, since the slices of a series name the same."""
    return Identifiers(
        frozenset(value for value in whole if _tells(value, excluded, MINIMUM_CHARACTERS, _PLACEHOLDERS)),
        frozenset(value for value in words if _tells(value, excluded, 3, _TECHNICAL_WORDS)),
    )


def is_placeholder(text: str) -> bool:
    """True for an identifier that names nobody: empty, ANONYMIZED and the like, only zeros or signs."""
    return text.strip().casefold() in _PLACEHOLDERS or not text.strip("0.*-_^ ")


def _tells(value: str, excluded: Iterable[str], minimum: int, known: frozenset[str]) -> bool:
    folded = value.casefold()
    return (
        len(value) >= minimum
        and (value.isalnum() or sum(character.isalnum() for character in value) >= minimum - 1)
        and folded not in known
        and folded not in excluded
        and value not in _BLANK_DATES
        and not any(folded in maker for maker in excluded)
        and bool(value.strip("0.*-_ "))
    )


def _collect(parsed: ParsedFile, elements: Dataset, charset: str, whole: set[str], words: set[str]) -> None:
    for tag, element in elements.items():
        if element.items is not None:
            for item in element.items:
                _collect(parsed, item, charset, whole, words)
        elif tag in NAME_TAGS or element.vr == "PN":
            text = decode_text(parsed.data[element.value_start : element.value_end][:1024], charset)
            for name in text.split("\\"):
                whole.add(name.strip("^= "))
                words.update(word for word in _NAME_SEPARATORS.split(name) if not word.isdigit())
        elif tag in WHOLE_TAGS:
            text = decode_text(parsed.data[element.value_start : element.value_end][:1024], charset)
            whole.update(part.strip() for part in text.split("\\"))

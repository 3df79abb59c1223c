"""Why a file is not accepted, in words for people, and whether it is kept in quarantine."""

from __future__ import annotations

from dataclasses import dataclass

from sites_app.dicom.sniff import FileKind
from sites_app.models import FileOutcome


@dataclass(frozen=True, slots=True)
class Refusal:
    outcome: str
    code: str
    detail: str
    action: str


# A file refused by one of these is of no use to anybody: it is not kept. All others wait for a person.
_REJECTED_INSTANCES = frozenset({"sop_class_not_accepted", "not_dicom", "pixel_data_missing"})

_IGNORED = {
    FileKind.DICOMDIR: "This is the index (DICOMDIR) of a medium, not an image.",
    FileKind.TEXT: "This is a text file, not an image.",
    FileKind.EMPTY: "The file is empty.",
}
_REJECTED = {
    FileKind.NIFTI: "This is a NIfTI file.",
    FileKind.NRRD: "This is an NRRD file.",
    FileKind.IMAGE: "This is a picture file, not DICOM.",
    FileKind.PDF: "This is a PDF document.",
    FileKind.UNKNOWN: "The file is not DICOM.",
}
_ARCHIVES = frozenset(
    {FileKind.ZIP, FileKind.GZIP, FileKind.BZIP2, FileKind.SEVEN_ZIP, FileKind.RAR, FileKind.TAR}
)

DUPLICATE = Refusal(
    FileOutcome.DUPLICATE, "duplicate", "The same instance with the same content is stored already.", ""
)
DUPLICATE_AT_OTHER_VISIT = Refusal(
    FileOutcome.QUARANTINED,
    "duplicate_at_other_visit",
    "The same instance with the same content is stored already, for another visit or subject of this site.",
    "Check for which visit these images were taken. If the earlier submission was wrong, ask a data manager.",
)
CONFLICT = Refusal(
    FileOutcome.QUARANTINED,
    "sop_instance_conflict",
    "An instance with the same SOPInstanceUID (0008,0018) but other content is stored already.",
    "Find out which of the two is right. A changed image must get a new SOPInstanceUID when it is exported.",
)
OTHER_PATIENT = Refusal(
    FileOutcome.QUARANTINED,
    "wrong_patient",
    "The file names another patient than the subject's earlier images.",
    "Check whether these images belong to this subject. If the patient's ID changed, ask a data manager.",
)
MIXED_PATIENTS = Refusal(
    FileOutcome.QUARANTINED,
    "mixed_patients",
    "The file names another patient than the first file of this submission.",
    "Send the images of one subject only in one submission.",
)
PATIENT_UNKNOWN = Refusal(
    FileOutcome.QUARANTINED,
    "patient_unknown",
    "The file names no patient (0010,0020 and 0010,0010 are empty), while the subject's other images do.",
    "Check that it belongs to this subject and send it with its PatientID, or with the subject code in it.",
)
POISON = Refusal(
    FileOutcome.QUARANTINED,
    "poison",
    "Processing this upload failed repeatedly and was given up.",
    "Nothing more to do for the site: the administrator finds the cause in the job's record.",
)


def of_kind(kind: FileKind) -> Refusal:
    """Return why a file that does not look like DICOM is left out."""
    if kind in _IGNORED:
        return Refusal(FileOutcome.IGNORED, f"ignored_{kind.value}", _IGNORED[kind], "")
    if kind in _ARCHIVES:
        detail = "This is an archive inside the upload."
        return Refusal(FileOutcome.REJECTED, "nested_archive", detail, "Unpack it and send its files.")
    detail = _REJECTED.get(kind, _REJECTED[FileKind.UNKNOWN])
    return Refusal(FileOutcome.REJECTED, f"not_dicom_{kind.value}", detail, "Send the original DICOM files.")


def of_member(code: str, detail: str, action: str) -> Refusal:
    """Return the refusal of an archive, or of a member that could not be unpacked."""
    return Refusal(FileOutcome.REJECTED, code, detail, action)


def of_instance(code: str, detail: str, action: str) -> Refusal:
    """Return the refusal of a DICOM file by the de-identifier."""
    outcome = FileOutcome.REJECTED if code in _REJECTED_INSTANCES else FileOutcome.QUARANTINED
    return Refusal(outcome, code, detail, action)


def unexpected(error_name: str) -> Refusal:
    """Return the refusal of a file whose reading failed in a way nobody foresaw."""
    return Refusal(
        FileOutcome.QUARANTINED,
        "unreadable",
        f"The file could not be read ({error_name}).",
        "Export the file again from its source; if it fails again, ask a data manager.",
    )

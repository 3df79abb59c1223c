"""Who sends, and what arrived."""

from sites_app.models.deidentification import DeidentificationProfile
from sites_app.models.membership import Membership, Role
from sites_app.models.series import Instance, Series, SeriesSegment, SeriesState, Study
from sites_app.models.site import Scanner, ScannerEpoch, Site
from sites_app.models.subject import Subject, Visit
from sites_app.models.submission import (
    FileOutcome,
    QuarantinedFile,
    Submission,
    SubmissionFile,
    SubmissionState,
    Upload,
    UploadState,
)
from sites_app.models.trial import Arm, LockState, Trial, VisitDefinition

__all__ = [
    "Arm",
    "DeidentificationProfile",
    "FileOutcome",
    "Instance",
    "LockState",
    "Membership",
    "QuarantinedFile",
    "Role",
    "Scanner",
    "ScannerEpoch",
    "Series",
    "SeriesSegment",
    "SeriesState",
    "Site",
    "Study",
    "Subject",
    "Submission",
    "SubmissionFile",
    "SubmissionState",
    "Trial",
    "Upload",
    "UploadState",
    "Visit",
    "VisitDefinition",
]

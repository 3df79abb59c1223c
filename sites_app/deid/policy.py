"""Which instances may enter: the four UIDs, accepted SOP classes, no risk of burned-in text, whole pixel data."""

from __future__ import annotations

from sites_app.deid.profile import Profile
from sites_app.dicom.placement import read_integer
from sites_app.dicom.reader import PIXEL_DATA, PIXEL_TAGS, UID_PATTERN, ParsedFile, tag_text

SOP_CLASS, SOP_INSTANCE, STUDY_INSTANCE, SERIES_INSTANCE = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_REQUIRED_UIDS = (
    (SOP_CLASS, "SOPClassUID"),
    (SOP_INSTANCE, "SOPInstanceUID"),
    (STUDY_INSTANCE, "StudyInstanceUID"),
    (SERIES_INSTANCE, "SeriesInstanceUID"),
)
_BURNED_IN_ANNOTATION, _IMAGE_TYPE, _PHOTOMETRIC = 0x00280301, 0x00080008, 0x00280004
_SCREEN_WORDS = ("SCREEN", "SCREENSAVE", "SCREEN SAVE", "CAPTURE", "DOSE_INFO", "PROTOCOL_PAGE")
_MEDIA_STORAGE_CLASS, _DIRECTORY_CLASS = 0x00020002, b"1.2.840.10008.1.3.10"
MAX_PIXEL_BYTES = 2**30


class InstanceRefused(Exception):
    """One file that is not accepted: a code for programs, what and where, and what to do."""

    def __init__(self, code: str, detail: str, action: str) -> None:
        self.code, self.detail, self.action = code, detail, action
        super().__init__(f"{code}: {detail}")


def check_instance(parsed: ParsedFile, profile: Profile) -> str:
    """Return the SOP class of an instance that may be accepted.

    Raises InstanceRefused naming what is missing or where identifying text may stand in the pixels.
    """
    if parsed.meta.get(_MEDIA_STORAGE_CLASS, b"").strip(b"\0 ") == _DIRECTORY_CLASS:
        raise InstanceRefused(
            "dicomdir",
            "The file is a DICOMDIR, the index of a medium, and holds no image.",
            "Nothing: it is not needed.",
        )
    for tag, keyword in _REQUIRED_UIDS:
        uid = parsed.text(tag)
        if not uid:
            raise InstanceRefused(
                "uid_missing",
                f"{keyword} {tag_text(tag)} is missing.",
                "Export the series again from its source.",
            )
        if not UID_PATTERN.fullmatch(uid):
            raise InstanceRefused(
                "uid_invalid",
                f"{keyword} {tag_text(tag)} is not a UID: digits and dots only, at most 64 characters.",
                "Export the series again from its source; do not edit UIDs by hand.",
            )
    sop_class = parsed.text(SOP_CLASS)
    _check_sop_class(sop_class, profile)
    _check_burned_in(parsed)
    _check_pixel_data(parsed)
    return sop_class


def _check_sop_class(sop_class: str, profile: Profile) -> None:
    if sop_class in profile.accepted_sop_classes:
        return
    if sop_class in profile.burned_in_risk_sop_classes:
        raise InstanceRefused(
            "burned_in_risk",
            f"{profile.burned_in_risk_sop_classes[sop_class]} often shows names or dates in the picture itself.",
            "A person must look at the pictures before they may be accepted; send the original image series.",
        )
    raise InstanceRefused(
        "sop_class_not_accepted",
        f"SOP class {sop_class} (reports, documents, presentations and others) is not part of the image data.",
        "Send the image series only, without reports, documents, presentation states or measurements.",
    )


def _check_burned_in(parsed: ParsedFile) -> None:
    annotation = parsed.text(_BURNED_IN_ANNOTATION).upper()
    action = "Send the original images without burned-in text, or ask a data manager to look at them."
    if annotation and annotation != "NO":
        raise InstanceRefused(
            "burned_in_risk", f"BurnedInAnnotation (0028,0301) is {annotation[:16]!r}, not NO.", action
        )
    image_type = [part.strip() for part in parsed.text(_IMAGE_TYPE).upper().split("\\")]
    if any(part.startswith(_SCREEN_WORDS) for part in image_type):
        raise InstanceRefused(
            "burned_in_risk", "ImageType (0008,0008) says that this is a copy of a screen.", action
        )
    photometric = parsed.text(_PHOTOMETRIC)
    if photometric and photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InstanceRefused(
            "burned_in_risk",
            f"PhotometricInterpretation (0028,0004) is {photometric[:16]!r}: colour pictures often carry text.",
            action,
        )


def _check_pixel_data(parsed: ParsedFile) -> None:
    """Refuse pixel data that break off or hold more than the image: text may hide behind the last pixel."""
    tag = next((tag for tag in PIXEL_TAGS if tag in parsed.elements), None)
    if tag is None:
        raise InstanceRefused(
            "pixel_data_missing",
            "The file has no pixel data (7FE0,0010).",
            "Send the whole image, not its header.",
        )
    expected = _native_bytes(parsed)
    if expected is None:
        raise InstanceRefused(
            "image_description_invalid",
            "Rows, Columns, BitsAllocated, SamplesPerPixel or NumberOfFrames is missing or impossible.",
            "Export the series again from its source.",
        )
    if expected > MAX_PIXEL_BYTES:
        raise InstanceRefused(
            "image_too_large",
            f"The image claims {expected} bytes of pixels; at most {MAX_PIXEL_BYTES} are accepted.",
            "Split the series, or ask the administrator.",
        )
    element = parsed.elements[tag]
    if tag != PIXEL_DATA or element.undefined:
        return
    held = element.value_end - element.value_start
    if held < expected:
        raise InstanceRefused(
            "pixel_data_truncated",
            f"The pixel data hold {held} bytes; the image described needs {expected}.",
            "Send the file again; it was cut short.",
        )
    if held > expected + (expected & 1):
        raise InstanceRefused(
            "pixel_data_excess",
            f"The pixel data hold {held} bytes, {held - expected} more than the image described.",
            "Export the series again; bytes behind the image may hold identifying data.",
        )


def _native_bytes(parsed: ParsedFile) -> int | None:
    rows, columns = read_integer(parsed, 0x00280010), read_integer(parsed, 0x00280011)
    bits = read_integer(parsed, 0x00280100)
    samples = read_integer(parsed, 0x00280002) or 1
    frames = read_integer(parsed, 0x00280008) if 0x00280008 in parsed.elements else 1
    if not rows or not columns or bits not in (1, 8, 16, 32, 64) or not frames or frames < 1 or samples > 4:
        return None
    return (rows * columns * samples * frames * bits + 7) // 8

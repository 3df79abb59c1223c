"""De-identifies one DICOM file after PS3.15 Annex E, at byte level and driven by the profile's table.

Elements that stay are copied byte for byte; a replaced value is written in the file's own encoding; pixel data
are never touched. What is done to one element depends only on its bytes, so results are memoised: the hundred
slices of a series share nearly all of theirs.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sites_app.deid.identifiers import Identifiers, collect, is_placeholder
from sites_app.deid.policy import InstanceRefused, check_instance
from sites_app.deid.profile import Profile
from sites_app.deid.residual import Residual
from sites_app.deid.values import UidMap, clean_descriptor, keyed_digest, shift_dates
from sites_app.deid.writer import Change, DatasetWriter, encode_element, encode_sequence, file_meta
from sites_app.dicom.observations import InstanceFacts
from sites_app.dicom.parameters import ParameterReader, decode_text
from sites_app.dicom.placement import read_integer, read_positions, read_temporal_position
from sites_app.dicom.reader import (
    DEFAULT_LIMITS,
    DEFLATED_LITTLE,
    PIXEL_TAGS,
    ParsedFile,
    ReadLimits,
    UnreadableInstance,
    parse_file,
)

_DATE_PARAMETERS = {0x00080022: "DA", 0x0008002A: "DT", 0x00181078: "DT"}
_DESCRIPTOR_PARAMETERS = (0x00081030, 0x0008103E, 0x00181030, 0x00180010)
_MINIMUM_KEY_BYTES = 16
_IDENTIFIER_BYTES = 512


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """What was done to one instance: the tags each action touched, and the profile that said so."""

    profile_digest: str
    actions: Mapping[str, tuple[str, ...]]

    @property
    def counts(self) -> dict[str, int]:
        return {action: len(tags) for action, tags in self.actions.items()}


@dataclass(frozen=True, slots=True)
class DeidentifiedInstance:
    """One file without its patient's identity: Part 10 bytes, facts, and keyed digests of who it was.

    `patient_digest` is "" where the file named nobody. It is the same for all files of a patient in a
    trial, and useless without the trial's key.
    """

    data: bytes
    facts: InstanceFacts
    patient_digest: str
    report: InstanceReport
    claimed_patient_id_digest: str = ""
    _claim_key: bytes = field(default=b"", repr=False)

    def claimed_patient_id_matches(self, code: str) -> bool:
        """True where the original PatientID was this code, written in any case."""
        claimed = keyed_digest(self._claim_key, "claim", code)
        return bool(self.claimed_patient_id_digest) and hmac.compare_digest(
            claimed, self.claimed_patient_id_digest
        )


class Deidentifier:
    """De-identifies the files of one subject of one trial.

    `key` is the trial's secret (16 bytes or more), `date_offset_days` the subject's one offset for every date.
    Keep one instance for all files of a submission: it memoises. Not for use by several threads at once.

    Raises ValueError for a short key and for a subject code or trial name that is not plain ASCII of 1 to 64.
    """

    def __init__(
        self,
        profile: Profile,
        key: bytes,
        subject_code: str,
        date_offset_days: int,
        trial_name: str,
        limits: ReadLimits = DEFAULT_LIMITS,
    ) -> None:
        if len(key) < _MINIMUM_KEY_BYTES:
            raise ValueError(f"The trial key must have at least {_MINIMUM_KEY_BYTES} bytes.")
        for name, text in (("subject code", subject_code), ("trial name", trial_name)):
            if not text.isascii() or not text.isprintable() or not 1 <= len(text) <= 64 or "\\" in text:
                raise ValueError(
                    f"The {name} must be 1 to 64 printable ASCII characters without a backslash."
                )
        self.profile, self.limits = profile, limits
        self.map_uid = UidMap(key)
        self._key, self._subject, self._days, self._trial = key, subject_code, date_offset_days, trial_name
        self._writer = DatasetWriter(profile, self.map_uid, subject_code, date_offset_days)
        self._reader = ParameterReader()
        self._residual = Residual()
        self._added: dict[tuple[str, bool, bool], list[tuple[int, bytes]]] = {}
        self._reports: dict[tuple[Change, ...], InstanceReport] = {}
        self._cleaned: dict[tuple[bytes, Identifiers, str], bytes] = {}

    def process(self, data: bytes | memoryview) -> DeidentifiedInstance:
        """Return the de-identified instance with the acquisition parameters it had.

        Raises InstanceRefused with code, detail and action for every file that cannot be accepted.
        """
        try:
            return self._process(parse_file(data, self.limits))
        except UnreadableInstance as error:
            raise InstanceRefused(error.code, error.detail, error.action) from error
        except InstanceRefused:
            raise
        except MemoryError as error:
            raise InstanceRefused(
                "too_large_to_read", "The file needs more memory than a file may use.", "Split the series."
            ) from error
        except Exception as error:
            # A hostile or damaged file must never stop the others of its submission.
            raise InstanceRefused(
                "unreadable",
                f"The file could not be read ({type(error).__name__}).",
                "Export the file again from its source; if it fails again, ask a data manager.",
            ) from error

    def _process(self, parsed: ParsedFile) -> DeidentifiedInstance:
        sop_class = check_instance(parsed, self.profile)
        identifiers = collect(parsed, self._subject)
        charset = parsed.text(0x00080005).split("\\")[0]

        def clean(raw: bytes) -> bytes:
            return self._clean(raw, identifiers, charset)

        facts = self._facts(parsed, sop_class, clean)
        added = self._additions(sop_class, parsed.implicit, parsed.little)
        written = self._writer.write(parsed, sop_class, added, clean)
        header = b"".join(written.chunks)
        texts = " ".join(map(str, facts.parameters.values())).encode()
        self._residual.check(b"\n".join((header, texts)), identifiers, written.uids)
        return DeidentifiedInstance(
            data=_assemble(parsed, header, facts),
            facts=facts,
            patient_digest=self._patient_digest(parsed, charset),
            report=self._report(written.changes),
            claimed_patient_id_digest=self._claim(parsed, charset),
            _claim_key=self._key,
        )

    def _facts(self, parsed: ParsedFile, sop_class: str, clean: Callable[[bytes], bytes]) -> InstanceFacts:
        modality = parsed.text(0x00080060)
        rewrite: dict[int, Callable[[bytes], bytes]] = dict.fromkeys(_DESCRIPTOR_PARAMETERS, clean)
        for tag, vr in _DATE_PARAMETERS.items():
            rewrite[tag] = self._date_shifter(vr)
        found = self._reader.read(parsed, modality, rewrite)
        positions, orientation = read_positions(parsed)
        return InstanceFacts(
            sop_class_uid=sop_class,
            sop_instance_uid=self.map_uid(parsed.text(0x00080018)),
            series_instance_uid=self.map_uid(parsed.text(0x0020000E)),
            study_instance_uid=self.map_uid(parsed.text(0x0020000D)),
            modality=modality,
            transfer_syntax_uid=parsed.transfer_syntax_uid,
            instance_number=read_integer(parsed, 0x00200013),
            rows=read_integer(parsed, 0x00280010),
            columns=read_integer(parsed, 0x00280011),
            frames=read_integer(parsed, 0x00280008) or 1,
            parameters=found.values,
            sources=found.sources,
            unparsable=tuple(found.unparsable),
            positions=positions,
            orientation=orientation,
            temporal_position=read_temporal_position(parsed),
            varying=found.varying,
        )

    def _date_shifter(self, vr: str) -> Callable[[bytes], bytes]:
        # What cannot be shifted must not be kept: a word no date pattern matches makes it unparsable.
        return lambda raw: (
            shifted if (shifted := shift_dates(vr, raw, self._days)) is not None else b"invalid"
        )

    def _clean(self, raw: bytes, identifiers: Identifiers, charset: str) -> bytes:
        memo_key = (raw, identifiers, charset)
        cleaned = self._cleaned.get(memo_key)
        if cleaned is None:
            if len(self._cleaned) > 10_000:
                self._cleaned.clear()
            text = decode_text(raw.strip(b"\0 "), charset)
            if "\x1b" in raw.decode("latin-1"):
                text = ""
            encoding = {"ISO_IR 192": "utf-8", "ISO_IR 100": "latin-1"}.get(charset, "ascii")
            cleaned = clean_descriptor(text, identifiers.for_cleaning).encode(encoding, "replace")
            self._cleaned[memo_key] = cleaned
        return cleaned

    def _additions(self, sop_class: str, implicit: bool, little: bool) -> list[tuple[int, bytes]]:
        """Return the elements that say what was done (PS3.15 E.1.1) and whose image this is."""
        found = self._added.get((sop_class, implicit, little))
        if found is not None:
            return found

        def element(tag: int, vr: str, text: str) -> tuple[int, bytes]:
            return tag, encode_element(tag, vr, text.encode("ascii"), implicit, little)

        codes = self.profile.method_codes(sop_class)
        items = [
            b"".join(
                element(tag, vr, text)[1]
                for tag, vr, text in (
                    (0x00080100, "SH", code),
                    (0x00080102, "SH", "DCM"),
                    (0x00080104, "LO", meaning),
                )
            )
            for code, meaning in codes
        ]
        found = [
            element(0x00120020, "LO", self._trial),
            element(0x00120040, "LO", self._subject),
            element(0x00120062, "CS", "YES"),
            element(
                0x00120063,
                "LO",
                f"{self.profile.name} {self.profile.version} {self.profile.digest[:16]}"[:64],
            ),
            (0x00120064, encode_sequence(0x00120064, items, implicit, little)),
        ]
        if self.profile.modified_dates:
            found.append(element(0x00280303, "CS", "MODIFIED"))
        self._added[(sop_class, implicit, little)] = found
        return found

    def _patient_digest(self, parsed: ParsedFile, charset: str) -> str:
        def text(tag: int) -> str:
            return decode_text((parsed.raw(tag) or b"")[:_IDENTIFIER_BYTES].strip(b"\0 "), charset)

        patient_id, name = text(0x00100020), text(0x00100010)
        if not is_placeholder(patient_id):
            return keyed_digest(self._key, "patient-id", patient_id, text(0x00100021))
        if not is_placeholder(name):
            return keyed_digest(self._key, "patient-name", name, text(0x00100030))
        return ""

    def _claim(self, parsed: ParsedFile, charset: str) -> str:
        patient_id = decode_text((parsed.raw(0x00100020) or b"")[:_IDENTIFIER_BYTES].strip(b"\0 "), charset)
        return "" if is_placeholder(patient_id) else keyed_digest(self._key, "claim", patient_id)

    def _report(self, changes: list[Change]) -> InstanceReport:
        key = tuple(changes)
        report = self._reports.get(key)
        if report is None:
            if len(self._reports) > 1000:
                self._reports.clear()
            actions: dict[str, dict[str, None]] = {}
            for action, tag in changes:
                actions.setdefault(action, {})[tag] = None
            report = InstanceReport(
                self.profile.digest, {action: tuple(sorted(tags)) for action, tags in sorted(actions.items())}
            )
            self._reports[key] = report
        return report


def _assemble(parsed: ParsedFile, header: bytes, facts: InstanceFacts) -> bytes:
    """Join new meta information, the written header and the untouched pixel data into one Part 10 file."""
    meta = file_meta(facts.sop_class_uid, facts.sop_instance_uid, parsed.transfer_syntax_uid)
    pixel = next(element for tag, element in parsed.elements.items() if tag in PIXEL_TAGS)
    view = memoryview(parsed.data)[pixel.start : pixel.end]
    if parsed.transfer_syntax_uid != DEFLATED_LITTLE:
        return b"".join((meta, header, view))
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = deflater.compress(header) + deflater.compress(view) + deflater.flush()
    return meta + body + b"\0" * (len(body) & 1)


__all__ = ["DeidentifiedInstance", "Deidentifier", "InstanceRefused", "InstanceReport"]

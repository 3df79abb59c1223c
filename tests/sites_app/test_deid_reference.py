"""The engine against a second implementation on pydicom, and against real series of many scanners."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from dicom_files import KEY, enhanced_dataset, mr_file, part10
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from sites_app.deid.engine import DeidentifiedInstance, Deidentifier, InstanceRefused
from sites_app.deid.profile import DEFAULT_PROFILE
from sites_app.deid.reference import ReferenceDeidentifier, cross_check, differences
from sites_app.dicom.aggregate import aggregate
from sites_app.dicom.observations import SeriesObservation

DAYS = -100
pytestmark = pytest.mark.filterwarnings("ignore")


def engine() -> Deidentifier:
    return Deidentifier(DEFAULT_PROFILE, KEY, "S-1", DAYS, "T")


def disagreements(data: bytes, instance: DeidentifiedInstance) -> list[str]:
    """Return where engine and reference differ; what descriptors are cleaned to is taken from the engine."""
    written: Dataset = pydicom.dcmread(io.BytesIO(instance.data), stop_before_pixels=True)
    reference = ReferenceDeidentifier(
        DEFAULT_PROFILE, KEY, "S-1", DAYS, lambda tag, text: str(written[tag].value or "")
    )
    return cross_check(data, instance.data, reference)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_synthetic_files_agree(syntax: str) -> None:
    data = mr_file(transfer_syntax=syntax)

    assert disagreements(data, engine().process(data)) == []


def test_an_enhanced_file_agrees() -> None:
    data = part10(enhanced_dataset((2.4, 4.8)))

    assert disagreements(data, engine().process(data)) == []


def test_a_difference_is_seen() -> None:
    left = pydicom.dcmread(io.BytesIO(mr_file()))
    right = pydicom.dcmread(io.BytesIO(mr_file(EchoTime="3", FlipAngle=None)))

    assert len(differences(left, right)) == 2


def test_files_shipped_with_pydicom_agree_or_are_refused_by_name() -> None:
    folder = Path(pydicom.data.__file__).parent / "test_files"
    processed = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        try:
            instance = engine().process(data)
        except InstanceRefused as error:
            assert error.code != "unreadable", (path.name, error.__cause__)
            continue
        processed += 1
        assert disagreements(data, instance) == [], path.name
        original = pydicom.dcmread(path, force=True)
        assert pydicom.dcmread(io.BytesIO(instance.data)).PixelData == original.PixelData

    assert processed >= 35


def _series(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def _rows(reference_data: Path) -> list[dict[str, str]]:
    with (reference_data / "dicom" / "SERIES.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.reference
def test_real_series_agree_and_keep_nothing_of_the_patient(reference_data: Path) -> None:
    checked = 0
    for row in _rows(reference_data):
        deidentifier = engine()
        for data in _series(reference_data / "dicom" / row["series_dir"])[:6]:
            original = pydicom.dcmread(io.BytesIO(data))
            if original.SOPClassUID not in DEFAULT_PROFILE.accepted_sop_classes:
                continue
            instance = deidentifier.process(data)
            assert disagreements(data, instance) == [], row["series_dir"]
            assert pydicom.dcmread(io.BytesIO(instance.data)).PixelData == original.PixelData
            header = instance.data[: -len(original.PixelData)]
            for uid in (original.SOPInstanceUID, original.StudyInstanceUID, original.SeriesInstanceUID):
                assert str(uid).encode() not in header
            checked += 1

    assert checked == 75


_COLUMNS = {
    "Modality": "Modality",
    "Manufacturer": "Manufacturer",
    "Model": "ManufacturerModelName",
    "B0_T": "MagneticFieldStrength",
    "TR_ms": "RepetitionTime",
    "TI_ms": "InversionTime",
    "FA": "FlipAngle",
    "SliceThickness": "SliceThickness",
    "Rows": "Rows",
    "Columns": "Columns",
    "PixelBandwidth": "PixelBandwidth",
    "KVP": "KVP",
    "mAs": "Exposure",
    "PET_Units": "Units",
    "Dose_Bq": "RadionuclideTotalDose",
}


@pytest.mark.reference
def test_real_series_give_the_parameters_known_of_them(reference_data: Path) -> None:
    for row in _rows(reference_data):
        observations = _observe(_series(reference_data / "dicom" / row["series_dir"]))
        for column, keyword in _COLUMNS.items():
            if row[column] not in ("", "nan"):
                values = {value.value for item in observations for value in item.parameters[keyword].values}
                assert any(_same(row[column], value) for value in values), (
                    row["series_dir"],
                    keyword,
                    values,
                )
        assert sum(item.instances for item in observations) >= int(row["n_files"]) - 1


def _observe(files: list[bytes]) -> list[SeriesObservation]:
    deidentifier = engine()
    series: dict[str, list] = {}
    for data in files:
        try:
            facts = deidentifier.process(data).facts
        except InstanceRefused as error:
            assert error.code == "sop_class_not_accepted"
            continue
        series.setdefault(facts.series_instance_uid, []).append(facts)
    return [aggregate(instances) for instances in series.values()]


def _same(expected: str, value: object) -> bool:
    if isinstance(value, (int, float)):
        return math.isclose(float(expected), value, rel_tol=1e-4)
    return expected == value


@pytest.mark.reference
def test_geometry_of_real_series(reference_data: Path) -> None:
    expected = {
        "mr_philips_ingenia_adni_mprage": (170, 1, 0),
        "mr_canon_galan_v60_dti": (40, 13, 0),
        "mr_ge_architect_b0map": (16, 2, 0),
        "mr_siemens_prismafit_xa30_enhanced_t1": (96, 1, 0),
        "phantom_acr_siemens_sola_xa61_enhanced_t1": (11, 1, 0),
        "phantom_acr_ge_artist_15t_t1": (11, 1, 0),
        "ct_ge_discoveryst_sts003": (51, 1, 0),
        "pt_dro_0_0": (20, 1, 0),
    }
    for name, shape in expected.items():
        (observation,) = _observe(_series(reference_data / "dicom" / name))
        found = observation.geometry
        assert (found.positions, found.volumes, found.missing_slices) == shape, name
        assert (found.duplicates, found.irregular, found.gaps) == (0, False, ()), name


@pytest.mark.reference
def test_mosaics_of_real_scanners(reference_data: Path) -> None:
    (siemens,) = _observe(_series(reference_data / "dicom" / "mr_siemens_prisma_e11_mosaic_ap"))
    (uih,) = _observe(_series(reference_data / "dicom" / "mr_uih_umr770_dti_ap"))

    assert siemens.value("NumberOfPositions") == 60
    assert math.isclose(siemens.value("EffectiveEchoSpacing"), 5.9e-4, rel_tol=0.01)
    assert uih.value("NumberOfPositions") == 20
    assert sorted(round(value.value) for value in uih.parameters["DiffusionBValue"].values) == [1, 928]

"""What a PET header says about activity and dose, and the factor from real values to SUV by body weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from qc_app.metrics import elements

MIN_DOSE_BQ = 1e6
MAX_UPTAKE = timedelta(hours=24)
WEIGHT_RANGE_KG = (1.0, 400.0)
PHILIPS_SUV_FACTOR = 0x70531000
PHILIPS_ACTIVITY_FACTOR = 0x70531009


@dataclass(frozen=True, slots=True)
class PetFacts:
    """Factors from rescaled pixel values to Bq/ml and to SUVbw (g/ml), or why there is none."""

    units: str
    to_bqml: float | None
    to_suvbw: float | None
    reason: str


def read_pet_facts(datasets: Sequence[Dataset], rescale_present: bool) -> PetFacts:
    """Return the factors of a PET series.

    SUVbw = C W 1000 / (D 2^(-dt/T)) for Units BQML and Decay Correction START (no decay for ADMIN); Units
    GML is SUV already; Units CNTS needs the Philips factors (7053,1000) or (7053,1009). Source: PS3.3
    C.8.9.1; QIBA FDG-PET/CT Profile, SUV vendor-neutral pseudo-code.
    """
    first = datasets[0]
    units = elements.text(first, 0x00541001)
    if any(elements.text(dataset, 0x00541001) != units for dataset in datasets):
        return PetFacts(units, None, None, "the instances differ in Units (0054,1001)")
    if not units:
        return PetFacts(units, None, None, "Units (0054,1001) is missing")
    if not rescale_present:
        return PetFacts(units, None, None, "Rescale Slope (0028,1053) is missing in some instances")
    if units == "GML":
        kind = elements.text(first, 0x00541006) or "BW"
        if kind != "BW":
            return PetFacts(units, None, None, f"SUV Type (0054,1006) is {kind[:16]}, not body weight")
        return PetFacts(units, None, 1.0, "")
    if units == "BQML":
        return _from_bqml(datasets, 1.0, units)
    if units == "CNTS":
        return _from_counts(datasets)
    return PetFacts(units, None, None, f"Units (0054,1001) is {units[:16]}; BQML, GML or CNTS can be scaled")


def _from_counts(datasets: Sequence[Dataset]) -> PetFacts:
    suv = {elements.number(dataset, PHILIPS_SUV_FACTOR) for dataset in datasets}
    activity = {elements.number(dataset, PHILIPS_ACTIVITY_FACTOR) for dataset in datasets}
    if len(activity) == 1 and (factor := activity.pop()):
        return _from_bqml(datasets, factor, "CNTS")
    if len(suv) == 1 and (factor := suv.pop()):
        return PetFacts("CNTS", None, factor, "")
    return PetFacts(
        "CNTS", None, None, "Units is CNTS and the Philips factor (7053,1000) or (7053,1009) is missing"
    )


def _from_bqml(datasets: Sequence[Dataset], to_bqml: float, units: str) -> PetFacts:
    first = datasets[0]
    problem, decayed_dose = _decayed_dose(first, datasets)
    weight = elements.number(first, 0x00101030)
    if weight is None or not WEIGHT_RANGE_KG[0] <= weight <= WEIGHT_RANGE_KG[1]:
        problem = problem or "Patient's Weight (0010,1030) is missing or implausible"
    if problem or decayed_dose is None or weight is None:
        return PetFacts(units, to_bqml, None, problem)
    return PetFacts(units, to_bqml, to_bqml * weight * 1000.0 / decayed_dose, "")


def _decayed_dose(first: Dataset, datasets: Sequence[Dataset]) -> tuple[str, float | None]:
    """Return a problem or the dose (Bq) at the time the pixels are decay-corrected to."""
    if "ATTN" not in elements.text(first, 0x00280051) or "DECY" not in elements.text(first, 0x00280051):
        return "Corrected Image (0028,0051) does not name ATTN and DECY", None
    drug = elements.first_item(first, 0x00540016)
    if drug is None:
        return "Radiopharmaceutical Information Sequence (0054,0016) is missing", None
    dose, half_life = elements.number(drug, 0x00181074), elements.number(drug, 0x00181075)
    if dose is None or half_life is None or half_life <= 0:
        return "Radionuclide Total Dose (0018,1074) or Half Life (0018,1075) is missing", None
    if dose < MIN_DOSE_BQ:
        return f"Radionuclide Total Dose is {dose:g} Bq, below 1 MBq: probably not written in Bq", None
    correction = elements.text(first, 0x00541102)
    if correction == "ADMIN":
        return "", dose
    if correction != "START":
        return f"Decay Correction (0054,1102) is {correction[:16] or 'missing'}, not START or ADMIN", None
    problem, uptake = _uptake(first, drug, datasets)
    if uptake is None:
        return problem, None
    return "", float(dose * 2.0 ** (-uptake.total_seconds() / half_life))


def _uptake(first: Dataset, drug: Dataset, datasets: Sequence[Dataset]) -> tuple[str, timedelta | None]:
    """Return the time from administration to the start of the series (across midnight where only times are known)."""
    scan = _moment(elements.text(first, 0x00080021) + elements.text(first, 0x00080031))
    acquired = [_moment(elements.text(d, 0x00080022) + elements.text(d, 0x00080032)) for d in datasets]
    if scan is None:
        return "Series Date or Time (0008,0021/0031) is missing", None
    if any(moment is not None and scan > moment for moment in acquired):
        return "Series Time is later than Acquisition Time, so the decay reference is not known", None
    given = _moment(elements.text(drug, 0x00181078))
    if given is None:
        given = _moment(elements.text(first, 0x00080021) + elements.text(drug, 0x00181072))
        if given is not None and given > scan:
            given -= timedelta(days=1)
    if given is None:
        return "Radiopharmaceutical Start Time (0018,1072/1078) is missing", None
    uptake = scan - given
    if not timedelta(0) <= uptake <= MAX_UPTAKE:
        return f"the uptake time is {uptake.total_seconds() / 60:.0f} min, which is implausible", None
    return "", uptake


def _moment(value: str) -> datetime | None:
    """Parse a DICOM date followed by a time; fractions and a zone are dropped."""
    digits = value.split("+")[0].split("-")[0].split(".")[0]
    try:
        return datetime.strptime(digits[:14], "%Y%m%d%H%M%S") if len(digits) >= 14 else None
    except ValueError:
        return None

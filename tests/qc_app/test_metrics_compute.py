"""Metrics against analytic truths generated here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metrics_factories import make_dataset, make_series, rician_sphere, to_bytes
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from qc_app.metrics.compute import METRICS, Metric, compute_metrics
from qc_app.metrics.mr import entropy_focus
from qc_app.metrics.pixels import load_series


def _measure(instances: list[bytes]) -> dict[str, Metric]:
    return {metric.name: metric for metric in compute_metrics(load_series(instances))}


def _value(metrics: dict[str, Metric], name: str) -> float:
    value = metrics[name].value
    assert value is not None, metrics[name].reason
    return value


def test_every_metric_is_finite_or_has_a_reason_and_names_are_the_registry() -> None:
    metrics = _measure(make_series(rician_sphere()))

    assert list(metrics) == [name for name, definition in METRICS.items() if "MR" in definition.modalities]
    for metric in metrics.values():
        assert (metric.value is None) == (metric.reason is not None)
        assert metric.value is None or math.isfinite(metric.value)
        assert metric.unit == METRICS[metric.name].unit


def test_the_same_pixels_give_the_same_metrics_in_any_order_of_files() -> None:
    instances = make_series(rician_sphere())

    assert compute_metrics(load_series(instances)) == compute_metrics(load_series(instances[::-1]))


@pytest.mark.parametrize("sigma", [10.0, 60.0])
def test_both_noise_estimates_find_the_true_sigma(sigma: float) -> None:
    metrics = _measure(make_series(rician_sphere(sigma=sigma)))

    assert _value(metrics, "noise_background") == pytest.approx(sigma, rel=0.02)
    assert _value(metrics, "noise_residual") == pytest.approx(sigma, rel=0.04)
    assert _value(metrics, "background_mean") == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert _value(metrics, "snr_background") == pytest.approx(math.hypot(1000, sigma) / sigma, rel=0.02)
    assert _value(metrics, "fber") == pytest.approx((1000**2 + 2 * sigma**2) / (2 * sigma**2), rel=0.03)


def test_a_slice_stride_does_not_change_the_noise() -> None:
    metrics = _measure(make_series(rician_sphere(shape=(150, 48, 48))))

    assert _value(metrics, "slice_count") == 150
    assert _value(metrics, "noise_background") == pytest.approx(20.0, rel=0.02)


def test_rescaled_intensities_scale_the_noise_and_not_the_snr() -> None:
    volume = rician_sphere()

    plain = _measure(make_series(volume))
    scaled = _measure(make_series(volume, RescaleSlope="3", RescaleIntercept="0"))

    assert _value(scaled, "noise_background") == pytest.approx(
        3 * _value(plain, "noise_background"), rel=1e-5
    )
    assert _value(scaled, "snr_background") == pytest.approx(_value(plain, "snr_background"), rel=1e-5)
    assert _value(scaled, "efc") == pytest.approx(_value(plain, "efc"), rel=1e-5)


def test_an_interpolated_image_has_no_residual_noise() -> None:
    metrics = _measure(make_series(rician_sphere(), AcquisitionMatrix=[0, 32, 32, 0]))

    assert metrics["noise_residual"].value is None
    assert "interpolated" in str(metrics["snr_residual"].reason)
    assert metrics["snr_background"].value is not None


def test_a_background_that_is_no_air_gives_no_background_snr() -> None:
    volume = rician_sphere()
    volume[:, :, 50:] += np.uint16(60)

    metrics = _measure(make_series(volume))

    assert metrics["snr_background"].value is None
    assert "not air" in str(metrics["snr_background"].reason)
    assert metrics["background_mean"].value is not None


def test_a_masked_background_gives_no_background_metric() -> None:
    volume = rician_sphere()
    volume[volume < 200] = 0

    metrics = _measure(make_series(volume))

    for name in (
        "noise_background",
        "snr_background",
        "fber",
        "foreground_background_contrast",
        "background_sd",
    ):
        assert metrics[name].value is None
        assert "zero" in str(metrics[name].reason)


def test_constant_and_empty_images_give_reasons_and_no_numbers() -> None:
    for level in (0, 500):
        metrics = _measure(make_series(np.full((8, 32, 32), level, np.uint16)))

        assert metrics["snr_background"].value is None
        assert metrics["snr_residual"].value is None
        assert metrics["saturated_fraction"].value is None


def test_negative_values_are_no_magnitude_image() -> None:
    metrics = _measure(make_series(rician_sphere().astype(np.int16) - 100))

    assert metrics["efc"].value is None
    assert "negative" in str(metrics["efc"].reason)


def test_entropy_focus_has_its_analytic_ends() -> None:
    point = np.zeros((4, 20, 20), np.uint16)
    point[2, 10, 10] = 1000
    ball = np.where(rician_sphere(sigma=0) > 0, 1000, 0).astype(np.uint16)
    bright, size = int(np.count_nonzero(ball)), ball.size

    def value(volume: np.ndarray) -> float:
        result = entropy_focus(load_series(make_series(volume)))
        assert result is not None
        return result

    assert value(point) == pytest.approx(0.0, abs=1e-6)
    assert value(np.full((4, 20, 20), 7, np.uint16)) == pytest.approx(1.0, rel=1e-6)
    expected = math.sqrt(bright) * math.log(math.sqrt(bright)) / (math.sqrt(size) * math.log(math.sqrt(size)))
    assert value(ball) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("direction", "axis"), [("COL", 1), ("ROW", 2)])
def test_a_ghost_is_measured_along_the_phase_direction_only(direction: str, axis: int) -> None:
    rng = np.random.default_rng(3)
    clean = np.where(rician_sphere(radius=0.4, sigma=0) > 0, 1000.0, 0.0)
    signal = clean + 0.05 * np.roll(clean, 32, axis=axis)
    real, imaginary = rng.normal(0, 2, (2, *signal.shape))
    volume = np.hypot(signal + real, imaginary).round().astype(np.uint16)

    along = _measure(make_series(volume, InPlanePhaseEncodingDirection=direction))
    across = _measure(
        make_series(volume, InPlanePhaseEncodingDirection="ROW" if direction == "COL" else "COL")
    )
    unknown = _measure(make_series(volume))

    assert _value(along, "ghost_to_signal") == pytest.approx(
        0.05 - 2 * math.sqrt(math.pi / 2) / 1000, rel=0.03
    )
    assert abs(_value(across, "ghost_to_signal")) < 0.02
    assert unknown["ghost_to_signal"].value is None


def test_structure_in_the_background_is_measured_and_pure_noise_is_not() -> None:
    volume = rician_sphere()
    noisy = volume.copy()
    noisy[:, :6] += np.uint16(200)

    assert _value(_measure(make_series(volume)), "background_artefact") < 0.1
    assert _value(_measure(make_series(noisy)), "background_artefact") > 5


def test_a_linear_bias_is_measured() -> None:
    truth = np.where(rician_sphere(sigma=0) > 0, 1000.0, 0.0)
    x = np.linspace(-1, 1, truth.shape[2])
    volume = (truth * (1 + 0.2 * x / 0.7)).round().astype(np.uint16)
    inside = (1 + 0.2 * x / 0.7)[np.nonzero(truth)[2]]
    expected = float(np.diff(np.percentile(inside, [5, 95]))[0] / inside.mean())

    assert _value(_measure(make_series(volume)), "inhomogeneity") == pytest.approx(expected, rel=0.1)


def test_dropped_slices_are_named_and_the_ends_of_the_object_are_not() -> None:
    volume = rician_sphere(shape=(40, 64, 64), radius=0.4)
    clean = _measure(make_series(volume))["dropout_slices"]
    volume[20] = volume[20] * 0.5
    volume[21] = volume[21] * 0.7

    dropped = _measure(make_series(volume))["dropout_slices"]

    assert (clean.value, clean.slices) == (0.0, ())
    assert (dropped.value, dropped.slices) == (2.0, (20, 21))


def test_a_dropped_slice_is_found_between_sampled_slices_too() -> None:
    volume = rician_sphere(shape=(150, 48, 48))
    volume[71] = volume[71] * 0.5

    assert _measure(make_series(volume))["dropout_slices"].slices == (71,)


def test_missing_and_repeated_slices_are_counted() -> None:
    volume = rician_sphere()
    instances = make_series(volume)
    repeated = to_bytes(make_dataset(volume[3], number=50, position=(0, 0, 9.0)))

    metrics = _measure([*instances[:10], *instances[12:], repeated])

    assert metrics["missing_slices"].value == 2
    assert metrics["missing_slices"].slices == (10,)
    assert metrics["duplicate_slices"].value == 1
    assert metrics["duplicate_slices"].slices == (3,)
    assert metrics["foreground_volume"].value is None


def test_without_positions_completeness_is_not_computable() -> None:
    metrics = _measure(make_series(rician_sphere(), ImagePositionPatient=None))

    for name in ("missing_slices", "duplicate_slices", "slice_count", "snr_background"):
        assert metrics[name].value is None


def test_saturation_counts_the_voxels_at_the_maximum() -> None:
    volume = rician_sphere()
    clipped = np.minimum(volume, 1000)

    assert _value(_measure(make_series(clipped)), "saturated_fraction") == np.mean(volume >= 1000)


def _cylinder(noise: float = 5.0, cup: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(11)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    radius = np.hypot(x, y)
    truth = np.where(radius <= 0.75, cup * (1 - (radius / 0.75) ** 2), -1000.0)
    return (truth + rng.normal(0, noise, (8, 128, 128))).round().astype(np.int16)


def test_ct_water_noise_and_uniformity() -> None:
    metrics = _measure(
        make_series(_cylinder(cup=-20.0), modality="CT", RescaleSlope="1", RescaleIntercept="0")
    )

    assert _value(metrics, "water_hu") == pytest.approx(-20 * 0.98, abs=0.5)
    assert _value(metrics, "uniformity_hu") == pytest.approx(-20 * 0.64, abs=1.0)
    assert _value(metrics, "noise_hu") == pytest.approx(5.0, rel=0.05)
    assert _value(metrics, "noise_global_hu") == pytest.approx(5.0, abs=0.5)
    assert _value(metrics, "air_hu") == pytest.approx(-1000, abs=1)
    assert _value(metrics, "hu_scale_suspect") == 0


def test_a_lost_intercept_and_a_padding_ring_are_told_apart() -> None:
    shifted = (_cylinder() + 1024).clip(0).astype(np.int16)
    ringed = _cylinder()
    ringed[:, :10] = -2000

    lost = _measure(make_series(shifted, modality="CT", RescaleSlope="1", RescaleIntercept="0"))
    padded = _measure(make_series(ringed, modality="CT", RescaleSlope="1", RescaleIntercept="0"))

    assert _value(lost, "hu_scale_suspect") == 1
    assert lost["noise_global_hu"].value is None
    assert _value(padded, "hu_scale_suspect") == 0
    assert _value(padded, "air_hu") == pytest.approx(-1000, abs=1)


def test_a_ct_without_a_uniform_cylinder_has_no_water_value() -> None:
    volume = _cylinder()
    volume[:, 50:78, 40:90] = 400

    metrics = _measure(make_series(volume, modality="CT", RescaleSlope="1", RescaleIntercept="0"))

    assert metrics["water_hu"].value is None
    assert metrics["air_hu"].value is not None


def test_a_phantom_of_several_materials_has_no_water_value() -> None:
    volume = _cylinder()
    volume[:4][volume[:4] > -500] += 95

    metrics = _measure(make_series(volume, modality="CT", RescaleSlope="1", RescaleIntercept="0"))

    assert metrics["water_hu"].value is None
    assert "several materials" in str(metrics["water_hu"].reason)
    assert _value(metrics, "noise_hu") == pytest.approx(5.0, rel=0.05)


def _pet(**changes: object) -> dict[str, Metric]:
    drug = Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = "370000000", "6586.2"
    drug.RadiopharmaceuticalStartTime = "233000"
    attributes: dict[str, object] = {
        "Units": "BQML", "DecayCorrection": "START", "CorrectedImage": ["DECY", "ATTN"], "PatientWeight": "70",
        "SeriesDate": "20250102", "SeriesTime": "003000", "AcquisitionDate": "20250102", "AcquisitionTime": "003000",
        "RadiopharmaceuticalInformationSequence": Sequence([drug]), "RescaleSlope": "2", "RescaleIntercept": "0",
    }  # fmt: skip
    for name in [name for name in changes if name in drug]:
        setattr(drug, name, changes.pop(name))
    cylinder = np.where(_cylinder(0.0) > -500, 2500, 0).astype(np.uint16)
    return _measure(make_series(cylinder, modality="PT", **{**attributes, **changes}))


def test_suv_across_midnight() -> None:
    metrics = _pet()

    expected = 70 * 1000 / (370e6 * 2 ** (-3600 / 6586.2))
    assert _value(metrics, "suv_factor") == pytest.approx(expected, rel=1e-9)
    assert _value(metrics, "activity_median") == 5000
    assert _value(metrics, "suvbw_median") == pytest.approx(5000 * expected, rel=1e-6)


def test_suv_of_a_dose_corrected_to_administration_needs_no_decay() -> None:
    assert _value(_pet(DecayCorrection="ADMIN"), "suv_factor") == pytest.approx(70 * 1000 / 370e6, rel=1e-9)


def test_suv_pixels_in_gml_are_taken_as_they_are() -> None:
    metrics = _pet(Units="GML", PatientWeight=None)

    assert _value(metrics, "suv_factor") == 1
    assert _value(metrics, "suvbw_median") == 5000
    assert metrics["activity_median"].value is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Units": None}, "Units"),
        ({"Units": "PROPCPS"}, "PROPCPS"),
        ({"Units": "CNTS"}, "7053,1000"),
        ({"PatientWeight": None}, "Weight"),
        ({"PatientWeight": "0"}, "Weight"),
        ({"DecayCorrection": "NONE"}, "NONE"),
        ({"DecayCorrection": None}, "missing"),
        ({"RadionuclideTotalDose": "370"}, "1 MBq"),
        ({"RadionuclideHalfLife": None}, "Half Life"),
        ({"RadiopharmaceuticalInformationSequence": None}, "0054,0016"),
        ({"RadiopharmaceuticalStartTime": None}, "Start Time"),
        ({"AcquisitionTime": "002000"}, "Acquisition Time"),
        ({"CorrectedImage": ["ATTN"]}, "DECY"),
        ({"RescaleSlope": None, "RescaleIntercept": None}, "Rescale"),
        ({"SeriesTime": None}, "Series Date"),
    ],
)
def test_suv_that_cannot_be_computed_says_why(changes: dict[str, object], named: str) -> None:
    metrics = _pet(**changes)

    assert metrics["suv_factor"].value is None
    assert metrics["suvbw_median"].value is None
    assert metrics["suvbw_max"].value is None
    assert named in str(metrics["suv_factor"].reason)


def test_another_modality_gets_the_common_metrics_only() -> None:
    metrics = _measure(make_series(rician_sphere(), modality="NM"))

    assert list(metrics) == [
        "slice_count", "missing_slices", "duplicate_slices", "incomplete_volumes", "spacing_irregularity",
        "saturated_fraction",
    ]  # fmt: skip

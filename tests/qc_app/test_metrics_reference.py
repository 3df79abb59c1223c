"""Metrics against the reference series with analytically known values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qc_app.metrics.compute import Metric, compute_metrics
from qc_app.metrics.mr import entropy_focus
from qc_app.metrics.mr_sample import take_sample
from qc_app.metrics.pet import sphere_recovery
from qc_app.metrics.pixels import SeriesPixels, load_series
from qc_app.metrics.tissue import tissue_classes

pytestmark = pytest.mark.reference

# Expectation in the reference file -> our metric.
SAME_AS = {
    "sigma_true": "noise_residual",
    "snr_true": "snr_residual",
    "foreground_mean": "foreground_mean",
    "background_mean": "background_mean",
    "background_sd": "background_sd",
    "background_sigma_from_sd": "noise_background",
    "snr_dietrich": "snr_background",
    "fber_mean_energy": "fber",
    "fber_median_energy": "fber_median",
    "cv_foreground_percent": "foreground_cv",
    "foreground_volume_ml": "foreground_volume",
    "mriqc_efc_noisy": "efc",
    "cnr_mriqc": "tissue_cnr",
    "cjv": "tissue_cjv",
    "bias_p95_minus_p5": "inhomogeneity",
    "ghost_to_signal_ratio": "ghost_to_signal",
    "saturated_fraction_of_all_voxels": "saturated_fraction",
    "background_snr": "snr_background",
    "tsnr_undetrended": "tsnr",
    "sfnr": "sfnr",
    "percent_drift": "temporal_drift",
    "percent_fluctuation": "temporal_fluctuation",
    "rdc": "rdc",
    "dvars_mean": "dvars",
    "water_hu_centre": "water_hu",
    "noise_hu": "noise_hu",
    "uniformity_centre_minus_edge_hu": "uniformity_hu",
    "air_hu": "air_hu",
    "suvbw_background": "suvbw_median",
    "activity_conc_bqml": "activity_median",
}
SERIES = (
    "ct_cupping", "ct_norescale", "ct_water", "fmri_stability", "mr_bias20", "mr_clipped", "mr_dropout",
    "mr_duplicate_slice", "mr_full_fov", "mr_ghost5", "mr_missing_slice", "mr_motion", "mr_multicoil8",
    "mr_sphere_snr10", "mr_sphere_snr50", "mr_two_tissue", "mr_zero_background", "pet_nema_like",
)  # fmt: skip


def _load(folder: Path) -> SeriesPixels:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".json")
    return load_series([path.read_bytes() for path in files])


@pytest.mark.parametrize("name", SERIES)
def test_every_expectation_is_met(reference_data: Path, name: str) -> None:
    folder = reference_data / "qc" / "iqm_synthetic"
    entry = json.loads((folder / "expected.json").read_text())[name]
    pixels = _load(folder / name)
    metrics = {metric.name: metric for metric in compute_metrics(pixels)}

    assert entry["expected"]
    for expectation, wanted in entry["expected"].items():
        if expectation in SAME_AS:
            _check_value(metrics[SAME_AS[expectation]], wanted)
        else:
            _check_special(expectation, wanted, entry["params"], pixels, metrics, folder)


def _check_value(metric: Metric, wanted: dict[str, Any]) -> None:
    if wanted["value"] is None:
        assert metric.value is None
        assert metric.reason
    else:
        assert metric.value == pytest.approx(
            wanted["value"], rel=wanted.get("tol_rel"), abs=wanted.get("tol_abs")
        ), metric


def _check_special(
    expectation: str,
    wanted: dict[str, Any],
    params: dict[str, Any],
    pixels: SeriesPixels,
    metrics: dict[str, Metric],
    folder: Path,
) -> None:
    if expectation == "dropout_slices":
        assert list(metrics["dropout_slices"].slices) == wanted["value"]
    elif expectation == "missing_positions_mm":
        assert list(pixels.geometry.missing_mm) == wanted["value"]
        assert metrics["missing_slices"].value == len(wanted["value"])
    elif expectation == "duplicate_positions_mm":
        assert list(pixels.geometry.duplicate_mm) == wanted["value"]
        assert metrics["duplicate_slices"].value == len(wanted["value"])
    elif expectation == "rescale_suspect":
        assert metrics["hu_scale_suspect"].value == float(wanted["value"])
    elif expectation == "efc_must_exceed_clean":
        clean = entropy_focus(_load(folder / "mr_sphere_snr50"))
        assert clean is not None and metrics["efc"].value is not None and metrics["efc"].value > clean
    elif expectation == "tissue_means":
        classes = tissue_classes(take_sample(pixels).inner)
        assert classes is not None
        assert [classes.bright_mean, classes.dark_mean] == pytest.approx(
            wanted["value"], rel=wanted["tol_rel"]
        )
    elif expectation == "efc_noise_free":
        _check_noise_free_sphere(wanted, params)
    elif expectation.startswith("rc_centre_sphere_"):
        _check_recovery(expectation, wanted, params, pixels)
    else:
        pytest.fail(f"no check for {expectation}")


def _check_noise_free_sphere(wanted: dict[str, Any], params: dict[str, Any]) -> None:
    import numpy as np
    from metrics_factories import make_series

    axes = [
        (np.arange(n) - (n - 1) / 2) * step
        for n, step in zip(params["shape"], params["spacing"], strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    ball = np.where(np.sqrt(x**2 + y**2 + z**2) <= params["R"], params["A"], 0).astype(np.uint16)
    assert entropy_focus(load_series(make_series(ball))) == pytest.approx(
        wanted["value"], rel=wanted["tol_rel"]
    )


def _check_recovery(
    expectation: str, wanted: dict[str, Any], params: dict[str, Any], pixels: SeriesPixels
) -> None:
    diameter = float(expectation.removeprefix("rc_centre_sphere_").removesuffix("mm"))
    (radius, (x, y), ratio) = next(sphere for sphere in params["spheres"] if 2 * sphere[0] == diameter)
    assert radius > 0
    slices, rows, columns = pixels.shape
    step = params["spacing"]
    centre = (
        round((slices - 1) / 2), round(y / step[1] + (rows - 1) / 2), round(x / step[2] + (columns - 1) / 2),
    )  # fmt: skip
    recovery, reason = sphere_recovery(pixels, centre_voxel=centre, true_value=params["bqml"] * ratio)
    assert reason == "" and recovery is not None
    assert math.isclose(recovery, wanted["value"], rel_tol=wanted["tol_rel"]), (recovery, wanted)


@pytest.mark.parametrize(
    "name",
    ["GE_Artist_1.5T_T1", "Siemens_Aera_1.5T_T1", "Siemens_Aera_1.5T_T2", "PhilipsAchieva", "SiemensSolaFit"],
)
def test_real_phantom_series_load_whole_and_give_plausible_metrics(reference_data: Path, name: str) -> None:
    pixels = _load(reference_data / "qc" / "acr_mri_hazen" / name)
    metrics = {metric.name: metric for metric in compute_metrics(pixels)}

    assert pixels.shape[0] == 11
    assert metrics["missing_slices"].value == 0
    assert metrics["duplicate_slices"].value == 0
    # The ACR phantom is a cylinder of 190 mm; 11 slices of 10 mm pitch hold 3.1 l less its plastic.
    volume = metrics["foreground_volume"].value
    assert volume is not None and 2600 < volume < 3200


def test_a_real_pet_without_units_has_no_suv(reference_data: Path) -> None:
    folder = reference_data / "qc" / "pet_nema_iq_pynemaiqpet"
    files = sorted(path for path in folder.rglob("*.dcm"))
    metrics = {
        metric.name: metric for metric in compute_metrics(load_series([path.read_bytes() for path in files]))
    }

    assert len(files) == 89
    assert metrics["slice_count"].value == 89
    for name in ("suv_factor", "suvbw_median", "suvbw_max", "activity_median"):
        assert metrics[name].value is None
        assert metrics[name].reason

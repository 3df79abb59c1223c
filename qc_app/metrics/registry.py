"""The metrics that the hub reports: one definition each, and the value that is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

METRICS_VERSION = "1.0.0"

Better = Literal["higher", "lower", "target", "none"]
MR, CT, PT = "MR", "CT", "PT"
ANY = (MR, CT, PT)


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """What a metric is: its label, unit, direction ("target": close to `target`), modalities, formula and source."""

    name: str
    label: str
    unit: str
    better: Better
    modalities: tuple[str, ...]
    formula: str
    citation: str = ""
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured metric: a finite value, or None with the reason why it is not computable.

    `slices` lists the 0-based slices (in order of position) that the value points at, where it points at any.
    """

    name: str
    value: float | None
    unit: str
    reason: str | None = None
    slices: tuple[int, ...] = ()


def measured(name: str, value: float, slices: Iterable[int] = ()) -> Metric:
    """Return a metric with a value; one that is not finite becomes "not computable"."""
    if not math.isfinite(value):
        return not_computable(name, "the arithmetic gives no finite number for these pixels")
    return Metric(name, float(value), METRICS[name].unit, None, tuple(int(item) for item in slices))


def not_computable(name: str, reason: str) -> Metric:
    """Return a metric without a value."""
    return Metric(name, None, METRICS[name].unit, reason)


_DIETRICH = "Dietrich et al. 2007, J Magn Reson Imaging 26:375"
_IMMERKAER = "Immerkaer 1996, Comput Vis Image Underst 64:300"
_MRIQC = "Esteban et al. 2017, PLoS One 12:e0184661"
_FBIRN = "Friedman and Glover 2006, J Magn Reson Imaging 23:827"

_DEFINITIONS = (
    MetricDefinition("slice_count", "Slices", "1", "none", ANY,
        "number of distinct positions along the slice normal"),
    MetricDefinition("missing_slices", "Missing slices", "1", "lower", ANY,
        "positions absent from a stack of constant pitch (the median step)"),
    MetricDefinition("duplicate_slices", "Repeated slices", "1", "lower", ANY,
        "positions with more frames than the stack has volumes"),
    MetricDefinition("incomplete_volumes", "Incomplete volumes", "1", "lower", ANY,
        "volumes of a 4-D series that lack a frame at some position"),
    MetricDefinition("spacing_irregularity", "Irregular slice spacing", "%", "lower", ANY,
        "100 max|step/pitch - 1|, gaps of whole slices aside"),
    MetricDefinition("saturated_fraction", "Saturated voxels", "1", "lower", ANY,
        "fraction of all voxels at the series maximum"),
    MetricDefinition("foreground_mean", "Mean signal", "a.u.", "none", (MR,),
        "mean over the eroded object"),
    MetricDefinition("foreground_volume", "Object volume", "ml", "none", (MR,),
        "voxels of the object mask x voxel volume"),
    MetricDefinition("foreground_cv", "Signal variation", "%", "lower", (MR,),
        "100 sd/mean over the eroded object; anatomy dominates it in vivo"),
    MetricDefinition("background_mean", "Background mean", "a.u.", "lower", (MR,),
        "mean over the air background"),
    MetricDefinition("background_sd", "Background standard deviation", "a.u.", "lower", (MR,),
        "sd over the air background"),
    MetricDefinition("noise_background", "Noise from the background", "a.u.", "lower", (MR,),
        "sd(background)/0.6551364 (Rayleigh)", _DIETRICH),
    MetricDefinition("noise_residual", "Noise from the Laplacian", "a.u.", "lower", (MR,),
        "median|I*L|/(0.6745 x 6), L = [1,-2,1]^T[1,-2,1], over the eroded object", _IMMERKAER),
    MetricDefinition("snr_background", "SNR (background noise)", "1", "higher", (MR,),
        "foreground_mean/noise_background", _DIETRICH),
    MetricDefinition("snr_residual", "SNR (residual noise)", "1", "higher", (MR,),
        "foreground_mean/noise_residual", _IMMERKAER),
    MetricDefinition("foreground_background_contrast", "Foreground-background contrast", "1", "higher", (MR,
        ), "(foreground_mean - background_mean)/(foreground_mean + background_mean)"),
    MetricDefinition("fber", "Foreground-background energy ratio", "1", "higher", (MR,),
        "E[F^2]/E[B^2], means", _MRIQC),
    MetricDefinition("fber_median", "Foreground-background energy ratio (medians)", "1", "higher", (MR,),
        "median(F^2)/median(B^2)", _MRIQC),
    MetricDefinition("efc", "Entropy focus criterion", "1", "lower", (MR,),
        "-sum(x/X ln(x/X))/(sqrt(N) ln sqrt(N)), X = sqrt(sum x^2)",
        "Atkinson et al. 1997, IEEE Trans Med Imaging 16:903"),
    MetricDefinition("ghost_to_signal", "Ghost-to-signal ratio", "1", "lower", (MR,),
        "(mean ghost - mean other background)/median signal; ghost = object shifted by N/2 along phase",
        "Giannelli et al. 2010, J Appl Clin Med Phys 11:3237; " + _MRIQC),
    MetricDefinition("background_artefact", "Structured background", "%", "lower", (MR,),
        "100 (fraction of background above the Rayleigh 99.9 % quantile - 0.001), sigma from the median",
        "after Mortamet et al. 2009, Magn Reson Med 62:365"),
    MetricDefinition("inhomogeneity", "Intensity inhomogeneity", "1", "lower", (MR,),
        "P95 - P5 over the object of a second-order field fitted to ln(I), divided by its mean"),
    MetricDefinition("dropout_slices", "Slices with signal dropout", "1", "lower", (MR,),
        "slices whose median in their neighbours' object is below 0.85 of the 7-slice median"),
    MetricDefinition("tissue_cnr", "Contrast-to-noise between two tissues", "1", "higher", (MR,),
        "|m1 - m2|/sqrt(sd_background^2 + sd1^2 + sd2^2), where two classes separate", _MRIQC),
    MetricDefinition("tissue_cjv", "Coefficient of joint variation", "1", "lower", (MR,),
        "(sd1 + sd2)/|m1 - m2|, where two classes separate",
        "Ganzetti et al. 2016, Front Neuroinform 10:10"),
    MetricDefinition("tsnr", "Temporal SNR", "1", "higher", (MR,),
        "median over the object of mean/sd over time", _FBIRN),
    MetricDefinition("sfnr", "Signal-to-fluctuation-noise ratio", "1", "higher", (MR,),
        "median over the object of mean/sd of the residual of a second-order trend", _FBIRN),
    MetricDefinition("temporal_drift", "Signal drift", "%", "lower", (MR,),
        "100 (max - min of the second-order trend of the ROI mean)/mean", _FBIRN),
    MetricDefinition("temporal_fluctuation", "Signal fluctuation", "%", "lower", (MR,),
        "100 sd of the detrended ROI mean/mean; central 15 x 15 ROI", _FBIRN),
    MetricDefinition("rdc", "Radius of decorrelation", "pixel", "higher", (MR,), "CV(1)/CV(15)",
        "Weisskoff 1996, Magn Reson Med 36:643"),
    MetricDefinition("dvars", "DVARS", "a.u.", "lower", (MR,),
        "mean over time of the root mean squared successive difference in the object",
        "Power et al. 2012, NeuroImage 59:2142"),
    MetricDefinition("air_hu", "CT number of air", "HU", "target", (CT,), "median outside the body", "",
        -1000.0),
    MetricDefinition("hu_scale_suspect", "CT numbers not on the Hounsfield scale", "1", "lower", (CT,),
        "1 when the first percentile lies above -500 HU (Rescale Intercept lost), else 0"),
    MetricDefinition("water_hu", "CT number at the centre", "HU", "target", (CT,),
        "mean of the central ROI (radius 0.2 R) of a uniform cylinder", "IEC 61223-3-5:2019", 0.0),
    MetricDefinition("noise_hu", "CT noise at the centre", "HU", "lower", (CT,),
        "median over slices of the sd in the central ROI of a uniform cylinder", "IEC 61223-3-5:2019"),
    MetricDefinition("uniformity_hu", "CT uniformity", "HU", "target", (CT,),
        "central ROI minus mean of four ROIs at 0.8 R", "IEC 61223-3-5:2019", 0.0),
    MetricDefinition("noise_global_hu", "CT noise in soft tissue", "HU", "lower", (CT,),
        "mode of the local standard deviations where the local mean is soft tissue (-100 to 200 HU)",
        "Christianson et al. 2015, AJR 205:W93"),
    MetricDefinition("suv_factor", "Factor to SUV", "g/ml per unit", "none", (PT,),
        "SUVbw = C W 1000/(D 2^(-dt/T))", "PS3.3 C.8.9.1; QIBA FDG-PET/CT Profile"),
    MetricDefinition("activity_median", "Median activity in the object", "Bq/ml", "none", (PT,),
        "median over the eroded object"),
    MetricDefinition("suvbw_median", "Median SUV in the object", "g/ml", "none", (PT,),
        "activity_median x suv_factor"),
    MetricDefinition("suvbw_max", "Maximum SUV", "g/ml", "none", (PT,), "series maximum x suv_factor"),
)  # fmt: skip

METRICS: dict[str, MetricDefinition] = {definition.name: definition for definition in _DEFINITIONS}

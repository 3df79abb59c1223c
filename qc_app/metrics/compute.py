"""All metrics of one series, in one call."""

from __future__ import annotations

from qc_app.metrics import common, ct, mr, pet, temporal
from qc_app.metrics.pixels import SeriesPixels
from qc_app.metrics.registry import METRICS, METRICS_VERSION, Metric, MetricDefinition

__all__ = ["METRICS", "METRICS_VERSION", "Metric", "MetricDefinition", "compute_metrics"]


def compute_metrics(pixels: SeriesPixels) -> tuple[Metric, ...]:
    """Return every metric of the series' modality, in the registry's order; deterministic.

    A metric that cannot be computed has value None and a reason; no value is NaN or infinite. A modality
    other than MR, CT and PT gets the common metrics only.
    """
    found = [*common.completeness(pixels), common.saturation(pixels)]
    if pixels.modality == "MR":
        found += mr.metrics(pixels) + temporal.metrics(pixels)
    elif pixels.modality == "CT":
        found += ct.metrics(pixels)
    elif pixels.modality == "PT":
        found += pet.metrics(pixels)
    by_name = {metric.name: metric for metric in found}
    return tuple(by_name[name] for name in METRICS if name in by_name)

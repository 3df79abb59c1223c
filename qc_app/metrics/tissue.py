"""Two tissues in one object, where its histogram separates; without an atlas this holds for phantoms mostly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qc_app.metrics.mr_sample import Sample
from qc_app.metrics.registry import Metric, measured, not_computable

MIN_CLASS_FRACTION = 0.1
MIN_CLASS_SEPARATION_SD = 4.0
_ITERATIONS = 50
_REASON = "the object does not separate into two tissue classes"


@dataclass(frozen=True, slots=True)
class TissueClasses:
    """Mean and sd of the darker and the brighter class."""

    dark_mean: float
    dark_sd: float
    bright_mean: float
    bright_sd: float

    @property
    def distance(self) -> float:
        return self.bright_mean - self.dark_mean


def tissue_classes(values: NDArray[np.float32]) -> TissueClasses | None:
    """Split values (n,) by two-means; None unless both classes hold a tenth and lie 4 sd apart."""
    cut = float(values.mean(dtype=np.float64))
    for _ in range(_ITERATIONS):
        low, high = values[values <= cut], values[values > cut]
        if min(low.size, high.size) < MIN_CLASS_FRACTION * values.size:
            return None
        updated = (float(low.mean(dtype=np.float64)) + float(high.mean(dtype=np.float64))) / 2
        if math.isclose(updated, cut, rel_tol=1e-5):
            break
        cut = updated
    mean1, sd1 = float(low.mean(dtype=np.float64)), float(low.std(dtype=np.float64))
    mean2, sd2 = float(high.mean(dtype=np.float64)), float(high.std(dtype=np.float64))
    found = TissueClasses(mean1, sd1, mean2, sd2)
    return found if found.distance >= MIN_CLASS_SEPARATION_SD * (sd1 + sd2) / 2 else None


def tissue_contrast(sample: Sample, classes: TissueClasses | None) -> list[Metric]:
    """Return CNR and CJV of the two classes."""
    names = ("tissue_cnr", "tissue_cjv")
    if classes is None:
        return [not_computable(name, _REASON) for name in names]
    cjv = measured(names[1], (classes.dark_sd + classes.bright_sd) / classes.distance)
    if sample.background_problem is not None:
        return [not_computable(names[0], sample.background_problem), cjv]
    noise = sample.background_sd
    total = math.sqrt(noise**2 + classes.dark_sd**2 + classes.bright_sd**2)
    return [measured(names[0], classes.distance / total), cjv]

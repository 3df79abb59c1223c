"""A division of scans in two that one feature shows: the search for it, and the assignment of new scans to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import Dataset, Finding, FloatArray, HarmonizationRefused
from harmonization_app.algorithms.mixture import Mixtures, fit_mixtures
from harmonization_app.diagnostics.wording import listed

LOWER, UPPER = "lower", "upper"
# Between these the mixture does not tell the component of a scan with any certainty.
UNCERTAIN = (0.2, 0.8)
# Part of the scans from which so many uncertain ones are warned of.
WARN_UNCERTAIN_ABOVE = 0.1
SHOWN_CANDIDATES = 20


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """The feature that divides the scans, its mixture, and what the report shows of all candidates."""

    feature: str
    mixture: Mixtures
    facts: Mapping[str, Any]

    def labels(self, dataset: Dataset) -> tuple[str, ...]:
        """Return the component of each scan. Raises HarmonizationRefused where the feature has no value."""
        column = dataset.values[:, dataset.features.index(self.feature)]
        missing = tuple(
            row for row, known in zip(dataset.rows, np.isfinite(column), strict=True) if not known
        )
        if missing:
            message = f"{self.feature}, which shows the hidden grouping, has no value in {listed(missing)}."
            finding = Finding(
                "grouping_value_missing", "stop", message, rows=missing, columns=(self.feature,)
            )
            raise HarmonizationRefused([finding])
        upper = self.mixture.upper(column[:, None])[:, 0] > 0.5
        return tuple(UPPER if own else LOWER for own in upper)


def find_grouping(dataset: Dataset, options: Mapping[str, Any]) -> Grouping | Finding:
    """Return the grouping of a dataset that passed the gate, or the stop that says why there is none."""
    names = [options["feature"]] if options["feature"] is not None else list(dataset.features)
    columns = np.array([dataset.features.index(name) for name in names])
    usable = _complete_and_varying(dataset.values[:, columns])
    names, columns = [name for name, own in zip(names, usable, strict=True) if own], columns[usable]
    share = float(options["minimum_share"])
    if not names:
        message = "No feature that could show a hidden grouping is complete and varies."
        return Finding("no_hidden_grouping", "stop", message)
    values = dataset.values[:, columns]
    mixtures = fit_mixtures(values, share)
    upper = mixtures.upper(values)
    shares = (upper > 0.5).mean(axis=0)
    balanced = np.minimum(shares, 1 - shares) >= share
    score = np.where(balanced, mixtures.gain, -np.inf)
    best = int(np.argmax(score))
    if score[best] < options["minimum_gain"]:
        message = (
            f"No hidden grouping: none of {len(names)} feature(s) is described better by two components (AIC gain "
            f"{options['minimum_gain']:g} or more) with {share:.0%} of the scans in each. Use combat."
        )
        return Finding("no_hidden_grouping", "stop", message, columns=tuple(names[:1] * (len(names) == 1)))
    order = np.argsort(-score, kind="stable")[:SHOWN_CANDIDATES]
    one = _single(mixtures, best)
    low, high = UNCERTAIN
    facts = {
        "feature": names[best],
        "aic_gain": float(mixtures.gain[best]),
        "share_upper": float(shares[best]),
        "means": (one.means[:, 0] * one.scale[0] + one.centre[0]).tolist(),
        "standard_deviations": (np.sqrt(one.variances[:, 0]) * one.scale[0]).tolist(),
        "uncertain_scans": int(((upper[:, best] > low) & (upper[:, best] < high)).sum()),
        "candidates": [
            {"feature": names[i], "aic_gain": float(mixtures.gain[i]), "share_upper": float(shares[i])}
            for i in order
            if balanced[i]
        ],
    }
    return Grouping(names[best], one, facts)


def _complete_and_varying(values: FloatArray) -> npt.NDArray[np.bool_]:
    complete = np.isfinite(values).all(axis=0)
    return np.asarray(complete & (np.ptp(np.where(complete, values, 0.0), axis=0) > 0))


def _single(mixtures: Mixtures, column: int) -> Mixtures:
    own = slice(column, column + 1)
    return Mixtures(
        mixtures.centre[own],
        mixtures.scale[own],
        mixtures.weights[:, own],
        mixtures.means[:, own],
        mixtures.variances[:, own],
        mixtures.gain[own],
    )


def mixture_arrays(mixture: Mixtures) -> dict[str, FloatArray]:
    names = ("centre", "scale", "weights", "means", "variances", "gain")
    return {f"mixture_{name}": getattr(mixture, name) for name in names}


def stored_mixture(arrays: Mapping[str, npt.NDArray[Any]]) -> Mixtures:
    names = ("centre", "scale", "weights", "means", "variances", "gain")
    return Mixtures(*(arrays[f"mixture_{name}"] for name in names))


def check_feature(dataset: Dataset, options: Mapping[str, Any]) -> list[Finding]:
    """Return a stop where the planned feature is lacking or incomplete."""
    name = options["feature"]
    if name is None:
        return []
    if name not in dataset.features:
        message = f"The feature {name}, which is to show the hidden grouping, is not among the features."
        return [Finding("grouping_feature_lacking", "stop", message, columns=(name,))]
    column = dataset.values[:, dataset.features.index(name)]
    missing = tuple(row for row, known in zip(dataset.rows, np.isfinite(column), strict=True) if not known)
    if missing:
        message = f"{name}, which is to show the hidden grouping, has no value in {listed(missing)}."
        return [Finding("grouping_value_missing", "stop", message, rows=missing, columns=(name,))]
    return []


def describe(grouping: Grouping, dataset: Dataset) -> Finding:
    """Return what was found, as a warning where many scans lie between the components."""
    uncertain, scans = grouping.facts["uncertain_scans"], len(dataset.rows)
    counts = Counter(grouping.labels(dataset))
    message = (
        f"{grouping.feature} shows a hidden grouping (AIC gain {grouping.facts['aic_gain']:.1f}): {counts[LOWER]} "
        f"scans in the lower and {counts[UPPER]} in the upper component, {uncertain} of them between the two."
    )
    severity = "warn" if uncertain > WARN_UNCERTAIN_ABOVE * scans else "info"
    return Finding("hidden_grouping", severity, message, columns=(grouping.feature,))  # type: ignore[arg-type]

"""Feature pools of functional normalization, and what stops them or the factors it takes off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harmonization_app.algorithms.base import Dataset, Finding, IntArray
from harmonization_app.algorithms.control_factors import (
    constant_controls,
    control_factors,
    learn_controls,
    rank,
    standardized,
)
from harmonization_app.algorithms.design import build_design, feature_positions, pool_columns
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.wording import listed

# A quantile function through fewer values is no function.
LEAST_FEATURES = 10
# Greatest over least SD of a pool's features above which their values are no sample of one quantity.
MOST_UNLIKE = 50.0


def quantile_pools(
    dataset: Dataset, specification: Specification, options: Mapping[str, Any]
) -> dict[str, IntArray]:
    """Return the columns of each pool less the control features and those with one value in all scans."""
    corrected = np.ptp(dataset.values, axis=0) > 0
    corrected[feature_positions(dataset, options["controls"])] = False
    return pool_columns(dataset, specification, corrected)


def check_pools(dataset: Dataset, specification: Specification, options: Mapping[str, Any]) -> list[Finding]:
    """Return stops for pools of several units, known or not, and for pools of too few features."""
    findings = []
    for pool, columns in quantile_pools(dataset, specification, options).items():
        units = sorted({dataset.units[i] for i in columns})
        if len(units) > 1:
            named = listed(tuple(unit or "no unit" for unit in units))
            message = (
                f"Pool {pool} mixes {named}: there is no common quantile function. Plan a pool for each unit."
            )
            findings.append(Finding("mixed_units_in_pool", "stop", message))
        if len(columns) < LEAST_FEATURES:
            message = (
                f"Pool {pool} has {len(columns)} feature(s) to correct; a quantile function needs at least "
                f"{LEAST_FEATURES}."
            )
            findings.append(Finding("too_few_features", "stop", message))
            continue
        spreads = dataset.values[:, columns].std(axis=0)
        if spreads.max() > MOST_UNLIKE * spreads.min():
            least, greatest = (dataset.features[columns[at]] for at in (spreads.argmin(), spreads.argmax()))
            message = (
                f"Pool {pool} joins features of unlike scale: the SD of {greatest} is more than {MOST_UNLIKE:g} times "
                f"that of {least}. Plan pools of like features."
            )
            findings.append(Finding("unlike_features_in_pool", "stop", message, columns=(least, greatest)))
    return findings


def check_factors(
    dataset: Dataset, specification: Specification, options: Mapping[str, Any]
) -> list[Finding]:
    """Return a stop where the plan's factors and controls do not fit together, or the scans do not give them."""
    names = options["controls"]
    if options["factors_from"] == "batch":
        message = "The plan names control features, but takes the factors from the batches; plan one of them."
        return [Finding("controls_not_used", "stop", message, columns=tuple(names))] if names else []
    constant = constant_controls(dataset, names)
    if constant:
        return constant
    controls = feature_positions(dataset, names)
    found = min(rank(standardized(dataset.values[:, controls])), len(dataset.rows) - 2) if names else 0
    if options["factors"] > found:
        message = (
            f"The control features and scans give at most {found} factor(s); plan no more, or more controls."
        )
        return [Finding("too_many_factors", "stop", message, columns=tuple(names))]
    factors = control_factors(
        learn_controls(dataset.values[:, controls], options["factors"]) | {"controls": controls}, dataset
    )
    covariates = build_design(dataset, specification).covariates
    varying = covariates[:, np.ptp(covariates, axis=0) > 0]
    whole = np.hstack([standardized(factors), standardized(varying)])
    if rank(whole) < whole.shape[1] or len(dataset.rows) < whole.shape[1] + 2:
        message = (
            "The covariates explain a factor of the control features, or there are too few scans for both: what is "
            "biology and what is not cannot be told apart. Plan fewer factors or other controls."
        )
        return [Finding("factors_confounded", "stop", message, columns=tuple(names))]
    return []

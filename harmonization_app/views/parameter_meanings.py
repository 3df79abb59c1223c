"""What a parameter that every method shares means, where the method's schema does not say it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harmonization_app.selectors.algorithm import ParameterRow

MEANINGS = {
    "options.steps": "steps of the empirical Bayes iteration",
    "missing_values": "empty cells of features",
    "unusable_features": "features a batch lacks: stop, or leave as they are",
    "duplicate_values": "rows whose values are all equal to another row's",
    "covariates": "effects to preserve",
    "eb": "shrink the batch effects by empirical Bayes over features",
    "parametric": "normal and inverse gamma priors; otherwise the empirical ones",
    "mean_only": "correct the mean and leave the scale",
    "features": "features to harmonize, in this order; empty: all",
    "pools": "features that share priors",
    "reference_batch": "batch left unchanged, to which the others are brought",
    "subject": "column that names the subject of each scan",
    "time": "column with the time of each scan",
    "merge_batches": "batches taken together under a new name",
    "batch_size.stop_below": "a batch with fewer scans stops the run",
    "batch_size.mean_only_below": "a batch with fewer scans stops a run that corrects its scale too",
    "batch_size.warn_below": "a batch with fewer scans raises a warning: part of its effect will remain",
    "batch_size.without_eb_stop_below": "a batch with fewer scans stops a run without empirical Bayes",
    "batch_size.mean_only_stop_below": "a batch with fewer scans stops a run that corrects the mean only",
    "overlap.warn_smd_above": (
        "standardized mean difference of a covariate between a batch and the others that raises a warning"
    ),
    "overlap.minimum_overlap": (
        "least share of a batch's values of a covariate inside the central 95 % of the other batches"
    ),
    "maximum_condition": "condition number of the scaled design above which the run stops",
    "seed": "start of the random numbers: of the method where it draws any, and of its diagnostics",
}


def with_meanings(rows: Iterable[ParameterRow]) -> list[ParameterRow]:
    """Return `rows`, each with what the schema says of it or else the shared meaning."""
    return [row if row.description else replace(row, description=MEANINGS.get(row.name, "")) for row in rows]

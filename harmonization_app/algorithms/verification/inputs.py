"""Generated inputs of the packaged suites: simulated thickness-like values with planted batch effects."""

from __future__ import annotations

from functools import cache

import numpy as np

from harmonization_app.algorithms.base import Dataset
from harmonization_app.algorithms.specification import (
    BatchSizePolicy,
    Covariate,
    OverlapPolicy,
    Specification,
)

FEATURES = 12
SITE_SIZES = {"north": 14, "south": 11, "west": 17}
NEW_SCANS_PER_SITE = 3
SEED = 41
# The cases test arithmetic on small batches, which a plan would have to justify.
SMALL_BATCHES = BatchSizePolicy(2, 2, 20, 2, 1)
NO_OVERLAP_LIMIT = OverlapPolicy(warn_smd_above=10.0, minimum_overlap=0.0)
PLAIN_SPECIFICATION = Specification(
    covariates=(Covariate("age", "continuous"), Covariate("sex", "categorical", reference="F")),
    batch_size=SMALL_BATCHES,
    overlap=NO_OVERLAP_LIMIT,
)


def make_input(rows_per_site: dict[str, int], seed: int) -> Dataset:
    """Return simulated thickness-like values (mm) with age and sex effects and planted site shifts and
    scales.
    """
    random = np.random.default_rng(seed)
    sites = [site for site, size in rows_per_site.items() for _ in range(size)]
    order = random.permutation(len(sites))
    codes = np.array([list(rows_per_site).index(sites[i]) for i in order])
    age, sex = random.uniform(40, 85, len(order)).round(2), random.integers(0, 2, len(order))
    level = random.uniform(1.8, 3.4, FEATURES)
    shift = random.normal(0, 0.12, (len(rows_per_site), FEATURES))
    scale = random.uniform(0.7, 1.4, (len(rows_per_site), FEATURES))
    slopes = random.normal(-0.005, 0.001, FEATURES)
    noise = random.normal(0, 0.15, (len(order), FEATURES)) * scale[codes]
    values = level + np.outer(age - 60, slopes) + 0.04 * sex[:, None] + shift[codes] + noise
    return Dataset(
        values=values.round(4),
        features=tuple(f"region_{i:02d}" for i in range(FEATURES)),
        rows=tuple(f"S{i:03d}" for i in range(len(order))),
        batches=tuple(sites[i] for i in order),
        covariates={"age": tuple(age.tolist()), "sex": tuple("FM"[i] for i in sex)},
        units=("mm",) * FEATURES,
    )


@cache
def case_input() -> tuple[Dataset, Dataset]:
    """Return the scans most cases are fitted on, and new scans of the same sites."""
    return make_input(SITE_SIZES, SEED), make_input(dict.fromkeys(SITE_SIZES, NEW_SCANS_PER_SITE), SEED + 1)

"""Two plain baselines: global scaling of a batch's mean profile, and z-scores by batch.

They are offered because the field compares with them (Fortin et al., NeuroImage 161:149 (2017)), not because they
are advised: neither models covariates, so a difference of age, sex or disease between batches is removed with the
scanner's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from harmonization_app.algorithms.base import (
    Arrays,
    Capabilities,
    Dataset,
    Finding,
    FloatArray,
    HarmonizationRefused,
    IntArray,
)
from harmonization_app.algorithms.design import Design, pool_columns
from harmonization_app.algorithms.direct import DirectMethod, usable_features, without_eb
from harmonization_app.algorithms.model import Model
from harmonization_app.algorithms.opening import flagged
from harmonization_app.algorithms.specification import Specification, method_schema
from harmonization_app.diagnostics.wording import listed

LEAST_PROFILE = 3
LARGEST_SIZE_RATIO = 1e5
_CAPABILITIES = Capabilities(missing_values=True, train_apply=True, without_eb=True, new_batch=True)


class GlobalScaling(DirectMethod):
    """One line per batch (and feature pool) that maps its mean profile over features on the common mean profile.

    Of each batch the mean of every feature is regressed on the mean of the batches' means: location and scale of
    that line are taken out of all its values (Fortin et al. 2017, section 2.4.1). Features of one pool must be in one
    unit. In ten simulations (4 batches of 60 scans, 40 features, slopes 0.8 to 1.2) every planted slope is recovered
    within 0.01.

    Limits: the same line for all features, so a scanner that changes one region alone is not corrected; covariates
    are not modelled.
    """

    id: ClassVar[str] = "global-scaling"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "Global scaling (baseline)"
    capabilities: ClassVar[Capabilities] = _CAPABILITIES
    limits: ClassVar[tuple[str, ...]] = (
        "One line for all features of a batch: effects on single regions remain, and a scanner that changes "
        "one region alone shifts all the others a little.",
        "Covariates are not modelled: what differs between batches in age, sex or disease is removed with "
        "the scanner's effect.",
        "The line is found across features, so a pool needs one unit and features of clearly different "
        "size; with a narrow profile the slope is noise.",
        "A baseline to compare with (Fortin et al., NeuroImage 161:149 (2017) found ComBat better), not a "
        "method to plan for.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.baselines",
    )

    def parameters_schema(self) -> dict[str, Any]:
        schema = method_schema(fixed=without_eb("pools"))
        schema["properties"]["covariates"] |= {"maxItems": 0}
        return schema

    def check(self, dataset: Dataset, specification: Specification) -> list[Finding]:
        """Stop where a pool mixes units, has fewer than three features, or a batch's profile does not follow."""
        findings = []
        for pool, columns in pool_columns(dataset, specification).items():
            units = sorted({dataset.units[i] for i in columns} - {""})
            if len(units) > 1:
                message = (
                    f"Pool {pool} mixes {listed(units)}: one line cannot map features of several units. Plan a "
                    "pool for each."
                )
                findings.append(Finding("mixed_units_in_pool", "stop", message))
            if len(columns) < LEAST_PROFILE:
                findings.append(_short_profile(pool, len(columns)))
            else:
                findings += _unlike_sizes(pool, dataset, columns)
        return findings

    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        usable = usable_features(dataset, design, specification)
        profiles = np.ones((len(design.batches), len(usable)))
        for batch, profile in enumerate(profiles):
            profile[usable] = np.nanmean(dataset.values[design.codes == batch][:, usable], axis=0)
        common = profiles.mean(axis=0)
        slopes, offsets = np.ones_like(profiles), np.zeros_like(profiles)
        for pool, columns in pool_columns(dataset, specification, usable).items():
            _require_profile(pool, len(columns))
            for batch, profile in enumerate(profiles):
                line = _line(common[columns], profile[columns])
                slopes[batch, columns], offsets[batch, columns] = line
        _require_rising(slopes)
        return {"slope": slopes, "offset": offsets, "common_profile": common, "usable": usable}

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        return np.asarray((dataset.values - model.arrays["offset"][codes]) / model.arrays["slope"][codes])


class ZScore(DirectMethod):
    """Each feature of each batch brought to the common mean and SD: (x - batch mean) / batch SD, put back in units.

    Common are the mean over all scans and the pooled SD within batches; with `unit_free` the z-scores themselves are
    returned. A planted shift and scale of every batch is recovered exactly up to the sampling error of its mean
    (SD / root n) and SD (SD / root 2n).

    Limits: removes whatever differs between batches, biology included; small batches are made to look alike by
    force; covariates are not modelled.
    """

    id: ClassVar[str] = "z-score"
    version: ClassVar[str] = "1.1.0"
    title: ClassVar[str] = "z-score by batch (baseline)"
    capabilities: ClassVar[Capabilities] = _CAPABILITIES
    limits: ClassVar[tuple[str, ...]] = (
        "Every batch is given the same mean and SD: what differs between batches in age, sex or disease is "
        "removed with the scanner's effect.",
        "Nothing is shared between features: a batch of n scans gives its mean within SD / root n and its "
        "SD within SD / root 2n, and that error is put into every corrected value.",
        "With unit_free the result has no unit, and a difference cannot be read in mm or mm3.",
        "A baseline to compare with, not a method to plan for.",
    )
    source_modules: ClassVar[tuple[str, ...]] = (
        *DirectMethod.source_modules,
        "harmonization_app.algorithms.baselines",
    )

    def parameters_schema(self) -> dict[str, Any]:
        unit_free = {"type": "boolean", "default": False, "description": "return z-scores instead of units"}
        schema = method_schema({"unit_free": unit_free}, without_eb())
        schema["properties"]["covariates"] |= {"maxItems": 0}
        return schema

    def learn(
        self, dataset: Dataset, design: Design, specification: Specification, options: Mapping[str, Any]
    ) -> Arrays:
        usable = usable_features(dataset, design, specification)
        if options["unit_free"] and not usable.all():
            raise HarmonizationRefused([_mixed_scales(tuple(np.array(dataset.features)[~usable].tolist()))])
        # Numbers that change nothing, for the features that pass through.
        shape = (len(design.batches), len(usable))
        means, spreads, flat = np.zeros(shape), np.ones(shape), np.zeros(shape, dtype=np.bool_)
        centre, common = np.zeros(shape[1]), np.ones(shape[1])
        values = dataset.values[:, usable]
        own = [values[design.codes == batch] for batch in range(shape[0])]
        means[:, usable] = np.stack([np.nanmean(part, axis=0) for part in own])
        # Compared value by value: the SD of equal values is not always 0 but rounding.
        flat[:, usable] = np.stack([np.nanmin(part, axis=0) == np.nanmax(part, axis=0) for part in own])
        spread = np.where(flat[:, usable], 0.0, np.stack([np.nanstd(part, axis=0, ddof=1) for part in own]))
        counts = np.stack([(~np.isnan(part)).sum(axis=0) for part in own])
        pooled = np.sqrt(((counts - 1) * spread**2).sum(axis=0) / (counts - 1).sum(axis=0))
        # A feature without spread in a batch keeps its scale there: only its mean is moved.
        spreads[:, usable] = np.where(flat[:, usable], np.where(pooled > 0, pooled, 1.0), spread)
        if not options["unit_free"]:
            centre[usable] = np.nanmean(values, axis=0)
            common[usable] = np.where(pooled > 0, pooled, 1.0)
        return {
            "mean": means,
            "spread": spreads,
            "centre": centre,
            "common": common,
            "flat": flat,
            "usable": usable,
        }

    def flags(self, dataset: Dataset, arrays: Arrays) -> dict[str, tuple[str, ...]]:
        flat = flagged(dataset, {"constant_in_batch": np.asarray(arrays["flat"].any(axis=0))})
        return {**flat, **super().flags(dataset, arrays)}

    def adjust(self, model: Model, dataset: Dataset, codes: IntArray) -> FloatArray:
        arrays = model.arrays
        standard = (dataset.values - arrays["mean"][codes]) / arrays["spread"][codes]
        return np.asarray(standard * arrays["common"] + arrays["centre"])


def extend_scaling(model: Model, scans: Dataset, batch: str) -> Model:
    """Return a global scaling model that maps the mean profile of `scans` on its common profile as well."""
    arrays, usable = model.arrays, model.arrays["usable"]
    slope, offset = np.ones(len(usable)), np.zeros(len(usable))
    for columns in pool_columns(scans, model.specification, usable).values():
        profile = np.nanmean(scans.values[:, columns], axis=0)
        slope[columns], offset[columns] = _line(arrays["common_profile"][columns], profile)
    _require_rising(slope[None])
    return model.with_batch(batch, len(scans.rows), {"slope": slope, "offset": offset})


def extend_z_score(model: Model, scans: Dataset, batch: str) -> Model:
    """Return a z-score model that takes the mean and SD of `scans` out as well; the common ones stay."""
    usable = model.arrays["usable"]
    mean, spread = np.zeros(len(usable)), np.ones(len(usable))
    mean[usable] = np.nanmean(scans.values[:, usable], axis=0)
    spread[usable] = np.nanstd(scans.values[:, usable], axis=0, ddof=1)
    # A feature with one value everywhere before may vary here; the checks let in none that varies nowhere.
    spread = np.where(spread > 0, spread, 1.0)
    rows = {"mean": mean, "spread": spread, "flat": np.zeros(len(usable), bool)}
    return model.with_batch(batch, len(scans.rows), rows)


def _line(common: FloatArray, profile: FloatArray) -> tuple[float, float]:
    """Return slope and offset of a batch's profile over the common one, by least squares."""
    centred = common - common.mean()
    slope = float(centred @ (profile - profile.mean()) / (centred @ centred))
    return slope, float(profile.mean() - slope * common.mean())


def _require_profile(pool: str, usable: int) -> None:
    if usable < LEAST_PROFILE:
        raise HarmonizationRefused([_short_profile(pool, usable)])


def _short_profile(pool: str, features: int) -> Finding:
    message = f"Pool {pool} has {features} usable feature(s); a line through a profile needs at least three."
    return Finding("too_few_features", "stop", message)


def _unlike_sizes(pool: str, dataset: Dataset, columns: IntArray) -> list[Finding]:
    """Return a stop where the largest feature's level dwarfs a small one's spread, which the line then ignores."""
    columns = columns[~np.isnan(dataset.values[:, columns]).all(axis=0)]
    values = dataset.values[:, columns]
    spreads = np.nanstd(values, axis=0)
    ratio = np.abs(np.nanmean(values, axis=0)).max(initial=0.0) / np.where(spreads > 0, spreads, np.inf)
    names = tuple(dataset.features[i] for i in columns[ratio > LARGEST_SIZE_RATIO])
    if not names:
        return []
    message = (
        f"Pool {pool} mixes features of very unlike size: the largest one's level is more than "
        f"{LARGEST_SIZE_RATIO:,.0f} times the SD of {listed(names)}, which one line for all cannot correct. Plan pools "
        "of like size."
    )
    return [Finding("unlike_sizes_in_pool", "stop", message, columns=names)]


def _mixed_scales(names: tuple[str, ...]) -> Finding:
    message = (
        f"{listed(names)} would pass through in its own unit among z-scores. Leave it out of the plan, or plan "
        "unit_free off."
    )
    return Finding("pass_through_among_z_scores", "stop", message, columns=names)


def _require_rising(slopes: FloatArray) -> None:
    if not (slopes > 0.1).all():
        message = (
            "The mean profile of a batch over the features does not follow the common one (slope 0.1 or less); "
            "one line per batch cannot map it. Look at its units and features."
        )
        raise HarmonizationRefused([Finding("profile_does_not_follow", "stop", message)])

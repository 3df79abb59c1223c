"""What a site sends in federated ComBat, and the file it travels in (NPZ with a JSON document, never pickle)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from harmonization_app.algorithms.base import BoolArray, FloatArray
from hub.core.canonical import canonical_json
from hub.core.errors import InvalidInput

SUMMARY_FORMAT = 1
DOCUMENT = "document"


@dataclass(frozen=True, slots=True, eq=False)
class BatchSummary:
    """Sufficient statistics of one batch of `scans` rows; c are covariate columns, f features.

    `covariate_mean` [c] and `covariate_products` [c x c] over all rows, the rest over the rows in which a feature is
    observed: `counts`, `mean`, `squares` about it, `constant` [f], `observed_mean` [c x f], `observed_products`
    [f x c x c] and `cross_products` with the values [c x f], all centred in the batch.
    """

    scans: int
    covariate_mean: FloatArray
    covariate_products: FloatArray
    counts: FloatArray
    mean: FloatArray
    squares: FloatArray
    constant: BoolArray
    observed_mean: FloatArray
    observed_products: FloatArray
    cross_products: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SiteSummary:
    """All batches of a site; `plan` is the digest of the plan it was made with."""

    plan: str
    features: tuple[str, ...]
    units: tuple[str, ...]
    batches: Mapping[str, BatchSummary]


def summarize_batch(values: FloatArray, covariates: FloatArray) -> BatchSummary:
    """Return the statistics of one batch: `values` [scans x features], `covariates` [scans x columns]."""
    observed = ~np.isnan(values)
    mask = observed.astype(np.float64)
    counts = mask.sum(axis=0)
    safe = np.maximum(counts, 1.0)
    # Values are centred by an observed one first, so that a constant feature has exactly that mean.
    first = values[observed.argmax(axis=0), np.arange(values.shape[1])]
    origin = np.where(counts > 0, first, 0.0)
    shifted = np.where(observed, values - origin, 0.0)
    middle = shifted.sum(axis=0) / safe
    centred = (shifted - middle) * mask
    covariate_mean = covariates.mean(axis=0)
    within = covariates - covariate_mean
    size = within.shape[1]
    offset = (within.T @ mask) / safe
    products = (within[:, :, None] * within[:, None, :]).reshape(len(within), size * size)
    whole = (products.T @ mask).T.reshape(values.shape[1], size, size)
    return BatchSummary(
        scans=len(values),
        covariate_mean=covariate_mean,
        covariate_products=within.T @ within,
        counts=counts,
        mean=origin + middle,
        squares=np.einsum("sf,sf->f", centred, centred),
        constant=np.asarray((shifted == 0).all(axis=0) & (counts > 1)),
        observed_mean=covariate_mean[:, None] + offset,
        observed_products=whole - np.einsum("f,cf,df->fcd", counts, offset, offset),
        cross_products=within.T @ centred,
    )


def save_summary(summary: SiteSummary) -> bytes:
    """Return the summary as the bytes of an NPZ file."""
    names = [field.name for field in fields(BatchSummary) if field.name != "scans"]
    document = {
        "format": SUMMARY_FORMAT,
        "plan": summary.plan,
        "features": list(summary.features),
        "units": list(summary.units),
        "batches": [{"name": name, "scans": part.scans} for name, part in summary.batches.items()],
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        f"batch{index}_{name}": getattr(part, name)
        for index, part in enumerate(summary.batches.values())
        for name in names
    }
    arrays[DOCUMENT] = np.frombuffer(canonical_json(document), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load_summary(content: bytes) -> SiteSummary:
    """Return the summary in the bytes of a file. Raises InvalidInput where it is none or does not fit itself."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        document = json.loads(arrays.pop(DOCUMENT).tobytes())
        if document["format"] != SUMMARY_FORMAT:
            raise InvalidInput(f"Summary format {document['format']} is not known; this is {SUMMARY_FORMAT}.")
        features = tuple(document["features"])
        batches = {
            item["name"]: _batch(arrays, index, item["scans"], len(features))
            for index, item in enumerate(document["batches"])
        }
        return SiteSummary(document["plan"], features, tuple(document["units"]), batches)
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"The summary cannot be read: {error!r}. Ask the site to make it again."
        ) from error


def _batch(arrays: Mapping[str, npt.NDArray[Any]], index: int, scans: int, features: int) -> BatchSummary:
    own = {
        field.name: arrays[f"batch{index}_{field.name}"]
        for field in fields(BatchSummary)
        if field.name != "scans"
    }
    columns = len(own["covariate_mean"])
    shapes = {
        "covariate_mean": (columns,),
        "covariate_products": (columns, columns),
        "observed_mean": (columns, features),
        "observed_products": (features, columns, columns),
        "cross_products": (columns, features),
    }
    for name, array in own.items():
        if array.shape != shapes.get(name, (features,)):
            raise InvalidInput(
                f"{name} of batch {index} has shape {array.shape}; the summary does not fit itself."
            )
        if not np.isfinite(array).all():
            raise InvalidInput(f"{name} of batch {index} is not finite; ask the site to make it again.")
    return BatchSummary(scans=scans, **own)

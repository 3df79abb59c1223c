"""What the page and the report of a run say: headline, batches, sensitivity, contrasts, limits.

The keys are those of diagnostics/effects.py; runs made before a key stood lack it, and then say nothing of it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.models import HarmonizationRun
from hub.core.storage.blobs import get_blob

Diagnostics = Mapping[str, Any]
MOST_MODEL_CELLS = 20_000_000
LISTED_ROWS = 20
STAGES = {
    "before": "before",
    "after": "after",
    "before_batch_adjusted": "before, adjusted for batch",
}
NO_HEADLINE = (
    "This run was made before held-out evidence was summed up in a sentence; its figures stand below."
)


@dataclass(frozen=True)
class BatchRow:
    """One batch: scans, subjects, mean shift (SD), its effects as medians over features, iterations in words.

    `shift_raw` and `shift_shrunk` are gamma (in SD within batches, absolute), `scale_raw` and `scale_shrunk` delta
    (ratio of variances), before and after empirical Bayes; None where the method has no such parameter.
    """

    batch: str
    scans: int
    subjects: int | None
    mean_shift_sd: float | None
    shift_raw: float | None
    shift_shrunk: float | None
    scale_raw: float | None
    scale_shrunk: float | None
    iterations: str


@dataclass(frozen=True)
class Stage:
    """A figure before and after; `held_out` tells evidence on unseen scans from figures on the fitted ones."""

    title: str
    held_out: bool
    before: float | None
    after: float | None
    expected: float | None
    p: float | None
    note: str = ""


def evidence_of(run: HarmonizationRun, diagnostics: Diagnostics) -> dict[str, Any]:
    """Return everything that page and report show beside the figures of single features."""
    return {
        "headline": headline_of(diagnostics),
        "batch_rows": batch_rows(run, diagnostics),
        "multivariate": multivariate_rows(diagnostics),
        "left_out": (diagnostics.get("stability") or {}).get("left_out") or [],
        "left_out_reason": (diagnostics.get("stability") or {}).get("reason", ""),
        "spike_in": (diagnostics.get("stability") or {}).get("spike_in"),
        "travelling": diagnostics.get("travelling_subjects"),
        "within": diagnostics.get("within_subject"),
        "repeated": diagnostics.get("repeated"),
        "contrasts": _staged(diagnostics.get("group_contrast")),
        "effect_summaries": _staged((diagnostics.get("covariate_effects") or {}).get("by_covariate")),
        "errors_named": (diagnostics.get("covariate_effects") or {}).get("errors", ""),
        "sensitivity": sensitivity_of(run, diagnostics),
        "implausible": (diagnostics.get("movers") or {}).get("implausible") or [],
        "flags": flags_of(run, diagnostics),
        "scope": scope_rows(diagnostics),
    }


def _staged(items: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Return the items with their stages in the order of reading; stored JSON has its keys sorted."""
    return [
        {**item, "stages": [(STAGES[key], item["stages"][key]) for key in STAGES if key in item["stages"]]}
        for item in items or []
    ]


def sensitivity_of(run: HarmonizationRun, diagnostics: Diagnostics) -> list[dict[str, Any]]:
    """Return the plan's analyses with a title in words; those refused stand among them with their reason."""
    found = diagnostics.get("sensitivity") or run.summary.get("sensitivity") or []
    return [{**item, "title": str(item.get("name", "")).replace("_", " ")} for item in found]


def headline_of(diagnostics: Diagnostics) -> dict[str, Any]:
    """Return {sentence, evidence}; of a run that has none, the held-out figures in its place."""
    found = diagnostics.get("headline")
    if found:
        return dict(found)
    held_out = diagnostics.get("held_out") or {}
    if not held_out.get("evaluable"):
        reason = held_out.get("reason", "")
        return {"sentence": f"There is no held-out evidence. {reason}".strip(), "evidence": []}
    evidence = {
        "kind": "repeated_split",
        "held_out": True,
        "label": "held out: half of every batch, repeated",
        "figure": "median partial eta squared of batch",
        "before": held_out["held_out_before"],
        "after": held_out["held_out_after"],
        "expected": held_out["noise_floor"],
        "sentence": "",
    }
    return {"sentence": NO_HEADLINE, "evidence": [evidence]}


def batch_rows(run: HarmonizationRun, diagnostics: Diagnostics) -> list[BatchRow]:
    """Return the batches as they ran, with the model's parameters where it has them."""
    parameters = _parameters(run)
    shifts = (diagnostics.get("movers") or {}).get("mean_shift_by_batch_sd", {})
    rows = []
    for item in diagnostics.get("batches", []):
        name = item["batch"]
        own = parameters.get(name, {})
        rows.append(
            BatchRow(
                name,
                item["scans"],
                item.get("subjects"),
                shifts.get(name),
                own.get("gamma_hat"),
                own.get("gamma_star"),
                own.get("delta_hat"),
                own.get("delta_star"),
                _iterations(run, name),
            )
        )
    return rows


def _iterations(run: HarmonizationRun, batch: str) -> str:
    pools = run.summary.get("iterations") or {}
    counts = [(pool, found[batch]) for pool, found in pools.items() if batch in found]
    return ", ".join(str(count) if len(counts) == 1 else f"{pool} {count}" for pool, count in counts)


def _parameters(run: HarmonizationRun) -> dict[str, dict[str, float]]:
    """Return by batch the medians over features of |gamma| and delta, raw and shrunk."""
    if not run.model_digest:
        return {}
    with zipfile.ZipFile(io.BytesIO(get_blob(run.model_digest))) as archive:
        document = json.loads(archive.read("model.json"))
        shapes = {name: shape for name, (_, shape) in document["arrays"].items()}
        batches = document["batches"]
        wanted = [
            name
            for name in ("gamma_hat", "gamma_star", "delta_hat", "delta_star")
            if len(shapes.get(name, ())) == 2
            and shapes[name][0] == len(batches)
            and int(np.prod(shapes[name])) <= MOST_MODEL_CELLS
        ]
        if not wanted:
            return {}
        with np.load(io.BytesIO(archive.read("model.npz")), allow_pickle=False) as arrays:
            found = {name: _medians(arrays[name], absolute=name.startswith("gamma")) for name in wanted}
    return {
        batch: {name: values[at] for name, values in found.items() if values[at] is not None}  # type: ignore[misc]
        for at, batch in enumerate(batches)
    }


def _medians(values: Any, *, absolute: bool) -> list[float | None]:
    table = np.abs(values) if absolute else np.asarray(values)
    rows = [row[np.isfinite(row)] for row in table]
    return [float(np.median(row)) if row.size else None for row in rows]


def multivariate_rows(diagnostics: Diagnostics) -> list[Stage]:
    """Return how well batches are told apart and how far their covariances lie apart, held-out first."""
    held_out = diagnostics.get("held_out") or {}
    rows = [_classified("Batches told apart by a classifier (balanced accuracy)", True, held_out)]
    rows.append(_distance(held_out.get("covariance")))
    rows.append(_classified("Batches told apart by a classifier (balanced accuracy)", False, diagnostics))
    in_sample = diagnostics.get("in_sample") or {}
    rows.append(_in_sample_distance(in_sample))
    return [row for row in rows if row is not None]


def _classified(title: str, held_out: bool, document: Diagnostics) -> Stage | None:
    found = document.get("classification")
    if not found or not found.get("after"):
        return None
    before, after = found.get("before") or {}, found["after"]
    note = (
        "chance from labels drawn given the covariates"
        if after.get("evaluable")
        else _counted(after.get("reason", ""), held_out)
    )
    return Stage(
        title,
        held_out,
        before.get("accuracy"),
        after.get("accuracy"),
        after.get("chance"),
        after.get("p"),
        note,
    )


def _counted(reason: str, held_out: bool) -> str:
    """Return `reason`, for held-out figures with what counts as a scan there."""
    if not reason or not held_out:
        return reason
    return f"{reason} Counted are the scans of the half not fitted; of a subject with several, one."


def _distance(found: Diagnostics | None) -> Stage | None:
    if not found:
        return None
    return Stage(
        "Distance between batch covariances",
        True,
        found.get("before"),
        found.get("after"),
        found.get("expected"),
        found.get("p_after"),
        _counted(found.get("reason", ""), held_out=True),
    )


def _in_sample_distance(in_sample: Diagnostics) -> Stage | None:
    before = (in_sample.get("before") or {}).get("covariance")
    after = (in_sample.get("after") or {}).get("covariance")
    if not before or not after:
        return None
    return Stage(
        "Distance between batch covariances",
        False,
        before.get("distance"),
        after.get("distance"),
        after.get("expected"),
        after.get("p"),
        after.get("reason", ""),
    )


def flags_of(run: HarmonizationRun, diagnostics: Diagnostics) -> list[dict[str, Any]]:
    """Return the features that the method treated otherwise (singular fits, constant ones), with the meaning."""
    known = diagnostics.get("flags")
    if known:
        return [{"code": code, **item} for code, item in known.items()]
    return [
        {"code": code, "features": len(names), "listed": list(names)[:LISTED_ROWS], "meaning": ""}
        for code, names in (run.summary.get("flags") or {}).items()
    ]


def scope_rows(diagnostics: Diagnostics) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the parts that were computed on some of the features only."""
    parts = (diagnostics.get("scope") or {}).get("parts") or {}
    return [
        (name.replace("_", " "), part)
        for name, part in parts.items()
        if part.get("features") is not None and part["features"] < (part.get("of") or 0)
    ]


def limits_of(run: HarmonizationRun, diagnostics: Diagnostics) -> list[str]:
    """Return what the method cannot do, as it said when the run was made; else as the present code says."""
    said: Sequence[str] | None = diagnostics.get("limits")
    if said:
        return list(said)
    algorithm = ALGORITHMS.get(run.algorithm_version.algorithm)
    return list(algorithm.limits) if algorithm else []

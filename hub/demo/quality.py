"""The demonstration's QC profile (hub.qc-profile/1) and the outcomes that planted events have in it.

The drifting scanner stays inside every bound: a drift has to be found over time, not by a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COMPLETE: tuple[dict[str, Any], ...] = (
    {"metric": "missing_slices", "fail": {"max": 0}},
    {"metric": "duplicate_slices", "fail": {"max": 0}},
    {"metric": "saturated_fraction", "warn": {"max": 0.001}, "fail": {"max": 0.02}},
)

EXPECTED_OUTCOMES: Mapping[tuple[str, str, str], str] = {
    ("S02-004", "baseline", "flair"): "fail",
    ("S05-008", "baseline", "flair"): "fail",
}
"""Outcome by (subject, visit, expected series) of every simulated series that does not pass."""


def qc_profile() -> dict[str, Any]:
    """Return the draft QC profile as a JSON document."""
    return {
        "schema": "hub.qc-profile/1",
        "name": "demo-head",
        "description": "Completeness of every series; signal and noise of MR; CT numbers; SUV of PET.",
        "modalities": {
            "MR": [
                *_COMPLETE,
                {"metric": "snr_background", "warn": {"min": 5.0}, "fail": {"min": 3.0}},
                {"metric": "foreground_background_contrast", "warn": {"min": 0.6}, "fail": {"min": 0.4}},
                {"metric": "efc", "warn": {"max": 0.75}, "fail": {"max": 0.85}},
                {"metric": "ghost_to_signal", "warn": {"max": 0.03}, "fail": {"max": 0.10}},
                {"metric": "dropout_slices", "warn": {"max": 0}, "fail": {"max": 2}},
            ],
            "CT": [
                *_COMPLETE,
                {
                    "metric": "air_hu",
                    "warn": {"min": -1010, "max": -985},
                    "fail": {"min": -1024, "max": -950},
                },
                {"metric": "hu_scale_suspect", "fail": {"max": 0}},
                {"metric": "noise_global_hu", "warn": {"max": 10}, "fail": {"max": 20}},
            ],
            "PT": [
                *_COMPLETE,
                {"metric": "suv_factor", "required": True},
                {"metric": "suvbw_max", "warn": {"min": 2, "max": 25}},
            ],
        },
        "series": {
            "t1": [{"metric": "snr_background", "warn": {"min": 6.0}, "fail": {"min": 4.0}}],
        },
    }


DRIFT_METRICS = (
    "snr_background",
    "snr_residual",
    "noise_background",
    "noise_residual",
    "foreground_background_contrast",
)
"""Metrics in which the planted drift, and no other, shows. Counts that lie near zero by nature are not charted."""

"""The QC profile that the hub ships as a starting point."""

from __future__ import annotations

from typing import Any

from qc_app.metrics.profile import PROFILE_SCHEMA_NAME


def _rule(
    metric: str, *, required: bool = True, warn: Any = None, fail: Any = None, note: str = ""
) -> dict[str, Any]:
    rule: dict[str, Any] = {"metric": metric, "required": required}
    rule |= {kind: band for kind, band in (("warn", warn), ("fail", fail)) if band is not None}
    return rule | ({"note": note} if note else {})


_STACK = [
    _rule("missing_slices", fail={"max": 0}),
    _rule("duplicate_slices", warn={"max": 0}),
    _rule("incomplete_volumes", fail={"max": 0}),
    _rule("spacing_irregularity", required=False, warn={"max": 1}, fail={"max": 5}),
]

DEFAULT_PROFILE: dict[str, Any] = {
    "schema": PROFILE_SCHEMA_NAME,
    "name": "Starting point",
    "description": (
        "Bounds that catch gross failures only. There is no universal normal range for image quality: set the bounds "
        "of a trial from its own protocol, its phantom and its first scans, then lock the profile."
    ),
    "modalities": {
        "MR": [
            *_STACK,
            _rule("saturated_fraction", warn={"max": 0.001}, fail={"max": 0.01}),
            _rule("foreground_mean", fail={"min": 1e-9}, note="An object must be visible."),
            _rule("snr_background", required=False, warn={"min": 10}, fail={"min": 5}),
            _rule("snr_residual", required=False, warn={"min": 10}, fail={"min": 5}),
            _rule("foreground_background_contrast", required=False, warn={"min": 0.5}, fail={"min": 0.2}),
            _rule("efc", required=False, warn={"max": 0.85}),
            _rule("ghost_to_signal", required=False, warn={"max": 0.03}, fail={"max": 0.1}),
            _rule("background_artefact", required=False, warn={"max": 5}, fail={"max": 20}),
            _rule("dropout_slices", required=False, warn={"max": 0}, fail={"max": 2}),
        ],
        "CT": [
            *_STACK,
            _rule("saturated_fraction", warn={"max": 0.01}),
            _rule("hu_scale_suspect", fail={"max": 0}),
            _rule(
                "air_hu", required=False, warn={"min": -1015, "max": -975}, fail={"min": -1050, "max": -900}
            ),
            _rule("water_hu", required=False, warn={"min": -4, "max": 4}, fail={"min": -10, "max": 10}),
            _rule("uniformity_hu", required=False, warn={"min": -4, "max": 4}, fail={"min": -8, "max": 8}),
            _rule("noise_global_hu", required=False, warn={"max": 40}, fail={"max": 80}),
        ],
        "PT": [
            *_STACK,
            _rule("saturated_fraction", warn={"max": 0.001}, fail={"max": 0.01}),
            _rule("suv_factor", fail={"min": 1e-12}, note="SUV must be computable from the header."),
            _rule("suvbw_median", required=False, warn={"min": 0.1, "max": 5}, fail={"min": 0.01, "max": 50}),
        ],
    },
    "series": {},
}

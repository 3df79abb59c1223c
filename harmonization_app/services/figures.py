"""Figures of the report as SVG: the same bytes for the same numbers, no style attributes, no scripts.

Drawn by matplotlib's SVG backend. Styles become presentation attributes, since a strict Content-Security-Policy
refuses style attributes and the report must show itself in a browser as well as on paper.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from harmonization_app.selectors.run import FeatureEffect

# Okabe-Ito colours; before and after also differ in shape.
BEFORE, AFTER, ADJUSTED, QUIET = "#C04500", "#00795A", "#0063A3", "#5D6874"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8F98")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
MOST_FEATURES = 40
WIDTH_IN = 7.0
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
# One drawing at a time: matplotlib's settings belong to the whole process.
_DRAWING = threading.Lock()
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hub-report",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "legend.frameon": False,
}


def effect_figure(effects: Sequence[FeatureEffect], floor: float | None) -> str:
    """Return partial eta squared of batch before and after, one line per feature, as SVG."""
    shown = [row for row in effects if row.eta_before is not None and row.eta_after is not None]
    shown = shown[:MOST_FEATURES]
    before = np.array([row.eta_before for row in shown], dtype=np.float64)
    after = np.array([row.eta_after for row in shown], dtype=np.float64)

    def draw(axes: Axes) -> None:
        places = np.arange(len(shown))
        axes.hlines(places, np.minimum(before, after), np.maximum(before, after), color=QUIET, lw=0.8)
        axes.plot(before, places, "^", color=BEFORE, ms=5, label="before")
        axes.plot(after, places, "o", color=AFTER, ms=4, label="after")
        if floor is not None:
            axes.axvline(floor, color=QUIET, lw=0.8, ls="--", label="expected without any effect")
        _name_rows(axes, [row.feature for row in shown])
        axes.set_xlim(left=0.0)
        axes.set_xlabel("partial eta squared of batch (in-sample)")
        _legend_above(axes, 3)

    return _svg(draw, height_in=0.9 + 0.17 * max(len(shown), 3))


def projection_figure(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the scans on their first two components before and after, marked by batch, as SVG."""
    batches = sorted(set(before["batches"]))
    scores = [np.array(item["scores"], dtype=np.float64)[:, :2] for item in (before, after)]
    bound = 1.08 * max(float(np.abs(item).max()) for item in scores)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, item, points, name in zip(
            panels, (before, after), scores, ("before", "after"), strict=True
        ):
            labels = np.array(item["batches"], dtype=object)
            for index, batch in enumerate(batches):
                own = points[labels == batch]
                axes.plot(
                    own[:, 0],
                    own[:, 1],
                    MARKERS[index % len(MARKERS)],
                    color=PALETTE[index % len(PALETTE)],
                    ms=4,
                    alpha=0.8,
                    mew=0,
                    label=batch,
                )
            axes.set_title(name, fontsize=9)
            axes.set_xlabel(f"component 1 ({item['explained'][0]:.0%})")
            axes.set_ylabel(f"component 2 ({item['explained'][1]:.0%})")
            axes.set_xlim(-bound, bound)
            axes.set_ylim(-bound, bound)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=7)

    return _svg_of(draw, height_in=4.0 + 0.14 * (len(batches) // 4))


def covariate_figure(rows: Sequence[Mapping[str, Any]], covariate: str, unit: str) -> str:
    """Return one covariate's effects with 95 % intervals, before, after and adjusted for batch, as SVG."""
    shown = list(rows)[:MOST_FEATURES]
    stages = (
        ("before", "before", BEFORE, "^", -0.25),
        ("after", "after", AFTER, "o", 0.0),
        ("batch_adjusted", "adjusted for batch, before", ADJUSTED, "s", 0.25),
    )

    def draw(axes: Axes) -> None:
        for key, label, colour, marker, shift in stages:
            known = [(place, row[key]) for place, row in enumerate(shown) if row[key]["value"] is not None]
            places = np.array([place + shift for place, _ in known])
            values = np.array([item["value"] for _, item in known])
            low = np.array([item["low"] for _, item in known])
            high = np.array([item["high"] for _, item in known])
            axes.hlines(places, low, high, color=colour, lw=1.0)
            axes.plot(values, places, marker, color=colour, ms=3, label=label)
        axes.axvline(0.0, color=QUIET, lw=0.6)
        _name_rows(axes, [row["feature"] for row in shown])
        axes.set_xlabel(f"effect of {covariate} ({unit} per unit), 95 % interval")
        _legend_above(axes, 3)

    return _svg(draw, height_in=0.9 + 0.24 * max(len(shown), 3))


def held_out_figure(held_out: Mapping[str, Any]) -> str:
    """Return the held-out batch effect beside the in-sample one and what no effect would give, as SVG."""
    bars = (
        ("held out, before", held_out["held_out_before"], BEFORE),
        ("held out, after", held_out["held_out_after"], AFTER),
        ("fitted half, after (in-sample)", held_out["fitted_after"], QUIET),
        ("expected without any effect", held_out["noise_floor"], QUIET),
    )

    def draw(axes: Axes) -> None:
        for place, (_, value, colour) in enumerate(bars):
            if value is not None:
                axes.barh(place, value, color=colour, height=0.6)
                axes.text(value, place, f" {value:.3f}", va="center", fontsize=7)
        _name_rows(axes, [name for name, _, _ in bars])
        axes.set_xlabel("median partial eta squared of batch")

    return _svg(draw, height_in=1.6)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2)


def _svg(draw: Callable[[Axes], None], height_in: float) -> str:
    return _svg_of(lambda figure: draw(figure.subplots()), height_in)


def _svg_of(draw: Callable[[Figure], None], height_in: float) -> str:
    with _DRAWING, matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        canvas: Any = FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.BytesIO()
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return inline_svg(buffer.getvalue())


def inline_svg(content: bytes) -> str:
    """Return an SVG element for HTML: styles as attributes, no metadata, no ids but the referenced ones."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(content)
    referenced = set(re.findall(rb'(?:xlink:href="#|url\(#)([^")]+)', content))
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"}:
                element.remove(child)
        for name, value in _declarations(element.attrib.pop("style", "")):
            element.set(name, value)
        if element.get("id", "").encode() not in referenced:
            element.attrib.pop("id", None)
    root.set("stroke-linejoin", "round")
    root.set("class", "figure")
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    return ElementTree.tostring(root, encoding="unicode")


def _declarations(style: str) -> list[tuple[str, str]]:
    pairs = [part.split(":", 1) for part in style.split(";") if ":" in part]
    return [(name.strip(), value.strip()) for name, value in pairs]

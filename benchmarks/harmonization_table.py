"""The tables of the harmonization benchmark, with what is to be reached beside what is measured."""

from __future__ import annotations

import os
from dataclasses import dataclass

from benchmarks.harmonization_engines import COPY, FIT_APPLY, NEUROCOMBAT, WHOLE

Figures = dict[str, float]
SINGLE, INSTALLED = "one BLAS thread", "as installed"


@dataclass(frozen=True)
class Targets:
    """Least speed-ups over neuroCombat by threads, most copies of the data, most memory over the input."""

    speed_up: dict[str, float]
    copies: float | None = None
    memory: float | None = None


TARGETS = {
    20_000: Targets({SINGLE: 25.0, INSTALLED: 50.0}, memory=2.2),
    200_000: Targets({SINGLE: 40.0}, copies=8.0, memory=2.2),
}


def print_table(features: int, figures: dict[tuple[str, str], Figures]) -> bool:
    """Print one size's figures by (engine, threads) and return whether every target was reached."""
    print(
        f"{'engine':<22}{'threads':<17}{'time':>11}{'speed-up':>10}{'copies':>8}{'memory':>8}{'peak MB':>9}  verdict"
    )
    reached = []
    for (engine, threads), own in figures.items():
        base, floor = figures.get((NEUROCOMBAT, threads)), figures[(COPY, threads)]
        speed_up = base["best_s"] / own["best_s"] if base and engine != COPY else None
        copies = own["best_s"] / floor["best_s"]
        memory = memory_over_input(own)
        missed = (
            _missed(features, threads, speed_up, copies, memory) if engine in (FIT_APPLY, WHOLE) else None
        )
        reached.append(not missed)
        print(
            f"{engine:<22}{threads:<17}{_time(own['best_s']):>11}{_ratio(speed_up):>10}{copies:>7.1f}x{memory:>7.2f}x"
            f"{own['peak_bytes'] / 1e6:>9.0f}  {_verdict(features, threads, missed)}"
        )
    return all(reached)


def memory_over_input(own: Figures) -> float:
    """Return the peak over the input's size, without what the interpreter and its libraries take."""
    return (own["peak_bytes"] - own["interpreter_bytes"]) / own["input_bytes"]


def print_load() -> None:
    """Print the load of the machine: times are worth little where others compute."""
    print(
        f"  load average {', '.join(f'{value:.2f}' for value in os.getloadavg())} on {os.cpu_count()} cores"
    )


def _missed(
    features: int, threads: str, speed_up: float | None, copies: float, memory: float
) -> list[str] | None:
    """Return the targets that were missed; None where there are none for this row."""
    targets = TARGETS.get(features)
    if targets is None:
        return None
    missed = []
    least = targets.speed_up.get(threads)
    if least is not None and speed_up is not None and speed_up < least:
        missed.append(f"{least:g}x neuroCombat")
    if targets.copies is not None and threads == SINGLE and copies > targets.copies:
        missed.append(f"{targets.copies:g} copies")
    if targets.memory is not None and memory > targets.memory:
        missed.append(f"memory {targets.memory:g}x")
    return missed


def _verdict(features: int, threads: str, missed: list[str] | None) -> str:
    if missed is None:
        return ""
    if missed:
        return f"MISSED: {', '.join(missed)}"
    targets = TARGETS[features]
    parts = [f"{targets.speed_up[threads]:g}x neuroCombat"] if threads in targets.speed_up else []
    parts += [f"{targets.copies:g} copies"] if targets.copies is not None and threads == SINGLE else []
    parts += [f"memory {targets.memory:g}x"] if targets.memory is not None else []
    return f"reached: {', '.join(parts)}"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}x"

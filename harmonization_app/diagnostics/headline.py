"""What the evidence says in a sentence, and which of it is held-out.

In-sample evidence is listed too, and says of itself that it always looks perfect. `expected` is what each figure would
be if batches did not differ; a figure is never judged without it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harmonization_app.diagnostics.batch_tests import BatchSummary
from harmonization_app.diagnostics.heldout import HeldOut
from harmonization_app.diagnostics.repeatability import TravellingSubjects
from harmonization_app.diagnostics.stability import Stability

IN_SAMPLE_LABEL = "in-sample: always looks perfect"
# Share of what is above expectation that must go for a batch effect to be called mostly removed, or partly.
MOSTLY, PARTLY = 0.75, 0.25
HARDLY = 0.1
HALF_NOTE = " It was learnt from half of the scans here; how much better all of them do is not seen."


@dataclass(frozen=True, slots=True)
class Evidence:
    """One piece of evidence: a figure before and after, what to expect without batch effects, and a sentence."""

    kind: str
    held_out: bool
    label: str
    figure: str
    before: float | None
    after: float | None
    expected: float | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def headline(
    held_out: HeldOut,
    stability: Stability,
    travelling: TravellingSubjects | None,
    before: BatchSummary,
    after: BatchSummary,
) -> dict[str, Any]:
    """Return {sentence, evidence}: the held-out evidence first; the sentence rests on the first that can be judged."""
    evidence = [
        *_repeated_split(held_out),
        *_classification(held_out),
        *_travelling(travelling),
        *_left_out(stability),
    ]
    evidence = sorted(evidence, key=lambda item: not item.held_out)
    proof = [item for item in evidence if item.held_out and item.kind != "leave_one_batch_out"]
    if proof:
        sentence = proof[0].sentence
    elif held_out.reason:
        sentence = (
            f"There is no held-out evidence that the batch effect went. {held_out.reason} What follows is in-sample, "
            "which always looks perfect."
        )
    else:
        sentence = "There is no held-out evidence; what follows is in-sample, which always looks perfect."
    return {
        "sentence": sentence,
        "evidence": [item.to_json() for item in (*evidence, _in_sample(before, after))],
    }


def _repeated_split(held_out: HeldOut) -> list[Evidence]:
    before, after, floor = held_out.held_out_before, held_out.held_out_after, held_out.noise_floor
    if not held_out.evaluable or before is None or after is None or floor is None:
        return []
    shared = " (but on other scans of the same subjects)" if held_out.subjects_in_both else ""
    verdict = _verdict(before, after, floor, held_out.noise_upper)
    sentence = (
        f"In {held_out.split_by}s the method was not fitted on{shared}, batch told {before:.1%} of a feature's "
        f"variance before and {after:.1%} after, in the median feature; {floor:.1%} is to be expected of batches that "
        f"do not differ. {verdict}{'' if _mostly_gone(before, after, floor) else HALF_NOTE}"
    )
    return [
        Evidence(
            "repeated_split",
            True,
            f"held-out: fitted on half of the {held_out.split_by}s of each batch, judged on the others"
            f"{'; subjects have scans in both halves' if held_out.subjects_in_both else ''}",
            "median partial eta squared of batch",
            before,
            after,
            floor,
            sentence,
        )
    ]


def _classification(held_out: HeldOut) -> list[Evidence]:
    found = held_out.classification
    if not found or not (found["before"]["evaluable"] and found["after"]["evaluable"]):
        return []
    before, after = found["before"]["accuracy"], found["after"]["accuracy"]
    chance, upper = found["after"]["chance"], found["after"]["chance_95"]
    told = (
        "as chance would"
        if after <= upper
        else f"above chance, which reaches {upper:.0%} at most in 19 of 20"
    )
    sentence = (
        f"A classifier told the batch of held-out scans right in {before:.0%} before and {after:.0%} after, {told} "
        f"(chance {chance:.0%})."
    )
    label = "held-out: classified in the half the method was not fitted on"
    figure = "balanced accuracy of telling the batch"
    return [Evidence("held_out_classification", True, label, figure, before, after, chance, sentence)]


def _travelling(travelling: TravellingSubjects | None) -> list[Evidence]:
    if travelling is None or travelling.before is None or travelling.after is None:
        return []
    before, after = travelling.before.batch_ratio, travelling.after.batch_ratio
    expected = travelling.expected_ratio
    if before is None or after is None or expected is None:
        return []
    sentence = (
        f"In {travelling.subjects} subjects scanned in several batches, batch varied {before:.1f} times as much as "
        f"error before and {after:.1f} times after, in the median feature; {expected:.1f} is to be expected of batches "
        f"that do not differ. {_verdict(before, after, expected, travelling.upper_ratio)}"
    )
    label = travelling.note if travelling.held_out else IN_SAMPLE_LABEL
    figure = "mean square of batch over that of error, median feature"
    kind = "travelling_subjects"
    return [Evidence(kind, travelling.held_out, label, figure, before, after, expected, sentence)]


def _left_out(stability: Stability) -> list[Evidence]:
    known = [item for item in stability.left_out if item.median_move_sd is not None]
    if not known:
        return []
    largest = max(known, key=lambda item: item.median_move_sd or 0.0)
    nulls = [item.expected_move_sd for item in known if item.expected_move_sd is not None]
    expected = largest.expected_move_sd
    beside = "" if expected is None else f", {expected:.3f} SD with as many scans of all batches left out"
    sentence = (
        f"Without batch {largest.batch} the values of the other scans move most, by {largest.median_move_sd:.3f} SD in "
        f"the median{beside}. It tells how much the result rests on single batches, not whether they became alike."
    )
    return [
        Evidence(
            "leave_one_batch_out",
            True,
            "each batch left out in turn, the method fitted on the others",
            "greatest median move of the other scans in SD",
            None,
            largest.median_move_sd,
            float(np.median(nulls)) if expected is None and nulls else expected,
            sentence,
        )
    ]


def _in_sample(before: BatchSummary, after: BatchSummary) -> Evidence:
    sentence = (
        f"On the fitted scans themselves batch differs in {before.mean_effect} of {before.tested} features before and "
        f"{after.mean_effect} after (FDR 5 %). This proves nothing: the method was fitted on these very scans."
    )
    return Evidence(
        "in_sample",
        False,
        IN_SAMPLE_LABEL,
        "median partial eta squared of batch",
        before.median_partial_eta_squared,
        after.median_partial_eta_squared,
        None,
        sentence,
    )


def _verdict(before: float, after: float, expected: float, chance: float | None = None) -> str:
    """Return how much of what was above expectation is gone, in words; `chance` is what no effect may reach."""
    above, nothing = before - expected, max((1 + HARDLY) * expected, chance or 0.0)
    if before <= nothing:
        worse = after - before > PARTLY * expected and after > nothing
        return f"There was hardly a batch effect to remove{'; what was learnt added one' if worse else ''}."
    if _mostly_gone(before, after, expected):
        return "Most of the batch effect is gone."
    gone = (before - after) / above
    if gone >= PARTLY:
        return f"About {min(gone, 1.0):.0%} of the batch effect is gone; the rest remains."
    return "The batch effect remains." if gone > -PARTLY else "The batch effect became larger."


def _mostly_gone(before: float, after: float, expected: float) -> bool:
    return before - after >= MOSTLY * (before - expected)

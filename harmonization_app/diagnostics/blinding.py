"""Whether a column tells the treatment arm: by its name, or by what is in it. For blinded runs, which refuse it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from harmonization_app.algorithms.base import CovariateValue, Finding
from harmonization_app.algorithms.design import level_texts
from harmonization_app.diagnostics.wording import listed

ARM_WORDS = frozenset(
    {
        "arm",
        "arms",
        "armcd",
        "allocation",
        "actarm",
        "actarmcd",
        "placebo",
        "randomisation",
        "randomization",
        "randomised",
        "randomized",
        "trt",
        "treated",
        "treatment",
    }
)
# Words that make an arm of another thing: the left arm, an arm's length.
BODY_WORDS = frozenset({"left", "right", "upper", "lower", "length", "circumference"})
FEWEST_SUBJECTS = 2


def arm_like_names(columns: Collection[str], other_names: Collection[str] = ()) -> tuple[str, ...]:
    """Return the columns whose name tells the treatment arm, as such or by one of its words.

    `other_names` are names the caller knows to tell it, compared without case and separators.
    """
    further = {"".join(_words(name)) for name in other_names}
    return tuple(name for name in columns if _names_arm(name) or "".join(_words(name)) in further)


def check_blinding(
    covariates: Mapping[str, Sequence[CovariateValue]],
    arm_like_columns: Collection[str] = (),
    *,
    subjects: Sequence[str | None] = (),
    arms: Mapping[str, str] | None = None,
    arm_codes: Collection[str] = (),
) -> list[Finding]:
    """Return a stop for each of `covariates` (values by scan) that tells the treatment arm.

    By name: `arm_like_columns` and the usual words. By content: values that are all among the trial's `arm_codes`; or,
    where `arms` gives the arm by subject and `subjects` the subject of each scan, a column of two or more levels in
    which each level belongs to one arm and all arms are told apart, whatever the levels are called.
    """
    findings = []
    named = set(arm_like_names(tuple(covariates), arm_like_columns))
    for name, values in covariates.items():
        texts = level_texts(values)
        if name in named:
            reason = "its name says so"
        elif _are_arm_codes(texts, arm_codes):
            reason = f"its values are the trial's arms ({listed(sorted({text for text in texts if text}))})"
        elif arms and _tells_arms(texts, subjects, arms):
            reason = "each of its levels belongs to one arm"
        else:
            continue
        message = (
            f"The covariate {name} tells the treatment arm: {reason}. A blinded harmonization takes no such column: "
            "take it out of the plan and the table, or plan a run that is not blinded and say why."
        )
        findings.append(Finding("covariate_tells_arm", "stop", message, columns=(name,)))
    return findings


def _names_arm(name: str) -> bool:
    words = _words(name)
    return bool(ARM_WORDS & set(words)) and not BODY_WORDS & set(words) or "".join(words) in ARM_WORDS


def _words(name: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z]+", parted.lower()) if word]


def _are_arm_codes(texts: Sequence[str | None], arm_codes: Collection[str]) -> bool:
    found = {text.lower() for text in texts if text is not None}
    return len(found) > 1 and found <= {code.lower() for code in arm_codes}


def _tells_arms(texts: Sequence[str | None], subjects: Sequence[str | None], arms: Mapping[str, str]) -> bool:
    """Return whether the levels determine the arm of every subject whose arm is known.

    A column with a level of its own for every subject (an identifier, a measured number) is not taken for an arm.
    Raises ValueError where scans and subjects do not go together.
    """
    known = {
        (text, subject)
        for text, subject in zip(texts, subjects, strict=True)
        if text is not None and subject is not None and subject in arms
    }
    levels = {text for text, _ in known}
    told = {text: {arms[subject] for level, subject in known if level == text} for text in levels}
    people = {subject for _, subject in known}
    several = len({arms[subject] for subject in people}) > 1
    repeated = len(levels) <= len(people) / FEWEST_SUBJECTS
    return several and repeated and all(len(own) == 1 for own in told.values())

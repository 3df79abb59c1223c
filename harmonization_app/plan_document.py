"""The document of a harmonization plan: what a statistician fixes before the data are locked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from harmonization_app.algorithms.options import check_parameters
from harmonization_app.algorithms.phantom import PhantomCalibration
from harmonization_app.algorithms.registry import ALGORITHMS
from harmonization_app.algorithms.specification import Specification
from harmonization_app.diagnostics.gate_plausible import Range
from harmonization_app.json_values import unkept_texts
from harmonization_app.plan_schema import PLAN_SCHEMA, SCHEMA_NAME
from hub.core.errors import InvalidInput

__all__ = [
    "PLAN_SCHEMA",
    "SCHEMA_NAME",
    "ImageRows",
    "PlanDocument",
    "PlanInvalid",
    "PlannedAnalysis",
    "parse_plan",
]

RowPolicy = Literal["keep", "exclude"]
AnalysisKind = Literal["unharmonized", "leave_one_batch_out", "algorithm"]
Faults = list[dict[str, str]]

# What describes the data and holds for a sensitivity analysis by another algorithm too, where that knows it.
INHERITED = (
    "covariates",
    "features",
    "pools",
    "merge_batches",
    "batch_size",
    "overlap",
    "missing_values",
    "unusable_features",
    "duplicate_values",
    "maximum_condition",
    "seed",
    "subject",
    "time",
)
_PATH_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\['([^']*)'\]")


class PlanInvalid(InvalidInput):
    code = "plan_invalid"
    title = "The harmonization plan is not valid"


@dataclass(frozen=True, slots=True)
class ImageRows:
    """What the plan says of rows with deviant images or images that failed QC; None: nothing.

    `series` are the expected series that the features come from; empty: every expected one of the visit.
    """

    deviant: RowPolicy | None = None
    qc_failed: RowPolicy | None = None
    series: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedAnalysis:
    """One sensitivity analysis; `algorithm` and `specification` only for the kind `algorithm`."""

    kind: AnalysisKind
    algorithm: str | None = None
    specification: Specification | None = None

    @property
    def name(self) -> str:
        return self.algorithm or self.kind


@dataclass(frozen=True)
class PlanDocument:
    """A parsed plan; every specification has every default written out.

    `plausible_ranges` are (least, greatest) by feature or unit, None where open.
    """

    name: str
    title: str
    algorithm: str
    batch: str
    exclude_rows: Mapping[str, str]
    specification: Specification
    calibration: Specification | None = None
    image_rows: ImageRows = ImageRows()
    plausible_ranges: Mapping[str, Range] = field(default_factory=dict)
    scanner_changes: Literal["split", "keep"] | None = None
    blinded: bool = True
    sensitivity: tuple[PlannedAnalysis, ...] = ()
    rationale: str = ""

    @property
    def specifications(self) -> tuple[Specification, ...]:
        """Every specification in the plan, the main one first."""
        others = [self.calibration, *(analysis.specification for analysis in self.sensitivity)]
        return (self.specification, *(item for item in others if item is not None))

    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns, beside batch and features, that any part of the plan needs, each once."""
        return tuple(dict.fromkeys(name for item in self.specifications for name in item.columns))

    @property
    def companions(self) -> tuple[str, ...]:
        """Identifiers of the algorithms that run beside the main one, each once."""
        first = [PhantomCalibration.id] if self.calibration else []
        named = [analysis.algorithm for analysis in self.sensitivity if analysis.algorithm]
        return tuple(name for name in dict.fromkeys([*first, *named]) if name != self.algorithm)


def parse_plan(document: Mapping[str, Any]) -> PlanDocument:
    """Return the parsed document. Raises PlanInvalid with a JSON pointer and a sentence for each fault."""
    faults = _unkept_faults(document) or _schema_faults(document) or _meaning_faults(document)
    if faults:
        raise PlanInvalid("Correct the plan; each fault is named in errors.", errors=faults)
    specification = _specification(document["parameters"], "/parameters", faults)
    calibration = _calibration(document, faults)
    sensitivity = _sensitivity(document, faults)
    if faults or specification is None:
        raise PlanInvalid("Correct the plan; each fault is named in errors.", errors=faults)
    rows = document.get("image_rows", {})
    return PlanDocument(
        name=document["name"],
        title=document["title"],
        algorithm=document["algorithm"],
        batch=document["batch"],
        exclude_rows={item["row"]: item["reason"] for item in document.get("exclude_rows", ())},
        specification=specification,
        calibration=calibration,
        image_rows=ImageRows(rows.get("deviant"), rows.get("qc_failed"), tuple(rows.get("series", ()))),
        plausible_ranges={
            name: (least, greatest)
            for name, (least, greatest) in document.get("plausible_ranges", {}).items()
        },
        scanner_changes=document.get("scanner_changes"),
        blinded=document.get("blinded", True),
        sensitivity=sensitivity,
        rationale=document.get("rationale", ""),
    )


def _unkept_faults(document: Mapping[str, Any]) -> Faults:
    return [
        {"field": _pointer("", path), "message": message} for path, message in unkept_texts(dict(document))
    ]


def _schema_faults(document: Mapping[str, Any]) -> Faults:
    errors = Draft202012Validator(PLAN_SCHEMA).iter_errors(dict(document))
    return [
        {"field": _pointer("", error.absolute_path), "message": _in_words(error)}
        for error in sorted(errors, key=lambda item: list(map(str, item.absolute_path)))
    ]


def _in_words(error: ValidationError) -> str:
    """Return the sentence on a fault; one of several allowed forms is described, not counted."""
    if error.validator == "oneOf":
        return "must be a sentence, or an object with document, version and section"
    return error.message


def _meaning_faults(document: Mapping[str, Any]) -> Faults:
    """Return what the schema cannot say: algorithms that exist, reasons that have to be given."""
    faults: Faults = []
    named = {"/algorithm": document["algorithm"]}
    for index, item in enumerate(document.get("sensitivity", ())):
        field = f"/sensitivity/{index}"
        if item["kind"] == "algorithm":
            named[f"{field}/algorithm"] = item["algorithm"]
        elif len(item) > 1:
            message = "algorithm and parameters are for the kind algorithm only"
            faults.append({"field": field, "message": message})
    known = ", ".join(sorted(ALGORITHMS))
    for field, algorithm in named.items():
        if algorithm not in ALGORITHMS:
            faults.append({"field": field, "message": f"is not an algorithm here; use one of: {known}"})
    if document.get("blinded") is False and not document.get("rationale", "").strip():
        message = "An unblinded plan needs a rationale: say why the treatment arm may be known."
        faults.append({"field": "/rationale", "message": message})
    if "calibration" in document and document["algorithm"] == PhantomCalibration.id:
        message = "The algorithm is the phantom calibration itself; leave this out."
        faults.append({"field": "/calibration", "message": message})
    return faults + _range_faults(document.get("plausible_ranges", {}))


def _range_faults(ranges: Mapping[str, Sequence[float | None]]) -> Faults:
    faults: Faults = []
    for name, (least, greatest) in ranges.items():
        given = [end for end in (least, greatest) if end is not None]
        message = ""
        if not given:
            message = "is open at both ends and judges nothing; give the least or the greatest value, or leave it out"
        elif not all(map(math.isfinite, given)):
            message = "must be finite numbers; write null for an open end"
        elif least is not None and greatest is not None and least > greatest:
            message = f"the least value {least:g} is above the greatest {greatest:g}"
        if message:
            faults.append({"field": _pointer("/plausible_ranges", [name]), "message": message})
    return faults


def _specification(parameters: Mapping[str, Any], field: str, faults: Faults) -> Specification | None:
    """Return the parsed parameters, or None with the faults added."""
    try:
        return Specification.from_json(parameters)
    except InvalidInput as error:
        found = [
            {"field": _pointer(field, _steps(item["field"])), "message": item["message"]}
            for item in error.errors
        ]
        faults += found or [{"field": field, "message": error.detail}]
        return None


def _method_faults(algorithm: str, specification: Specification, field: str) -> Faults:
    findings = check_parameters(ALGORITHMS[algorithm].parameters_schema(), specification)
    return [
        {"field": _pointer(field, _steps(f"$.{finding.columns[0]}")), "message": finding.message}
        for finding in findings
    ]


def _calibration(document: Mapping[str, Any], faults: Faults) -> Specification | None:
    if "calibration" not in document:
        return None
    field = "/calibration/parameters"
    parameters = {
        "covariates": [],
        "eb": False,
        **document["calibration"]["parameters"],
    }
    parsed = _specification(parameters, field, faults)
    if parsed is not None:
        faults += _method_faults(PhantomCalibration.id, parsed, field)
    return parsed


def _sensitivity(document: Mapping[str, Any], faults: Faults) -> tuple[PlannedAnalysis, ...]:
    analyses: list[PlannedAnalysis] = []
    for index, item in enumerate(document.get("sensitivity", ())):
        specification = None
        if item["kind"] == "algorithm":
            field = f"/sensitivity/{index}/parameters"
            given = item.get("parameters", {})
            whole = {**_inherited(document["parameters"], item["algorithm"]), **given}
            specification = _specification(whole, field, faults)
            if specification is not None:
                faults += _method_faults(item["algorithm"], specification, field)
        analysis = PlannedAnalysis(item["kind"], item.get("algorithm"), specification)
        if analysis in analyses:
            message = "is the same analysis as one before it; name each once"
            faults.append({"field": f"/sensitivity/{index}", "message": message})
        analyses.append(analysis)
    return tuple(analyses)


def _inherited(parameters: Mapping[str, Any], algorithm: str) -> dict[str, Any]:
    """Return the plan's parameters that describe the data, less those that the algorithm does not know."""
    properties = ALGORITHMS[algorithm].parameters_schema()["properties"]
    fixed = {name: item["const"] for name, item in properties.items() if "const" in item}
    own = {
        name: parameters[name]
        for name in INHERITED
        if name in parameters and Draft202012Validator(properties[name]).is_valid(parameters[name])
    }
    return {**own, **fixed}


def _steps(json_path: str) -> list[str]:
    """Return the steps of a JSON path such as $.pools[0].name."""
    return ["".join(groups) for groups in _PATH_STEP.findall(json_path)]


def _pointer(root: str, steps: Sequence[Any]) -> str:
    """Return the JSON pointer (RFC 6901) of `steps` below `root`."""
    escaped = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    return root + "".join(f"/{step}" for step in escaped) or "/"

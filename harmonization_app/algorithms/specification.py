"""What a harmonization plan fixes beforehand: the parameters of a method, typed, with every default
explicit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from jsonschema import Draft202012Validator

from hub.core.errors import InvalidInput

CovariateKind = Literal["continuous", "categorical"]
Policy = Literal["refuse", "pass_through"]
MissingPolicy = Literal["allow", "refuse"]


@dataclass(frozen=True, slots=True)
class Covariate:
    """One effect to preserve; `reference` and `levels` only for a categorical one (empty: the levels
    seen).
    """

    name: str
    kind: CovariateKind
    reference: str | None = None
    levels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeaturePool:
    """Features whose scanner effects share one prior; a prior is never shared across pools."""

    name: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BatchSizePolicy:
    """Smallest batches accepted, in scans.

    Defaults follow our simulation: at 5 scans a batch gains nothing, the scale estimate breaks even at about
    8, and without empirical Bayes a batch is harmed up to about 16.
    """

    stop_below: int = 5
    mean_only_below: int = 10
    warn_below: int = 20
    without_eb_stop_below: int = 20
    mean_only_stop_below: int = 1


@dataclass(frozen=True, slots=True)
class OverlapPolicy:
    """Limits on how far the covariates of a batch may lie from those of the others.

    `minimum_overlap` is the least share of a batch's values inside the central 95 % of all other batches.
    """

    warn_smd_above: float = 0.5
    minimum_overlap: float = 0.5


@dataclass(frozen=True, slots=True)
class Specification:
    """Parameters of a harmonization, complete and immutable.

    `merge_batches` maps a batch label to the label it is pooled under. `features` empty means all features;
    `pools` empty means one pool of all of them. `subject` and `time` name columns of the table for methods and
    diagnostics that follow a subject; `batch_variables` columns for methods that correct several batch
    variables in order; `options` holds what one method alone knows, as its own schema says.
    """

    covariates: tuple[Covariate, ...] = ()
    eb: bool = True
    parametric: bool = True
    mean_only: bool = False
    reference_batch: str | None = None
    features: tuple[str, ...] = ()
    pools: tuple[FeaturePool, ...] = ()
    merge_batches: Mapping[str, str] = field(default_factory=dict)
    batch_size: BatchSizePolicy = BatchSizePolicy()
    overlap: OverlapPolicy = OverlapPolicy()
    missing_values: MissingPolicy = "allow"
    unusable_features: Policy = "refuse"
    duplicate_values: Literal["warn", "stop"] = "warn"
    maximum_condition: float = 1000.0
    seed: int = 20260101
    subject: str | None = None
    time: str | None = None
    batch_variables: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns, beside batch and features, that the dataset must carry, each once."""
        named = [covariate.name for covariate in self.covariates]
        named += [name for name in (self.subject, self.time, *self.batch_variables) if name is not None]
        return tuple(dict.fromkeys(named))

    @property
    def minimum_scans(self) -> int:
        """Fewest scans of a batch, or of a feature within a batch, from which its effect may be estimated."""
        policy = self.batch_size
        if not self.eb:
            least = policy.without_eb_stop_below
        else:
            least = policy.mean_only_stop_below if self.mean_only else policy.stop_below
        return max(least, 1 if self.mean_only else 2)

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as plain JSON values, every default written out."""
        document = asdict(self)
        for key in ("covariates", "features", "pools", "batch_variables"):
            document[key] = list(document[key])
        for covariate in document["covariates"]:
            covariate["levels"] = list(covariate["levels"])
        for pool in document["pools"]:
            pool["features"] = list(pool["features"])
        document["merge_batches"] = dict(self.merge_batches)
        document["options"] = dict(self.options)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Specification:
        """Return the specification written in `document`; absent parameters take their defaults.

        Raises InvalidInput naming each parameter at fault.
        """
        errors = sorted(_validator().iter_errors(dict(document)), key=lambda error: list(error.absolute_path))
        if errors:
            details = [{"field": error.json_path, "message": error.message} for error in errors]
            raise InvalidInput(
                "The parameters do not follow the method's schema; correct: "
                + "; ".join(f"{item['field']}: {item['message']}" for item in details),
                errors=details,
            )
        values = dict(document)
        values["covariates"] = tuple(_covariate(item) for item in values.get("covariates", ()))
        values["pools"] = tuple(
            FeaturePool(item["name"], tuple(item["features"])) for item in values.get("pools", ())
        )
        values["features"] = tuple(values.get("features", ()))
        values["batch_variables"] = tuple(values.get("batch_variables", ()))
        values["batch_size"] = BatchSizePolicy(**values.get("batch_size", {}))
        values["overlap"] = OverlapPolicy(**values.get("overlap", {}))
        return cls(**values)


def _covariate(item: Mapping[str, Any]) -> Covariate:
    return Covariate(item["name"], item["kind"], item.get("reference"), tuple(item.get("levels", ())))


def _string_list(description: str) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "uniqueItems": True,
        "default": [],
        "description": description,
    }


def _boolean(default: bool, description: str) -> dict[str, Any]:
    return {"type": "boolean", "default": default, "description": description}


def _choice(options: list[str], description: str) -> dict[str, Any]:
    return {"enum": options, "default": options[0], "description": description}


def _whole_numbers(policy: object, minimum: int) -> dict[str, Any]:
    properties = {
        name: {"type": "integer", "minimum": minimum, "default": value}
        for name, value in asdict(policy).items()  # type: ignore[call-overload]
    }
    return {"type": "object", "properties": properties, "additionalProperties": False, "default": {}}


_COVARIATE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "kind"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "kind": {"enum": ["continuous", "categorical"]},
        "reference": {"type": ["string", "null"], "default": None},
        "levels": _string_list("the levels allowed; empty: those seen in the data"),
    },
}

_POOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "features"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "features": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
    },
}


def _mode_schemas() -> dict[str, Any]:
    return {
        "eb": _boolean(True, "shrink the batch effects by empirical Bayes over features"),
        "parametric": _boolean(True, "normal and inverse gamma priors; otherwise the empirical ones"),
        "mean_only": _boolean(False, "correct the mean and leave the scale"),
        "reference_batch": {
            "type": ["string", "null"],
            "default": None,
            "description": "batch left unchanged, to which the others are brought",
        },
    }


def _policy_schemas() -> dict[str, Any]:
    defaults = Specification()
    overlap = {
        "warn_smd_above": {
            "type": "number",
            "exclusiveMinimum": 0,
            "default": defaults.overlap.warn_smd_above,
        },
        "minimum_overlap": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": defaults.overlap.minimum_overlap,
        },
    }
    return {
        "batch_size": _whole_numbers(defaults.batch_size, 1),
        "overlap": {"type": "object", "additionalProperties": False, "default": {}, "properties": overlap},
        "missing_values": _choice(["allow", "refuse"], "empty cells of features"),
        "unusable_features": _choice(
            ["refuse", "pass_through"], "features a batch lacks: stop, or leave as they are"
        ),
        "duplicate_values": _choice(["warn", "stop"], "rows whose values are all equal to another row's"),
        "maximum_condition": {"type": "number", "exclusiveMinimum": 1, "default": defaults.maximum_condition},
        "seed": {"type": "integer", "minimum": 0, "default": defaults.seed},
    }


def _column_schemas() -> dict[str, Any]:
    def column(description: str) -> dict[str, Any]:
        return {
            "type": ["string", "null"],
            "minLength": 1,
            "default": None,
            "description": description,
        }

    return {
        "subject": column("column that names the subject of each scan"),
        "time": column("column with the time of each scan"),
        "batch_variables": _string_list("columns to correct for, one after the other, in this order"),
        "options": {"type": "object", "default": {}, "description": "parameters of this method alone"},
    }


def parameters_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the parameters shared by the ComBat family, with explicit defaults."""
    covariates = {
        "type": "array",
        "items": _COVARIATE_SCHEMA,
        "default": [],
        "description": "effects to preserve",
    }
    pools = {
        "type": "array",
        "items": _POOL_SCHEMA,
        "default": [],
        "description": "features that share priors",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Harmonization parameters",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "covariates": covariates,
            **_mode_schemas(),
            "features": _string_list("features to harmonize, in this order; empty: all"),
            "pools": pools,
            "merge_batches": {"type": "object", "additionalProperties": {"type": "string"}, "default": {}},
            **_policy_schemas(),
            **_column_schemas(),
        },
    }


def method_schema(
    options: Mapping[str, Any] | None = None, fixed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the shared schema with the `options` (properties by name) of one method.

    `fixed` names shared parameters of which the method knows one value only.
    """
    schema = parameters_schema()
    properties = schema["properties"]
    for name, value in {"batch_variables": [], **(fixed or {})}.items():
        if properties[name].get("description"):
            properties[name] = {"description": properties[name]["description"]}
        properties[name] |= {"const": value, "default": value}
    properties["options"] |= {"additionalProperties": False, "properties": dict(options or {})}
    return schema


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(parameters_schema())

"""Additions to the generated OpenAPI document."""

from __future__ import annotations

from typing import Any

_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
    },
    "required": ["type", "title", "status", "code", "detail"],
}
_REASONS = {
    "400": "The input is not valid",
    "401": "Log in or send a token",
    "403": "Your role does not allow this",
    "404": "There is nothing here that you may see",
    "405": "This method is not offered here",
    "406": "This representation is not offered here",
    "409": "The present state does not allow this",
    "413": "The content is larger than allowed",
    "415": "This kind of content is not accepted here",
    "429": "Too many requests",
    "503": "A part of the hub is not available now",
}


def document_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Say once, on every operation, which problems it may answer."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for methods in result["paths"].values():
        for operation in methods.values():
            if isinstance(operation, dict) and "responses" in operation:
                for code, reason in _REASONS.items():
                    operation["responses"].setdefault(code, {"description": reason, "content": content})
    return result

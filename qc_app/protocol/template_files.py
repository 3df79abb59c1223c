"""The protocol templates that come with the hub, written from published values; each names its sources."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "templates"


@lru_cache(maxsize=1)
def template_names() -> tuple[str, ...]:
    """Return the templates' names, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def load_template(name: str) -> dict[str, Any]:
    """Return a template as a protocol document of one's own. Raises KeyError for an unknown name."""
    if name not in template_names():
        raise KeyError(f"There is no protocol template {name!r}; there are {', '.join(template_names())}.")
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document

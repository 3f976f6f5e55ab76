"""Values out of files that may hold anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["dig", "json_lines", "number"]


def number(value: Any) -> float | None:
    """Return a finite number as a float, everything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def dig(tree: Any, *keys: str) -> Any:
    """Return what lies under nested keys; None where there is nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def json_lines(data: bytes) -> list[dict[str, Any]] | None:
    """Return the objects of a file of one JSON object a line, parsed in one go; None if it is not wholly that."""
    lines = data.split(b"\n")
    if lines.pop():
        return None
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    return found if len(found) == len(lines) and all(type(entry) is dict for entry in found) else None

"""Values out of files that may hold anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["dig", "number"]


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

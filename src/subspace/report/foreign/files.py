"""Files of other people as they are found: what cannot be read is named in `notes`, nothing raises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from subspace.report.values import number

__all__ = ["as_number", "begins_with", "mapping", "numbers", "read_lines", "read_object", "rows"]


def begins_with(path: Path, key: str, most: int = 16384) -> bool:
    """Return whether a file's first `most` bytes hold a JSON key; files that cannot be read hold none."""
    try:
        with path.open("rb") as file:
            return f'"{key}"'.encode() in file.read(most)
    except OSError:
        return False


def read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one, and a note, where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} is not readable ({_reason(error)})")
    else:
        if isinstance(found, dict):
            return found
        notes.append(f"{path.name} is not a JSON object")
    return {}


def read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one a line; lines that hold none are counted in a note."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        notes.append(f"{path.name} is not readable ({_reason(error)})")
        return []
    found, bad = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            found.append(record)
        else:
            bad += 1
    if bad:
        notes.append(f"{path.name}: {bad} line{'s are' if bad > 1 else ' is'} no JSON object; ignored")
    return found


def as_number(value: Any) -> float | None:
    """Return a finite number, written as one or as text; everything else as None.

    >>> as_number("0.25"), as_number(2), as_number("nan"), as_number(True)
    (0.25, 2.0, None, None)
    """
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return number(value)


def numbers(found: Mapping[str, Any], names: Mapping[str, str], bad: list[str]) -> dict[str, float | None]:
    """Return numbers under our names; what was NaN or infinite stands as None and its name is added to `bad`."""
    out: dict[str, float | None] = {}
    for theirs, ours in names.items():
        value = as_number(found.get(theirs))
        if value is not None:
            out[ours] = value
        elif _not_finite(found.get(theirs)):
            out[ours] = None
            bad.append(ours)
    return out


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object as it is, everything else as an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> Iterable[dict[str, Any]]:
    """Yield the JSON objects of a JSON list; nothing if it is none."""
    return (row for row in value if isinstance(row, dict)) if isinstance(value, list) else ()


def _not_finite(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and value is not None and not math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

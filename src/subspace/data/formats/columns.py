"""Which column of a file holds which field of ours; texts taken from it, with a clear word where they are no texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from subspace.core.errors import ConfigError, DataError
from subspace.core.registry import nearest
from subspace.data.sources.readers import Row

__all__ = ["FIELDS", "Columns", "absent", "checked_mapping", "named", "text_of"]

FIELDS = ("prompt", "query", "response", "system", "history", "messages", "text", "text_pair", "label")
"""Fields that `data.columns` may map; `source` and `target` are understood for prompt and response."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Columns:
    """Our fields and the columns they are read from.

    Attributes:
        mapping: What the recipe or `dataset_info.json` says.
        defaults: What the format says where the mapping is silent.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)

    def name(self, of_field: str) -> str:
        """Return the column of a field."""
        return self.mapping.get(of_field) or self.defaults.get(of_field) or of_field

    def text(self, row: Row, of_field: str) -> str:
        """Return a required text that is not blank.

        Raises:
            DataError: E-DAT-004 without the column; E-DAT-005 for what is no text or blank; E-DAT-010 for half a
                surrogate pair.
        """
        column = self.name(of_field)
        if column not in row.values:
            raise absent(row.place, column, row.values)
        text = text_of(row.values[column], f"{row.place}:{column}")
        if not text.strip():
            where = f"{row.place}:{column}"
            raise DataError(
                "E-DAT-005", where=where, found="the field is empty", action="Or set data.on_bad_row: skip."
            )
        return text

    def optional(self, row: Row, of_field: str) -> str:
        """Return a text, or "" where the column is absent, null or blank.

        Raises:
            DataError: E-DAT-005 for what is no text; E-DAT-010 as in `text`.
        """
        column = self.name(of_field)
        value = row.values.get(column)
        text = "" if value is None else text_of(value, f"{row.place}:{column}")
        return text if text.strip() else ""


def absent(place: str, column: str, present: Iterable[str]) -> DataError:
    """Return the error for a column that a row does not have."""
    close = nearest(column, present)
    shown = ", ".join(repr(name) for name in list(present)[:_SHOWN_COLUMNS])
    return DataError(
        "E-DAT-004",
        where=place,
        found=f"needs the column {column!r}; the row has {shown or 'none'}",
        action=f"Is it {close!r}? Say so under data.columns." if close else "Name it under data.columns.",
    )


def named(value: Any) -> str:
    """Return what a value is, in words."""
    if value is None:
        return "null"
    kinds: list[tuple[type, str]] = [(bool, "a truth value"), (int, "a number"), (float, "a number"), (str, "a text")]
    kinds += [(list, "a list"), (tuple, "a list"), (dict, "an object")]
    return next((name for kind, name in kinds if isinstance(value, kind)), f"of type {type(value).__name__}")


def text_of(value: Any, where: str) -> str:
    """Return `value` if it is a text that can be encoded.

    Raises:
        DataError: E-DAT-005 if it is no text; E-DAT-010 if it holds half a surrogate pair.
    """
    if not isinstance(value, str):
        raise DataError("E-DAT-005", where=where, found=f"the field is {named(value)}", expected="a text")
    if not value.isascii() and (broken := _SURROGATE.search(value)):
        found = f"half a surrogate pair U+{ord(broken[0]):04X} at character {broken.start()}"
        raise DataError("E-DAT-010", where=where, found=found)
    return value


def checked_mapping(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the recipe's `data.columns`, `source` and `target` translated.

    Raises:
        ConfigError: E-CFG-007 for a field that does not exist.
    """
    words = {"source": "prompt", "target": "response"}
    translated = {words.get(name, name): column for name, column in columns.items()}
    for name in translated:
        if name not in FIELDS:
            close = nearest(name, FIELDS)
            raise ConfigError(
                "E-CFG-007",
                where=f"data.columns.{name}",
                found="unknown field",
                expected=f"one of {', '.join(FIELDS)}",
                action=f"Did you mean {close!r}?" if close else "",
            )
    return translated

"""Fields and values in words: what a key accepts, and what was found instead."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from subspace.config.base import Section

__all__ = ["describe", "describe_field", "element", "number_kinds", "show", "words_of"]

_SHOWN_CHARACTERS = 60


def show(value: Any) -> str:
    """Return a value as a recipe would hold it; long texts are cut, lists and mappings only named.

    >>> show("fast"), show(True), show(3.0), show(float("-inf")), show(("a", "b"))
    ("the text 'fast'", 'true', '3.0', '-.inf', 'a list of 2 items')
    """
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, str):
        short = value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}..."
        return f"the text {short!r}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} item{'s' * (len(value) != 1)}"
    return "a mapping" if isinstance(value, Mapping) else str(value)


def describe_field(field: FieldInfo) -> str:
    """Return what a field accepts, e.g. `a finite number in (0, 1]`."""
    return describe(field.annotation, field.metadata)


def describe(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Return what a type with constraints accepts.

    >>> from pydantic import Field
    >>> describe(Annotated[float, Field(gt=0.0, le=1.0)]), describe(Literal["a", "b"] | None)
    ('a finite number in (0, 1]', 'one of a, b, or null')
    """
    annotation, limits = _unwrap(annotation, metadata)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = [describe(kind, limits) for kind in args if kind is not type(None)]
        return ", or ".join([*kinds, *(["null"] if type(None) in args else [])])
    if origin is Literal:
        words = ", ".join(_word(word) for word in args)
        return f"one of {words}" if len(args) > 1 else words
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        return ("an integer" if annotation is int else "a finite number") + _range(_bounds(limits))
    if annotation is str:
        return "text" + _text_limits(_bounds(limits))
    if origin in (tuple, list):
        if origin is tuple and args and args[-1] is not ...:
            return f"a list of {len(args)} items"
        return f"a list, each item {describe(args[0])}" if args else "a list"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, Section)):
        return f"a mapping, each value {describe(args[1])}" if args else "a mapping"
    return "another value"


def element(annotation: Any, part: str | int) -> Any:
    """Return the type of an item of a list type, or of the values of a mapping type; None for any other type."""
    for kind in _kinds(annotation):
        origin, args = get_origin(kind), get_args(kind)
        if isinstance(part, str) and origin is dict:
            return args[1]
        if isinstance(part, int) and origin in (tuple, list):
            return args[0] if args[1:] in ((), (...,)) else args[part]
    return None


def words_of(annotation: Any) -> tuple[str, ...]:
    """Return the words that a type takes.

    >>> words_of(Literal["epoch", 1] | int | None)
    ('epoch',)
    """
    kinds = (_unwrap(kind, ())[0] for kind in _kinds(annotation))
    return tuple(
        word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind) if isinstance(word, str)
    )


def number_kinds(annotation: Any) -> set[type]:
    """Return which of int and float a type takes; empty if it takes anything else than numbers and null.

    >>> sorted(kind.__name__ for kind in number_kinds(int | None)), number_kinds(int | Literal["auto"])
    (['int'], set())
    """
    kinds = {_unwrap(kind, ())[0] for kind in _kinds(annotation)} - {type(None)}
    return kinds if kinds <= {int, float} else set()


def _kinds(annotation: Any) -> tuple[Any, ...]:
    annotation, _ = _unwrap(annotation, ())
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _unwrap(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, list[Any]]:
    limits = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        limits += more
    return annotation, limits


def _bounds(limits: Iterable[Any]) -> dict[str, Any]:
    """Return gt, ge, lt, le, min_length, max_length and pattern of annotated-types and pydantic metadata."""
    found: dict[str, Any] = {}
    for limit in limits:
        if isinstance(limit, FieldInfo):
            found |= _bounds(limit.metadata)
        for name in ("gt", "ge", "lt", "le", "min_length", "max_length", "pattern"):
            if getattr(limit, name, None) is not None:
                found[name] = getattr(limit, name)
    return found


def _range(bounds: dict[str, Any]) -> str:
    low = bounds.get("gt", bounds.get("ge"))
    high = bounds.get("lt", bounds.get("le"))
    if low is not None and high is not None:
        return f" in {'(' if 'gt' in bounds else '['}{_word(low)}, {_word(high)}{')' if 'lt' in bounds else ']'}"
    if low is not None:
        return f" {'>' if 'gt' in bounds else '>='} {_word(low)}"
    return f" {'<' if 'lt' in bounds else '<='} {_word(high)}" if high is not None else ""


def _text_limits(bounds: dict[str, Any]) -> str:
    if "pattern" in bounds:
        return f" that matches {getattr(bounds['pattern'], 'pattern', bounds['pattern'])}"
    low, high = bounds.get("min_length", 0), bounds.get("max_length")
    if high is not None:
        return f" of {low} to {high} characters" if low else f" of at most {high} characters"
    return " that is not empty" if low == 1 else f" of at least {low} characters" if low else ""


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

"""One section of a recipe: translated, checked, and every complaint of pydantic put into our words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from subspace.config.base import Section
from subspace.config.document import COMMAND_LINE, Document, Mark, within
from subspace.config.expected import describe, describe_field, element, number_kinds, show, words_of
from subspace.config.translate import Clash, Given, choose, given_values, translation_note
from subspace.config.yaml_text import Loc, dotted
from subspace.core.errors import ConfigError, SubspaceError, UsageError
from subspace.core.registry import nearest

__all__ = ["parse_section"]

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class _Problem:
    code: str
    loc: Loc
    mark: Mark
    found: str
    expected: str = ""
    action: str = ""

    def rank(self) -> tuple[bool, int, int]:
        """Return the order of complaints: by line, and last what is missing, which a misspelt key often explains."""
        return self.code == "E-CFG-011", self.mark.layer, self.mark.line

    def error(self) -> SubspaceError:
        """Return the exception."""
        # a bad value on the command line is an error of the command, as argparse would call it
        overridden = self.mark.layer == COMMAND_LINE and self.code in ("E-CFG-009", "E-CFG-010")
        return (UsageError if overridden else ConfigError)(
            "E-CLI-002" if overridden else self.code,
            where=":".join(filter(None, (self.mark.source, dotted(self.loc)))) or "recipe",
            found=self.found,
            expected=self.expected,
            action=self.action,
        )


def parse_section(document: Document, key: str | None, section: type[S]) -> tuple[S, tuple[str, ...]]:
    """Check one section of a document.

    Args:
        document: The recipe.
        key: Name of the section; None for the whole document. A section that is absent or null is empty.
        section: Class that owns it.

    Returns:
        The section, and a note for each foreign name or value that was translated.

    Raises:
        ConfigError: For the first problem by line, with the `others`: E-CFG-007 unknown key, E-CFG-009 number,
            E-CFG-010 type or choice, E-CFG-011 missing key, E-CFG-014 names that contradict each other.
        UsageError: E-CLI-002 for a bad value that an override set.
    """
    loc: Loc = () if key is None else (key,)
    tree = document.tree if key is None else document.tree.get(key)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise _Problem("E-CFG-010", loc, document.mark(loc), f"found {show(tree)}", "a mapping").error()
    problems = list(_unknown(document, loc, tree, section))
    chosen: dict[str, Given] = {}
    groups: dict[str, list[Given]] = {}
    for given in given_values(document, loc, tree, section):
        groups.setdefault(given.key, []).append(given)
    for our_key, candidates in groups.items():
        choice = choose(candidates)
        if isinstance(choice, Clash):
            problems.append(_clash(choice, loc))
            choice = choice.first
        chosen[our_key] = choice
    try:
        result = section.model_validate({our_key: given.value for our_key, given in chosen.items()})
    except ValidationError as error:
        problems += _complaints(error, document, loc, section, chosen)
    if problems:
        first, *others = (problem.error() for problem in sorted(problems, key=_Problem.rank))
        first.others = tuple(others)
        raise first
    notes = (translation_note(given, loc) for given in chosen.values())
    return result, tuple(note for note in notes if note)


def _unknown(document: Document, loc: Loc, tree: Mapping[str, Any], section: type[Section]) -> Iterator[_Problem]:
    known = {**section.model_fields, **section.synonyms}
    for name in tree:
        if name in known:
            continue
        close = nearest(name, known) or ""
        ours = section.synonyms[close].key if close in section.synonyms else close
        action = f"Did you mean {close!r}{'' if ours == close else f' (our {ours})'}?" if close else ""
        expected = "" if close else f"one of {', '.join(section.model_fields)}"
        mark = document.mark((*loc, name))
        yield _Problem("E-CFG-007", (*loc, name), mark, f"unknown key {name[:80]!r}", expected, action)


def _clash(clash: Clash, loc: Loc) -> _Problem:
    first, second = sorted((clash.first, clash.second), key=lambda given: given.mark.line)
    line = f" (the first on line {first.mark.line})" if first.mark.line else ""
    found = f"{first.name!r} and {second.name!r} exclude each other: both set {first.key}{line}"
    return _Problem("E-CFG-014", (*loc, second.name), second.mark, found, action="Keep one.")


def _complaints(
    error: ValidationError, document: Document, loc: Loc, section: type[Section], chosen: Mapping[str, Given]
) -> Iterator[_Problem]:
    """Yield one problem for each value that pydantic complains of; on a union it complains once for each kind."""
    seen: set[Loc] = set()
    for detail in error.errors(include_url=False):
        path, kind = detail["loc"], detail["type"]
        message = detail["msg"].removeprefix("Value error, ")
        if not path:  # a validator of the whole section
            context = detail.get("ctx", {})
            given = chosen.get(str(context.get("key", "")))
            place = (*loc, given.name) if given else loc
            action = str(context.get("action", ""))
            yield _Problem("E-CFG-014", place, document.mark(place), message.removesuffix("."), action=action)
            continue
        name = str(path[0])
        given = chosen.get(name)
        inner, value = _inside(path[1:], given.value if given else None)
        here: Loc = (*loc, given.name if given else name, *inner)
        if kind in ("missing", "extra_forbidden") and isinstance(path[-1], str):
            here = (*here, path[-1]) if len(path) > 1 else here
            yield _bad_key(kind, here, document.mark(here), section.model_fields.get(name))
        elif given and not any(_related(here, known) for known in seen):
            seen.add(here)
            code, found, expected, action = _bad_value(section, given, inner, value)
            if kind in ("value_error", "assertion_error"):
                code, found, expected = "E-CFG-010", message, ""
            yield _Problem(code, here, document.mark(here), found, expected, action)


def _related(one: Loc, other: Loc) -> bool:
    return within(one, other) or within(other, one)


def _inside(path: tuple[int | str, ...], value: Any) -> tuple[Loc, Any]:
    """Return the part of a pydantic location that the value really has, and what is there; unions name their kinds."""
    inner: list[str | int] = []
    for part in path:
        held: Mapping[Any, Any] = dict(enumerate(value)) if isinstance(value, tuple) else value
        if isinstance(held, Mapping) and part in held:
            value = held[part]
            inner.append(part)
    return tuple(inner), value


def _bad_key(kind: str, here: Loc, mark: Mark, field: FieldInfo | None) -> _Problem:
    if kind == "extra_forbidden":
        return _Problem("E-CFG-007", here, mark, f"unknown key {here[-1]!r}")
    expected = describe_field(field) if field and len(here) <= 2 else ""
    return _Problem("E-CFG-011", here, mark, f"required key {here[-1]!r} is missing", expected)


def _bad_value(section: type[Section], given: Given, inner: Loc, value: Any) -> tuple[str, str, str, str]:
    """Return code, found, expected and action for a value of the wrong type or size."""
    field = section.model_fields[given.key]
    annotation, expected = field.annotation, describe_field(field)
    for part in inner:
        annotation = element(annotation, part)
        expected = describe(annotation) if annotation is not None else expected
    switch = section.synonyms.get(given.name)
    if switch and switch.values and all(isinstance(foreign, bool) for foreign in switch.values):
        expected = "true or false"
    raw = value if inner else given.raw
    action = f"Write {int(raw)}." if isinstance(raw, float) and raw.is_integer() and "integer" in expected else ""
    close = nearest(raw, words_of(annotation)) if isinstance(raw, str) else None
    action = f"Did you mean {close!r}?" if close else action
    return _code(annotation, raw), f"found {show(raw)}", expected, action


def _code(annotation: Any, value: Any) -> str:
    """Return E-CFG-009 for what is no number or one out of range, E-CFG-010 for a value of another type."""
    numbers = number_kinds(annotation)
    if not numbers or isinstance(value, bool):
        return "E-CFG-010"
    if isinstance(value, float):
        return "E-CFG-009" if float in numbers or not math.isfinite(value) else "E-CFG-010"
    return "E-CFG-009" if isinstance(value, str | int) else "E-CFG-010"

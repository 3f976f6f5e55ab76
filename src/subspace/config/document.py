"""A recipe as read: plain values, and where each of them stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from subspace.config.guard import refuse_remote_code, refuse_secrets
from subspace.config.yaml_text import Loc, compose_text, dotted, read_text
from subspace.core.errors import ConfigError
from subspace.core.problems import Problems
from subspace.core.registry import nearest

__all__ = [
    "BASE",
    "COMMAND_LINE",
    "RECIPE",
    "Document",
    "Mark",
    "document_from",
    "expand",
    "peek",
    "read_document",
    "unknown_sections",
    "within",
]

BASE, RECIPE, COMMAND_LINE = range(3)
"""Layers: what a later one sets wins over the same key, under whatever name, in an earlier one."""

_SHORT_FORMS = {"method": "name"}
"""Sections that may be given as one text, and the key that it stands for."""


class Mark(NamedTuple):
    """Where a value was written.

    Attributes:
        source: `recipe.yaml:12`, `command line`, or "" for a value from Python.
        layer: `BASE`, `RECIPE` or `COMMAND_LINE`.
        line: Line in its file; 0 where there is none.
    """

    source: str
    layer: int
    line: int = 0


@dataclass(frozen=True)
class Document:
    """The values of a recipe before any section has checked them.

    Attributes:
        tree: Mappings are dicts with text keys, lists are tuples.
        path: File it was read from.
        notes: What a user should know of how it was put together.
        marks: Where values stand; one that is missing stands where its parent does.
    """

    tree: dict[str, Any]
    path: str | None = None
    notes: tuple[str, ...] = ()
    marks: Mapping[Loc, Mark] = field(default_factory=dict, repr=False)

    def mark(self, loc: Loc) -> Mark:
        """Return where the value at `loc`, or else its nearest parent, was written."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.marks:
                return self.marks[loc[:end]]
        return Mark(self.path or "", RECIPE)

    def place(self, loc: Loc) -> str:
        """Return `file:line:dotted.key`; without a file, the dotted key.

        >>> document_from({"data": {"labels": ["a"]}}).place(("data", "labels", 0))
        'data.labels[0]'
        """
        return ":".join(filter(None, (self.mark(loc).source, dotted(loc)))) or "recipe"


def read_document(path: str | Path) -> Document:
    """Read a recipe; `extends: base.yaml` (one level, relative to the recipe) is resolved.

    Mappings of the recipe are merged into those of its base; any other value replaces the base's.

    Raises:
        ConfigError: E-CFG-001 to E-CFG-006, E-CFG-012, E-CFG-013; E-CFG-021 for a base that is missing or has a base.
        SecurityError: E-SEC-001 tag, E-SEC-002 secret, E-SEC-004 remote code.
    """
    document = _read(Path(path), RECIPE)
    if "extends" in document.tree:
        document = _with_base(document)
    return _checked(expand(document))


def document_from(tree: Mapping[str, Any]) -> Document:
    """Return a document of plain Python values: None, bool, int, float, str, paths, lists, tuples, dicts.

    Raises:
        ConfigError: E-CFG-010 on any other value, or a key that is not text.
        SecurityError: E-SEC-002 secret, E-SEC-004 remote code.
    """
    return _checked(expand(Document(_plain(dict(tree), ()))))


def peek(document: Document, *loc: str) -> Any:
    """Return the value at `loc`, or None where there is none.

    >>> peek(document_from({"method": "lora"}), "method", "name")
    'lora'
    """
    value: Any = document.tree
    for key in loc:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def unknown_sections(document: Document, allowed: Sequence[str]) -> None:
    """Refuse a document with a top-level key outside `allowed`.

    Raises:
        ConfigError: E-CFG-007 with the nearest name; it points to `migrate` if the file looks like LLaMA-Factory's.
    """
    unknown = [key for key in document.tree if key not in allowed]
    foreign = {"stage", "finetuning_type", "cutoff_len", "lora_target"} & set(unknown)
    problems = Problems()
    for key in unknown[:1] if foreign else unknown:
        close = nearest(key, allowed)
        action = f"Did you mean {close!r}?" if close else ""
        # an override makes a section of a key inside it
        written = sorted(loc for loc in document.marks if loc[:1] == (key,))
        problem = ConfigError(
            "E-CFG-007",
            where=document.place(written[0] if written else (key,)),
            found=f"unknown section {key!r}",
            expected=f"one of {', '.join(allowed)}",
            action="This looks like a LLaMA-Factory file: run `subspace migrate` on it." if foreign else action,
        )
        problems.found.append(problem)
    problems.tell()


def expand(document: Document) -> Document:
    """Return the document with short forms written out: `method: lora` is `method: {name: lora}`."""
    short = {key: name for key, name in _SHORT_FORMS.items() if isinstance(document.tree.get(key), str)}
    tree = document.tree | {key: {name: document.tree[key]} for key, name in short.items()}
    return Document(tree, document.path, document.notes, document.marks)


def within(loc: Loc, parent: Loc) -> bool:
    """Return whether `loc` is `parent` or stands below it."""
    return loc[: len(parent)] == parent


def _read(path: Path, layer: int, *, missing: str = "E-CFG-001") -> Document:
    name = str(path)
    tree, lines = compose_text(read_text(path, code=missing), name)
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else "a list" if isinstance(tree, tuple) else "a single value"
        action = "Start from `subspace init --model M --data D`."
        raise ConfigError("E-CFG-003", where=name, found=f"found {kind}", expected="a mapping", action=action)
    marks = {loc: Mark(f"{name}:{line}", layer, line) for loc, line in lines.items()}
    return Document(tree, name, (), marks)


def _with_base(document: Document) -> Document:
    base_name, where = document.tree["extends"], document.place(("extends",))
    if not isinstance(base_name, str) or not base_name:
        raise ConfigError("E-CFG-021", where=where, found=f"found {base_name!r}", expected="the path of one recipe")
    base = _read(Path(document.path or "").parent / base_name, BASE, missing="E-CFG-021")
    if "extends" in base.tree:
        found, action = "the base extends another recipe", "Only one level is allowed; merge the two bases."
        raise ConfigError("E-CFG-021", where=base.place(("extends",)), found=found, action=action)
    marks = dict(base.marks)
    own = {key: value for key, value in document.tree.items() if key != "extends"}
    tree = _merge(base.tree, own, (), marks)
    return Document(tree, document.path, (f"{where} is {base.path}",), {**marks, **document.marks})


def _merge(base: dict[str, Any], own: dict[str, Any], loc: Loc, marks: dict[Loc, Mark]) -> dict[str, Any]:
    """Return `base` with `own` merged in; marks of what is replaced are removed from `marks`."""
    merged = dict(base)
    for key, value in own.items():
        here = (*loc, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = _merge(base[key], value, here, marks)
            continue
        merged[key] = value
        for stale in [known for known in marks if within(known, here)]:
            del marks[stale]
    return merged


def _checked(document: Document) -> Document:
    refuse_secrets(document.tree, document.place)
    refuse_remote_code(document.tree, document.place)
    return document


def _plain(value: Any, loc: Loc) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(item, (*loc, index)) for index, item in enumerate(value))
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, (*loc, key)) for key, item in value.items()}
    kind = "a mapping with keys that are not text" if isinstance(value, Mapping) else f"a {type(value).__name__}"
    raise ConfigError("E-CFG-010", where=dotted(loc) or "recipe", found=kind, expected="plain values, as in YAML")

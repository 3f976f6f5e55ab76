"""Parts of a document that are documents themselves, laid over each other, with errors that name the whole key.

Imports no torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subspace.config.document import Document, Mark, expand, within
from subspace.config.yaml_text import Loc, dotted
from subspace.core.errors import SubspaceError

__all__ = ["Origins", "layered", "named_below", "named_by", "rooted"]

Origins = Mapping[Loc, Loc]
"""Where in its own file a key of laid-over documents was written."""


def rooted(document: Document, *loc: str) -> Document:
    """Return what stands at `loc` as a document; an empty one where there is nothing."""
    tree: Any = document.tree
    for key in loc:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    marks = {known[len(loc) :]: mark for known, mark in document.marks.items() if within(known, loc)}
    marks.setdefault((), document.mark(loc))
    return expand(Document(dict(tree) if isinstance(tree, Mapping) else {}, document.path, (), marks))


def layered(parts: Sequence[tuple[Document, Loc]]) -> tuple[Document, Origins]:
    """Return documents as one, later ones over earlier ones, and where every key was written.

    Mappings are merged, except the method's: it belongs to one arm as a whole.

    Args:
        parts: Documents and the keys under which they stand in the file, the base first.
    """
    tree: dict[str, Any] = {}
    marks: dict[Loc, Mark] = {}
    origins: dict[Loc, Loc] = {}
    for level, (part, root) in enumerate(parts):
        _merge(tree, part.tree, (), marks, origins)
        for loc, mark in part.marks.items():
            if loc:
                # a later part wins over an earlier one whatever name it uses for a key
                marks[loc] = mark._replace(layer=min(mark.layer, level - len(parts)))
                origins[loc] = (*root, *loc)
    return Document(tree, parts[-1][0].path, (), marks), origins


def _merge(tree: dict[str, Any], own: Mapping[str, Any], loc: Loc, marks: dict[Loc, Mark], origins: Any) -> None:
    for key, value in own.items():
        here = (*loc, key)
        if isinstance(value, dict) and isinstance(tree.get(key), dict) and here != ("method",):
            tree[key] = dict(tree[key])
            _merge(tree[key], value, here, marks, origins)
            continue
        tree[key] = value
        for stale in [known for known in marks if within(known, here)]:
            del marks[stale]
            origins.pop(stale, None)


@contextlib.contextmanager
def named_below(*root: str) -> Iterator[None]:
    """Name keys in errors as they stand in the whole file: below `root`."""
    try:
        yield
    except SubspaceError as error:
        raise _renamed(error, lambda key: f"{dotted(root)}.{key}" if key else dotted(root)) from error


@contextlib.contextmanager
def named_by(origins: Origins) -> Iterator[None]:
    """Name keys in errors as they stand in the whole file: where they came from."""
    names = {dotted(loc): dotted(origin) for loc, origin in origins.items()}

    def rename(key: str) -> str:
        known = key
        while known and known not in names:
            known = known.rpartition(".")[0]
        return names[known] + key[len(known) :] if known else key

    try:
        yield
    except SubspaceError as error:
        raise _renamed(error, rename) from error


def _renamed(error: SubspaceError, rename: Any) -> SubspaceError:
    before, colon, key = error.where.rpartition(":")
    key = "" if key == "recipe" else key
    renamed = type(error)(
        error.code, where=f"{before}{colon}{rename(key)}", found=error.found, expected=error.expected,
        action=error.action,
    )  # fmt: skip
    renamed.others = tuple(_renamed(other, rename) for other in error.others)
    return renamed

"""Run folders among paths that people name: a run itself, or a folder with runs up to three levels below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from subspace.runs.layout import RunLayout

__all__ = ["DEPTH", "is_run", "runs_below", "runs_in"]

DEPTH = 3
"""Levels below a named folder at which runs are looked for."""


def is_run(path: Path) -> bool:
    """Return whether a folder is a run: it has a manifest, or just a log."""
    layout = RunLayout(path)
    return layout.manifest.is_file() or layout.log.is_file()


def runs_in(path: Path) -> list[Path]:
    """Return the run that `path` is, or the runs below it in the order of their names."""
    return [path] if is_run(path) else runs_below(path)


def runs_below(path: Path, counts: Callable[[Path], bool] = is_run) -> list[Path]:
    """Return what lies below `path` and counts as a run, in the order of the names; hidden folders are left out.

    Args:
        path: A folder.
        counts: Says of a folder or file whether it is a run; nothing is looked for below one.
    """
    return sorted(_below(path, counts, DEPTH))


def _below(path: Path, counts: Callable[[Path], bool], depth: int) -> Iterator[Path]:
    try:
        children = [child for child in path.iterdir() if not child.name.startswith(".")]
    except OSError:
        return
    for child in children:
        if counts(child):
            yield child
        elif depth > 1 and child.is_dir():
            yield from _below(child, counts, depth - 1)

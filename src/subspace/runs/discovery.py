"""Run folders among paths that people name: a run itself, or a folder with runs up to three levels below it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from subspace.runs.layout import RunLayout

__all__ = ["DEPTH", "is_run", "runs_in"]

DEPTH = 3
"""Levels below a named folder at which runs are looked for."""


def is_run(path: Path) -> bool:
    """Return whether a folder is a run: it has a manifest, or just a log."""
    layout = RunLayout(path)
    return layout.manifest.is_file() or layout.log.is_file()


def runs_in(path: Path) -> list[Path]:
    """Return the run that `path` is, or the runs below it in the order of their names; hidden folders are left out."""
    return [path] if is_run(path) else sorted(_below(path, DEPTH))


def _below(path: Path, depth: int) -> Iterable[Path]:
    try:
        children = [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]
    except OSError:
        return
    for child in children:
        if is_run(child):
            yield child
        elif depth > 1:
            yield from _below(child, depth - 1)

"""Run folders among paths that people name: a run itself, a bench, or a folder with either up to three levels below."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from subspace.runs.bench_layout import BenchLayout
from subspace.runs.layout import RunLayout

__all__ = ["DEPTH", "is_lost", "is_run", "runs_below", "runs_in"]

DEPTH = 3
"""Levels below a named folder at which runs are looked for."""


def is_run(path: Path) -> bool:
    """Return whether a folder is a run: it has a manifest, or just a log."""
    layout = RunLayout(path)
    return layout.manifest.is_file() or layout.log.is_file()


def is_lost(given: str) -> bool:
    """Return whether a name that leads nowhere can only be a path: ids on a hub are `owner/name`."""
    if os.path.exists(given) or given.startswith("builtin/"):
        return False
    return given.startswith((".", "~", os.sep)) or len(Path(given).parts) > 2


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
    compared = _compared(path)
    if compared is not None:
        yield from (run for run in compared if counts(run))
        return
    try:
        children = [child for child in path.iterdir() if not child.name.startswith(".")]
    except OSError:
        return
    for child in children:
        if counts(child):
            yield child
        elif child.is_dir() and (depth > 1 or BenchLayout(child).bench.is_file()):
            yield from _below(child, counts, depth - 1)


def _compared(path: Path) -> list[Path] | None:
    """Return the runs that a bench compares, its searches left out; None for a folder that is no bench."""
    try:
        return [path / str(job["run"]) for job in json.loads(BenchLayout(path).bench.read_bytes())["jobs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None

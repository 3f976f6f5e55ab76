"""A folder that `subspace bench` made: which run is which arm on which task, and how learning rates were searched.

What cannot be read is left out and named in `notes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subspace.report.values import dig, number

__all__ = ["BENCH_FILE", "Bench", "Job", "Search", "Trial", "read_bench"]

BENCH_FILE = "bench.json"


@dataclass(frozen=True)
class Trial:
    """One learning rate (or other value) that was tried.

    Attributes:
        value: What was tried.
        rung: Round of successive halving in which it was scored last.
        steps: Optimizer steps it was given.
        score: On the validation split; None if it failed.
        seconds: What it cost.
        error: Why it has no score, or "".
    """

    value: float
    rung: int
    steps: int
    score: float | None
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Search:
    """What was tried for one arm before its runs."""

    arm: str
    task: str
    model: str
    key: str
    metric: str
    higher_is_better: bool
    trials: tuple[Trial, ...]
    chosen: float | None
    seconds: float | None


@dataclass(frozen=True)
class Job:
    """One run of the bench."""

    arm: str
    task: str
    model: str
    seed: int | None
    run: Path
    learning_rate: float | None = None


@dataclass(frozen=True)
class Bench:
    """What bench.json says, as far as it could be read."""

    folder: Path
    name: str = ""
    command: str = ""
    created: str = ""
    reference: str | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    budget: tuple[str, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    jobs: tuple[Job, ...] = ()
    searches: tuple[Search, ...] = ()
    notes: tuple[str, ...] = ()


def read_bench(folder: Path) -> Bench | None:
    """Read the bench of a folder; None if it is none."""
    path = folder / BENCH_FILE
    if not path.is_file():
        return None
    notes: list[str] = []
    tree = _tree(path, folder, notes)
    kind, amount = dig(tree, "budget", "kind"), number(dig(tree, "budget", "value"))
    arms = tree.get("arms")
    metrics = dig(tree, "family", "metric")
    jobs = tuple(job for entry in _entries(tree, "jobs") if (job := _job(folder, entry)) is not None)
    searches = []
    listed = tree.get("searches")
    for name in listed if isinstance(listed, list) else ():
        if isinstance(name, str) and (search := _search(folder / name, folder, notes)) is not None:
            searches.append(search)
    reference = dig(tree, "family", "reference")
    return Bench(
        folder=folder,
        name=_text(tree.get("name")) or folder.resolve().name,
        command=_text(tree.get("command")),
        created=_text(tree.get("created")),
        reference=reference if isinstance(reference, str) else None,
        metrics={str(task): name for task, name in metrics.items() if isinstance(name, str)}
        if isinstance(metrics, Mapping)
        else {},
        budget=(kind, amount) if isinstance(kind, str) and amount is not None else None,
        labels={str(arm): _text(dig(found, "label")) or str(arm) for arm, found in arms.items()}
        if isinstance(arms, Mapping)
        else {},
        jobs=jobs,
        searches=tuple(searches),
        notes=tuple(notes),
    )


def _job(folder: Path, entry: Mapping[str, Any]) -> Job | None:
    arm, run = entry.get("arm"), entry.get("run")
    if not isinstance(arm, str) or not isinstance(run, str):
        return None
    seed = number(entry.get("seed"))
    return Job(
        arm,
        _text(entry.get("task")),
        _text(entry.get("model")),
        None if seed is None else int(seed),
        folder / run,
        number(entry.get("learning_rate")),
    )


def _search(path: Path, folder: Path, notes: list[str]) -> Search | None:
    tree = _tree(path, folder, notes)
    trials = []
    for entry in _entries(tree, "trials"):
        value = number(entry.get("value"))
        if value is not None:
            rung, steps = number(entry.get("rung")) or 0, number(entry.get("steps")) or 0
            score, seconds = number(entry.get("score")), number(entry.get("seconds"))
            trials.append(Trial(value, int(rung), int(steps), score, seconds, _text(entry.get("error"))))
    if not trials:
        return None
    return Search(
        _text(tree.get("arm")),
        _text(tree.get("task")),
        _text(tree.get("model")),
        _text(tree.get("key")) or "training.learning_rate",
        _text(tree.get("metric")) or "loss",
        tree.get("higher_is_better") is True,
        tuple(trials),
        number(tree.get("chosen")),
        number(tree.get("seconds")),
    )


def _tree(path: Path, folder: Path, notes: list[str]) -> Mapping[str, Any]:
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        notes.append(f"{name} is missing")
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{name} is not readable ({str(error).splitlines()[0]})")
    else:
        if isinstance(found, dict):
            return found
        notes.append(f"{name} is not a JSON object")
    return {}


def _entries(tree: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    found = tree.get(key)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _text(found: Any) -> str:
    return found if isinstance(found, str) else ""

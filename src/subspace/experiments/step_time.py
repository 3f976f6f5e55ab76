"""What a step of an arm takes, measured once, and the steps that a budget in seconds buys. Imports no torch.

    seconds a step = median over the trials of the longest rung of (seconds of its steps / number of its steps)
    steps          = floor(budget / seconds a step), at least 1

Without a search a few steps are timed for it. The figure is kept in the bench folder: a bench that goes on has the
same number of steps, whatever else the machine does by then. Of a trial the mean step counts and not the median one:
what an optimizer does every so many steps (a new basis) is part of its cost. The first two steps warm caches and are
left out.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from subspace.core.errors import CheckpointError
from subspace.experiments.cells import Cell, Matrix
from subspace.runs.bench_layout import STEP_TIME_SCHEMA, BenchLayout
from subspace.runs.layout import RunLayout
from subspace.runs.log import read_log
from subspace.runs.manifest import read_manifest, write_json
from subspace.runs.provenance import utc_now

__all__ = ["PROBE_STEPS", "StepTime", "StepTimes", "time_of_trials"]

PROBE_STEPS = 12
"""Steps that are run to time one, where no trial was."""
_WARM_UP_STEPS = 2
_SAME_ATTEMPT_SECONDS = 0.05
_Source = Literal["trials", "probe"]


@dataclass(frozen=True)
class StepTime:
    """What a step takes.

    Attributes:
        seconds: Of one optimizer step.
        source: Where it was measured.
        num_runs: In how many runs.
        num_steps: In how many steps of theirs.
    """

    seconds: float
    source: _Source
    num_runs: int
    num_steps: int

    def steps_for(self, budget: float) -> int:
        """Return how many steps so many seconds buy.

        >>> StepTime(0.25, "trials", 2, 80).steps_for(10.2), StepTime(3.0, "probe", 1, 10).steps_for(1.0)
        (40, 1)
        """
        return max(math.floor(budget / self.seconds), 1)


class StepTimes:
    """The step times of a bench with a budget in seconds; of any other it holds none.

    Args:
        matrix: What is compared.
        layout: The bench folder.
        read_only: Write nothing.
    """

    def __init__(self, matrix: Matrix, layout: BenchLayout, *, read_only: bool = False) -> None:
        self._matrix, self._layout, self._read_only = matrix, layout, read_only
        self._found: dict[str, StepTime] = {}

    def path(self, cell: Cell) -> Path:
        """Return where a cell's figure is kept."""
        return self._layout.step_time(cell.task, cell.model, cell.arm)

    def of(self, cell: Cell) -> StepTime | None:
        """Return what a step of a cell takes; None if it was not measured, or need not be.

        Raises:
            CheckpointError: E-CKP-002 if the file is damaged: another measurement would be another number of steps.
        """
        if cell.label not in self._found and not cell.has_steps and (kept := _read(self.path(cell))) is not None:
            self._found[cell.label] = kept
        return self._found.get(cell.label)

    def with_steps(self, cell: Cell) -> Cell | None:
        """Return a cell with the steps of its final runs; None while they are not known."""
        if cell.has_steps:
            return cell
        found, budget = self.of(cell), self._matrix.budget.seconds
        return None if found is None or budget is None else cell.with_steps(found.steps_for(budget))

    def keep(self, cell: Cell, found: StepTime) -> None:
        """Hold what was measured; a figure that is there already stays.

        Raises:
            ResourceError: E-RES-002 if the disk refuses.
        """
        if cell.has_steps or self.of(cell) is not None:
            return
        if not self._read_only:
            path = self.path(cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"schema": STEP_TIME_SCHEMA, **_named(cell), **_told(found), "measured": utc_now()})
        self._found[cell.label] = found

    def entries(self) -> list[dict[str, Any]]:
        """Return what bench.json says of every cell that was measured."""
        told = []
        for cell in self._matrix.cells:
            known, found = self.with_steps(cell), self.of(cell)
            if known is not None and found is not None:
                told.append({**_named(cell), **_told(found), "steps": known.steps})
        return told


def time_of_trials(folders: Sequence[Path]) -> StepTime | None:
    """Return the median step time of finished trials; None without any."""
    found = [time for folder in folders if (time := _of_trial(folder)) is not None]
    if not found:
        return None
    median = statistics.median(seconds / steps for seconds, steps in found)
    return StepTime(median, "trials", len(found), sum(steps for _, steps in found))


def _of_trial(folder: Path) -> tuple[float, int] | None:
    """Return the seconds between the steps that a log names, and how many steps those are.

    A trial that was resumed spent time between two records: they belong together where both clocks went on alike.
    """
    records = [record for record in read_log(RunLayout(folder).log)[0] if record.get("event") == "step"]
    seconds, steps = 0.0, 0
    for before, after in itertools.pairwise(records):
        span, wall = (_seconds(after, clock) - _seconds(before, clock) for clock in ("elapsed_seconds", "time"))
        if before["step"] >= _WARM_UP_STEPS and abs(wall - span) <= _SAME_ATTEMPT_SECONDS + 0.01 * span:
            seconds, steps = seconds + span, steps + after["step"] - before["step"]
    if seconds > 0.0:
        return seconds, steps
    summary = read_manifest(folder).get("summary") or {}  # too few records: the whole run's mean
    mean, count = summary.get("seconds_per_step"), summary.get("steps")
    return (mean * count, count) if mean and count else None


def _seconds(record: Mapping[str, Any], clock: str) -> float:
    from datetime import datetime

    found = record["machine"][clock]
    return datetime.fromisoformat(found).timestamp() if isinstance(found, str) else float(found)


def _named(cell: Cell) -> dict[str, str]:
    return {"arm": cell.arm, "task": cell.task, "model": cell.model}


def _told(found: StepTime) -> dict[str, Any]:
    return {
        "step_seconds": found.seconds,
        "source": found.source,
        "num_runs": found.num_runs,
        "num_steps": found.num_steps,
    }


def _read(path: Path) -> StepTime | None:
    try:
        tree = json.loads(path.read_bytes())
        found = StepTime(tree["step_seconds"], tree["source"], tree["num_runs"], tree["num_steps"])
        whole = tree["schema"] == STEP_TIME_SCHEMA and found.source in get_args(_Source) and found.seconds > 0.0
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise CheckpointError(
            "E-CKP-002",
            where=str(path),
            found="what a step takes cannot be read",
            action="Restore the file; where no final run of this arm was begun, delete it, and it is measured again.",
        )
    return found

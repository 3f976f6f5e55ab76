"""What a bench will take, before it is begun: jobs, hours, disk.

    seconds of a job = overhead + steps x seconds a step + rows x seconds a row

Seconds a step are those of a finished run of the same arm in the folder, where there is one. Otherwise a few real steps
of one arm are timed for every task and model, and the other arms are scaled by the FLOPs of their plans: what an
optimizer does beside matrix products of the model (a GaLore refresh) is then not in it. Overhead and rows are timed in
the same probe.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.experiments.campaign import Campaign
from subspace.experiments.cells import Cell, Matrix
from subspace.experiments.halving import search_steps
from subspace.experiments.jobs import result_of
from subspace.pipeline.execute import train
from subspace.pipeline.planning import plan_with_data
from subspace.pipeline.probe import shortened
from subspace.runs.bench_layout import BenchLayout
from subspace.training.hooks import Listener
from subspace.training.monitors import StepClock

if TYPE_CHECKING:
    from subspace.plan.plan import Plan

__all__ = ["CellEstimate", "Estimate", "estimate"]

_PROBE_STEPS, _PROBE_ROWS = 5, 32
_TRIAL_BYTES = 200_000
"""What a trial leaves: recipe, plan, log, card."""
_CHECKPOINTS = 3
"""Two that are kept while a run goes, and one that is being written."""


@dataclass(frozen=True)
class CellEstimate:
    """One arm on one task.

    Attributes:
        num_open: Jobs that are not done.
        run_steps: Of a final run; with a budget in seconds, until it is measured, as many as the estimate expects.
        seconds: Of one core, for those.
        source: Where the seconds of a step come from: `measured`, `probe` or `FLOPs`.
    """

    cell: Cell
    num_jobs: int
    num_open: int
    search_steps: int
    run_steps: int
    step_seconds: float
    seconds: float
    source: str
    kept_bytes: int
    passing_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        kept_bytes: On the disk in the end.
        passing_bytes: Of checkpoints, for one worker at its most.
    """

    cells: tuple[CellEstimate, ...]

    @property
    def num_jobs(self) -> int:
        return sum(cell.num_jobs for cell in self.cells)

    @property
    def num_open(self) -> int:
        return sum(cell.num_open for cell in self.cells)

    @property
    def seconds(self) -> float:
        return sum(cell.seconds for cell in self.cells)

    @property
    def kept_bytes(self) -> int:
        return sum(cell.kept_bytes for cell in self.cells)

    @property
    def passing_bytes(self) -> int:
        return max(cell.passing_bytes for cell in self.cells)


@dataclass(frozen=True)
class _Speed:
    """What a probe found of one task and model."""

    arm: str
    step_flops: int
    step_seconds: float
    overhead_seconds: float
    row_seconds: float
    num_rows: int


def estimate(
    matrix: Matrix, folder: Path, num_threads: int = 1, tell: Callable[[str], object] = lambda text: None
) -> Estimate:
    """Return what a bench in `folder` has left to do.

    Args:
        matrix: What is compared.
        folder: Where; nothing is written there.
        num_threads: Of a worker.
        tell: Called with what is being looked at.

    Raises:
        SubspaceError: Whatever would stop the runs when they begin.
    """
    import torch

    torch.set_num_threads(num_threads)
    campaign = Campaign(matrix, BenchLayout(folder.absolute()), read_only=True)
    campaign.inspect()
    speeds: dict[tuple[str, str], _Speed] = {}
    found = []
    for cell in matrix.cells:
        tell(f"planning {cell.label}")
        plan = plan_with_data(cell.config)
        key = (cell.task, cell.model)
        if key not in speeds:
            tell(f"timing a few steps of {cell.label}")
            speeds[key] = _probed(cell, plan)
        found.append(_cell(campaign, cell, plan, speeds[key]))
    return Estimate(tuple(found))


def _cell(campaign: Campaign, cell: Cell, plan: Plan, speed: _Speed) -> CellEstimate:
    step, source = _step_seconds(campaign, cell, plan, speed)
    search = campaign.searches.get(cell.label)
    num_trials, trial_steps = (0, 0) if search is None else (search.num_jobs, search_steps(search.rungs))
    num_finals = len(campaign.matrix.section.seeds)
    run_steps = _run_steps(campaign, cell, step)
    done = [job for job in campaign.finished.values() if job.cell.label == cell.label and job.is_run]
    finals_done = sum(job.kind == "final" for job in done)
    num_open = num_trials + num_finals - len(done)
    open_steps = trial_steps + num_finals * run_steps - sum(job.steps for job in done)
    limit = None if search is None else search.section.max_eval_samples
    rows = speed.num_rows if limit is None else min(limit, speed.num_rows)
    open_finals = num_finals - finals_done
    scored = open_finals * speed.num_rows + (num_open - open_finals) * rows
    seconds = num_open * speed.overhead_seconds + open_steps * step + scored * speed.row_seconds
    checkpoint = 4 * plan.trained_parameters + plan.optimizer_state_bytes
    weights = 4 * plan.trained_parameters if cell.config.new_method().leaves_adapter() else plan.weight_bytes
    kept = weights + (2 * checkpoint if campaign.matrix.section.keep_checkpoints else 0)
    return CellEstimate(
        cell,
        num_trials + num_finals,
        num_open,
        trial_steps,
        run_steps,
        step,
        seconds,
        source,
        num_finals * kept + num_trials * _TRIAL_BYTES,
        _CHECKPOINTS * checkpoint + weights,
    )


def _run_steps(campaign: Campaign, cell: Cell, step_seconds: float) -> int:
    """Return the steps of a final run."""
    known, budget = campaign.step_times.with_steps(cell), campaign.matrix.budget.seconds
    if known is not None or budget is None:
        return (known or cell).steps
    return max(int(budget / max(step_seconds, 1e-9)), 1)


def _step_seconds(campaign: Campaign, cell: Cell, plan: Plan, speed: _Speed) -> tuple[float, str]:
    for job in campaign.finished.values():
        if job.cell.label == cell.label and job.is_run:
            return float(result_of(job)["seconds_per_step"]), "measured"
    if cell.arm == speed.arm:
        return speed.step_seconds, "probe"
    return speed.step_seconds * plan.step_flops / speed.step_flops, "FLOPs"


class _Phases(Listener):
    """The seconds of each phase."""

    def __init__(self) -> None:
        self._name, self._since = "", time.monotonic()
        self.seconds: dict[str, float] = {}

    def on_phase(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now


def _probed(cell: Cell, plan: Plan) -> _Speed:
    """Run a few steps in a folder that is removed."""
    from subspace.pipeline.build import load_data

    clock, phases = StepClock(), _Phases()
    with tempfile.TemporaryDirectory(prefix="subspace-") as folder:
        short = shortened(cell.config, Path(folder) / "run", num_steps=_PROBE_STEPS, num_eval_samples=_PROBE_ROWS)
        train(short, listeners=(clock, phases))
    phases.on_phase("end")
    validation = load_data(cell.config).validation
    num_rows = 0 if validation is None else len(validation.rows)
    overhead = sum(phases.seconds.get(name, 0.0) for name in ("data", "plan", "model", "attach", "export"))
    row = phases.seconds.get("evaluate", 0.0) / min(_PROBE_ROWS, max(num_rows, 1))
    return _Speed(cell.arm, plan.step_flops, clock.seconds_per_step() or 0.0, overhead, row, num_rows)

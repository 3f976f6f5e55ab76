"""One run of a bench: its recipe, its folder, and whether it is done. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from subspace.core.errors import CheckpointError, UsageError
from subspace.experiments.cells import Cell, Matrix
from subspace.experiments.matrix import SearchSection
from subspace.pipeline.loaded import run_config_of
from subspace.pipeline.run_config import RunConfig
from subspace.runs.bench_layout import BenchLayout
from subspace.runs.folder_state import occupied_error, run_state
from subspace.runs.layout import RunLayout
from subspace.runs.manifest import read_manifest

__all__ = ["Job", "JobState", "base_job", "final_job", "found_state", "probe_job", "result_of", "trial_job"]

JobState = Literal["absent", "unfinished", "finished"]


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        kind: `before` scores the untuned model, `probe` times a few steps, `trial` is a step of a search, `final`
            counts.
        folder: Where it is kept; of `before` and `probe`, the file.
        config: Its whole recipe, the folder filled in.
        rung: Of a trial.
    """

    kind: Literal["before", "probe", "trial", "final"]
    cell: Cell
    config: RunConfig
    folder: Path
    rung: int | None = None

    @property
    def key(self) -> str:
        """What names the job: its folder."""
        return str(self.folder)

    @property
    def is_run(self) -> bool:
        """Whether it leaves a run folder."""
        return self.kind in ("trial", "final")

    @property
    def seed(self) -> int:
        return self.config.training.seed

    @property
    def rate(self) -> float:
        return self.config.training.learning_rate

    @property
    def steps(self) -> int:
        """Optimizer steps; 0 for what is no run."""
        return self.config.training.max_steps or 0 if self.is_run else 0

    @property
    def label(self) -> str:
        if self.kind == "before":
            return f"{self.cell.task}/{self.cell.model} untuned"
        if self.kind == "probe":
            return f"{self.cell.label} step time"
        own = f"seed {self.seed}" if self.kind == "final" else f"rung {self.rung} rate {self.rate:g}"
        return f"{self.cell.label} {own}"


def base_job(matrix: Matrix, cell: Cell, layout: BenchLayout) -> Job:
    """Return the job that scores the untuned model of a cell's task."""
    return Job("before", cell, _config(cell, {"seed": matrix.section.seeds[0]}), layout.before(cell.task, cell.model))


def probe_job(matrix: Matrix, cell: Cell, path: Path) -> Job:
    """Return the job that times a few steps of a cell, where a budget in seconds needs to know."""
    return Job("probe", cell, _config(cell, {"seed": matrix.section.seeds[0]}), path)


def final_job(cell: Cell, layout: BenchLayout, seed: int, rate: float | None) -> Job:
    """Return the run of one seed, at the rate that was found or, None, at the arm's own."""
    folder = layout.final(cell.task, cell.model, cell.arm, seed)
    changes = {"seed": seed, "output_dir": str(folder)} | ({} if rate is None else {"learning_rate": rate})
    return Job("final", cell, _config(cell, changes), folder)


def trial_job(cell: Cell, layout: BenchLayout, search: SearchSection, rung: int, steps: int, rate: float) -> Job:
    """Return one trial: fewer steps, another seed, scored on rows held out of the training rows."""
    folder = layout.trial(cell.task, cell.model, cell.arm, rung, rate)
    training = {"seed": search.seed, "output_dir": str(folder), "learning_rate": rate, "max_steps": steps}
    chosen = cell.config.training
    if not chosen.load_best_at_end and chosen.early_stopping_patience is None:
        training["eval_steps"] = None  # the score at the end is all that is asked of a trial
    config = _config(cell, training)
    data = {"tuning_fraction": search.validation_fraction}
    if search.max_eval_samples is not None:
        data["max_eval_samples"] = search.max_eval_samples
    metric = search.metric or cell.metric
    metrics = (metric,) if metric == "loss" else (metric, "loss")
    changes = {
        "data": config.data.model_copy(update=data),
        "evaluation": config.evaluation.model_copy(update={"metrics": metrics}),
    }
    return Job("trial", cell, config.model_copy(update=changes), folder, rung)


def _config(cell: Cell, training: dict[str, Any]) -> RunConfig:
    return cell.config.model_copy(update={"training": cell.config.training.model_copy(update=training)})


def found_state(job: Job) -> JobState:
    """Return what lies where a run would be kept.

    Raises:
        ConfigError: E-CFG-023 if it is no run.
        UsageError: E-CLI-004 naming the difference if it is the run of another recipe.
        CheckpointError: E-CKP-002, E-CKP-003 if its recipe is damaged or changed.
    """
    if not job.is_run:
        return "finished" if job.folder.is_file() else "absent"
    state = run_state(job.folder)
    if state == "foreign":
        raise occupied_error(RunLayout(job.folder))
    if state == "absent":
        return "absent"
    recorded = read_manifest(job.folder)["facts"].get("digests", {}).get("recipe")
    if recorded != job.config.digest():
        differing = job.config.differences(run_config_of(job.folder))
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise UsageError(
            "E-CLI-004",
            where=str(job.folder),
            found=f"a run of another recipe: {'; '.join(differing[:3]) or 'written by another version'}{more}",
            expected="the run that the matrix asks for",
            action="Nothing is overwritten; give another --out, or undo the change of the matrix.",
        )
    return state


def result_of(job: Job) -> dict[str, Any]:
    """Return the sealed figures of a finished run.

    Raises:
        CheckpointError: E-CKP-002 if they are not there.
    """
    summary = read_manifest(job.folder).get("summary")
    if not isinstance(summary, dict) or not isinstance(summary.get("metrics"), dict):
        raise CheckpointError("E-CKP-002", where=str(job.folder), found="a finished run without its figures")
    return summary

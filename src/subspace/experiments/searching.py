"""The learning-rate search of one cell: which trials are due, what they gave, what was chosen. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from subspace.experiments.cells import Cell
from subspace.experiments.halving import Trial, ladder, ranked
from subspace.experiments.jobs import Job, trial_job
from subspace.experiments.matrix import SearchSection
from subspace.runs.bench_layout import SEARCH_SCHEMA, BenchLayout
from subspace.runs.manifest import write_json

__all__ = ["DIVERGED", "Search"]

DIVERGED = "E-NUM-001"
"""The one error that is a result of a trial: at this rate the run does not end."""


class Search:
    """Successive halving over the rates of one cell."""

    def __init__(self, cell: Cell, section: SearchSection, layout: BenchLayout) -> None:
        self.cell, self.section, self.layout = cell, section, layout
        self.metric = section.metric or cell.metric
        self.higher_is_better = cell.higher_is_better if self.metric == cell.metric else self.metric != "loss"
        self.rungs = ladder(len(cell.rates), section.steps or cell.steps, section.halving, section.rungs)
        self.path = layout.search(cell.task, cell.model, cell.arm)
        self.trials: dict[tuple[int, float], Trial] = {}
        self._earlier = _recorded(self.path)

    @property
    def num_jobs(self) -> int:
        return sum(rung.num_trials for rung in self.rungs)

    def current(self) -> tuple[Job, ...]:
        """Return the trials of the first rung that has not ended; () once all have."""
        for number in range(len(self.rungs)):
            jobs = tuple(self._job(number, rate) for rate in self._rates(number))
            if any((number, job.rate) not in self.trials for job in jobs):
                return jobs
        return ()

    @property
    def has_ended(self) -> bool:
        return not self.current()

    @property
    def chosen(self) -> float | None:
        """The best rate of the last rung; None before the end, or where no trial has a score."""
        if not self.has_ended:
            return None
        last = ranked(self._of(len(self.rungs) - 1), higher_is_better=self.higher_is_better)
        return last[0].rate if last and last[0].score is not None else None

    def longest(self) -> list[Trial]:
        """Return the trials of the last rung that came to a score."""
        return [trial for trial in self._of(len(self.rungs) - 1) if trial.score is not None]

    def ended(self, job: Job, summary: dict[str, Any], seconds: float | None = None) -> None:
        """Take the figures of a trial; `seconds` is what it took in all, where it was run just now."""
        assert job.rung is not None
        score, loss = summary["metrics"].get(self.metric), summary["metrics"].get("loss")
        if seconds is None:
            seconds = self._earlier.get((job.rung, job.rate), {}).get("seconds") or summary.get("seconds") or 0.0
        error = None if score is not None else f"{self.metric} is not a finite number"
        self._take(job, score, loss, seconds, error)

    def diverged(self, job: Job, error: str, seconds: float) -> None:
        """Take that a trial came to no end."""
        self._take(job, None, None, seconds, error)

    def known_divergence(self, job: Job) -> bool:
        """Return whether an earlier session saw this trial diverge, as it would again; it is then taken."""
        assert job.rung is not None
        entry = self._earlier.get((job.rung, job.rate), {})
        error = entry.get("error")
        if entry.get("steps") != job.steps or not (isinstance(error, str) and error.startswith(DIVERGED)):
            return False
        self._take(job, None, None, float(entry.get("seconds") or 0.0), error)
        return True

    def write(self) -> None:
        """Put search.json in place of the present one.

        Raises:
            ResourceError: E-RES-002 if the disk refuses.
        """
        trials = sorted(self.trials.values(), key=lambda trial: (trial.rung, trial.rate))
        chosen = self.chosen
        self.path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "schema": SEARCH_SCHEMA,
            "arm": self.cell.arm,
            "task": self.cell.task,
            "model": self.cell.model,
            "key": "training.learning_rate",
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "seed": self.section.seed,
            "validation_fraction": self.section.validation_fraction,
            "rungs": [{"trials": rung.num_trials, "steps": rung.steps} for rung in self.rungs],
            "trials": [self._entry(trial) for trial in trials],
            "chosen": chosen,
            "at_edge": chosen is not None and chosen in (self.cell.rates[0], self.cell.rates[-1]),
            "seconds": round(sum(trial.seconds for trial in trials), 3),
        }
        write_json(self.path, record)

    def _entry(self, trial: Trial) -> dict[str, Any]:
        return {
            "value": trial.rate,
            "rung": trial.rung,
            "steps": trial.steps,
            "score": trial.score,
            "loss": trial.loss,
            "seconds": round(trial.seconds, 3),
            "run": trial.run,
            "error": trial.error,
        }

    def _take(self, job: Job, score: float | None, loss: float | None, seconds: float, error: str | None) -> None:
        assert job.rung is not None
        run = job.folder.relative_to(self.layout.folder).as_posix()
        trial = Trial(job.rate, job.rung, job.steps, score, loss, seconds, run, error)
        self.trials[job.rung, job.rate] = trial

    def _job(self, rung: int, rate: float) -> Job:
        return trial_job(self.cell, self.layout, self.section, rung, self.rungs[rung].steps, rate)

    def _rates(self, rung: int) -> Iterator[float]:
        """Yield the rates that a rung tries; those of the rung before that have no score never go on."""
        if rung == 0:
            yield from self.cell.rates
            return
        best = ranked(self._of(rung - 1), higher_is_better=self.higher_is_better)
        yield from (trial.rate for trial in best[: self.rungs[rung].num_trials] if trial.score is not None)

    def _of(self, rung: int) -> list[Trial]:
        return [trial for (number, _), trial in self.trials.items() if number == rung]


def _recorded(path: Any) -> dict[tuple[int, float], dict[str, Any]]:
    """Return the trials in an earlier search.json; {} where it is missing or unreadable, for the runs tell it all."""
    try:
        trials = json.loads(path.read_bytes())["trials"]
        return {(entry["rung"], entry["value"]): entry for entry in trials}
    except (OSError, ValueError, KeyError, TypeError):
        return {}

"""All jobs of a matrix: which are done, which are due, which failed; what the bench folder says of them.

Nothing is remembered but what lies on the disk: a sealed run folder is done, an unfinished one is resumed, and a search
is replayed from its trials. Imports no torch.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subspace.experiments.cells import Cell, Matrix
from subspace.experiments.data_files import DataFiles
from subspace.experiments.jobs import Job, base_job, final_job, found_state, probe_job, result_of
from subspace.experiments.searching import DIVERGED, Search
from subspace.experiments.step_time import StepTime, StepTimes, time_of_trials
from subspace.runs.bench_layout import BENCH_SCHEMA, BenchLayout
from subspace.runs.manifest import write_json
from subspace.runs.provenance import utc_now
from subspace.runs.redaction import redact_arguments

__all__ = ["Campaign", "Failure"]


@dataclass(frozen=True)
class Failure:
    """A job that came to no end."""

    job: Job
    error: str


class Campaign:
    """The state of a bench; `due` says what can be run now.

    Args:
        matrix: What is compared.
        layout: The bench folder.
        read_only: Write nothing, only look.
    """

    def __init__(self, matrix: Matrix, layout: BenchLayout, *, read_only: bool = False) -> None:
        self.matrix, self.layout, self._read_only = matrix, layout, read_only
        self.searches: dict[str, Search] = {}
        if matrix.search is not None:
            self.searches = {cell.label: Search(cell, matrix.search, layout) for cell in matrix.cells}
        self.step_times = StepTimes(matrix, layout, read_only=read_only)
        self._data = DataFiles()
        self.finished: dict[str, Job] = {}
        self.failures: dict[str, Failure] = {}
        self.running: set[str] = set()
        self._created = _created(layout) or utc_now()

    @property
    def total(self) -> int:
        """How many jobs there are, done ones included."""
        finals = len(self.matrix.cells) * len(self.matrix.section.seeds)
        first = len(self._bases()) + len(self._probes())
        return finals + sum(search.num_jobs for search in self.searches.values()) + first

    @property
    def has_ended(self) -> bool:
        return not self.running and next(self.due(), None) is None

    def inspect(self) -> None:
        """Look at the disk: take what is done, replay searches.

        Raises:
            SubspaceError: What `found_state` raises of a folder that holds something else.
            DataError: E-DAT-015 if a file is another than the one that a finished run was made of.
        """
        for job in (*self._bases(), *self._probes()):
            self._take_if_done(job)
        for cell in self.matrix.cells:
            search = self.searches.get(cell.label)
            while search is not None and self._inspect_rung(search):
                pass  # one rung decides which trials the next one has
            if search is not None:
                self._time_steps(search)
            for job in self._finals(cell):
                self._take_if_done(job)

    def due(self) -> Iterator[Job]:
        """Yield what can be run now: the untuned models, then searches and probes, then final runs, seed by seed."""
        taken = self.finished.keys() | self.failures.keys() | self.running
        finals: list[tuple[int, int, Job]] = []
        yield from (job for job in (*self._bases(), *self._probes()) if job.key not in taken)
        for place, cell in enumerate(self.matrix.cells):
            search = self.searches.get(cell.label)
            if search is not None and not search.has_ended:
                yield from (job for job in self._open(search) if job.key not in taken)
                continue
            order = enumerate(self._finals(cell))
            finals += [(index, place, job) for index, job in order if job.key not in taken]
        yield from (job for _, _, job in sorted(finals, key=lambda entry: entry[:2]))

    def begin(self, job: Job) -> None:
        """Note that a worker has the job."""
        self.running.add(job.key)

    def release(self, job: Job) -> None:
        """Note that its worker is gone; the job is due again."""
        self.running.discard(job.key)

    def end(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        """Take the figures of a job that has ended well.

        Raises:
            DataError: E-DAT-015 if it was made of another file than the runs before it.
        """
        self.running.discard(job.key)
        if job.is_run:
            self._data.require_same(job.folder)
        self.finished[job.key] = job
        if job.kind == "trial":
            search = self.searches[job.cell.label]
            search.ended(job, result, seconds)
            search.write()
            self._refuse_without_rate(search)
            self._time_steps(search)
        elif job.kind == "probe":
            self.step_times.keep(job.cell, StepTime(result["seconds_per_step"], "probe", 1, result["steps"]))
        self.write()

    def fail(self, job: Job, code: str, error: str, seconds: float) -> None:
        """Note that a job ended in an error; a trial that diverged has given its result by that."""
        self.running.discard(job.key)
        if job.kind == "trial" and code == DIVERGED:
            self.finished[job.key] = job
            search = self.searches[job.cell.label]
            search.diverged(job, error, seconds)
            search.write()
            self._refuse_without_rate(search)
            self._time_steps(search)
        else:
            self.failures[job.key] = Failure(job, error)
        self.write()

    def write(self) -> None:
        """Put bench.json in place of the present one.

        Raises:
            ResourceError: E-RES-002 if the disk refuses.
        """
        section, budget = self.matrix.section, self.matrix.budget
        record = {
            "schema": BENCH_SCHEMA,
            "name": section.name,
            "command": shlex.join(["subspace", *redact_arguments(sys.argv)[1:]]),
            "created": self._created,
            "family": {"reference": section.reference, "metric": self.matrix.metrics},
            "higher_is_better": {cell.task: cell.higher_is_better for cell in self.matrix.cells},
            "budget": {"kind": budget.kind, "value": budget.value},
            "steps": {cell.task: cell.steps for cell in self.matrix.cells if cell.has_steps},
            "step_times": self.step_times.entries(),
            "arms": {
                name: {"method": arm.method.get("name"), "label": arm.label or name}
                for name, arm in self.matrix.arms.items()
            },
            "jobs": [entry for cell in self.matrix.cells for entry in self._entries(cell)],
            "searches": [
                self._relative(search.path) for search in self.searches.values() if search.path.is_file()
            ],
            "failures": [
                {"job": self._relative(failure.job.folder), "error": failure.error}
                for failure in self.failures.values()
            ],
        }  # fmt: skip
        write_json(self.layout.bench, record)

    def _inspect_rung(self, search: Search) -> bool:
        """Take what is done of a search's present rung; return whether anything was."""
        before = len(search.trials)
        for job in search.current():
            if (job.rung, job.rate) in search.trials:
                continue
            if found_state(job) == "finished":
                self._data.require_same(job.folder)
                self.finished[job.key] = job
                search.ended(job, result_of(job))
            elif search.known_divergence(job):
                self.finished[job.key] = job
        if len(search.trials) > before:
            if not self._read_only:
                search.write()
            self._refuse_without_rate(search)
        return len(search.trials) > before

    def _take_if_done(self, job: Job) -> None:
        if found_state(job) == "finished":
            if job.is_run:
                self._data.require_same(job.folder)
            self.finished[job.key] = job

    def _open(self, search: Search) -> Iterator[Job]:
        """Yield the trials that have not ended; none if one of the rung failed: the search would not be equal."""
        jobs = search.current()
        if not any(job.key in self.failures for job in jobs):
            yield from (job for job in jobs if (job.rung, job.rate) not in search.trials)

    def _refuse_without_rate(self, search: Search) -> None:
        """Give the final runs up where no rate led to the end of a trial."""
        if search.has_ended and search.chosen is None:
            for seed in self.matrix.section.seeds:
                job = final_job(search.cell, self.layout, seed, None)
                self.failures[job.key] = Failure(job, f"no learning rate of {search.cell.label} came to a score")

    def _time_steps(self, search: Search) -> None:
        """Take what a step takes from the longest trials of a search that has ended, where the budget asks for it."""
        if not search.cell.has_steps and search.chosen is not None and self.step_times.of(search.cell) is None:
            found = time_of_trials([self.layout.folder / trial.run for trial in search.longest()])
            if found is not None:
                self.step_times.keep(search.cell, found)

    def _finals(self, cell: Cell) -> Iterator[Job]:
        search, known = self.searches.get(cell.label), self.step_times.with_steps(cell)
        if known is None or (search is not None and search.chosen is None):
            return
        rate = None if search is None else search.chosen
        for seed in self.matrix.section.seeds:
            yield final_job(known, self.layout, seed, rate)

    def finals(self) -> Iterator[Job]:
        """Yield every final run whose learning rate and steps are known."""
        for cell in self.matrix.cells:
            yield from self._finals(cell)

    def _bases(self) -> list[Job]:
        if not self.matrix.section.score_base:
            return []
        first = {(cell.task, cell.model): cell for cell in reversed(self.matrix.cells)}
        return [base_job(self.matrix, cell, self.layout) for cell in first.values()]

    def _probes(self) -> list[Job]:
        """Return the jobs that time steps where no search does."""
        cells = [cell for cell in self.matrix.cells if not cell.has_steps and cell.label not in self.searches]
        return [probe_job(self.matrix, cell, self.step_times.path(cell)) for cell in cells]

    def _entries(self, cell: Cell) -> Iterator[dict[str, Any]]:
        search, known = self.searches.get(cell.label), self.step_times.with_steps(cell)
        rate = cell.config.training.learning_rate if search is None else search.chosen
        for seed in self.matrix.section.seeds:
            folder = self.layout.final(cell.task, cell.model, cell.arm, seed)
            key = str(folder)
            state = "finished" if key in self.finished else "failed" if key in self.failures else "unfinished"
            yield {
                "arm": cell.arm,
                "task": cell.task,
                "model": cell.model,
                "seed": seed,
                "run": self._relative(folder),
                "learning_rate": rate,
                "steps": None if known is None else known.steps,
                "state": state,
            }

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.layout.folder).as_posix()


def _created(layout: BenchLayout) -> str | None:
    """Return when a bench was begun, if one was."""
    try:
        found = json.loads(layout.bench.read_bytes())["created"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None

"""Runs a matrix: one process that drives, workers that train, one folder that remembers. Imports no torch.

    lock the folder; look at what is done; then, until nothing is due:
        give each idle worker a job; note what ended, failed or lost its worker; write bench.json

A signal is passed on: runs in progress are saved, and the next call on the same folder goes on from there.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subspace.core.errors import LockError, StoppedError, SubspaceError
from subspace.experiments.campaign import Campaign, Failure
from subspace.experiments.cells import Matrix
from subspace.experiments.devices import visible_gpus
from subspace.experiments.jobs import Job
from subspace.experiments.journal import Journal
from subspace.experiments.pace import Pace
from subspace.experiments.pool import WORKER, Event, Pool, Worker
from subspace.experiments.pruning import prune
from subspace.pipeline.demo import keep_before
from subspace.runs.bench_layout import BenchLayout
from subspace.runs.lock import FolderLock
from subspace.training.signals import StopFlag

__all__ = ["Bench", "BenchResult", "Observer"]

_MAX_DEATHS = 3
"""Workers that one job, or the start itself, may cost before it is given up."""
_TICK_SECONDS = 0.5


class Observer:
    """Told what happens; every call does nothing unless overridden."""

    def on_start(self, bench: Bench) -> None:
        """The folder was looked at; work begins."""

    def on_job(self, bench: Bench, job: Job, outcome: str, text: str) -> None:
        """A job ended: finished, failed, diverged, or died and due again."""

    def on_tick(self, bench: Bench) -> None:
        """Half a second has gone, or something has happened."""


@dataclass(frozen=True)
class BenchResult:
    """How a bench ended.

    Attributes:
        runs: The final runs, in the order of the matrix.
        failures: Jobs that came to no end.
        num_kept: Jobs that were done before.
    """

    folder: Path
    runs: tuple[Path, ...]
    failures: tuple[Failure, ...]
    num_jobs: int
    num_kept: int
    seconds: float


@dataclass
class Bench:
    """One session of a bench; `run` may be called once."""

    matrix: Matrix
    folder: Path
    num_workers: int
    num_threads: int = 1
    observer: Observer = field(default_factory=Observer)
    program: Sequence[str] = WORKER

    def __post_init__(self) -> None:
        self.layout = BenchLayout(self.folder.absolute())
        self.campaign = Campaign(self.matrix, self.layout)
        self.pace = Pace()
        self.num_kept = 0
        self.workers: list[Worker] = []
        self.begun = time.monotonic()
        self.is_stopping = False
        self._deaths: Counter[str] = Counter()

    @property
    def num_done(self) -> int:
        """Jobs that have ended well."""
        return len(self.campaign.finished)

    def remaining_seconds(self) -> float | None:
        """Return how long the rest will take, from what was seen so far; None before anything was."""
        return self.pace.remaining(self.campaign, self.num_workers)

    def run(self) -> BenchResult:
        """Do what is not done.

        Raises:
            LockError: E-LCK-001 if another process drives this folder.
            UsageError: E-CLI-004 if a run in it is of another recipe.
            StoppedError: E-RUN-075 after a signal; all runs are saved.
            SubspaceError: E-RUN-001 if workers cannot be started.
        """
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock()
        try:
            self.campaign.inspect()
            self.num_kept = self.num_done
            for job in self.campaign.finished.values():
                self._tidy(job)
            self.campaign.write()
            self._journal = Journal(self.layout.journal)
            self.observer.on_start(self)
            if not self.campaign.has_ended:
                self._work()
            self._journal.close()
            self._keep_before()
            return self._result()
        finally:
            lock.release()

    def _lock(self) -> FolderLock:
        try:
            return FolderLock.acquire(self.layout.lock, "bench")
        except LockError as error:
            raise LockError(
                error.code, where=error.where, found=error.found, action="Wait for it, stop it, or give another --out."
            ) from error

    def _work(self) -> None:
        num_due = self.campaign.total - self.num_done
        num_workers = max(min(self.num_workers, num_due), 1)
        with StopFlag() as stop, self._pool(num_workers) as pool:
            self.workers = pool.workers
            while not self.campaign.has_ended or self.campaign.running:
                if stop.received and not self.is_stopping:
                    self.is_stopping = True
                    pool.stop()
                if self.is_stopping and not pool.workers:
                    break
                if not self.is_stopping:
                    self._fill(pool)
                for event in pool.poll(_TICK_SECONDS):
                    self._handle(pool, event)
                self.observer.on_tick(self)
        if self.is_stopping:
            raise self._stopped(stop)

    def _pool(self, num_workers: int) -> Pool:
        shared = all(cell.config.training.device in ("auto", "cuda") for cell in self.matrix.cells)
        gpus = visible_gpus() if shared else ()
        return Pool(num_workers, self.layout.logs, self.num_threads, self.program, gpus)

    def _fill(self, pool: Pool) -> None:
        """Give idle workers what is due; nothing waits in a worker."""
        due = self.campaign.due()
        for worker in pool.idle():
            job = next(due, None)
            if job is None:
                return
            self.campaign.begin(job)
            self._note("begin", job)
            pool.submit(worker, job)

    def _handle(self, pool: Pool, event: Event) -> None:
        worker, job = event.worker, event.worker.job
        if event.kind == "died":
            self._died(pool, worker, event.fields["status"])
        elif job is not None and event.kind in ("done", "failed", "stopped"):
            worker.job, worker.phase = None, "idle"
            seconds = worker.seconds
            if event.kind == "done":
                self._done(job, event.fields["result"], seconds)
            elif event.kind == "failed":
                self._failed(job, event.fields["code"], event.fields["error"], seconds)
            else:
                self.campaign.release(job)
                self._note("stop", job)
            if self.is_stopping:  # a run that was about to end has ended; its worker waits for another
                pool.dismiss(worker)

    def _done(self, job: Job, result: dict[str, Any], seconds: float) -> None:
        self._tidy(job)
        self._note("end", job, seconds=round(seconds, 3))
        self.pace.add(job, seconds)
        self.campaign.end(job, result, seconds)
        score = result["metrics"].get(job.cell.metric)
        shown = "" if score is None else f"{job.cell.metric} {score:.4f}"
        self.observer.on_job(self, job, "finished", shown)

    def _failed(self, job: Job, code: str, error: str, seconds: float) -> None:
        self._note("fail", job, error=error)
        self.campaign.fail(job, code, error, seconds)
        failed = job.key in self.campaign.failures
        if not failed:
            self._tidy(job)
        self.observer.on_job(self, job, "failed" if failed else "diverged", error)

    def _died(self, pool: Pool, worker: Worker, status: int) -> None:
        """Put another worker in the place of one that died; its job is resumed from its last checkpoint."""
        job, reason = worker.job, f"signal {-status}" if status < 0 else f"exit status {status}"
        if job is not None:
            self.campaign.release(job)
            self._note("death", job, reason=reason)
        if self.is_stopping:
            return
        place = job.key if job is not None else "start"
        self._deaths[place] += job is not None or not worker.is_ready
        log = pool.log(worker)
        if self._deaths[place] >= _MAX_DEATHS and job is not None:
            error = f"E-RUN-001 its worker died {_MAX_DEATHS} times, last by {reason} (memory? see {log})"
            self._failed(job, "E-RUN-001", error, worker.seconds)
        elif job is not None:
            self.observer.on_job(self, job, "died", f"its worker died by {reason}; it goes on in another")
        elif self._deaths[place] >= _MAX_DEATHS:
            raise SubspaceError("E-RUN-001", where=str(log), found=f"workers die at their start ({reason})")
        pool.replace(worker)

    def _tidy(self, job: Job) -> None:
        prune(job, keep_checkpoints=self.matrix.section.keep_checkpoints)

    def _keep_before(self) -> None:
        """Put the untuned model's scores beside those of every final run that lacks them."""
        if not self.matrix.section.score_base:
            return
        for job in self.campaign.finals():
            path = self.layout.before(job.cell.task, job.cell.model)
            if job.key in self.campaign.finished and path.is_file():
                metrics = job.folder / "metrics.json"
                if "before" not in json.loads(metrics.read_bytes()):
                    keep_before(job.folder, json.loads(path.read_bytes()))

    def _note(self, event: str, job: Job, **fields: Any) -> None:
        self._journal.write(event, job.folder.relative_to(self.layout.folder).as_posix(), **fields)

    def _result(self) -> BenchResult:
        runs = tuple(job.folder for job in self.campaign.finals() if job.key in self.campaign.finished)
        failures = tuple(self.campaign.failures.values())
        seconds = time.monotonic() - self.begun
        return BenchResult(self.layout.folder, runs, failures, self.campaign.total, self.num_kept, seconds)

    def _stopped(self, stop: StopFlag) -> StoppedError:
        name = stop.received.name if stop.received else "a signal"
        error = StoppedError(
            "E-RUN-075",
            where=str(self.layout.folder),
            found=f"stopped by {name} with {self.num_done} of {self.campaign.total} jobs done; the others are saved",
            action="Give the same command again to go on.",
        )
        error.exit_status = stop.exit_status  # type: ignore[misc]  # the instance tells TERM from INT
        return error

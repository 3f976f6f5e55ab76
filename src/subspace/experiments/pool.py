"""Worker processes: started, given one job at a time, replaced when they die. Imports no torch.

Parent and worker share nothing but two pipes, so that a worker which is killed at any moment leaves no lock held and no
queue half-read. A worker is in a session of its own: Ctrl-C reaches the parent, which passes it on.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from subspace.experiments.jobs import Job

__all__ = ["WORKER", "Event", "Pool", "Worker"]

WORKER = ("-m", "subspace.experiments.worker")
"""What the interpreter is asked to run; a test may have another program that speaks the same lines."""


@dataclass(frozen=True)
class Event:
    """What a worker told, or that it died.

    Attributes:
        kind: ready, phase, step, done, failed, stopped or died.
        fields: What came with it; of `died` the `status`, negative for a signal.
    """

    worker: Worker
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Worker:
    """One process, and what is known of its job.

    Attributes:
        job: What it does; None if it is idle.
        phase, step, total, loss: Where its job is.
        since: When it got the job (monotonic).
    """

    number: int
    process: subprocess.Popen[bytes]
    reports: int
    job: Job | None = None
    is_ready: bool = False
    phase: str = "starting"
    step: int = 0
    total: int = 0
    loss: float | None = None
    since: float = 0.0
    _rest: bytes = b""

    @property
    def seconds(self) -> float:
        """How long it has had its job."""
        return time.monotonic() - self.since

    def take(self) -> Iterator[dict[str, Any]]:
        """Yield what has come in whole lines; raises EOFError at the end of the pipe."""
        found = os.read(self.reports, 1 << 16)
        if not found:
            raise EOFError
        *lines, self._rest = (self._rest + found).split(b"\n")
        for line in lines:
            yield json.loads(line)


class Pool:
    """A fixed number of workers; a context manager that leaves none behind.

    Args:
        num_workers: How many.
        logs: Folder of what they print.
        num_threads: Of each.
        program: What the interpreter runs.
        gpus: Ids that are dealt out, one a worker; () to leave what a worker sees as it is.
    """

    def __init__(
        self,
        num_workers: int,
        logs: Path,
        num_threads: int = 1,
        program: Sequence[str] = WORKER,
        gpus: Sequence[str] = (),
    ) -> None:
        self._logs, self._num_threads, self._program, self._gpus = logs, num_threads, program, gpus
        self._selector = selectors.DefaultSelector()
        self.workers: list[Worker] = []
        for number in range(num_workers):
            self._start(number)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._selector.close()

    def idle(self) -> list[Worker]:
        """Return the workers that can be given a job."""
        return [worker for worker in self.workers if worker.is_ready and worker.job is None]

    def submit(self, worker: Worker, job: Job) -> None:
        """Give a job to an idle worker."""
        command = {
            "kind": job.kind,
            "folder": str(job.folder),
            "digest": job.config.digest(),
            "config": job.config.to_tree(),
        }
        worker.job, worker.phase, worker.step, worker.total, worker.loss = job, "data", 0, job.steps, None
        worker.since = time.monotonic()
        assert worker.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: its end of the other pipe tells
            worker.process.stdin.write(json.dumps(command).encode() + b"\n")
            worker.process.stdin.flush()

    def poll(self, seconds: float) -> list[Event]:
        """Return what happens within so many seconds, as soon as anything does.

        A worker that has died is taken off the list; `replace` puts another in its place.
        """
        events: list[Event] = []
        for key, _ in self._selector.select(seconds):
            worker: Worker = key.data
            try:
                for told in worker.take():
                    kind = told.pop("event")
                    _note(worker, kind, told)
                    events.append(Event(worker, kind, told))
            except (EOFError, OSError):
                events.append(Event(worker, "died", {"status": self._remove(worker)}))
        return events

    def replace(self, worker: Worker) -> None:
        """Start another process in the place of one that has died."""
        self._start(worker.number)

    def stop(self) -> None:
        """Ask all to end: a run in progress is saved first, idle workers leave at once."""
        for worker in self.workers:
            if worker.job is not None:
                with contextlib.suppress(OSError):
                    worker.process.send_signal(signal.SIGTERM)
            else:
                self.dismiss(worker)

    def dismiss(self, worker: Worker) -> None:
        """Close what a worker reads its jobs from: it ends when it has none."""
        if worker.process.stdin is not None:
            with contextlib.suppress(OSError):
                worker.process.stdin.close()

    def kill(self) -> None:
        """End all now."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.process.kill()
        for worker in list(self.workers):
            self._remove(worker)

    def log(self, worker: Worker) -> Path:
        """Return what a worker's process printed."""
        return self._logs / f"worker-{worker.number}.log"

    def _start(self, number: int) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        reports, told = os.pipe()
        threads = str(self._num_threads)
        own = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[number % len(self._gpus)]} if self._gpus else {}
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        with (self._logs / f"worker-{number}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *self._program, str(told), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(told,),
                start_new_session=True,
                env={**os.environ, **own, **gpu, **quiet, "TRANSFORMERS_VERBOSITY": "error"},
            )
        os.close(told)
        worker = Worker(number, process, reports)
        self.workers.append(worker)
        self._selector.register(reports, selectors.EVENT_READ, worker)

    def _remove(self, worker: Worker) -> int:
        """Forget a worker whose pipe has ended; return its exit status."""
        self._selector.unregister(worker.reports)
        os.close(worker.reports)
        self.workers.remove(worker)
        self.dismiss(worker)
        try:
            return worker.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it has closed its pipe and hangs
            worker.process.kill()
            return worker.process.wait()


def _note(worker: Worker, kind: str, told: dict[str, Any]) -> None:
    """Keep what a worker tells of its progress."""
    if kind == "ready":
        worker.is_ready, worker.phase = True, "idle"
    elif kind == "phase":
        worker.phase = told["name"]
    elif kind == "step":
        worker.phase, worker.step, worker.loss = "train", told["step"], told["loss"]
        worker.total = told["total"] or worker.total

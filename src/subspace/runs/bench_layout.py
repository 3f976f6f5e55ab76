"""The names of everything in a bench folder; run folders inside it are `RunLayout`'s.

bench.json   .lock   journal.jsonl   logs/
runs/<task>/<model>/before.json
runs/<task>/<model>/<arm>/seed-<n>/
runs/<task>/<model>/<arm>/search.json   step_time.json
runs/<task>/<model>/<arm>/search/rung-<k>/rate-<value>/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["BENCH_SCHEMA", "SEARCH_SCHEMA", "STEP_TIME_SCHEMA", "BenchLayout"]

BENCH_SCHEMA = "subspace.bench/1"
SEARCH_SCHEMA = "subspace.search/1"
STEP_TIME_SCHEMA = "subspace.step-time/1"


@dataclass(frozen=True)
class BenchLayout:
    """Where a bench keeps what.

    >>> BenchLayout(Path("out")).final("sums", "tiny", "lora", 42).as_posix()
    'out/runs/sums/tiny/lora/seed-42'
    """

    folder: Path

    @property
    def bench(self) -> Path:
        """What was compared with what, and where each run lies."""
        return self.folder / "bench.json"

    @property
    def journal(self) -> Path:
        """One line for each job that began, ended, failed or lost its worker."""
        return self.folder / "journal.jsonl"

    @property
    def logs(self) -> Path:
        """What the worker processes print."""
        return self.folder / "logs"

    @property
    def lock(self) -> Path:
        """Held by the process that drives the bench."""
        return self.folder / ".lock"

    @property
    def comparison(self) -> Path:
        """The page and its tables."""
        return self.folder / "comparison"

    def before(self, task: str, model: str) -> Path:
        """Return the file of the untuned model's scores."""
        return self.folder / "runs" / task / model / "before.json"

    def arm(self, task: str, model: str, arm: str) -> Path:
        """Return the folder of all runs of an arm on a task."""
        return self.folder / "runs" / task / model / arm

    def final(self, task: str, model: str, arm: str, seed: int) -> Path:
        """Return the run folder of one seed."""
        return self.arm(task, model, arm) / f"seed-{seed}"

    def search(self, task: str, model: str, arm: str) -> Path:
        """Return the record of an arm's search."""
        return self.arm(task, model, arm) / "search.json"

    def step_time(self, task: str, model: str, arm: str) -> Path:
        """Return the record of what a step of an arm takes, where the budget is in seconds."""
        return self.arm(task, model, arm) / "step_time.json"

    def trial(self, task: str, model: str, arm: str, rung: int, rate: float) -> Path:
        """Return the run folder of one trial of a search."""
        return self.arm(task, model, arm) / "search" / f"rung-{rung}" / f"rate-{rate:g}"

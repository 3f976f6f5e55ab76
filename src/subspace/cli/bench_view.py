"""What a person sees of a bench: a table that moves on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from subspace.cli.console import error_console
from subspace.core.units import format_seconds
from subspace.experiments.bench import Observer

if TYPE_CHECKING:
    from subspace.experiments.bench import Bench
    from subspace.experiments.jobs import Job
    from subspace.experiments.pool import Worker

__all__ = ["BenchView"]

_STYLES = {"finished": "", "failed": "bold red", "diverged": "yellow", "died": "yellow"}
_LINE_EVERY_SECONDS = 30.0


class BenchView(Observer):
    """Draws on stderr; used as a context manager."""

    def __init__(self) -> None:
        self._console = error_console()
        self._live: Live | None = None
        self._told = 0.0
        self._said_stop = False

    def __enter__(self) -> BenchView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_start(self, bench: Bench) -> None:
        kept = f", {bench.num_kept} of them done already" if bench.num_kept else ""
        self._say(f"bench {bench.matrix.section.name}: {bench.campaign.total} jobs{kept}, in {bench.folder}")
        if self._console.is_terminal and bench.num_kept < bench.campaign.total:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()

    def on_job(self, bench: Bench, job: Job, outcome: str, text: str) -> None:
        count = f"{bench.num_done}/{bench.campaign.total}"
        self._say(f"[{count}] {job.label}: {outcome}{f' ({text})' if text else ''}", _STYLES[outcome])

    def on_tick(self, bench: Bench) -> None:
        if bench.is_stopping and not self._said_stop:
            self._said_stop = True
            self._say("stopping: runs in progress are saved; once more to end at once", "yellow")
        if self._live is not None:
            self._live.update(_picture(bench), refresh=True)
        elif time.monotonic() - self._told >= _LINE_EVERY_SECONDS:
            self._say(" | ".join([_headline(bench), *(_words(worker) for worker in bench.workers)]))

    def _say(self, text: str, style: str = "dim") -> None:
        self._told = time.monotonic()
        self._console.print(escape(text), style=style or None)


def _headline(bench: Bench) -> str:
    done, total = bench.num_done, bench.campaign.total
    failed = f", {len(bench.campaign.failures)} failed" if bench.campaign.failures else ""
    rest = bench.remaining_seconds()
    left = "" if rest is None else f", about {format_seconds(rest)} to go"
    return f"{done} of {total} jobs done{failed}, {format_seconds(time.monotonic() - bench.begun)}{left}"


def _words(worker: Worker) -> str:
    if worker.job is None:
        return worker.phase
    where = f"step {worker.step}/{worker.total}" if worker.phase == "train" else worker.phase
    return f"{worker.job.label} {where}"


def _picture(bench: Bench) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(5):
        table.add_column(no_wrap=True)
    for worker in sorted(bench.workers, key=lambda each: each.number):
        job = worker.job
        label = Text(job.label if job is not None else worker.phase, style="" if job is not None else "dim")
        bar = ProgressBar(total=max(worker.total, 1), completed=worker.step, width=20) if job is not None else ""
        steps = f"{worker.step}/{worker.total}" if job is not None else ""
        state = worker.phase if job is not None and worker.phase != "train" else ""
        loss = f"loss {worker.loss:.4f}" if job is not None and worker.loss is not None and not state else state
        table.add_row(f"{worker.number + 1}", label, bar, steps, loss)
    whole = ProgressBar(total=max(bench.campaign.total, 1), completed=bench.num_done, width=60)
    return Group(Text(_headline(bench), style="bold"), whole, table)

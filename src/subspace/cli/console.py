"""What a person sees while a run goes: phases, a bar, the last figures."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from subspace.training.hooks import Listener

__all__ = ["ProgressListener", "error_console", "output_console", "quiet_libraries", "show_notes"]

_PHASES = {
    "data": "reading data",
    "plan": "planning",
    "model": "loading the model",
    "attach": "attaching the method",
    "export": "writing the result",
}


class _Notes(Console):
    def on_broken_pipe(self) -> None:
        self.quiet = True  # nobody watches any more; that is no reason to end a run


class _Results(Console):
    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError, which `main` knows


def error_console() -> Console:
    """Return the console of stderr, where progress and notes go; results go to stdout."""
    return _Notes(stderr=True, soft_wrap=True, highlight=False)


def output_console(*, soft_wrap: bool = True) -> Console:
    """Return the console of stdout, with lines that may be longer than the terminal is wide, or folded ones."""
    return _Results(soft_wrap=soft_wrap)


def show_notes(notes: tuple[str, ...]) -> None:
    """Print notes on translated names and the like."""
    console = error_console()
    for note in notes:
        console.print(f"note: {note}", style="dim", markup=False)


def quiet_libraries() -> None:
    """Keep other libraries' bars and advice off the screen; ours says what is needed."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")


class ProgressListener(Listener):
    """Draws a run on stderr; used as a context manager."""

    def __init__(self, title: str = "") -> None:
        self._console = error_console()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            transient=False,
        )
        self._title = title
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> ProgressListener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            self._bar.stop()

    def on_phase(self, name: str) -> None:
        if name in _PHASES:
            self._console.print(f"{self._title}{_PHASES[name]} ...", style="dim", markup=False)

    def on_start(self, total_steps: int, step: int) -> None:
        self._begin("train", "training", total_steps, step)

    def on_step(self, step: int, loss: float) -> None:
        self._bar.update(self._tasks["train"], completed=step, figures=f"loss {loss:.4f}")

    def on_record(self, record: Mapping[str, Any]) -> None:
        if record["event"] == "eval":
            place = f"step {record['step']} (epoch {record['epoch']:.4g})"
            self._console.print(f"{place}: validation loss {record['loss']:.4f}", markup=False)
        elif record["event"] == "skip":
            self._console.print(
                f"step {record['step']}: loss or gradient not finite; skipped", style="yellow", markup=False
            )

    def on_note(self, text: str) -> None:
        self._console.print(f"note: {text}", style="dim", markup=False)

    def on_progress(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._begin(name, name, total, 0)
        self._bar.update(self._tasks[name], completed=done, total=total)

    def _begin(self, name: str, label: str, total: int, done: int) -> None:
        if not self._tasks:
            self._bar.start()
        self._tasks[name] = self._bar.add_task(f"{self._title}{label}", total=total, completed=done, figures="")

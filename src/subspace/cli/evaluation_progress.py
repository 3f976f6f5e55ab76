"""What a person sees while models are evaluated on tasks."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from subspace.cli.console import ProgressListener, error_console

__all__ = ["EvaluationProgress"]


class EvaluationProgress:
    """Tells model and task, and draws a bar for each; a context manager."""

    def __init__(self) -> None:
        self._console, self._bar = error_console(), ProgressListener()
        self._task = "evaluate"

    def on_note(self, text: str) -> None:
        """Print a note."""
        self._console.print(f"note: {text}", style="dim", markup=False)

    def on_task(self, model: str, split: str) -> None:
        """Begin a bar."""
        self._task = f"{split} on {model}"

    def on_progress(self, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.on_progress(self._task, done, total)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

"""Results of other people's tools as run records: the PEFT comparison suite, transformers, LLaMA-Factory, lm-eval.

Each module reads one kind with `recognises(path)` and `read(path, name)`; nothing here raises because of what a file
contains. docs/other-peoples-results.md says what is read from where.
"""

from __future__ import annotations

from pathlib import Path

from subspace.report.foreign import harness, suite, trainer
from subspace.report.record import RunRecord

__all__ = ["KINDS", "is_foreign", "read_foreign"]

KINDS = {
    "PEFT comparison suite": suite,
    "transformers or LLaMA-Factory": trainer,
    "lm-evaluation-harness": harness,
}
"""What is read, by name; the first that recognises a path reads it."""


def is_foreign(path: Path) -> bool:
    """Return whether a file or folder is one run of another tool."""
    return any(kind.recognises(path) for kind in KINDS.values())


def read_foreign(path: Path, name: str | None = None) -> RunRecord | None:
    """Return the run of another tool at `path`, as far as it can be read; None if it is not one."""
    kind = next((kind for kind in KINDS.values() if kind.recognises(path)), None)
    return None if kind is None else kind.read(path, name or path.resolve().name)

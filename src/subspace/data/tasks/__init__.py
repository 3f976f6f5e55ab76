"""Built-in generated tasks: pure Python, seeded, with splits that cannot overlap.

`builtin/word-problems` asks for numbers, `builtin/topics` for a class, `builtin/rewrite` for another sentence. On the
built-in model fine-tuning visibly helps on each of them within seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

from subspace.core.errors import DataError
from subspace.core.registry import nearest
from subspace.data.tasks import rewrite, topics, word_problems
from subspace.data.tasks.instructions import sample_instructions
from subspace.data.tasks.words import pick_split

__all__ = ["load_task", "names", "require_task", "sample_instructions"]

_TASKS: dict[str, Callable[[str, int, int], list[dict[str, str]]]] = {
    "word-problems": word_problems.rows,
    "topics": topics.rows,
    "rewrite": rewrite.rows,
}
_SIZES = {
    "word-problems": {"train": 6400, "validation": 200, "test": 200},
    "topics": {"train": 3200, "validation": 200, "test": 400},
    "rewrite": {"train": 3200, "validation": 200, "test": 200},
}


def names() -> tuple[str, ...]:
    """Return the names of the built-in tasks, without the `builtin/` that a recipe puts before them."""
    return tuple(_TASKS)


def require_task(name: str) -> str:
    """Return the name of a built-in task without `builtin/`.

    Raises:
        DataError: E-DAT-017 with the nearest name if there is none.
    """
    short = name.removeprefix("builtin/")
    if short not in _TASKS:
        close = nearest(short, _TASKS)
        raise DataError(
            "E-DAT-017",
            where="data.source",
            found=f"unknown built-in task {name!r}",
            expected=f"one of {', '.join(f'builtin/{each}' for each in _TASKS)}",
            action=f"Did you mean 'builtin/{close}'?" if close else "",
        )
    return short


def load_task(name: str, split: str, *, size: int | None = None, seed: int = 0) -> list[dict[str, str]]:
    """Return the rows of a built-in task.

    Args:
        name: One of `names()`, with or without `builtin/` before it.
        split: train, validation or test; no row of one split is in another, for any seed.
        size: Number of rows; None for the usual number.
        seed: Seed of the draw.

    Raises:
        DataError: E-DAT-017 for an unknown task or split, E-DAT-001 for a size below one.

    >>> sorted(load_task("builtin/topics", "test", size=1)[0])
    ['label', 'text']
    """
    short = require_task(name)
    pick_split(split)
    count = _SIZES[short][split] if size is None else size
    if count < 1:
        raise DataError("E-DAT-001", where=f"builtin/{short}", found=f"size {count}", expected="at least one row")
    return _TASKS[short](split, count, seed)

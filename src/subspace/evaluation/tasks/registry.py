"""Names of tasks; a task's file is imported when it is asked for. Imports no torch."""

from __future__ import annotations

from subspace.core.errors import ConfigError
from subspace.core.registry import Registry, nearest
from subspace.evaluation.tasks.base import Task

__all__ = ["find_task", "task_names"]

_ROOM = "subspace.evaluation.tasks"
# The attribute is a Task, or a function from the part after "/" (None without one) to a Task.
_TASKS = Registry(
    "task",
    {
        "mmlu": f"{_ROOM}.mmlu:mmlu",
        "arc_easy": f"{_ROOM}.arc_easy:TASK",
        "arc_challenge": f"{_ROOM}.arc_challenge:TASK",
        "hellaswag": f"{_ROOM}.hellaswag:TASK",
        "boolq": f"{_ROOM}.boolq:TASK",
        "openbookqa": f"{_ROOM}.openbookqa:TASK",
        "piqa": f"{_ROOM}.piqa:TASK",
        "siqa": f"{_ROOM}.siqa:TASK",
        "winogrande": f"{_ROOM}.winogrande:TASK",
        "gsm8k": f"{_ROOM}.gsm8k:TASK",
        "glue": f"{_ROOM}.glue:glue",
        "humaneval": f"{_ROOM}.humaneval:TASK",
        "mbpp": f"{_ROOM}.mbpp:TASK",
        "rouge": f"{_ROOM}.rouge:TASK",
        "perplexity": f"{_ROOM}.perplexity:TASK",
    },
    group="subspace.tasks",
)


def task_names() -> tuple[str, ...]:
    """Return every name; `mmlu` and `glue` take a part after a slash (`mmlu/anatomy`, `glue/mrpc`)."""
    return _TASKS.names()


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        ConfigError: E-EVL-001 with the nearest name if there is none.
    """
    family, _, part = name.partition("/")
    if family not in _TASKS.names():
        close = nearest(name, _TASKS.names())
        raise ConfigError(
            "E-EVL-001",
            where="--tasks",
            found=f"unknown task {name!r}",
            expected=f"one of {', '.join(map(_shown, _TASKS.names()))}, or harness:<task of lm_eval>",
            action=f"Did you mean {close!r}?" if close else "",
        )
    found = _TASKS.load(family)
    if isinstance(found, Task):
        if not part:
            return found
        raise ConfigError("E-EVL-001", where="--tasks", found=f"{name!r}: {family} has no parts", expected=family)
    task: Task = found(part or None)
    return task


def _shown(family: str) -> str:
    """Return a name as it can be asked for."""
    return {"glue": "glue/<part>", "mmlu": "mmlu[/<subject>]"}.get(family, family)

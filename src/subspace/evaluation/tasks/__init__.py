"""Tasks with known data, prompts and metrics; one file each."""

from __future__ import annotations

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.registry import find_task, task_names

__all__ = ["Doc", "Layout", "Source", "Task", "find_task", "task_names"]

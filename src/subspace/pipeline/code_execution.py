"""Tasks that run what a model wrote: whether they may, and how many answers they ask for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from subspace.core.errors import UsageError
from subspace.evaluation.sandbox.permission import permit
from subspace.evaluation.sandbox.program import Execution, Program
from subspace.evaluation.sandbox.runner import run_program
from subspace.evaluation.sandbox.scores import measured_ks
from subspace.evaluation.tasks.base import Task

__all__ = ["CodeExecution"]

_TEMPERATURE = 0.8  # Chen et al., 2021: the best for pass@100; 0.2 is for pass@1


@dataclass(frozen=True, slots=True)
class CodeExecution:
    """What the caller says about tasks of kind `code`.

    Attributes:
        allowed: Programs may run in a sandbox.
        unsandboxed: Also on a machine without namespaces.
        num_samples: Programs per document; more than one are sampled.
        temperature: Of the sampling; None: 0.8, and greedy for one program.
    """

    allowed: bool = False
    unsandboxed: bool = False
    num_samples: int = 1
    temperature: float | None = None

    def runner(self, tasks: Sequence[Task]) -> Callable[[Program], Execution] | None:
        """Return what runs programs, None where no task needs it.

        Raises:
            SecurityError: E-SEC-008 if a task needs it and it is not allowed; E-SEC-009 if there is no sandbox.
            UsageError: E-CLI-004 if samples are asked of other tasks, or many of the likeliest answer.
        """
        code = [task for task in tasks if task.kind == "code"]
        if not code:
            if self.num_samples > 1 or self.temperature is not None:
                raise _contradiction("no task that runs programs", "humaneval or mbpp among --tasks")
            return None
        if self.num_samples > 1 and self.temperature == 0:
            raise _contradiction(f"{self.num_samples} samples at temperature 0 are all the same", "a higher one")
        isolation = permit(allow_code_execution=self.allowed, accept_unsandboxed=self.unsandboxed)
        return functools.partial(run_program, isolation=isolation)

    def sampled(self, task: Task) -> Task:
        """Return a task of kind `code` with so many samples; any other as it is."""
        if task.kind != "code":
            return task
        usual = _TEMPERATURE if self.num_samples > 1 else 0.0
        return dataclasses.replace(
            task,
            num_samples=self.num_samples,
            temperature=usual if self.temperature is None else self.temperature,
            metrics=tuple(f"pass@{k}" for k in measured_ks(self.num_samples)),
        )


def _contradiction(found: str, expected: str) -> UsageError:
    return UsageError("E-CLI-004", where="--num-samples, --temperature", found=found, expected=expected)

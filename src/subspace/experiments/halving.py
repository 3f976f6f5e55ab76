"""Successive halving: many learning rates for few steps, the best of them for more. Imports no torch.

    rung 0: n trials of S / h^(R-1) steps;  rung k: the best 1/h of the rung before;  rung R-1: S steps

Every trial is a whole run with its own schedule, so that a score is that of a finished run and not of the middle of
one. The search ends with the best trial of the last rung. References: Jamieson, Talwalkar 2016, arXiv 1502.07943.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Rung", "Trial", "ladder", "ranked", "search_steps"]


@dataclass(frozen=True)
class Rung:
    """A round of a search: how many trials of how many steps."""

    num_trials: int
    steps: int


@dataclass(frozen=True)
class Trial:
    """One learning rate in one rung, ended.

    Attributes:
        score: None if it failed.
        loss: Decides between equal scores.
    """

    rate: float
    rung: int
    steps: int
    score: float | None
    loss: float | None = None
    seconds: float = 0.0
    run: str = ""
    error: str | None = None


def ladder(num_rates: int, steps: int, halving: int, rungs: int | None = None) -> tuple[Rung, ...]:
    """Return the rungs of a search, the shortest first.

    >>> ladder(4, 200, 2)
    (Rung(num_trials=4, steps=100), Rung(num_trials=2, steps=200))
    >>> [rung.num_trials for rung in ladder(9, 90, 3)], [rung.steps for rung in ladder(9, 90, 3)]
    ([9, 3], [30, 90])
    """
    sizes = [num_rates]
    while sizes[-1] // halving >= 2 if rungs is None else len(sizes) < rungs:
        sizes.append(max(sizes[-1] // halving, 1))
    last = len(sizes) - 1
    return tuple(Rung(size, max(round(steps / halving ** (last - place)), 1)) for place, size in enumerate(sizes))


def search_steps(rungs: Sequence[Rung]) -> int:
    """Return the steps of all trials.

    >>> search_steps(ladder(4, 200, 2))
    800
    """
    return sum(rung.num_trials * rung.steps for rung in rungs)


def ranked(trials: Sequence[Trial], *, higher_is_better: bool) -> list[Trial]:
    """Return trials with the best first; equal scores by loss, then the smaller rate; failed ones last."""

    def place(trial: Trial) -> tuple[bool, float, float, float]:
        score = math.inf if trial.score is None else trial.score
        signed = -score if higher_is_better and trial.score is not None else score
        return trial.score is None, signed, math.inf if trial.loss is None else trial.loss, trial.rate

    return sorted(trials, key=place)

"""Epoch by epoch: the validation loss at the end of each, and how long its training took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from subspace.report.values import dig, number

__all__ = ["Epoch", "read_epochs"]

_ROUNDING = 1e-5
"""By which a logged epoch may differ from a whole number."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The end of one pass over the training rows.

    Attributes:
        number: Counted from 1.
        step: Optimizer steps done.
        loss: Validation loss.
        seconds: Of its training, evaluations left out; None if that or the end of the epoch before was not logged.
    """

    number: int
    step: int
    loss: float
    seconds: float | None


def read_epochs(log: Iterable[Mapping[str, Any]]) -> Iterator[Epoch]:
    """Yield the epochs of a log at whose end the validation loss was taken."""
    last, evaluating = 0, 0.0
    begun: float | None = 0.0
    trained: Mapping[str, Any] = {}
    for record in log:
        if record.get("event") == "step":
            trained = record
        if record.get("event") != "eval" or record.get("split") != "validation":
            continue
        step, loss, passed = (number(record.get(key)) for key in ("step", "loss", "epoch"))
        elapsed, taken = (number(dig(record, "machine", key)) for key in ("elapsed_seconds", "seconds"))
        if number(trained.get("step")) == step:  # older logs tell of the epoch and the time there alone
            passed = number(trained.get("epoch")) if passed is None else passed
            elapsed = number(dig(trained, "machine", "elapsed_seconds")) if elapsed is None else elapsed
        evaluating += taken or 0.0
        if passed is None or not _ends_an_epoch(passed):
            begun = begun if taken is not None else None  # how much of the epoch it took is not known
        if step is None or loss is None or passed is None or not _ends_an_epoch(passed):
            continue
        clock = None if elapsed is None else elapsed - evaluating
        seconds = None
        if clock is not None and begun is not None and round(passed) == last + 1:
            seconds = round(clock - begun, 3)
        yield Epoch(round(passed), int(step), loss, seconds)
        last, begun = round(passed), clock if taken is not None else None


def _ends_an_epoch(passed: float) -> bool:
    return passed > 0.5 and abs(passed - round(passed)) < _ROUNDING

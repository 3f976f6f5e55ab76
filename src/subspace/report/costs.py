"""What an arm costs on one field: mean peak memory, time, trained parameters and operations of its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from subspace.core.units import format_bytes, format_count, format_seconds
from subspace.report.groups import Group
from subspace.report.record import RunRecord

__all__ = ["COSTS", "Cost"]


@dataclass(frozen=True)
class Cost:
    """One kind of cost.

    Attributes:
        key: Its words are `cost_<key>`.
        of_run: What one run cost; None if it is unknown.
        form: Writes it.
    """

    key: str
    of_run: Callable[[RunRecord], float | None]
    form: Callable[[float], str]

    def of(self, group: Group) -> float | None:
        """Return the mean over the runs of which it is known."""
        found = [value for run in group.records if (value := self.of_run(run)) is not None]
        return sum(found) / len(found) if found else None


def _memory(run: RunRecord) -> float | None:
    return run.measured_peak_bytes if run.measured_peak_bytes is not None else run.planned_peak_bytes


COSTS = (
    Cost("memory", _memory, format_bytes),
    Cost("time", lambda run: run.seconds, format_seconds),
    Cost("trained", lambda run: run.trained_parameters, format_count),
    Cost("flops", lambda run: run.run_flops, format_count),
)

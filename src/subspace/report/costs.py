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
        key: Its words are `cost_<key>` and `axis_<key>`.
        of_run: What one run cost; None if it is unknown.
        form: Writes it.
        units: Sizes and names of units, from small to large, for the ticks of an axis.
    """

    key: str
    of_run: Callable[[RunRecord], float | None]
    form: Callable[[float], str]
    units: tuple[tuple[float, str], ...]

    def of(self, group: Group) -> float | None:
        """Return the mean over the runs of which it is known."""
        found = [value for run in group.records if (value := self.of_run(run)) is not None]
        return sum(found) / len(found) if found else None

    def unit(self, largest: float) -> tuple[float, str]:
        """Return the unit in which an axis up to `largest` is written."""
        return next((unit for unit in reversed(self.units) if largest >= 2 * unit[0]), self.units[0])


def _memory(run: RunRecord) -> float | None:
    return run.measured_peak_bytes if run.measured_peak_bytes is not None else run.planned_peak_bytes


_COUNTS = ((1.0, ""), (1e3, "K"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"))

COSTS = (
    Cost("memory", _memory, format_bytes, ((2.0**10, " KiB"), (2.0**20, " MiB"), (2.0**30, " GiB"))),
    Cost("time", lambda run: run.seconds, format_seconds, ((1.0, " s"), (60.0, " min"), (3600.0, " h"))),
    Cost("trained", lambda run: run.trained_parameters, format_count, _COUNTS),
    Cost("flops", lambda run: run.run_flops, format_count, _COUNTS),
)

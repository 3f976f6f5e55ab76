"""How the cost of a bench looks before it is begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from subspace.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from subspace.experiments.estimate import Estimate

__all__ = ["estimate_table"]

_SOURCES = {
    "measured": "a finished run",
    "probe": "a probe",
    "FLOPs": "that probe, scaled by the plans' FLOPs",
}


def estimate_table(found: Estimate, num_workers: int) -> RenderableType:
    """Return jobs, steps and hours of every arm, and what they come to."""
    table = Table(title="what the bench takes", title_justify="left")
    table.add_column("task / model / arm")
    for name in ("jobs", "open", "search steps", "steps a run", "a step", "one core"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("a step from")
    for each in found.cells:
        table.add_row(
            each.cell.label,
            str(each.num_jobs),
            str(each.num_open),
            str(each.search_steps),
            str(each.cell.steps),
            format_seconds(each.step_seconds),
            format_seconds(each.seconds),
            _SOURCES[each.source],
        )
    wall = found.seconds / num_workers
    lines = (
        f"jobs: {found.num_jobs}, {found.num_open} of them open",
        f"time: about {wall / 3600:.2f} h ({format_seconds(wall)}) with {num_workers} workers, "
        f"{found.seconds / 3600:.2f} h of one core",
        f"disk: {format_bytes(found.kept_bytes)} in the end, and up to {format_bytes(found.passing_bytes)} "
        f"of checkpoints for each worker meanwhile",
        "An optimizer's own work (a GaLore refresh) is in no FLOPs; a machine that does other things takes longer.",
    )
    return Group(table, *(Text(line) for line in lines))

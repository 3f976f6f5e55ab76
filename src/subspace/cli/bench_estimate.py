"""How the cost of a bench looks before it is begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from subspace.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from subspace.experiments.estimate import Estimate

__all__ = ["estimate_table"]

_SOURCES = {"measured": "run", "probe": "probe", "FLOPs": "FLOPs"}


def estimate_table(found: Estimate, num_workers: int) -> RenderableType:
    """Return jobs, steps and hours of every arm, and what they come to."""
    table = Table(title="what the bench takes", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("task/model/arm", overflow="fold")
    for name in ("jobs", "open", "search", "a run", "a step", "from", "one core"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found.cells:
        table.add_row(
            each.cell.label,
            str(each.num_jobs),
            str(each.num_open),
            str(each.search_steps),
            str(each.run_steps),
            f"{each.step_seconds:.3g} s",
            _SOURCES[each.source],
            format_seconds(each.seconds),
        )
    wall = found.seconds / num_workers
    lines = (
        f"jobs: {found.num_jobs}, {found.num_open} of them open",
        f"time: about {wall / 3600:.2f} h ({format_seconds(wall)}) with {num_workers} workers, "
        f"{found.seconds / 3600:.2f} h of one core",
        f"disk: {format_bytes(found.kept_bytes)} in the end, and up to {format_bytes(found.passing_bytes)} "
        f"of checkpoints for each worker meanwhile",
        "search, a run: steps. A step is of a finished run, of a probe, or of that probe scaled by the plans' FLOPs, "
        "in which an optimizer's own work (a GaLore refresh) is not. A machine that does other things takes longer.",
    )
    return Group(table, *(Text(line) for line in lines))

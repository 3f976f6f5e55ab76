"""A plan as people read it in a terminal: what is trained, what it costs, module by module."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from subspace.core.units import format_bytes, format_count
from subspace.plan.plan import Plan, PlannedModule

__all__ = ["ModuleGroup", "group_modules", "render_plan"]

_NARROW = 72
"""Columns below which figures are put under each other instead of in tables."""


@dataclass(frozen=True, slots=True)
class ModuleGroup:
    """Modules that differ only in the block they lie in."""

    pattern: str
    count: int
    rank: int
    shape: tuple[int, ...]
    trained_parameters: int
    """Of all of them together."""


def render_plan(plan: Plan) -> PlanView:
    """Return the plan as something that a rich console prints, at any width."""
    return PlanView(plan)


def group_modules(plan: Plan) -> tuple[ModuleGroup, ...]:
    """Return the plan's modules with equal ones of all blocks as one group.

    The block index becomes `*` where every block has the module, else the indices: `layers.16-31.mlp.up_proj`.
    """
    groups: dict[tuple[str, str, int, tuple[int, ...], int], list[int]] = {}
    for module in plan.modules:
        before, index, after = _split_block(module)
        groups.setdefault((before, after, module.rank, module.shape, module.trained_parameters), []).append(index)
    return tuple(
        ModuleGroup(
            _pattern(before, after, indices, plan.num_layers), len(indices), rank, shape, trained * len(indices)
        )
        for (before, after, rank, shape, trained), indices in groups.items()
    )


class PlanView:
    """Prints tables where they fit, else lines."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plan, narrow = self._plan, options.max_width < _NARROW
        facts = _facts(plan)
        yield from _lines(facts) if narrow else [_fact_table(facts)]
        yield Text()
        groups = group_modules(plan)
        yield from _group_lines(groups) if narrow else [_group_table(groups)]
        for note in plan.notes:
            yield Text(note, style="dim", overflow="fold")


def _facts(plan: Plan) -> list[tuple[str, str, str]]:
    """Return rows of (what, how much, how it is known)."""
    batch = plan.batch
    trained = (
        f"{format_count(plan.trained_parameters)} of {format_count(plan.num_parameters)} ({plan.trained_share:.3%})"
    )
    rows = f"{batch.batch_size} x {batch.length} tokens, {batch.accumulation} to a step"
    steps = [("run FLOPs", format_count(plan.run_flops), f"{batch.steps} steps")] if plan.run_flops is not None else []
    recompute = [("  recomputed", format_count(plan.recompute_flops), "")] if plan.recompute_flops else []
    chunks = f"{batch.loss_chunk_tokens} positions at a time" if batch.loss_chunk_tokens else "partly in activations"
    kept = [("kept by the method", format_bytes(plan.kept_bytes), "exact")] if plan.kept_bytes else []
    step = [("optimizer step", format_bytes(plan.step_bytes), "in passing, at the most")] if plan.step_bytes else []
    return [
        ("model", plan.model, plan.model_type),
        ("method", plan.method, f"{plan.quantization} quantization" if plan.quantization != "none" else ""),
        ("micro-batch", rows, "gradient checkpointing" if batch.gradient_checkpointing else ""),
        ("trained parameters", trained, "exact"),
        ("weights", format_bytes(plan.weight_bytes + plan.buffer_bytes), "exact"),
        ("gradients", format_bytes(plan.gradient_bytes), "exact"),
        ("optimizer state", format_bytes(plan.optimizer_state_bytes), "exact"),
        *kept,
        *step,
        ("activations", format_bytes(plan.activation_bytes), "of the graph, full rows"),
        ("logits", format_bytes(plan.logits_bytes), chunks),
        ("peak", format_bytes(plan.peak_bytes), "libraries and slack come on top"),
        ("FLOPs of a step", format_count(plan.step_flops), "matrix products"),
        ("  forward", format_count(plan.forward_flops), ""),
        ("  backward", format_count(plan.backward_flops), ""),
        *recompute,
        *steps,
    ]


def _fact_table(facts: list[tuple[str, str, str]]) -> Table:
    table = Table(title="plan", title_justify="left", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", justify="right")
    table.add_column(overflow="fold", style="dim")
    for name, value, origin in facts:
        table.add_row(Text(name), Text(value), Text(origin))
    return table


def _lines(facts: list[tuple[str, str, str]]) -> Iterable[Text]:
    for name, value, _ in facts:
        yield Text(f"{name.strip()}: {value}", overflow="fold")


def _group_table(groups: tuple[ModuleGroup, ...]) -> Table:
    table = Table(title="modules", title_justify="left")
    table.add_column("module", overflow="fold")
    for name in ("count", "rank", "shape", "trained"):
        table.add_column(name, justify="right", overflow="fold")
    for group in groups:
        table.add_row(
            Text(group.pattern),
            f"×{group.count}",
            str(group.rank or ""),
            " x ".join(map(str, group.shape)),
            format_count(group.trained_parameters),
        )
    return table


def _group_lines(groups: tuple[ModuleGroup, ...]) -> Iterable[Text]:
    for group in groups:
        rank = f" rank {group.rank}" if group.rank else ""
        trained = format_count(group.trained_parameters)
        yield Text(f"{group.pattern} ×{group.count}{rank} {trained}", overflow="fold")


def _split_block(module: PlannedModule) -> tuple[str, int, str]:
    """Return what stands before and after the first number of a dotted name, and the number; -1 if there is none."""
    parts = module.name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[:place]), int(part), ".".join(parts[place + 1 :])
    return module.name, -1, ""


def _pattern(before: str, after: str, indices: list[int], num_layers: int) -> str:
    if indices == [-1]:
        return before
    inside = "*" if len(indices) > 1 and sorted(indices) == list(range(num_layers)) else _ranges(sorted(indices))
    return ".".join(part for part in (before, inside, after) if part)


def _ranges(indices: list[int]) -> str:
    """Return e.g. `0-3,7`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

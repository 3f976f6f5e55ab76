"""What scores cost: fronts of score against memory, time, parameters and operations; memory planned and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from subspace.core.units import format_bytes
from subspace.report.charts.rows import Bar, bars
from subspace.report.charts.scatter import Dot, scatter
from subspace.report.costs import COSTS, Cost
from subspace.report.groups import Group
from subspace.report.page.curves import drawn_groups
from subspace.report.page.parts import choices, section
from subspace.report.score_tables import Scored
from subspace.report.series import Scale, pick_scale
from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, say

__all__ = ["cost_axis", "cost_dots", "fronts", "memory"]


def fronts(study: Study, language: str) -> str:
    """Return the fronts of every task; a choice between costs."""
    parts = []
    for scored in study.scored:
        options = [
            (say(f"cost_{cost.key}"), chart) for cost in COSTS if (chart := _front(study, scored, cost, language))
        ]
        if options:
            head = f'<p class="task">{both(scored.name)}</p>' if len(study.scored) > 1 else ""
            parts.append(head + choices(options))
    return section("cost", say("pareto"), "".join(parts), [say("pareto_note")])


def cost_dots(study: Study, scored: Scored, cost: Cost) -> list[Dot]:
    """Return the arms whose score and cost are both known."""
    measure, dots = study.measure(scored), []
    groups = {group.label: group for group in scored.field.groups}
    for arm, runs in scored.scores.items():
        found = cost.of(groups[arm])
        if found is not None and runs:
            mean = sum(runs.values()) / len(runs)
            tip = say("dot_tip", arm=arm, score=measure.value(mean), cost=cost.form(found))
            dots.append(Dot(study.group(arm), found, mean, tip))
    return dots


def cost_axis(dots: Sequence[Dot], cost: Cost) -> tuple[Scale, Callable[[float], str]]:
    """Return the axis of a cost, round in its unit, and how its ticks are written."""
    size, name = cost.unit(max(dot.cost for dot in dots))
    round_one = pick_scale([dot.cost / size for dot in dots])
    scale = Scale(
        round_one.low * size,
        round_one.high * size,
        round_one.logarithmic,
        tuple(tick * size for tick in round_one.ticks),
    )
    return scale, lambda value: f"{value / size:g}{name}"


def _front(study: Study, scored: Scored, cost: Cost, language: str) -> str:
    dots, measure = cost_dots(study, scored, cost), study.measure(scored)
    if len(dots) < 2 or len({dot.cost for dot in dots}) < 2:
        return ""
    across, form = cost_axis(dots, cost)
    up = pick_scale([dot.score for dot in dots], within=(0.0, 1.0) if measure.share else None)
    forms = (form, lambda value: f"{100 * value:g} %" if measure.share else f"{value:g}")
    titles: tuple[Said, Said] = (say(f"axis_{cost.key}"), say("axis_score", metric=measure.name))
    return scatter(dots, across, up, forms, titles, language, higher_is_better=scored.higher_is_better)


def memory(study: Study, language: str) -> str:
    """Return planned against measured peak memory of every field."""
    bodies: list[tuple[Said, str]] = []
    for field in study.arms.fields:
        rows = _memory_rows(drawn_groups(study, field.groups))
        if rows:
            bodies.append((field.name, bars(rows, format_bytes, language)))
    body = choices(bodies, named=len(study.arms.fields) > 1) if bodies else ""
    return section("memory", say("memory"), body, [say("memory_note")])


def _memory_rows(groups: Sequence[Group]) -> list[Bar]:
    rows = []
    for group in groups:
        measured = [run.measured_peak_bytes for run in group.records if run.measured_peak_bytes is not None]
        planned = [run.planned_peak_bytes for run in group.records if run.planned_peak_bytes is not None]
        if measured or planned:
            means = [sum(found) / len(found) if found else None for found in (measured, planned)]
            rows.append(Bar(group, means[0], means[1]))
    return rows

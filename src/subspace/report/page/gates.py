"""The success criteria of every arm against the reference: taken literally, and as far as the statistics bear them."""

from __future__ import annotations

import math
from dataclasses import replace
from html import escape

from subspace.core.errors import DataError
from subspace.report.charts.marks import swatch
from subspace.report.costs import COSTS
from subspace.report.groups import Group
from subspace.report.measures import Measure
from subspace.report.page.parts import Value, section, table
from subspace.report.score_tables import Scored
from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, say
from subspace.statistics.findings import TaskVerdict
from subspace.statistics.success import Cost, Gate, Success, judge_success

__all__ = ["gates", "successes"]

_DIGITS = 2
"""Of points: the bounds are told in tenths."""
_LOOKS = {"PASS": "good", "FAIL": "bad", "INCONCLUSIVE": "soft"}
_ORDER = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}


def successes(study: Study, scored: Scored, task: TaskVerdict) -> list[Success]:
    """Return the criteria of every arm of a task against the reference, in the order of the ranking.

    They are stated in points, and so only where scores are shares.
    """
    if not study.measure(scored).share:
        return []
    found = []
    groups = {group.label: group for group in scored.field.groups}
    for rank in task.ranking:
        if study.reference is None or scored.table is None or rank.arm == study.reference:
            continue
        costs = _cost(groups[rank.arm]), _cost(groups[study.reference])
        try:
            found.append(
                judge_success(
                    scored.table,
                    rank.arm,
                    study.reference,
                    arm_cost=costs[0],
                    baseline_cost=costs[1],
                    one_point=task.power.one_point,
                )
            )
        except DataError:  # no item in common: the remarks say so
            continue
    return found


def _cost(group: Group) -> Cost:
    known = {cost.key: cost.of(group) for cost in COSTS}
    return Cost(known["trained"], known["flops"])


def gates(study: Study) -> str:
    """Return the criteria of every arm against the reference; nothing without one."""
    if study.reference is None:
        return ""
    parts = []
    for scored in study.scored:
        task = study.verdict_on(scored)
        found = successes(study, scored, task) if task is not None else []
        if not found:
            continue
        measure = replace(study.measure(scored), digits=_DIGITS)
        heads: list[Said] = [say("arm"), *(say(f"gate_{gate.name}") for gate in found[0].gates), say("gate_all")]
        rows = []
        for success in found:
            group = study.group(success.arm)
            cells = [Value(f"{swatch(group)}{escape(success.arm)}", success.arm)]
            cells += [_cell(gate, measure) for gate in success.gates]
            whole = say("gate_literal_met" if success.literal else "gate_literal_missed")
            if success.literal is None:
                whole = say("gate_literal_unknown")
            rows.append((group.index, [*cells, _verdict(success.verdict, whole)]))
        head = f'<p class="task">{both(scored.name)}</p>' if len(study.scored) > 1 else ""
        parts.append(head + table(heads, rows, "gates"))
    return section("gates", say("gates"), "".join(parts), [say("gates_note", reference=study.reference)])


def _cell(gate: Gate, measure: Measure) -> Value:
    literal = {True: "gate_literal_met", False: "gate_literal_missed", None: "gate_literal_unknown"}[gate.literal]
    return _verdict(gate.verdict, _figure(gate, measure), say(literal))


def _verdict(verdict: str, *under: Said) -> Value:
    told = " · ".join(both(part) for part in under if part != "")
    shown = f'<b class="{_LOOKS[verdict]}">{both(say(f"gate_{verdict}"))}</b><span class="sub">{told}</span>'
    return Value(shown, str(_ORDER[verdict]))


def _figure(gate: Gate, measure: Measure) -> Said:
    """Return what a criterion was judged by."""
    if gate.name == "E":
        known = [
            (key, ratio) for key, ratio in (("trained", gate.parameter_ratio), ("flops", gate.flops_ratio)) if ratio
        ]
        if len(known) == 2:
            return say("gate_ratios", parameters=f"{100 * known[0][1]:.0f} %", flops=f"{100 * known[1][1]:.0f} %")
        return say(f"gate_ratio_{known[0][0]}", ratio=f"{100 * known[0][1]:.0f} %") if known else ""
    if gate.value is None:
        return ""
    difference = measure.difference(gate.value, signed=gate.name == "A")
    if gate.interval is None or not math.isfinite(gate.interval.low + gate.interval.high):
        return difference
    ends = measure.between(gate.interval.low, gate.interval.high, signed=gate.name == "A")
    return say("gate_figure", figure=difference, interval=ends)

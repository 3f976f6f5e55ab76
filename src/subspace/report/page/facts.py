"""What was compared, in one line: model, data, methods, runs, seeds, steps, budget."""

from __future__ import annotations

from collections.abc import Sequence

from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, say

__all__ = ["facts"]


def facts(study: Study) -> str:
    """Return the line."""
    records = study.records
    seeds = sorted({seed for run in records if (seed := study.arms.seed_of(run)) is not None})
    steps = sorted({run.last_step for run in records})
    budget = [bench.budget for bench in study.benches if bench.budget]
    listed: list[tuple[Said, Said]] = [
        (say("facts_model"), _same([run.model for run in records])),
        (say("facts_data"), _same([run.data for run in records])),
        (say("facts_arms"), str(len(study.arms.groups))),
        (say("facts_runs"), str(len(records))),
        (say("facts_seeds"), ", ".join(map(str, seeds[:8])) + (" …" if len(seeds) > 8 else "") or say("unknown")),
        (say("facts_steps"), str(steps[0]) if len(steps) == 1 else say("span", low=steps[0], high=steps[-1])),
    ]
    if budget:
        listed.append((say("facts_budget"), say(f"budget_{budget[0][0]}", value=f"{budget[0][1]:,.0f}")))
    told = "".join(f"<div><dt>{both(name)}</dt><dd>{both(value)}</dd></div>" for name, value in listed)
    return f'<dl class="facts">{told}</dl>'


def _same(values: Sequence[str]) -> Said:
    found = list(dict.fromkeys(value for value in values if value))
    if not found:
        return say("unknown")
    return ", ".join(found) if len(found) <= 2 else say("several", count=len(found))

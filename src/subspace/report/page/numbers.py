"""The tables behind differences: every comparison, power for more seeds and items, tests over all tasks."""

from __future__ import annotations

from subspace.report.charts.marks import swatch
from subspace.report.measures import Measure
from subspace.report.page.parts import Value, folded, table
from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, say
from subspace.statistics.findings import Power, TaskVerdict

__all__ = ["comparison_table", "p_value", "pooled_table", "power_table"]


def p_value(value: float) -> str:
    """Return a p value as it is written."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None, form: str = "{:.2f}") -> Value:
    return Value("–", None) if value is None else Value(form.format(value).replace("-", "−"), value)


def comparison_table(study: Study, task: TaskVerdict, measure: Measure) -> str:
    """Return all comparisons of a task with everything that is known of them."""
    heads: list[Said] = [
        say(f"pair_{name}")
        for name in (
            "arms",
            "difference",
            "interval",
            "bootstrap",
            "p",
            "p_adjusted",
            "outcome",
            "d_z",
            "rank_biserial",
        )
    ]
    with_cliff = any(found.cliffs_delta is not None for found in task.comparisons)
    binary = any(found.mcnemar_p is not None for found in task.comparisons)
    shared = any(found.shared is not None for found in task.comparisons)
    heads += [say("pair_shared"), say("pair_p_shared")] if shared else []
    heads += [say("pair_cliffs_delta")] if with_cliff else []
    heads += [say("pair_mcnemar"), say("pair_discordant")] if binary else []
    rows = []
    for found in task.comparisons:
        pair = say("versus", first=found.first, second=found.second)
        outcome = say("pair_open") if found.decided is None else say("pair_decided", arm=found.decided)
        if found.equivalent:
            outcome = say("pair_equivalent")
        cells = [
            Value(f"{swatch(study.group(found.first))}{both(pair)}", f"{found.first} {found.second}"),
            Value(both(measure.difference(found.interval.estimate, signed=True)), found.interval.estimate),
            Value(both(measure.between(found.interval.low, found.interval.high, signed=True)), found.interval.low),
            Value(both(measure.between(found.bootstrap.low, found.bootstrap.high, signed=True)), found.bootstrap.low),
            Value(p_value(found.p), found.p),
            Value(p_value(found.p_adjusted), found.p_adjusted),
            Value(both(outcome), found.decided or ""),
            _number(found.d_z),
            _number(found.rank_biserial),
        ]
        if shared:
            ends = found.shared and measure.between(found.shared.low, found.shared.high, signed=True)
            cells.append(Value(both(ends), found.shared.low) if found.shared and ends else Value("–", None))
            known = found.p_shared is not None
            cells.append(Value(p_value(found.p_shared or 0.0), found.p_shared) if known else Value("–", None))
        cells += [_number(found.cliffs_delta)] if with_cliff else []
        if binary:
            shown = Value("–", None) if found.mcnemar_p is None else Value(p_value(found.mcnemar_p), found.mcnemar_p)
            cells += [shown, _number(None if found.discordant is None else 100 * found.discordant, "{:.1f} %")]
        rows.append((None, cells))
    return table(heads, rows)


def power_table(power: Power, measure: Measure) -> str:
    """Return how often differences would be found with more seeds or items."""
    if not power.table:
        return ""
    heads: list[Said] = [say(f"power_{name}") for name in ("difference", "seeds_head", "items_head", "chance")]
    rows = [
        (
            None,
            [
                Value(both(measure.difference(row.difference)), row.difference),
                Value(str(row.seeds), row.seeds),
                Value(f"{row.items:,}", row.items),
                Value(f"{100 * row.power:.0f} %", row.power),
            ],
        )
        for row in power.table
    ]
    return folded(say("power_table"), f'<p class="note">{both(say("power_note"))}</p>{table(heads, rows)}')


def pooled_table(study: Study) -> str:
    """Return the signed-rank tests over all tasks."""
    if study.verdict is None or len(study.verdict.tasks) < 2 or not study.verdict.pooled:
        return ""
    heads: list[Said] = [say(f"pooled_{name}") for name in ("arms", "blocks", "p", "p_adjusted", "min_p", "effect")]
    rows = []
    for found in study.verdict.pooled:
        cells = [
            Value(both(say("versus", first=found.first, second=found.second)), f"{found.first} {found.second}"),
            Value(str(found.num_blocks), found.num_blocks),
            Value(p_value(found.wilcoxon_p), found.wilcoxon_p),
            Value(p_value(found.p_adjusted), found.p_adjusted),
            Value(f"{found.min_p:.2g}", found.min_p),
            _number(found.rank_biserial),
        ]
        rows.append((None, cells))
    return f'<h3>{both(say("pooled"))}</h3><p class="note">{both(say("pooled_note"))}</p>{table(heads, rows)}'

"""The ranking: scores with intervals and tie groups, differences two by two, and everything they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable

from subspace.report.charts.marks import swatch
from subspace.report.charts.matrix import Cell, matrix
from subspace.report.charts.rows import Row, forest
from subspace.report.measures import Measure
from subspace.report.page.parts import Value, folded, section, table
from subspace.report.page.power import amounts
from subspace.report.score_tables import Scored
from subspace.report.series import Scale, pick_scale
from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, say
from subspace.statistics.findings import Comparison, Power, TaskVerdict

__all__ = ["differences", "ranking", "rows_of", "score_scale"]


def ranking(study: Study, language: str) -> str:
    """Return the forest plots of all tasks."""
    parts = []
    for scored in study.scored:
        task, measure = study.verdict_on(scored), study.measure(scored)
        rows = rows_of(study, scored)
        seeds = max(len(runs) for runs in scored.scores.values())
        items = task.num_items if task else len(next(iter(scored.items.values()), _NOTHING).values)
        head = say(
            "task_head",
            task=scored.name,
            metric=measure.name,
            direction=say("higher_better" if scored.higher_is_better else "lower_better"),
            data=amounts(seeds, items),
        )
        before = (
            ""
            if scored.before is None
            else f" · <span>{both(say('before_was', before=measure.value(scored.before)))}</span>"
        )
        parts.append(
            f'<p class="task">{both(head)}{before}</p>{forest(rows, score_scale(rows), _tick(measure), language)}'
        )
    several = any(len(runs) > 1 for scored in study.scored for runs in scored.scores.values())
    note: list[Said] = []
    if study.verdict is not None:
        note.append(say("ranking_note", level=f"{100 * study.verdict.level:.0f} %"))
        note.append(say("ranking_letters" if study.reference is None else "ranking_letters_reference"))
    if several:
        note.append(say("ranking_seeds"))
    return section("ranking", say("ranking"), "".join(parts), note)


def rows_of(study: Study, scored: Scored) -> list[Row]:
    """Return the arms of a task as rows, best first."""
    task, measure = study.verdict_on(scored), study.measure(scored)
    return _judged_rows(study, scored, task, measure) if task else _bare_rows(study, scored, measure)


class _Nothing:
    values: dict[str, float] = {}


_NOTHING = _Nothing()


def _judged_rows(study: Study, scored: Scored, task: TaskVerdict, measure: Measure) -> list[Row]:
    rows = []
    for rank in task.ranking:
        known = math.isfinite(rank.interval.low + rank.interval.high)
        interval: Said = measure.span(rank.interval.low, rank.interval.high) if known else ""
        spread = "" if rank.seed_std is None else say("seed_std", value=measure.difference(rank.seed_std))
        tip = say(
            "rank_tip",
            arm=rank.arm,
            score=measure.value(rank.mean),
            interval=say("rank_tip_interval", interval=interval) if known else "",
            spread=say("rank_tip_spread", spread=spread) if spread else "",
        )
        seeds = list(scored.scores.get(rank.arm, {}).values())
        low, high = (rank.interval.low, rank.interval.high) if known else (None, None)
        rows.append(
            Row(
                study.group(rank.arm),
                rank.mean,
                low,
                high,
                seeds,
                rank.letters,
                measure.value(rank.mean),
                interval,
                tip,
            )
        )
    return rows


def _bare_rows(study: Study, scored: Scored, measure: Measure) -> list[Row]:
    sign = -1 if scored.higher_is_better else 1
    means = sorted(
        ((sum(runs.values()) / len(runs), arm) for arm, runs in scored.scores.items()), key=lambda pair: sign * pair[0]
    )
    rows = []
    for mean, arm in means:
        told = measure.value(mean)
        seeds = list(scored.scores[arm].values())
        tip = say("rank_tip", arm=arm, score=told, interval="", spread="")
        rows.append(Row(study.group(arm), mean, None, None, seeds, "", told, "", tip))
    return rows


def score_scale(rows: list[Row]) -> Scale:
    """Return the axis that holds scores, seeds and intervals."""
    values = [value for row in rows for value in (row.score, row.low, row.high, *row.seeds) if value is not None]
    low, high = min(values), max(values)
    within = (0.0, 1.0) if low >= 0 and high <= 1 else None
    scale = pick_scale(values, within=within)
    if scale.logarithmic or within is None:
        return pick_scale([low, high], within=within) if scale.logarithmic else scale
    return scale


def _tick(measure: Measure) -> Callable[[float], str]:
    return (lambda value: f"{100 * value:g} %") if measure.share else "{:g}".format


def differences(study: Study, language: str) -> str:
    """Return who is told apart from whom: matrices, and the table behind them."""
    parts = []
    for scored in study.scored:
        task = study.verdict_on(scored)
        if task is None or not task.comparisons:
            continue
        measure = study.measure(scored)
        groups = [study.group(rank.arm) for rank in task.ranking]
        cells: dict[tuple[str, str], Cell] = {}
        for found in task.comparisons:
            cells[found.first, found.second] = _cell(found, measure, turned=False)
            cells[found.second, found.first] = _cell(found, measure, turned=True)
        head = f'<p class="task">{both(scored.name)}</p>' if len(study.scored) > 1 else ""
        parts.append(
            f"{head}{matrix(groups, cells, language)}"
            f"{folded(say('comparisons_all', count=len(task.comparisons)), _comparisons(study, task, measure))}"
            f"{_power(task.power, measure)}"
        )
    if not parts or study.verdict is None:
        return ""
    note = say("differences_note", count=study.verdict.num_hypotheses, error=f"{100 * (1 - study.verdict.level):.0f} %")
    return section("differences", say("differences"), "".join(parts) + _pooled(study), [note])


def _cell(found: Comparison, measure: Measure, *, turned: bool) -> Cell:
    first, second = (found.second, found.first) if turned else (found.first, found.second)
    sign = -1 if turned else 1
    low, high = sorted((sign * found.interval.low, sign * found.interval.high))
    look = "open" if found.decided is None else "better" if found.decided == first else "worse"
    tip = say(
        "pair_tip",
        first=first,
        second=second,
        difference=measure.difference(sign * found.interval.estimate, signed=True),
        interval=measure.between(low, high, signed=True),
        p=_p(found.p_adjusted),
        verdict=say("pair_open") if found.decided is None else say("pair_decided", arm=found.decided),
    )
    return Cell(measure.bare(sign * found.interval.estimate, signed=True), look, tip)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None, form: str = "{:.2f}") -> Value:
    return Value("–", None) if value is None else Value(form.format(value).replace("-", "−"), value)


def _comparisons(study: Study, task: TaskVerdict, measure: Measure) -> str:
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
            Value(_p(found.p), found.p),
            Value(_p(found.p_adjusted), found.p_adjusted),
            Value(both(outcome), found.decided or ""),
            _number(found.d_z),
            _number(found.rank_biserial),
        ]
        cells += [_number(found.cliffs_delta)] if with_cliff else []
        if binary:
            shown = Value("–", None) if found.mcnemar_p is None else Value(_p(found.mcnemar_p), found.mcnemar_p)
            cells += [shown, _number(None if found.discordant is None else 100 * found.discordant, "{:.1f} %")]
        rows.append((None, cells))
    return table(heads, rows)


def _power(power: Power, measure: Measure) -> str:
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


def _pooled(study: Study) -> str:
    """Return the signed-rank tests over all tasks."""
    if study.verdict is None or len(study.verdict.tasks) < 2 or not study.verdict.pooled:
        return ""
    heads: list[Said] = [say(f"pooled_{name}") for name in ("arms", "blocks", "p", "p_adjusted", "min_p", "effect")]
    rows = []
    for found in study.verdict.pooled:
        cells = [
            Value(both(say("versus", first=found.first, second=found.second)), f"{found.first} {found.second}"),
            Value(str(found.num_blocks), found.num_blocks),
            Value(_p(found.wilcoxon_p), found.wilcoxon_p),
            Value(_p(found.p_adjusted), found.p_adjusted),
            Value(f"{found.min_p:.2g}", found.min_p),
            _number(found.rank_biserial),
        ]
        rows.append((None, cells))
    return f'<h3>{both(say("pooled"))}</h3><p class="note">{both(say("pooled_note"))}</p>{table(heads, rows)}'

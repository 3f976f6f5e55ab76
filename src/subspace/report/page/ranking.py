"""The ranking: scores with intervals and tie groups, differences two by two, and everything they rest on."""

from __future__ import annotations

import math
from collections.abc import Callable

from subspace.report.charts.matrix import Cell, matrix
from subspace.report.charts.rows import Row, forest
from subspace.report.measures import Measure
from subspace.report.page.numbers import comparison_table, p_value, pooled_table, power_table
from subspace.report.page.parts import folded, section
from subspace.report.page.power import amounts
from subspace.report.score_tables import Scored
from subspace.report.series import Scale, pick_scale
from subspace.report.study import Study, comparison_of
from subspace.report.words.phrase import Said, both, say
from subspace.statistics.findings import Comparison, TaskVerdict

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
        head = f'<p class="task">{both(scored.name)}</p>' if len(study.scored) > 1 else ""
        parts.append(
            f"{head}{_drawn(study, task, measure, language)}"
            f"{folded(say('comparisons_all', count=len(task.comparisons)), comparison_table(study, task, measure))}"
            f"{power_table(task.power, measure)}"
        )
    if not parts or study.verdict is None:
        return ""
    note = say(
        "differences_note" if study.reference is None else "differences_note_reference",
        count=study.verdict.num_hypotheses,
        error=f"{100 * (1 - study.verdict.level):.0f} %",
    )
    return section("differences", say("differences"), "".join(parts) + pooled_table(study), [note])


def _drawn(study: Study, task: TaskVerdict, measure: Measure, language: str) -> str:
    """Return differences as a matrix; those against a reference as a forest plot around zero."""
    if study.reference is not None:
        return _against(study, task, measure, language)
    cells: dict[tuple[str, str], Cell] = {}
    for found in task.comparisons:
        cells[found.first, found.second] = _cell(found, measure, turned=False)
        cells[found.second, found.first] = _cell(found, measure, turned=True)
    return matrix([study.group(rank.arm) for rank in task.ranking], cells, language)


def _against(study: Study, task: TaskVerdict, measure: Measure, language: str) -> str:
    rows = []
    for rank in task.ranking:
        found = comparison_of(task, rank.arm, study.reference or "")
        if found is None:
            continue
        turned = found.second == rank.arm
        cell, sign = _cell(found, measure, turned=turned), -1 if turned else 1
        low, high = sorted((sign * found.interval.low, sign * found.interval.high))
        known = math.isfinite(low + high)
        ends: Said = measure.between(low, high, signed=True) if known else ""
        mark = {"better": "▲", "worse": "▼", "open": ""}[cell.look]
        rows.append(
            Row(
                study.group(rank.arm),
                sign * found.interval.estimate,
                low if known else None,
                high if known else None,
                [],
                mark,
                cell.text,
                ends,
                cell.tip,
            )
        )
    reach = [value for row in rows for value in (row.score, row.low, row.high, 0.0) if value is not None]
    form = (lambda value: measure.bare(value, signed=True)) if measure.share else "{:g}".format
    legend = both(say("differences_reference", reference=study.reference or ""))
    plot = forest(rows, pick_scale(reach), form, language, zero=True)
    return f'{plot}<div class="looks"><span>{legend}</span></div>'


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
        p=p_value(found.p_adjusted),
        verdict=say("pair_open") if found.decided is None else say("pair_decided", arm=found.decided),
    )
    return Cell(measure.bare(sign * found.interval.estimate, signed=True), look, tip)

"""The head of the page: the verdict in words, readable in five seconds, and what it would take to tell more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from subspace.report.arms import Field
from subspace.report.measures import Measure
from subspace.report.page.facts import facts
from subspace.report.page.power import amounts, power_line
from subspace.report.page.remarks import sentence
from subspace.report.score_tables import Scored
from subspace.report.study import Study, comparison_of
from subspace.report.words.phrase import Phrase, Said, Strong, both, listed, plain, say
from subspace.statistics.findings import TaskVerdict

__all__ = ["Standing", "head", "lines", "standing", "title", "warnings"]

_SHARE_UP_TO = 3
"""Leaders that the title names."""
_MOST_CAUTIONS = 8


@dataclass(frozen=True)
class Standing:
    """How arms stand to the one that the verdict is about: the best, or the reference.

    Attributes:
        about: That arm.
        ahead: Arms decided to be better; always empty where it is about the best.
        level: Arms not told apart from it.
        behind: Arms decided to be worse, best first.
        perhaps_ahead: Of the arms not told apart, those that would be better if seeds moved all arms by as much.
        perhaps_behind: Those that would be worse.
    """

    about: str
    ahead: tuple[str, ...]
    level: tuple[str, ...]
    behind: tuple[str, ...]
    perhaps_ahead: tuple[str, ...] = ()
    perhaps_behind: tuple[str, ...] = ()

    @property
    def leaders(self) -> tuple[str, ...]:
        return (self.about, *self.level)


def standing(task: TaskVerdict, reference: str | None, *, shared: bool = True) -> Standing:
    """Return how all arms stand to the best one, or to the reference; without `shared` nothing is perhaps."""
    about = reference or task.ranking[0].arm
    ahead: list[str] = []
    level: list[str] = []
    behind: list[str] = []
    for rank in task.ranking:
        found = comparison_of(task, rank.arm, about)
        if rank.arm == about or found is None:
            continue
        {rank.arm: ahead, None: level, about: behind}[found.decided].append(rank.arm)
    perhaps: dict[str | None, list[str]] = {}
    for arm in level if shared else ():
        found = comparison_of(task, arm, about)
        perhaps.setdefault(found.decided_shared if found else None, []).append(arm)
    above = tuple(arm for arm in level if arm in perhaps.get(arm, ()))
    return Standing(about, tuple(ahead), tuple(level), tuple(behind), above, tuple(perhaps.get(about, ())))


def title(study: Study) -> Phrase:
    """Return the headline."""
    judged = [task for scored in study.scored if (task := study.verdict_on(scored)) is not None]
    if not judged:
        return _bare_title(study)
    if study.reference is not None:
        return _title_against(study.reference, judged)
    found = [standing(task, None) for task in judged]
    if len(found) == 1:
        return _title_of_one(found[0])
    tasks = say("tasks_two") if len(found) == 2 else say("tasks_many", count=len(found))
    always = set(found[0].leaders).intersection(*(one.leaders for one in found[1:]))
    order = [arm for arm in found[0].leaders if arm in always]
    if not order:
        return say("title_no_leader", tasks=tasks)
    if all(len(one.leaders) == 1 for one in found):
        return say("title_best_on_all", arm=order[0], tasks=tasks)
    if not any(one.behind for one in found):
        return say("title_none")
    if len(order) > _SHARE_UP_TO:
        return say("title_many_lead", count=len(order), arms=len(study.arms.groups), tasks=tasks)
    return say("title_leads_on_all" if len(order) == 1 else "title_lead_on_all", arms=listed(order), tasks=tasks)


def _bare_title(study: Study) -> Phrase:
    if len(study.records) == 1:
        return say("title_run", run=study.records[0].name)
    top = _leading(study)
    if top is not None:
        return say("title_bare", arm=top)
    rivals = any(len(scored.scores) > 1 for scored in study.scored)
    return say("title_scored" if rivals else "title_runs", count=len(study.records))


def _leading(study: Study) -> str | None:
    """Return the arm with the best mean on the one task there is."""
    if len(study.scored) != 1 or len(study.scored[0].scores) < 2:
        return None
    return _means(study.scored[0])[0][0]


def _means(scored: Scored) -> list[tuple[str, float]]:
    sign = -1 if scored.higher_is_better else 1
    means = [(arm, sum(runs.values()) / len(runs)) for arm, runs in scored.scores.items()]
    return sorted(means, key=lambda pair: sign * pair[1])


def _title_of_one(found: Standing) -> Phrase:
    if not found.behind:
        return say("title_none")
    if not found.level:
        return say("title_best", arm=found.about)
    if len(found.leaders) <= _SHARE_UP_TO:
        return say("title_shared", arms=listed(found.leaders))
    return say("title_shared_by_many", arm=found.about, count=len(found.level))


def _title_against(reference: str, judged: Sequence[TaskVerdict]) -> Phrase:
    found = [standing(task, reference) for task in judged]
    better = list(dict.fromkeys(arm for one in found for arm in one.ahead))
    worse = list(dict.fromkeys(arm for one in found for arm in one.behind))
    if better:
        return say("title_beats" if len(better) == 1 else "title_beat", arms=listed(better, 4), reference=reference)
    if worse:
        return say("title_unbeaten", reference=reference)
    return say("title_no_difference", reference=reference)


def head(study: Study) -> str:
    """Return the head of the page."""
    several = len(study.scored) > 1
    told = [
        f"<div><dt>{both(name)}</dt><dd>{_line(sentences, several)}</dd></div>"
        for name, sentences in lines(study)
        if sentences
    ]
    cautions = "".join(f"<li>{both(caution)}</li>" for caution in warnings(study))
    return (
        f'<header><h1>{both(title(study))}</h1><dl class="glance{"" if several else " single"}">{"".join(told)}</dl>'
        f"{f'<ul class=caution>{cautions}</ul>' if cautions else ''}{facts(study)}</header>"
    )


def _line(sentences: Sequence[Said], several: bool) -> str:
    """Return the sentences of one line; of several tasks the last, what it would take, stands below the others."""
    if not several or len(sentences) < 2:
        return both(*sentences)
    return f'{both(*sentences[:-1])}<span class="take">{both(sentences[-1])}</span>'


def lines(study: Study) -> list[tuple[Said, list[Said]]]:
    """Return the verdict as lines: what each is about, and its sentences."""
    found: list[tuple[Said, list[Said]]] = []
    several = len(study.scored) > 1
    for scored in study.scored:
        task, measure = study.verdict_on(scored), study.measure(scored)
        if task is None:
            found.append((scored.name if several else say("line_scores"), _bare(study, scored, measure)))
            continue
        if several:
            found.append((scored.name, [*_result(task, study, scored, measure), power_line(task.power, measure)]))
            continue
        one = standing(task, study.reference, shared=_shared(study, task))
        names = ("line_reference", "line_ahead", "line_level_reference", "line_behind") if study.reference else (
            "line_leads", "line_ahead", "line_level", "line_behind"
        )  # fmt: skip
        found.append((say(names[0]), [_score(task, one.about, scored, measure)]))
        found += [
            (say(names[1]), _gaps(task, one.about, one.ahead, measure)),
            (say(names[2]), [listed([Strong(arm) for arm in one.level])] if one.level else []),
            (say(names[3]), _gaps(task, one.about, one.behind, measure)),
            (say("line_perhaps_ahead"), _perhaps(task, one.about, one.perhaps_ahead, measure)),
            (say("line_perhaps_behind"), _perhaps(task, one.about, one.perhaps_behind, measure)),
            (say("line_power"), [power_line(task.power, measure)]),
        ]
    fields = study.arms.fields
    return found or [(field.name if len(fields) > 1 else say("line_scores"), _unscored(field)) for field in fields]


def _result(task: TaskVerdict, study: Study, scored: Scored, measure: Measure) -> list[Said]:
    """Return the verdict on one of several tasks, in sentences."""
    one = standing(task, study.reference, shared=_shared(study, task))
    told: list[Said] = [_score(task, one.about, scored, measure)]
    if one.ahead:
        told.append(say("sentence_ahead", gaps=_gaps(task, one.about, one.ahead, measure)[0]))
    if one.level:
        told.append(say("sentence_level", arms=listed([Strong(arm) for arm in one.level])))
    if one.behind:
        told.append(say("sentence_behind", gaps=_gaps(task, one.about, one.behind, measure)[0]))
    for side, arms in (("ahead", one.perhaps_ahead), ("behind", one.perhaps_behind)):
        if arms:
            told.append(say(f"sentence_perhaps_{side}", gaps=_gaps(task, one.about, arms, measure, shared=True)[0]))
    return told


def _shared(study: Study, task: TaskVerdict) -> bool:
    """Whether nothing speaks against seeds moving all arms of a task by as much."""
    remarks = study.verdict.remarks if study.verdict else ()
    return not any(found.code == "unequal-noise" and found.values.get("task") == task.task for found in remarks)


def _score(task: TaskVerdict, arm: str, scored: Scored, measure: Measure) -> Phrase:
    rank = next(rank for rank in task.ranking if rank.arm == arm)
    fields = {
        "arm": Strong(arm),
        "score": measure.value(rank.mean),
        "metric": measure.name,
        "data": amounts(rank.num_seeds, task.num_items),
    }
    if not math.isfinite(rank.interval.low + rank.interval.high):
        return say("score_alone", **fields)
    return say("score_with_interval", interval=measure.span(rank.interval.low, rank.interval.high), **fields)


def _perhaps(task: TaskVerdict, about: str, arms: Sequence[str], measure: Measure) -> list[Said]:
    return [say("if_shared", gaps=_gaps(task, about, arms, measure, shared=True)[0])] if arms else []


def _gaps(task: TaskVerdict, about: str, arms: Sequence[str], measure: Measure, *, shared: bool = False) -> list[Said]:
    """Return how far each arm is from the one spoken of, as a part of a sentence."""
    told: list[Said] = []
    for arm in arms:
        found = comparison_of(task, arm, about)
        if found is not None:
            interval = found.shared if shared and found.shared is not None else found.interval
            gap, low, high = interval.estimate, interval.low, interval.high
            turned = (gap, low, high) if gap >= 0 else (-gap, -high, -low)
            told.append(
                say(
                    "gap",
                    arm=Strong(arm),
                    difference=measure.difference(turned[0]),
                    interval=measure.between(turned[1], turned[2]),
                )
            )
    return [listed(told, 5)] if told else []


def _bare(study: Study, scored: Scored, measure: Measure) -> list[Said]:
    """Return the scores of a task that cannot be judged."""
    means = _means(scored)
    arm, score = means[0]
    fields = {"arm": Strong(arm), "score": measure.value(score), "metric": measure.name}
    told: list[Said] = [say("bare_best", count=len(means), **fields) if len(means) > 1 else say("bare_one", **fields)]
    if scored.before is not None:
        told.append(say("before_was", before=measure.value(scored.before)))
    return told


def _unscored(field: Field) -> list[Said]:
    """Return what the logs of a field say where no run was scored."""
    lowest = []
    for group in field.groups:
        losses = [min(values) for run in group.records if (values := run.series("eval", "loss")[1])]
        if losses:
            lowest.append((sum(losses) / len(losses), group.label))
    if not lowest:
        return [say("unscored")]
    loss, arm = min(lowest)
    return [say("unscored_loss", arm=Strong(arm), loss=f"{loss:.4g}", count=len(lowest))]


def warnings(study: Study) -> list[Said]:
    """Return what the reader must know; what is the same of several tasks once."""
    found: dict[str, tuple[Said, dict[str, None]]] = {}
    for remark in (*study.remarks, *(study.verdict.remarks if study.verdict else ())):
        told = sentence(remark, study)
        if told is not None:
            tasks = found.setdefault(plain(told, "en"), (told, {}))[1]
            tasks |= {str(remark.values["task"]): None} if "task" in remark.values else {}
    several = len(study.scored) > 1
    cautions: list[Said] = [
        say("remark_on", task=listed(list(tasks)), remark=told) if tasks and several else told
        for told, tasks in found.values()
    ]
    if study.verdict is None and len(study.arms.groups) > 1 and study.scored:
        cautions.append(say("remark_single_scores"))
    return cautions[:_MOST_CAUTIONS]

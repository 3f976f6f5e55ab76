"""The verdict over a comparison: which arms differ, which do not, and what it would take to tell.

    verdict = judge([table, ...], reference="lora")

Every task's arms are compared in pairs (or with the reference) by the t interval on crossed seed and item variances;
Holm keeps the chance of any false decision over all tasks and pairs below 1 - level; arms not told apart form tie
groups. What a reader must know stands in `Verdict.remarks`, as codes; the table of codes is in `remarks`.
"""

from __future__ import annotations

from collections.abc import Sequence

from subspace.core.errors import DataError, UsageError
from subspace.statistics.comparing import Adjusted, Draft, Settings, draft, finish
from subspace.statistics.findings import (
    Comparison,
    Interval,
    PooledComparison,
    Power,
    PowerRow,
    Rank,
    Remark,
    TaskVerdict,
    Verdict,
)
from subspace.statistics.intervals import check_level
from subspace.statistics.pooled import pool
from subspace.statistics.remarks import pooled_remarks, task_remarks
from subspace.statistics.scores import ScoreTable
from subspace.statistics.tests import holm

__all__ = [
    "AGAINST_REFERENCE",
    "ALL_PAIRS",
    "Comparison",
    "Interval",
    "PooledComparison",
    "Power",
    "PowerRow",
    "Rank",
    "Remark",
    "TaskVerdict",
    "Verdict",
    "judge",
]

ALL_PAIRS = "all pairs"
AGAINST_REFERENCE = "against the reference"

_FEWEST_RESAMPLES = 100


def judge(
    tables: Sequence[ScoreTable],
    *,
    reference: str | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    margin: float | None = None,
) -> Verdict:
    """Return the verdict over all tasks.

    Args:
        tables: One for each task and metric that was decided on beforehand: together they are the family that is
            corrected for. A metric that is only looked at belongs into another call.
        reference: Compare every arm with this one alone, which costs fewer comparisons; None compares all pairs.
        level: Of intervals; 1 - level is the chance of any false decision.
        resamples: Of the bootstrap interval that is shown beside the deciding one.
        seed: Of the bootstrap's random numbers.
        margin: Differences below this many metric units do not matter: also test for equivalence. One number for all
            tables.

    Raises:
        DataError: E-DAT-001 without a table, E-DAT-007 when two tables are of one task and metric.
        UsageError: E-CLI-001 when the reference is in no table, or level, resamples or margin are out of range.

    >>> import numpy as np
    >>> values = np.array([[[1, 1, 0, 1]] * 3, [[0, 1, 0, 0]] * 3], dtype=float)
    >>> table = ScoreTable("quiz", "accuracy", True, ("lora", "full"), (1, 2, 3), values, binary=True)
    >>> judge([table]).tasks[0].ranking[0].arm
    'lora'
    """
    _check(tables, reference, level, resamples, margin)
    settings = Settings(reference, level, resamples, seed, margin)
    drafts = [draft(table, settings) for table in tables]
    hypotheses = sum(len(work.pairs) for work in drafts)
    families = [[work.p for work in drafts], [work.p_shared for work in drafts], [work.equivalence for work in drafts]]
    adjusted = [Adjusted(*parts) for parts in zip(*(_holm_over_tasks(family) for family in families), strict=True)]
    verdicts = [finish(work, settings, parts, hypotheses) for work, parts in zip(drafts, adjusted, strict=True)]
    pooled = pool(tables, [work.pairs for work in drafts])
    return Verdict(
        level=level,
        family=ALL_PAIRS if reference is None else AGAINST_REFERENCE,
        reference=reference,
        num_hypotheses=hypotheses,
        tasks=tuple(verdicts),
        pooled=pooled,
        remarks=(*_remarks(settings, drafts, verdicts, hypotheses), *pooled_remarks(pooled, level)),
    )


def _remarks(
    settings: Settings, drafts: Sequence[Draft], verdicts: Sequence[TaskVerdict], hypotheses: int
) -> list[Remark]:
    """Return the remarks about all tasks, in their order."""
    return [
        remark
        for work, verdict in zip(drafts, verdicts, strict=True)
        for remark in task_remarks(work, verdict, settings.reference, settings.level, hypotheses)
    ]


def _holm_over_tasks(p_values: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """Return the p values of each task, adjusted over all of them together."""
    raised = iter(holm([p for task in p_values for p in task]))
    return [tuple(next(raised) for _ in task) for task in p_values]


def _check(
    tables: Sequence[ScoreTable], reference: str | None, level: float, resamples: int, margin: float | None
) -> None:
    check_level(level)
    if not tables:
        raise DataError("E-DAT-001", where="judge", found="no table of scores", action="Give at least one task.")
    names = [(table.task, table.metric) for table in tables]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                "E-DAT-007",
                where=f"scores of {name[0]} ({name[1]})",
                found="two tables of one task and metric",
                expected="one table each",
                action="Join them, or rename one.",
            )
    arms = sorted({arm for table in tables for arm in table.arms})
    if reference is not None and reference not in arms:
        raise UsageError(
            "E-CLI-001",
            where="reference",
            found=f"no arm is called '{reference}'",
            expected=f"one of {', '.join(arms)}",
            action="Name one of the compared arms.",
        )
    if resamples < _FEWEST_RESAMPLES:
        raise _out_of_range("resamples", resamples, f"at least {_FEWEST_RESAMPLES}", "Take 10000.")
    if margin is not None and not margin > 0.0:
        raise _out_of_range("margin", margin, "a positive number of metric units", "Take 0.005 for half a point.")


def _out_of_range(where: str, found: float, expected: str, action: str) -> UsageError:
    return UsageError("E-CLI-001", where=where, found=repr(found), expected=expected, action=action)

"""A comparison before it is shown: runs in arms and fields, their scores in tables, and the verdict on these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from subspace.core.errors import UsageError
from subspace.report.arms import Arms, arrange
from subspace.report.bench import Bench
from subspace.report.groups import Group
from subspace.report.load import find_benches, read_runs
from subspace.report.measures import Measure
from subspace.report.record import RunRecord
from subspace.report.score_tables import Scored, score_tables
from subspace.statistics.findings import Comparison, Remark, TaskVerdict, Verdict

__all__ = ["Study", "comparison_of", "study", "study_of"]

_RESAMPLES = 10_000
_RESAMPLES_OF_MANY = 2_000
"""Resamples of the bootstrap shown beside, where there are many pairs; it decides nothing."""
_MANY_PAIRS = 300
_SECONDS_OFF = 0.2
"""How far from a budget in seconds a run may end before it is said; shares of the budget."""


@dataclass(frozen=True)
class Study:
    """Everything that a page is made of.

    Attributes:
        records: The runs, in the order in which they are shown.
        arms: The same in arms and fields.
        benches: The benches that they belong to.
        scored: Their scores, task by task.
        verdict: What statistics says of them; None where nothing can be judged.
        reference: The arm that all others are held against, if there is one.
        command: What makes this comparison again.
    """

    records: tuple[RunRecord, ...]
    arms: Arms
    benches: tuple[Bench, ...] = ()
    scored: tuple[Scored, ...] = ()
    verdict: Verdict | None = None
    reference: str | None = None
    command: str = ""
    remarks: tuple[Remark, ...] = field(default=())

    @cached_property
    def _labels(self) -> Mapping[str, Group]:
        return {group.label: group for group in self.arms.groups}

    def group(self, label: str) -> Group:
        """Return an arm by its name."""
        return self._labels[label]

    def verdict_on(self, scored: Scored) -> TaskVerdict | None:
        """Return what is said of one task; None where there is but one score each."""
        if self.verdict is None or scored.table is None:
            return None
        found = next((task for task in self.verdict.tasks if task.task == scored.name), None)
        if found is None or all(pair.scope == "nothing" for pair in found.comparisons):
            return None
        return found

    def measure(self, scored: Scored) -> Measure:
        """Return how the scores of a task are written."""
        return Measure.of(scored.metric, [value for runs in scored.scores.values() for value in runs.values()])


def study_of(
    paths: Iterable[Path], *, reference: str | None = None, metric: str | None = None, command: str = ""
) -> Study:
    """Read the runs in or below `paths` and judge them.

    Raises:
        DataError: E-DAT-001 if a path holds no run.
        UsageError: E-CLI-001 if there is no such arm or metric.
    """
    listed = list(paths)
    benches = find_benches(listed)
    return study(read_runs(listed, benches), benches, reference=reference, metric=metric, command=command)


def study(
    records: Sequence[RunRecord],
    benches: Sequence[Bench] = (),
    *,
    reference: str | None = None,
    metric: str | None = None,
    command: str = "",
) -> Study:
    """Put runs in order and judge them.

    Raises:
        UsageError: E-CLI-001 if there is no such arm or metric.
    """
    arms = arrange(records, benches)
    benches = arms.benches
    agreed = {task: name for bench in benches for task, name in bench.metrics.items()}
    scored = score_tables(arms, agreed, metric=metric)
    _require("--metric", metric, sorted({name for run in records for split in run.metrics.values() for name in split}))
    against = _reference(arms, benches, reference)
    remarks = tuple(remark for found in scored for remark in _remarks(found, benches))
    verdict = _judged(scored, against)
    return Study(tuple(records), arms, benches, tuple(scored), verdict, against, command, remarks)


def _remarks(scored: Scored, benches: Sequence[Bench]) -> list[Remark]:
    """Return what must be said of a task; where all runs were given the same seconds, unequal steps are no fault."""
    found = list(scored.remarks)
    given = {job.run.resolve(): bench.budget for bench in benches for job in bench.jobs}
    budgets = {given.get(run.folder.resolve()) for run in scored.field.records}
    budget = budgets.pop() if len(budgets) == 1 else None
    if budget is None or budget[0] != "seconds":
        return found
    own = {"seconds": budget[1]}
    found = [
        Remark("steps-by-seconds", {**remark.values, **own}) if remark.code == "unequal-steps" else remark
        for remark in found
    ]
    # of a run that was resumed only the last attempt's seconds are known
    whole = [run for run in scored.field.records if len(run.manifest.get("attempts") or ()) == 1]
    taken = [run.seconds for run in whole if run.seconds is not None]
    if taken and not all(abs(seconds / budget[1] - 1) <= _SECONDS_OFF for seconds in taken):
        found.append(Remark("seconds-missed", {"task": scored.name, "low": min(taken), "high": max(taken), **own}))
    return found


def _reference(arms: Arms, benches: Sequence[Bench], wanted: str | None) -> str | None:
    labels = [group.label for group in arms.groups]
    if wanted is not None:
        names = {name: bench.labels[name] for bench in benches for name in bench.labels} | {
            name: name for name in labels
        }
        _require("--reference", wanted, sorted(names))
        return names[wanted]
    told = [bench.labels.get(bench.reference, bench.reference) for bench in benches if bench.reference]
    return told[0] if len(set(told)) == 1 and told[0] in labels else None


def _require(option: str, wanted: str | None, known: Sequence[str]) -> None:
    if wanted is not None and wanted not in known:
        raise UsageError(
            "E-CLI-001",
            where=option,
            found=wanted,
            expected="one of " + ", ".join(known[:40]) if known else "none is known here",
            action="Name one of these.",
        )


def _judged(scored: Sequence[Scored], reference: str | None) -> Verdict | None:
    """Return the verdict on all tables that the reference is in; None without any."""
    from subspace.statistics.verdict import judge

    tables = [found.table for found in scored if found.table is not None]
    if reference is not None:
        tables = [table for table in tables if reference in table.arms]
    if not tables:
        return None
    pairs = sum(len(table.arms) * (len(table.arms) - 1) // 2 for table in tables)
    return judge(tables, reference=reference, resamples=_RESAMPLES if pairs <= _MANY_PAIRS else _RESAMPLES_OF_MANY)


def comparison_of(task: TaskVerdict, first: str, second: str) -> Comparison | None:
    """Return the comparison of two arms as it was made, whichever is its first."""
    return next((found for found in task.comparisons if {found.first, found.second} == {first, second}), None)

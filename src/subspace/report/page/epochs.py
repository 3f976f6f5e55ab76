"""Epoch by epoch, side by side: validation loss, time, and memory after loading and at its peak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from statistics import fmean

from subspace.core.units import format_bytes, format_seconds
from subspace.report.charts.marks import swatch
from subspace.report.groups import Group
from subspace.report.page.curves import drawn_groups
from subspace.report.page.parts import Value, section, table
from subspace.report.study import Study
from subspace.report.tables import format_score
from subspace.report.words.phrase import Said, say

__all__ = ["epochs"]

_MOST_EPOCHS = 8
"""Columns of epochs; of more, some at equal distances."""


def epochs(study: Study) -> str:
    """Return a table of arms whose runs took the validation loss at the ends of epochs."""
    groups = [group for group in drawn_groups(study, study.arms.groups) if any(run.epochs for run in group.records)]
    shown = _shown(max((epoch.number for group in groups for run in group.records for epoch in run.epochs), default=0))
    heads: list[Said] = [say("arm"), *(say("epoch_head", number=number) for number in shown)]
    heads += [say("epoch_time"), say("memory_loaded"), say("memory_head")]
    rows = [(group.index, _row(group, shown)) for group in groups]
    return section("epochs", say("epochs"), table(heads, rows) if rows else "", [say("epochs_note")])


def _shown(last: int) -> list[int]:
    if last <= _MOST_EPOCHS:
        return list(range(1, last + 1))
    return [1 + round(place * (last - 1) / (_MOST_EPOCHS - 1)) for place in range(_MOST_EPOCHS)]


def _row(group: Group, shown: Sequence[int]) -> list[Value]:
    runs = group.records
    every = [epoch for run in runs for epoch in run.epochs]
    losses = [[epoch.loss for epoch in every if epoch.number == number] for number in shown]
    return [
        Value(f"{swatch(group)}{escape(group.label)}", group.label),
        *(_mean(found, lambda value: format_score("loss", value)) for found in losses),
        _mean((epoch.seconds for epoch in every), format_seconds),
        _mean((run.loaded_bytes for run in runs), format_bytes),
        _mean((run.measured_peak_bytes for run in runs), format_bytes),
    ]


def _mean(found: Iterable[float | None], form: Callable[[float], str]) -> Value:
    known = [value for value in found if value is not None]
    return Value(escape(form(fmean(known))), fmean(known)) if known else Value("–", None)

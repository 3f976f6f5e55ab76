"""Epoch by epoch, side by side: validation loss, time, and memory after loading and at its peak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from html import escape
from statistics import fmean

from subspace.core.units import format_bytes, format_seconds
from subspace.report.arms import Field
from subspace.report.charts.marks import swatch
from subspace.report.groups import Group
from subspace.report.measures import Measure
from subspace.report.page.curves import drawn_groups
from subspace.report.page.parts import Value, choices, section, table
from subspace.report.study import Study
from subspace.report.words.phrase import Said, say

__all__ = ["epochs"]

_MOST_EPOCHS = 8
"""Columns of epochs; of more, some at equal distances."""


def epochs(study: Study) -> str:
    """Return a table for every field whose runs took the validation loss at the ends of epochs."""
    bodies: list[tuple[Said, str]] = [
        (field.name, body) for field in study.arms.fields if (body := _table(study, field))
    ]
    body = choices(bodies, named=len(study.arms.fields) > 1) if bodies else ""
    return section("epochs", say("epochs"), body, [say("epochs_note")])


def _table(study: Study, field: Field) -> str:
    """Return the arms of one field, of which only runs with epochs count; nothing without any."""
    with_epochs = (replace(group, records=tuple(run for run in group.records if run.epochs)) for group in field.groups)
    groups = drawn_groups(study, [group for group in with_epochs if group.records])
    shown = _shown(max((epoch.number for group in groups for run in group.records for epoch in run.epochs), default=0))
    heads: list[Said] = [say("arm"), *(say("epoch_head", number=number) for number in shown)]
    heads += [say("epoch_time"), say("memory_loaded"), say("memory_head")]
    columns = [_column([_loss(group, number) for group in groups]) for number in shown]
    rows = [
        (group.index, [_name(group), *(column[place] for column in columns), *_costs(group)])
        for place, group in enumerate(groups)
    ]
    return table(heads, rows) if rows else ""


def _shown(last: int) -> list[int]:
    if last <= _MOST_EPOCHS:
        return list(range(1, last + 1))
    return [1 + round(place * (last - 1) / (_MOST_EPOCHS - 1)) for place in range(_MOST_EPOCHS)]


def _loss(group: Group, number: int) -> float | None:
    """Return the mean over the runs of an arm at the end of an epoch."""
    found = [epoch.loss for run in group.records for epoch in run.epochs if epoch.number == number]
    return fmean(found) if found else None


def _column(losses: Sequence[float | None]) -> list[Value]:
    """Return the cells of one epoch, all with as many digits."""
    measure = Measure.of("loss", [loss for loss in losses if loss is not None])
    return [_cell(loss, measure.value) for loss in losses]


def _name(group: Group) -> Value:
    return Value(f"{swatch(group)}{escape(group.label)}", group.label)


def _costs(group: Group) -> list[Value]:
    """Return seconds of an epoch, and memory after loading and at its peak."""
    seconds = (epoch.seconds for run in group.records for epoch in run.epochs)
    return [
        _mean(seconds, format_seconds),
        _mean((run.loaded_bytes for run in group.records), format_bytes),
        _mean((run.measured_peak_bytes for run in group.records), format_bytes),
    ]


def _mean(found: Iterable[float | None], form: Callable[[float], str]) -> Value:
    known = [value for value in found if value is not None]
    return _cell(fmean(known) if known else None, form)


def _cell(found: float | None, form: Callable[[float], str]) -> Value:
    return Value("–", None) if found is None else Value(escape(form(found)), found)

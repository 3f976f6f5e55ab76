"""Charts of lines before they are drawn: which runs, which numbers, on which scale, and where each line is named.

The page draws them as HTML, the pictures as PNG; both show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from subspace.report.groups import Group
from subspace.report.record import RunRecord
from subspace.report.refreshes import FIGURES, Figure, figure_points
from subspace.report.series import Scale, pick_scale, smooth, step_scale
from subspace.report.words.phrase import Said, say

__all__ = ["Chart", "End", "Line", "loss_charts", "subspace_charts"]

_EDGE = 0.9
"""A run that ended before this share of the longest one is named at its own end."""
_MARKED_UP_TO = 40
"""Points of a line with more are not marked one by one."""


@dataclass(frozen=True)
class Line:
    """One arm in a chart.

    Attributes:
        group: Whose colour and name it has.
        steps: Optimizer steps.
        values: As logged; of several seeds their mean.
        line: What the eye follows: the values, or the values smoothed.
        reach: Last step of the longest run.
        low: Lowest seed at each step; empty with one run.
        high: Highest seed.
    """

    group: Group
    steps: list[int]
    values: list[float]
    line: list[float]
    reach: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def smoothed(self) -> bool:
        return self.line != self.values


@dataclass(frozen=True)
class End:
    """Where the name of a group stands.

    Attributes:
        step: Where its longest line ends; None if that is the right edge, where names are moved apart.
        value: Mean of the last values of its lines.
    """

    group: Group
    step: int | None
    value: float


@dataclass(frozen=True)
class Chart:
    """Lines over optimizer steps under one title.

    Attributes:
        title: What is shown.
        lines: At least one.
        scale: The vertical axis.
        hint: How to read it.
        marks: Every point is marked where they are few.
        form: Writes a tick.
    """

    title: Said
    lines: tuple[Line, ...]
    scale: Scale
    hint: Said | None = None
    marks: bool = False
    form: Callable[[float], str] = "{:g}".format

    @property
    def across(self) -> Scale:
        """The axis of steps."""
        return step_scale(max(line.reach for line in self.lines))

    @property
    def smoothed(self) -> bool:
        return any(line.smoothed for line in self.lines)

    @property
    def ends(self) -> list[End]:
        """Where each group is named."""
        members: dict[int, list[Line]] = {}
        for line in self.lines:
            members.setdefault(line.group.index, []).append(line)
        longest = max(line.reach for line in self.lines)
        found = []
        for lines in members.values():
            at_edge = max(line.reach for line in lines) >= _EDGE * longest
            step = None if at_edge else max(line.steps[-1] for line in lines)
            found.append(End(lines[0].group, step, sum(line.line[-1] for line in lines) / len(lines)))
        return found

    def marked(self, line: Line) -> bool:
        """Whether the points of a line are marked."""
        return self.marks and len(line.steps) <= _MARKED_UP_TO


def loss_charts(groups: Sequence[Group]) -> list[Chart]:
    """Return training and validation loss, as far as any run has logged them."""
    charts = []
    for event, title in (("step", "train_loss"), ("eval", "validation_loss")):
        follow = smooth if event == "step" else list
        lines = _lines(groups, partial(_losses, event), follow)
        if lines:
            drawn = [value for line in lines for values in (line.line, line.low, line.high) for value in values]
            charts.append(Chart(say(title), lines, pick_scale(drawn), marks=event == "eval"))
    return charts


def subspace_charts(groups: Sequence[Group]) -> list[Chart]:
    """Return a chart for every figure of refreshes that any run has logged."""
    charts = []
    for figure in FIGURES:
        follow = smooth if figure.key == "refresh_seconds" else list
        lines = _lines(groups, partial(_figures, figure), follow)
        if lines:
            values = [value for line in lines for drawn in (line.line, line.low, line.high) for value in drawn]
            scale = pick_scale(values, within=figure.within, from_zero=figure.from_zero)
            title, hint = say(f"figure_{figure.key}"), say(f"about_{figure.key}")
            charts.append(Chart(title, lines, scale, hint, marks=True, form=figure.form))
    return charts


def _losses(event: str, record: RunRecord) -> tuple[list[int], list[float]]:
    return record.series(event, "loss")


def _figures(figure: Figure, record: RunRecord) -> tuple[list[int], list[float]]:
    return figure_points(record.refreshes, figure)


def _lines(
    groups: Sequence[Group],
    points: Callable[[RunRecord], tuple[list[int], list[float]]],
    follow: Callable[[list[float]], list[float]],
) -> tuple[Line, ...]:
    lines = []
    for group in groups:
        runs = [(steps, values) for steps, values in map(points, group.records) if steps]
        if not runs:
            continue
        reach = max(record.last_step for record in group.records)
        if len(runs) == 1:
            steps, values = runs[0]
            lines.append(Line(group, steps, values, follow(values), reach))
        else:
            lines.append(_seeds(group, [(steps, follow(values)) for steps, values in runs], reach))
    return tuple(lines)


def _seeds(group: Group, runs: Sequence[tuple[list[int], list[float]]], reach: int) -> Line:
    """Return the mean over runs and the band that they fill, at the steps that at least half of them have."""
    found: dict[int, list[float]] = {}
    for steps, values in runs:
        for step, value in zip(steps, values, strict=True):
            found.setdefault(step, []).append(value)
    steps = sorted(step for step, values in found.items() if 2 * len(values) >= len(runs))
    mean = [sum(found[step]) / len(found[step]) for step in steps]
    low, high = (tuple(end(found[step]) for step in steps) for end in (min, max))
    return Line(group, steps, mean, mean, reach, low, high)

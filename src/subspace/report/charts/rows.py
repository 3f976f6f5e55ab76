"""Charts with one arm a row: scores with their intervals on one axis (a forest plot), and bars with a planned mark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from subspace.report.charts.marks import fill, swatch, tone
from subspace.report.groups import Group
from subspace.report.series import Scale
from subspace.report.words.phrase import Said, both, dated, say

__all__ = ["Bar", "Row", "bars", "forest"]


@dataclass(frozen=True)
class Row:
    """One arm of a forest plot.

    Attributes:
        group: The arm.
        score: Where its dot stands.
        low: Lower end of its interval; None without one.
        high: Upper end.
        seeds: Scores of its runs.
        letters: What it shares with those it is not told apart from.
        told: The score in words.
        under: The interval in words.
        tip: What is said of it on hovering.
    """

    group: Group
    score: float
    low: float | None
    high: float | None
    seeds: Sequence[float]
    letters: str
    told: str
    under: Said
    tip: Said


def forest(
    rows: Sequence[Row], scale: Scale, form: Callable[[float], str], language: str, *, zero: bool = False
) -> str:
    """Return scores with intervals on one level axis, best first as they are given; `zero` draws a line there."""

    def place(value: float) -> float:
        return 100 * scale.place(value)

    lines = "".join(f'<i class="upright" style="left:{place(tick):.2f}%"></i>' for tick in scale.ticks)
    if zero:
        lines += f'<i class="zero" style="left:{place(0.0):.2f}%"></i>'
    body = []
    for row in rows:
        marks = [lines]
        if row.low is not None and row.high is not None and math.isfinite(row.low + row.high):
            left, right = place(row.low), place(row.high)
            marks.append(
                f'<i class="whisker b{tone(row.group)}" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'
            )
        if len(row.seeds) > 1:
            marks += [
                f'<i class="seed b{tone(row.group)}" style="left:{place(value):.2f}%"></i>' for value in row.seeds
            ]
        marks.append(f'<i class="dot {fill(row.group)}" style="left:{place(row.score):.2f}%"></i>')
        body.append(
            f'<div class="row" data-arm="{row.group.index}"><span class="label">{escape(row.group.label)}</span>'
            f'<span class="letters">{escape(row.letters)}</span>'
            f'<span class="track"{dated("data-tip", row.tip, language)}>{"".join(marks)}</span>'
            f'<span class="value"><b>{escape(row.told)}</b> <span class="from">{both(row.under)}</span></span></div>'
        )
    ticks = "".join(f'<i class="under" style="left:{place(tick):.2f}%">{form(tick)}</i>' for tick in scale.ticks)
    axis = f'<div class="row axis"><span></span><span></span><span class="track">{ticks}</span><span></span></div>'
    return f'<div class="rows forest">{"".join(body)}{axis}</div>'


@dataclass(frozen=True)
class Bar:
    """One row of `bars`: a measured length and a planned mark, either of which may be unknown."""

    group: Group
    measured: float | None
    planned: float | None


def bars(rows: Sequence[Bar], form: Callable[[float], str], language: str) -> str:
    """Return a bar chart from zero, with a mark where each was planned to end."""
    longest = max(value for row in rows for value in (row.measured, row.planned) if value is not None) * 1.02
    body = []
    for row in rows:
        marks, told = [], []
        if row.measured is not None:
            width = 100 * row.measured / longest
            marks.append(f'<i class="bar b{tone(row.group)}" style="width:{width:.2f}%"></i>')
            told.append(f"<b>{escape(form(row.measured))}</b>")
        if row.planned is not None:
            tip = dated("data-tip", say("planned_value", value=form(row.planned)), language)
            marks.append(f'<i class="mark" style="left:{100 * row.planned / longest:.2f}%"{tip}></i>')
            told.append(f'<span class="from">{both(say("planned_value", value=form(row.planned)))}</span>')
        if row.measured is not None and row.planned:
            told.append(f'<span class="from ratio">{100 * (row.planned / row.measured - 1):+.0f} %</span>')
        body.append(
            f'<div class="row" data-arm="{row.group.index}"><span class="label">{swatch(row.group)}'
            f'{escape(row.group.label)}</span><span class="track flat">{"".join(marks)}</span>'
            f'<span class="value">{" ".join(told)}</span></div>'
        )
    return f'<div class="rows bars">{"".join(body)}</div>'

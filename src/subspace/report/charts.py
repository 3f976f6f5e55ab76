"""Charts of the page as HTML with inline SVG: lines stretch with the page, words keep their size.

Every line lives in a box of 1000 x 1000 units that is stretched to its place; ticks and names are HTML beside it, so
that they stay readable from a phone to a wide screen. Colours are classes `c0` to `c5`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from subspace.report.groups import LIGHT, Group
from subspace.report.heat import NUMBERS_UP_TO, EnergyMap
from subspace.report.lines import Chart, Line
from subspace.report.series import spread, thin

__all__ = ["Bar", "Range", "bars", "heat_map", "line_chart", "ranges"]

_LINE_PIXELS = 18
_WARM, _HOT = 48, 68
"""Percent of the colour range from which numbers in cells change their colour by night, by day, so as to stand out."""
_DASHES = ("", "7 3", "2 3", "7 3 2 3")


def line_chart(chart: Chart, text: Mapping[str, str], height: int = 260) -> str:
    """Return a figure of lines over optimizer steps; `height` of its box is in pixels."""
    across, scale = chart.across, chart.scale

    def places(points: Sequence[tuple[int, float]]) -> list[str]:
        return [f"{1000 * across.place(step):.1f},{1000 * (1 - scale.place(value)):.1f}" for step, value in points]

    def path(line: Line, values: Sequence[float], kind: str) -> str:
        points = places(thin(line.steps, values))
        points *= 2 if len(points) == 1 else 1  # a line needs a length to be seen
        dashes = _DASHES[line.group.index // len(LIGHT) % len(_DASHES)]
        dashed = f' stroke-dasharray="{dashes}"' if dashes and kind == "line" else ""
        told = f"<title>{escape(line.group.label)}</title>" if kind == "line" else ""
        colour = line.group.index % len(LIGHT)
        return f'<polyline class="{kind} c{colour}" points="{" ".join(points)}"{dashed}>{told}</polyline>'

    faint = "".join(path(line, line.values, "raw") for line in chart.lines if line.smoothed)
    strong = "".join(path(line, line.line, "line") for line in chart.lines)
    marks = "".join(
        f'<path class="point c{line.group.index % len(LIGHT)}" '
        f'd="{"".join(f"M{place}h0" for place in places(list(zip(line.steps, line.line, strict=True))))}"/>'
        for line in chart.lines
        if chart.marked(line)
    )
    ticks = "".join(
        f'<i class="grid" style="top:{100 * (1 - scale.place(tick)):.2f}%">'
        f'<span class="ytick">{chart.form(tick)}</span></i>'
        for tick in scale.ticks
    )
    below = "".join(
        f'<span class="xtick" style="left:{100 * across.place(tick):.2f}%">{tick:g}</span>' for tick in across.ticks
    )
    hint = "; ".join(filter(None, (chart.hint, text["smoothed_note"] if chart.smoothed else "")))
    note = f'<span class="hint">{escape(hint)}</span>' if hint else ""
    width = min(max(len(line.group.label) for line in chart.lines), 22)
    return (
        f'<figure class="chart"><figcaption><b>{escape(chart.title)}</b>{note}</figcaption>'
        f'<div class="plot" style="--names:{width}ch;height:{height}px">{ticks}'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{escape(chart.title)}">'
        f"{faint}{strong}{marks}</svg>{_names(chart, height)}{below}</div>"
        f'<div class="xaxis">{escape(text["steps_axis"])}</div></figure>'
    )


def _names(chart: Chart, height: int) -> str:
    """Return the name of every group where its lines end."""
    ends = chart.ends
    at_edge = [end for end in ends if end.step is None]
    gap = min(_LINE_PIXELS / height, 1 / max(len(at_edge), 1))
    moved = iter(spread([chart.scale.place(end.value) for end in at_edge], gap))
    spans = []
    for end in ends:
        left, place = (
            (1.0, next(moved)) if end.step is None else (chart.across.place(end.step), chart.scale.place(end.value))
        )
        spans.append(
            f'<span class="name t{end.group.index % len(LIGHT)}" '
            f'style="left:{100 * left:.2f}%;top:{100 * (1 - place):.2f}%">{escape(end.group.label)}</span>'
        )
    return "".join(spans)


def heat_map(found: EnergyMap, low: float, high: float, text: Mapping[str, str]) -> str:
    """Return a map of captured energy, coloured from `low` to `high`: layers across, kinds of modules down."""
    layers = found.layers or (0,)
    numbers = len(layers) <= NUMBERS_UP_TO

    def cell(kind: str, layer: int | None) -> str:
        value = found.cells.get((kind, layer))
        if value is None:
            return "<i></i>"
        heat = 100 * (value - low) / ((high - low) or 1)
        place = kind if layer is None else f"{kind}, {text['layer']} {layer}"
        look = ("all " if layer is None else "") + ("hot" if heat > _HOT else "warm" if heat > _WARM else "")
        written = f"{100 * value:.1f}" if numbers or layer is None else ""
        return (
            f'<i class="{look.strip()}" style="--v:{heat:.0f}%" title="{escape(place)}: {100 * value:.2f} %">'
            f"{written}</i>"
        )

    rows = []
    for kind in found.kinds:
        whole = (kind, None) in found.cells
        cells = cell(kind, None) if whole else "".join(cell(kind, layer) for layer in layers)
        rows.append(f'<span class="kind" title="{escape(kind)}">{escape(kind)}</span>{cells}')
    every = max(1, math.ceil(len(layers) / 8))
    ticks = "".join(
        f'<span class="tick">{layer if place % every == 0 else ""}</span>' for place, layer in enumerate(found.layers)
    )
    below = f'<span class="kind axis">{escape(text["layer"])}</span>{ticks}' if ticks else ""
    label, mean = escape(found.group.label), escape(text["heat_mean"].format(value=f"{100 * found.mean:.1f} %"))
    look = "cells" if numbers else "cells fine"
    return (
        f'<figure class="heat"><figcaption><b><i class="swatch b{found.group.index % len(LIGHT)}"></i>{label}</b>'
        f'<span class="hint">{mean}</span></figcaption>'
        f'<div class="{look}" style="--layers:{len(layers)}">{"".join(rows)}{below}</div></figure>'
    )


class Range:
    """One row of `ranges`: a name, where it was before and after, and the single values behind the mean."""

    def __init__(self, group: Group, before: float | None, after: Sequence[float]) -> None:
        self.group, self.before, self.values = group, before, list(after)
        self.after = sum(self.values) / len(self.values)


def ranges(
    rows: Sequence[Range], form: Callable[[float], str], low: float, high: float, text: Mapping[str, str]
) -> str:
    """Return a chart of how far each row came, on one axis from `low` to `high`."""

    def place(value: float) -> float:
        return 100 * (value - low) / ((high - low) or 1)

    body = []
    for row in rows:
        colour = row.group.index % len(LIGHT)
        marks = []
        if row.before is not None:
            left, right = sorted((place(row.before), place(row.after)))
            marks.append(f'<i class="way b{colour}" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>')
            marks.append(f'<i class="dot before" style="left:{place(row.before):.2f}%" title="{text["before"]}"></i>')
        if len(row.values) > 1:
            marks += [f'<i class="seed b{colour}" style="left:{place(value):.2f}%"></i>' for value in row.values]
        marks.append(f'<i class="dot b{colour}" style="left:{place(row.after):.2f}%"></i>')
        change = "" if row.before is None else f'<span class="from">{escape(form(row.before))} → </span>'
        body.append(
            f'<div class="row"><span class="label">{escape(row.group.label)}</span>'
            f'<span class="track">{"".join(marks)}</span>'
            f'<span class="value">{change}<b>{escape(form(row.after))}</b></span></div>'
        )
    return f'<div class="rows">{"".join(body)}</div>'


class Bar:
    """One row of `bars`: a measured length and a planned mark, either of which may be unknown."""

    def __init__(self, group: Group, measured: float | None, planned: float | None) -> None:
        self.group, self.measured, self.planned = group, measured, planned


def bars(rows: Sequence[Bar], form: Callable[[float], str], text: Mapping[str, str]) -> str:
    """Return a bar chart from zero, with a mark where each was planned to end."""
    longest = max(value for row in rows for value in (row.measured, row.planned) if value is not None) * 1.02
    body = []
    for row in rows:
        marks, told = [], []
        if row.measured is not None:
            width = 100 * row.measured / longest
            marks.append(f'<i class="bar b{row.group.index % len(LIGHT)}" style="width:{width:.2f}%"></i>')
            told.append(f"<b>{escape(form(row.measured))}</b>")
        if row.planned is not None:
            marks.append(
                f'<i class="mark" style="left:{100 * row.planned / longest:.2f}%" title="{text["planned"]}"></i>'
            )
            told.append(f'<span class="from">{escape(text["planned"])} {escape(form(row.planned))}</span>')
        body.append(
            f'<div class="row"><span class="label">{escape(row.group.label)}</span>'
            f'<span class="track flat">{"".join(marks)}</span><span class="value two">{"".join(told)}</span></div>'
        )
    return f'<div class="rows">{"".join(body)}</div>'

"""Lines over optimizer steps, with the band that the seeds of an arm fill.

Every line lives in a box of 1000 x 1000 units that is stretched to its place; ticks and names are HTML beside it, so
that they stay readable from a phone to a wide screen. The script reads values back from these units.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from subspace.report.charts.marks import below, beside, dashes, tone
from subspace.report.lines import Chart, Line
from subspace.report.series import Scale, spread, thin
from subspace.report.words.phrase import both, dated, say

__all__ = ["line_chart", "scale_data"]

_LINE_PIXELS = 18
_POINTS = 24_000
"""Points that all lines of a chart have together."""


def line_chart(chart: Chart, language: str, height: int = 260) -> str:
    """Return a figure of lines over optimizer steps; `height` of its box is in pixels."""
    most = max(24, min(400, _POINTS // len(chart.lines)))
    bands = "".join(_band(chart, line, most) for line in chart.lines)
    faint = "".join(_path(chart, line, line.values, "raw", most) for line in chart.lines if line.smoothed)
    strong = "".join(_path(chart, line, line.line, "line", most) for line in chart.lines)
    marks = "".join(_points(chart, line) for line in chart.lines if chart.marked(line))
    hints = [part for part in (chart.hint, say("smoothed_note") if chart.smoothed else None) if part is not None]
    if any(line.low for line in chart.lines):
        hints.append(say("band_note"))
    note = f'<span class="hint">{" · ".join(both(hint) for hint in hints)}</span>' if hints else ""
    width = min(max(len(line.group.label) for line in chart.lines), 22)
    ticks = below(chart.across.ticks, chart.across.place, "{:g}".format)
    return (
        f'<figure class="chart"><figcaption><b>{both(chart.title)}</b>{note}</figcaption>'
        f'<div class="plot" data-hover="steps" style="--names:{width}ch;height:{height}px" '
        f"{scale_data('x', chart.across)} {scale_data('y', chart.scale)} {_unit(chart)}>"
        f"{beside(chart.scale, chart.form)}"
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img"'
        f"{dated('aria-label', chart.title, language)}>"
        f"{bands}{faint}{strong}{marks}</svg>{_names(chart, height)}{ticks}</div>"
        f'<div class="xaxis">{both(say("steps_axis"))}</div></figure>'
    )


def scale_data(axis: str, scale: Scale) -> str:
    """Return the ends of an axis for the script."""
    kind = "log" if scale.logarithmic else "linear"
    return f'data-{axis}="{scale.low:.10g} {scale.high:.10g} {kind}"'


def _unit(chart: Chart) -> str:
    """Return factor and unit of the values for the script, from how a 1 is written."""
    found = re.match(r"([\d.]+)(.*)", chart.form(1.0))
    factor, unit = found.groups() if found else ("1", "")
    return f'data-factor="{factor}" data-unit="{escape(unit)}"'


def _places(chart: Chart, points: Sequence[tuple[int, float]]) -> list[str]:
    return [
        f"{1000 * chart.across.place(step):.5g},{1000 * (1 - chart.scale.place(value)):.5g}" for step, value in points
    ]


def _path(chart: Chart, line: Line, values: Sequence[float], kind: str, most: int) -> str:
    points = _places(chart, thin(line.steps, values, most))
    points *= 2 if len(points) == 1 else 1  # a line needs a length to be seen
    dashed = dashes(line.group) if kind == "line" else ""
    told = f' data-name="{escape(line.group.label)}"' if kind == "line" else ""
    return (
        f'<polyline class="{kind} c{tone(line.group)}" data-arm="{line.group.index}"{told} '
        f'points="{" ".join(points)}"{dashed}/>'
    )


def _band(chart: Chart, line: Line, most: int) -> str:
    if not line.low:
        return ""
    lower = _places(chart, thin(line.steps, line.low, most // 2))
    upper = _places(chart, thin(line.steps, line.high, most // 2))
    return (
        f'<polygon class="band f{tone(line.group)}" data-arm="{line.group.index}" '
        f'points="{" ".join([*upper, *reversed(lower)])}"/>'
    )


def _points(chart: Chart, line: Line) -> str:
    drawn = "".join(f"M{place}h0" for place in _places(chart, list(zip(line.steps, line.line, strict=True))))
    return f'<path class="point c{tone(line.group)}" data-arm="{line.group.index}" d="{drawn}"/>'


def _names(chart: Chart, height: int) -> str:
    """Return the name of every arm where its lines end; none where there is no room for all."""
    ends = chart.ends
    at_edge = [end for end in ends if end.step is None]
    if len(ends) * _LINE_PIXELS > 1.6 * height:
        return ""
    gap = min(_LINE_PIXELS / height, 1 / max(len(at_edge), 1))
    moved = iter(spread([chart.scale.place(end.value) for end in at_edge], gap))
    spans = []
    for end in ends:
        left, place = (
            (1.0, next(moved)) if end.step is None else (chart.across.place(end.step), chart.scale.place(end.value))
        )
        spans.append(
            f'<span class="name t{tone(end.group)}" data-arm="{end.group.index}" '
            f'style="left:{100 * left:.2f}%;top:{100 * (1 - place):.2f}%">{escape(end.group.label)}</span>'
        )
    return "".join(spans)

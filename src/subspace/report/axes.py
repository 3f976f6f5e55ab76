"""What every picture has in common: quiet axes, a title with its hint, and names beside lines."""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.report.groups import LIGHT, Group
from subspace.report.lines import Chart, End, Line
from subspace.report.series import Scale, spread
from subspace.report.words.phrase import plain
from subspace.report.words.strings import words
from subspace.runs.durable import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "PALE", "colour", "draw_chart", "fonts", "shortened", "write_picture"]

INK, PALE, _GRID = "#1c2430", "#5b6572", "#e4e8ed"
_DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "SimHei",
)
_LINE_POINTS = 13.0
"""Height of a line of text."""
_NAME_UNITS = 30
"""Most narrow signs in a name."""


def write_picture(path: Path, inches: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Write the PNG of a figure that `draw` fills; the same drawing gives the same bytes.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=180, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    engine: Any = figure.get_layout_engine()
    engine.set(wspace=0.06, w_pad=0.08, hspace=0.04, h_pad=0.08)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # shown as a box; the page has it
        draw(figure)
        image = io.BytesIO()
        canvas.print_figure(image, format="png", metadata={"Software": None})
    replace_file(path, [image.getvalue()])


def draw_chart(axes: Axes, chart: Chart, language: str, family: list[str], points: float) -> None:
    """Draw a chart of lines; `points` is the height of the axes, by which names are kept apart."""
    for line in chart.lines:
        if line.low:
            axes.fill_between(
                line.steps, line.low, line.high, color=colour(line.group), alpha=0.16, linewidth=0, zorder=1
            )
        if line.smoothed:
            axes.plot(line.steps, line.values, color=colour(line.group), alpha=0.22, linewidth=0.7, zorder=2)
        _draw_line(axes, line, chart.scale, marked=chart.marked(line) or len(line.steps) == 1)
    _frame(axes, chart, family)
    _caption(axes, chart, language, family)
    ends = chart.ends
    _name_lines(axes, [end for end in ends if end.step is None], chart, family, points)
    for end in ends:
        if end.step is not None:
            _write(axes, end.group, (end.step, chart.scale.kept(end.value)), axes.transData, family)


def _draw_line(axes: Axes, line: Line, scale: Scale, *, marked: bool) -> None:
    """Draw what the eye follows; what lies outside of the scale is put on its edge, as marks are not cut off there."""
    axes.plot(
        line.steps,
        [scale.kept(value) for value in line.line],
        color=colour(line.group),
        linestyle=_DASHES[line.group.index // len(LIGHT) % len(_DASHES)],
        linewidth=1.9,
        marker="o" if marked else None,
        markersize=4.2,
        markeredgecolor="white",
        markeredgewidth=0.8,
        clip_on=not marked,
        solid_capstyle="round",
        zorder=3,
    )


def _frame(axes: Axes, chart: Chart, family: list[str]) -> None:
    scale, across = chart.scale, chart.across
    if scale.logarithmic:
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.set_ylim(scale.low, scale.high)
    axes.set_yticks(scale.ticks, [chart.form(tick) for tick in scale.ticks])
    axes.set_xlim(0, across.high)
    axes.set_xticks(across.ticks, [f"{tick:g}" for tick in across.ticks])
    axes.tick_params(length=0, labelsize=9, labelcolor=PALE, pad=5, labelfontfamily=family[0])
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b9c1cb")


def _caption(axes: Axes, chart: Chart, language: str, family: list[str]) -> None:
    text = words(language)
    smoothed = text["smoothed_note"] if chart.smoothed else ""
    axes.set_title(
        plain(chart.title, language),
        loc="left",
        fontsize=11.5,
        fontweight="bold",
        color=INK,
        family=family,
        pad=24 if chart.hint else 10,
    )
    if chart.hint:
        told = "; ".join(filter(None, (plain(chart.hint, language), smoothed)))
        axes.annotate(
            told,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 10),
            textcoords="offset points",
            fontsize=8.5,
            color=PALE,
            family=family,
        )
    else:
        axes.set_title(smoothed, loc="right", fontsize=8, color=PALE, family=family, pad=10)
    axes.set_xlabel(text["steps_axis"], fontsize=9, color=PALE, family=family)


def _name_lines(axes: Axes, ends: Sequence[End], chart: Chart, family: list[str], points: float) -> None:
    """Write the names of lines that reach the right edge beside it, moved apart where two would touch."""
    gap = min(_LINE_POINTS / points, 1 / max(len(ends), 1))
    places = spread([chart.scale.place(end.value) for end in ends], gap)
    for end, place in zip(ends, places, strict=True):
        _write(axes, end.group, (1.0, place), axes.transAxes, family)


def _write(axes: Axes, group: Group, place: tuple[float, float], transform: Any, family: list[str]) -> None:
    from matplotlib.patheffects import withStroke

    axes.annotate(
        shortened(group.label),
        place,
        xycoords=transform,
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        fontweight="bold",
        color=colour(group),
        family=family,
        annotation_clip=False,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def shortened(label: str) -> str:
    """Return as much of a label as takes less than half the width of a chart; Chinese signs are twice as wide."""
    room = _NAME_UNITS
    for place, sign in enumerate(label):
        room -= 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        if room < 0:
            return label[: place - 1] + "…"
    return label


def colour(group: Group) -> str:
    """Return the colour of a group on white."""
    return LIGHT[group.index % len(LIGHT)]


def fonts(groups: Sequence[Group], text: Mapping[str, str]) -> list[str]:
    """Return DejaVu Sans, which matplotlib brings, and a font that has Chinese where the words need one."""
    shown = "".join(group.label for group in groups) + "".join(text.values())
    if all(sign < "\u2e80" for sign in shown):
        return ["DejaVu Sans"]
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _CHINESE if name in installed)][:2]

"""The verdict as PNG: the ranking with its intervals, score against cost, and the search for learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.report.axes import INK, PALE, colour, fonts, shortened, write_picture
from subspace.report.bench import Search
from subspace.report.charts.rows import Row
from subspace.report.charts.scatter import Dot, front
from subspace.report.charts.search import value_scale
from subspace.report.costs import COSTS
from subspace.report.groups import Group
from subspace.report.measures import Measure
from subspace.report.page.cost import cost_axis, cost_dots
from subspace.report.page.ranking import rows_of, score_scale
from subspace.report.page.sensitivity import search_fields
from subspace.report.series import Scale, pick_scale
from subspace.report.study import Study
from subspace.report.words.phrase import plain, say
from subspace.report.words.strings import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["forest_picture", "pareto_picture", "search_picture"]

_GRID = "#e4e8ed"
_MOST_ROWS = 60
"""Arms in all panels together; of more, the best of each task."""
_ROW_INCHES = 0.3
_NAME_INCHES = 0.18
"""Height of a name in the legend of searches."""
_INSIDE = 8
"""Searches that are named inside their panel; of more, beside it."""
_MOST_TASKS = 3
"""Tasks whose costs are drawn; the page has all."""
_MOST_NAMES = 12
"""Dots of one panel that are named; of more, those on the front."""


def forest_picture(study: Study, path: Path, *, language: str = "en") -> bool:
    """Draw scores with their intervals, a panel for each task; return whether there were any to draw.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    most = max(6, _MOST_ROWS // max(len(study.scored), 1))
    panels = [(scored, rows_of(study, scored)[:most]) for scored in study.scored]
    if not panels:
        return False
    family = fonts(study.arms.groups, words(language))
    heights = [0.8 + _ROW_INCHES * len(rows) for _, rows in panels]

    def draw(figure: Figure) -> None:
        found = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, (scored, rows) in zip(found, panels, strict=True):
            measure = study.measure(scored)
            _title(axes, f"{scored.name}: {plain(measure.name, language)}", family)
            _forest(axes, rows, measure, family, language)

    write_picture(path, (7.2, sum(heights)), draw)
    return True


def _forest(axes: Axes, rows: Sequence[Row], measure: Measure, family: list[str], language: str) -> None:
    scale = score_scale(list(rows))
    for place, row in enumerate(rows):
        shade = colour(row.group)
        if row.low is not None and row.high is not None and math.isfinite(row.low + row.high):
            axes.plot([row.low, row.high], [place, place], color=shade, alpha=0.45, linewidth=3, solid_capstyle="round")
        if len(row.seeds) > 1:
            axes.plot(row.seeds, [place + 0.3] * len(row.seeds), "o", color=shade, markersize=2.2, alpha=0.7)
        axes.plot([row.score], [place], "o", color=shade, markersize=7, markeredgecolor="white")
        told = row.told + (f" [{plain(row.under, language)}]" if row.under else "")
        for text, x, align in ((row.letters, 1.02, "left"), (told, 1.09, "left")):
            axes.annotate(
                text, (x, place), xycoords=("axes fraction", "data"), va="center", ha=align, fontsize=8.5, color=INK,
                family=family, annotation_clip=False,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [shortened(row.group.label) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(scale.low, scale.high)
    form = (lambda value: f"{100 * value:g} %") if measure.share else "{:g}".format
    axes.set_xticks(scale.ticks, [form(tick) for tick in scale.ticks])
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    _quiet(axes, family)


def pareto_picture(study: Study, path: Path, *, language: str = "en") -> bool:
    """Draw score against every cost, a row for each task; return whether there was anything to draw.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    panels = [[(scored, cost, cost_dots(study, scored, cost)) for cost in COSTS] for scored in study.scored]
    panels = [row for row in panels if any(len(dots) > 1 for _, _, dots in row)][:_MOST_TASKS]
    if not panels:
        return False
    family = fonts(study.arms.groups, words(language))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(panels), len(COSTS), squeeze=False)
        for line, row in zip(grid, panels, strict=True):
            for axes, (scored, cost, dots) in zip(line, row, strict=True):
                if len(dots) < 2:
                    axes.set_axis_off()
                    continue
                measure = study.measure(scored)
                across, form = cost_axis(dots, cost)
                up = pick_scale([dot.score for dot in dots], within=(0.0, 1.0) if measure.share else None)
                _dots(axes, dots, across, up, higher_is_better=scored.higher_is_better, family=family)
                axes.set_xticks(across.ticks, [form(tick) for tick in across.ticks])
                axes.set_yticks(up.ticks, [f"{100 * t:g} %" if measure.share else f"{t:g}" for t in up.ticks])
                axes.set_xlabel(plain(say(f"axis_{cost.key}"), language), fontsize=9, color=PALE, family=family)
                _title(axes, f"{scored.name}: {plain(measure.name, language)}", family)
                _quiet(axes, family)

    write_picture(path, (4.0 * len(COSTS), 3.2 * len(panels)), draw)
    return True


def _dots(
    axes: Axes, dots: Sequence[Dot], across: Scale, up: Scale, *, higher_is_better: bool, family: list[str]
) -> None:
    edge = front(dots, higher_is_better=higher_is_better)
    xs, ys = [dot.cost for dot in edge], [dot.score for dot in edge]
    axes.step([*xs, across.high], [*ys, ys[-1]], where="post", color=PALE, linewidth=0.9, linestyle=(0, (4, 3)))
    for dot in dots:
        strength = 1.0 if dot in edge else 0.55
        axes.plot([dot.cost], [dot.score], "o", color=colour(dot.group), markersize=6, alpha=strength)
        if len(dots) > _MOST_NAMES and dot not in edge:
            continue
        right = across.place(dot.cost) < 0.7
        axes.annotate(
            shortened(dot.group.label), (dot.cost, dot.score), xytext=(6 if right else -6, 4),
            textcoords="offset points", ha="left" if right else "right", fontsize=8, color=colour(dot.group),
            family=family,
        )  # fmt: skip
    if across.logarithmic:
        axes.set_xscale("log")
        axes.minorticks_off()
    if up.logarithmic:
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.set_xlim(across.low, across.high)
    axes.set_ylim(up.low, up.high)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)


def search_picture(study: Study, path: Path, *, language: str = "en") -> bool:
    """Draw every search for a learning rate, a panel for each task; return whether there was any.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    fields = search_fields(study)
    if not fields:
        return False
    family = fonts(study.arms.groups, words(language))

    most = min(max(len(searches) for searches in fields.values()), _MOST_ROWS)

    def draw(figure: Figure) -> None:
        found = figure.subplots(1, len(fields), squeeze=False)[0]
        for axes, ((task, _), searches) in zip(found, fields.items(), strict=True):
            _search(axes, searches[:_MOST_ROWS], family)
            _title(axes, f"{task}: {plain(Measure.of(searches[0][1].metric, []).name, language)}", family)
            _quiet(axes, family)

    write_picture(path, (5.4 * len(fields), max(3.5, 0.8 + _NAME_INCHES * most)), draw)
    return True


def _search(axes: Axes, searches: Sequence[tuple[Group, Search]], family: list[str]) -> None:
    for group, search in searches:
        last = max(trial.rung for trial in search.trials)
        points = sorted(
            (trial.value, trial.score) for trial in search.trials if trial.rung == 0 and trial.score is not None
        )
        axes.plot(*zip(*points, strict=True), color=colour(group), linewidth=1.5, label=shortened(group.label))
        chosen = [
            (trial.value, trial.score)
            for trial in search.trials
            if trial.value == search.chosen and trial.rung in (0, last) and trial.score is not None
        ]
        for value, score in chosen[:1]:
            axes.plot([value], [score], "o", color=colour(group), markersize=6)
    scale = value_scale([t.value for _, search in searches for t in search.trials if t.value > 0])
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlim(scale.low, scale.high)
    axes.set_xticks(scale.ticks, [f"{tick:g}" for tick in scale.ticks])
    axes.set_xlabel(searches[0][1].key, fontsize=9, color=PALE, family=family)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(searches) > _INSIDE else {}
    axes.legend(fontsize=8, frameon=False, prop={"family": family, "size": 8}, **beside)


def _title(axes: Axes, text: str, family: list[str]) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK, family=family, pad=8)


def _quiet(axes: Axes, family: list[str]) -> None:
    settings: dict[str, Any] = {"length": 0, "labelsize": 9, "labelcolor": INK, "labelfontfamily": family[0]}
    axes.tick_params(**settings)
    for label in axes.get_yticklabels():
        label.set_fontfamily(family)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b9c1cb")

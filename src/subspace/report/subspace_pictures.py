"""What subspaces did, as PNG: one small chart per figure of a refresh, and maps of captured energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.report.axes import INK, PALE, colour, draw_chart, fonts, write_picture
from subspace.report.groups import group_runs
from subspace.report.heat import NUMBERS_UP_TO, EnergyMap, energy_maps, energy_range
from subspace.report.lines import subspace_charts
from subspace.report.page.stylesheet import COLD, HEAT
from subspace.report.record import RunRecord
from subspace.report.words.strings import words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["energy_picture", "subspace_curves"]

_INCHES, _AXES_POINTS = 2.75, 108.0
"""Height of one small chart with all that stands around it, and of its axes."""


def subspace_curves(records: Sequence[RunRecord], path: Path, *, language: str = "en") -> bool:
    """Draw the figures of refreshes over steps; return whether there were any to draw.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    text, groups = words(language), group_runs(records)
    charts = subspace_charts(groups)
    if not charts:
        return False
    family, rows = fonts(groups, text), math.ceil(len(charts) / 2)

    def draw(figure: Figure) -> None:
        places = figure.subplots(rows, 2, squeeze=False).ravel()
        for axes, chart in zip(places, charts, strict=False):
            draw_chart(axes, chart, language, family, _AXES_POINTS)
        for axes in places[len(charts) :]:
            axes.set_axis_off()

    write_picture(path, (10.8, _INCHES * rows), draw)
    return True


def energy_picture(records: Sequence[RunRecord], path: Path, *, language: str = "en") -> bool:
    """Draw captured energy weight by weight, a map for each group of runs; return whether there was any to draw.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    text, groups = words(language), group_runs(records)
    maps = energy_maps(groups)
    if not maps:
        return False
    family, rows = fonts(groups, text), math.ceil(len(maps) / 2)
    bounds = energy_range(maps)
    low, high = (f"{100 * bound:.1f} %" for bound in bounds)
    title = text["heat_scale"].format(title=text["heat"], low=low, high=high)

    def draw(figure: Figure) -> None:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=INK, family=family)
        places = figure.subplots(rows, min(len(maps), 2), squeeze=False).ravel()
        for axes, found in zip(places, maps, strict=False):
            _draw_map(axes, found, bounds, text, family)
        for axes in places[len(maps) :]:
            axes.set_axis_off()

    tallest = max(len(found.kinds) for found in maps)
    write_picture(path, (5.4 * min(len(maps), 2), 0.4 + (0.9 + 0.26 * tallest) * rows), draw)
    return True


def _draw_map(
    axes: Axes, found: EnergyMap, bounds: tuple[float, float], text: Mapping[str, str], family: list[str]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    low, high = bounds
    layers = found.layers or (0,)
    grid = [
        [100 * found.cells.get((kind, layer), found.cells.get((kind, None), math.nan)) for layer in layers]
        for kind in found.kinds
    ]
    shades = LinearSegmentedColormap.from_list("energy", [COLD, HEAT])
    axes.imshow(grid, aspect="auto", cmap=shades, vmin=100 * low, vmax=max(100 * high, 100 * low + 1e-9))
    for row, values in enumerate(grid):
        for column, value in enumerate(values if len(layers) <= NUMBERS_UP_TO else ()):
            if not math.isnan(value):
                dark = value - 100 * low > 68 * (high - low)
                ink = "white" if dark else INK
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8.5, color=ink, family=family)
    every = max(1, math.ceil(len(layers) / 8))
    shown = range(0, len(layers), every) if found.layers else ()
    axes.set_xticks(list(shown), [str(layers[place]) for place in shown])
    axes.set_yticks(range(len(found.kinds)), list(found.kinds))
    axes.tick_params(length=0, labelsize=9, labelcolor=PALE, labelfontfamily=family[0])
    axes.set_xlabel(text["layer"], fontsize=9, color=PALE, family=family)
    axes.set_title(
        found.group.label, loc="left", fontsize=10, fontweight="bold", color=colour(found.group), family=family
    )
    mean = text["heat_mean"].format(value=f"{100 * found.mean:.1f} %")
    axes.set_title(mean, loc="right", fontsize=8.5, color=PALE, family=family)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks([place - 0.5 for place in range(1, len(layers))], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, len(found.kinds))], minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(which="minor", color="white", linewidth=1.6)

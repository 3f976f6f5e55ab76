"""Captured energy weight by weight: layers across, kinds of modules down."""

from __future__ import annotations

import math
from html import escape

from subspace.report.charts.marks import swatch
from subspace.report.heat import NUMBERS_UP_TO, EnergyMap
from subspace.report.words.phrase import both, say

__all__ = ["heat_map"]

_WARM, _HOT = 48, 68
"""Percent of the colour range from which numbers in cells change their colour by night, by day, so as to stand out."""


def heat_map(found: EnergyMap, low: float, high: float) -> str:
    """Return a map of captured energy, coloured from `low` to `high`."""
    layers = found.layers or (0,)
    numbers = len(layers) <= NUMBERS_UP_TO

    def cell(kind: str, layer: int | None) -> str:
        value = found.cells.get((kind, layer))
        if value is None:
            return "<i></i>"
        heat = 100 * (value - low) / ((high - low) or 1)
        place = kind if layer is None else f"{kind}, {layer}"
        look = ("all " if layer is None else "") + ("hot" if heat > _HOT else "warm" if heat > _WARM else "")
        written = f"{100 * value:.1f}" if numbers or layer is None else ""
        return (
            f'<i class="{look.strip()}" style="--v:{heat:.0f}%" data-tip="{escape(place)}: {100 * value:.2f} %">'
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
    below = f'<span class="kind axis">{both(say("layer"))}</span>{ticks}' if ticks else ""
    mean = both(say("heat_mean", value=f"{100 * found.mean:.1f} %"))
    look = "cells" if numbers else "cells fine"
    return (
        f'<figure class="heat"><figcaption><b>{swatch(found.group)}{escape(found.group.label)}</b>'
        f'<span class="hint">{mean}</span></figcaption>'
        f'<div class="{look}" style="--layers:{len(layers)}">{"".join(rows)}{below}</div></figure>'
    )

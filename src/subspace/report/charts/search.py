"""What a search for a learning rate saw: scores over the values that were tried, a line for each round."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from subspace.report.bench import Search
from subspace.report.charts.marks import below, beside, swatch, tone
from subspace.report.groups import Group
from subspace.report.series import Scale
from subspace.report.words.phrase import both, dated, say

__all__ = ["search_chart", "value_scale"]

_PIXELS = 150


def value_scale(values: list[float]) -> Scale:
    """Return the axis of learning rates: logarithmic, with a tick at powers of ten, or at both ends."""
    low, high = min(values), max(values)
    low, high = low / 1.25, high * 1.25
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = tuple(power for exponent in powers if low <= (power := 10.0**exponent) <= high)
    return Scale(low, high, True, ticks if len(ticks) > 1 else (min(values), max(values)))


def search_chart(
    group: Group, search: Search, across: Scale, up: Scale, form: Callable[[float], str], language: str
) -> str:
    """Return the chart of one search."""
    lines, marks = [], []
    rungs = sorted({trial.rung for trial in search.trials})
    for number, rung in enumerate(rungs, start=1):
        found = sorted((t for t in search.trials if t.rung == rung and t.score is not None), key=lambda t: t.value)
        strength = 0.35 + 0.65 * number / len(rungs)
        points = " ".join(
            f"{1000 * across.place(trial.value):.5g},{1000 * (1 - up.place(trial.score or 0.0)):.5g}" for trial in found
        )
        if len(found) > 1:
            lines.append(f'<polyline class="line c{tone(group)}" style="opacity:{strength:.2f}" points="{points}"/>')
        for trial in found:
            chosen = " chosen" if trial.value == search.chosen and rung == rungs[-1] else ""
            tip = say("trial_tip", value=f"{trial.value:g}", score=form(trial.score or 0.0), steps=trial.steps)
            marks.append(
                f'<i class="spot small b{tone(group)}{chosen}" style="left:{100 * across.place(trial.value):.2f}%;'
                f'top:{100 * (1 - up.place(trial.score or 0.0)):.2f}%;--strength:{strength:.2f}"'
                f"{dated('data-tip', tip, language)}></i>"
            )
    for trial in search.trials:
        if trial.score is None:
            tip = say("trial_failed", value=f"{trial.value:g}", error=trial.error or "–")
            marks.append(
                f'<i class="cross" style="left:{100 * across.place(trial.value):.2f}%"'
                f"{dated('data-tip', tip, language)}>×</i>"
            )
    if search.chosen is not None:
        lines.append(
            f'<polyline class="front" points="{1000 * across.place(search.chosen):.5g},0 '
            f'{1000 * across.place(search.chosen):.5g},1000"/>'
        )
    chosen_words = both(say("search_chosen", value="–" if search.chosen is None else f"{search.chosen:g}"))
    return (
        f'<figure class="chart" data-arm="{group.index}"><figcaption><b>{swatch(group)}{escape(group.label)}</b>'
        f'<span class="hint">{chosen_words}</span></figcaption>'
        f'<div class="plot" style="--names:0px;height:{_PIXELS}px">{beside(up, form)}'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{escape(group.label)}">'
        f"{''.join(lines)}</svg>{''.join(marks)}{below(across.ticks, across.place, '{:g}'.format)}</div></figure>"
    )

"""Arms as dots between a cost and a score, with the front of those that no other beats in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from subspace.report.charts.marks import below, beside, fill, tone
from subspace.report.groups import Group
from subspace.report.series import Scale
from subspace.report.words.phrase import Said, both, dated

__all__ = ["Dot", "front", "scatter"]

_WIDTH, _HEIGHT = 420, 300
"""Pixels for which names are kept from covering one another; wider boxes only have more room."""
_SIGN, _LINE = 7.2, 16


@dataclass(frozen=True)
class Dot:
    """One arm: what it costs, what it scores, and what is said of it on hovering."""

    group: Group
    cost: float
    score: float
    tip: Said


def front(dots: Sequence[Dot], *, higher_is_better: bool) -> list[Dot]:
    """Return the dots that no other beats in both, by rising cost."""
    sign = 1 if higher_is_better else -1
    best, found = float("-inf"), []
    for dot in sorted(dots, key=lambda dot: (dot.cost, -sign * dot.score)):
        if sign * dot.score > best:
            best = sign * dot.score
            found.append(dot)
    return found


def scatter(
    dots: Sequence[Dot],
    across: Scale,
    up: Scale,
    forms: tuple[Callable[[float], str], Callable[[float], str]],
    titles: tuple[Said, Said],
    language: str,
    *,
    higher_is_better: bool,
) -> str:
    """Return the chart; `forms` and `titles` are those of cost and score."""
    edge = front(dots, higher_is_better=higher_is_better)
    steps = []
    for number, dot in enumerate(edge):
        x, y = 1000 * across.place(dot.cost), 1000 * (1 - up.place(dot.score))
        if number:
            steps.append(f"{x:.1f},{1000 * (1 - up.place(edge[number - 1].score)):.1f}")
        steps.append(f"{x:.1f},{y:.1f}")
    steps.append(f"1000,{1000 * (1 - up.place(edge[-1].score)):.1f}")
    line = f'<polyline class="front" points="{" ".join(steps)}"/>'
    marks = "".join(
        f'<i class="spot {fill(dot.group)}{"" if dot in edge else " beaten"}" data-arm="{dot.group.index}" '
        f'style="left:{100 * across.place(dot.cost):.2f}%;top:{100 * (1 - up.place(dot.score)):.2f}%"'
        f"{dated('data-tip', dot.tip, language)}></i>"
        for dot in dots
    )
    return (
        f'<figure class="chart"><figcaption><b>{both(titles[1])}</b></figcaption>'
        f'<div class="plot scatter" style="height:{_HEIGHT}px">{beside(up, forms[1])}'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img"{dated("aria-label", titles[0], language)}>'
        f"{line}</svg>{marks}{_names(dots, across, up)}{below(across.ticks, across.place, forms[0])}</div>"
        f'<div class="xaxis">{both(titles[0])}</div></figure>'
    )


def _names(dots: Sequence[Dot], across: Scale, up: Scale) -> str:
    """Return names beside their dots, each where it covers nothing; where there is no such place, none."""
    spots = [(_WIDTH * across.place(dot.cost), _HEIGHT * (1 - up.place(dot.score))) for dot in dots]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    spans = []
    for dot, (x, y) in zip(dots, spots, strict=True):
        width = min(len(dot.group.label), 22) * _SIGN
        for side, left, top in (
            ("right", x + 9, y - 8),
            ("left", x - 9 - width, y - 8),
            ("over", x - width / 2, y - 26),
            ("beneath", x - width / 2, y + 10),
        ):
            box = (left, top, left + width, top + _LINE)
            inside = box[0] >= -4 and box[2] <= _WIDTH + 4
            if inside and not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
            ):
                taken.append(box)
                spans.append(
                    f'<span class="called {side} t{tone(dot.group)}" data-arm="{dot.group.index}" style="left:'
                    f'{100 * across.place(dot.cost):.2f}%;top:{100 * (1 - up.place(dot.score)):.2f}%">'
                    f"{escape(dot.group.label)}</span>"
                )
                break
    return "".join(spans)

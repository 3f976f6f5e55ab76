"""What all charts share: the colour of an arm, its swatch, its key to click, and ticks beside a box.

An arm's colour is one of the classes `c0` to `c5` (stroke), `b0` to `b5` (background), `t0` to `t5` (text); all that
belongs to it carries `data-arm`, by which the page's script hides it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from subspace.report.groups import LIGHT, Group
from subspace.report.series import Scale

__all__ = ["DASHES", "below", "beside", "dashes", "fill", "keys", "swatch", "tone"]

DASHES = ("", "7 3", "2 3", "7 3 2 3")
_MOST_KEYS = 60


def tone(group: Group) -> int:
    """Return the number of the colour of an arm."""
    return group.index % len(LIGHT)


def dashes(group: Group) -> str:
    """Return the dashes that tell arms of one colour apart, as an attribute."""
    found = DASHES[group.index // len(LIGHT) % len(DASHES)]
    return f' stroke-dasharray="{found}"' if found else ""


def fill(group: Group) -> str:
    """Return the classes that fill a dot or square; from the seventh arm on with a pattern."""
    pattern = group.index // len(LIGHT) % len(DASHES)
    return f"b{tone(group)} d{pattern}" if pattern else f"b{tone(group)}"


def swatch(group: Group) -> str:
    """Return a small square of the arm's colour."""
    return f'<i class="swatch {fill(group)}"></i>'


def keys(groups: Iterable[Group]) -> str:
    """Return the legend: a click on a name hides what belongs to it."""
    buttons = "".join(
        f'<button type="button" data-key="{group.index}" aria-pressed="true">{swatch(group)}{escape(group.label)}'
        "</button>"
        for group in list(groups)[:_MOST_KEYS]
    )
    return f'<div class="keys">{buttons}</div>'


def beside(scale: Scale, form: Callable[[float], str]) -> str:
    """Return the ticks of an upright axis with their lines across."""
    return "".join(
        f'<i class="grid" style="top:{100 * (1 - scale.place(tick)):.2f}%"><span class="ytick">{form(tick)}</span></i>'
        for tick in scale.ticks
    )


def below(ticks: Sequence[float], place: Callable[[float], float], form: Callable[[float], str]) -> str:
    """Return the ticks of a level axis."""
    return "".join(f'<span class="xtick" style="left:{100 * place(tick):.2f}%">{form(tick)}</span>' for tick in ticks)

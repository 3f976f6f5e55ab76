"""Groups of arms that were not told apart, and their letters.

References: Bron and Kerbosch (1973); Piepho (2004), compact letter display.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from string import ascii_letters

__all__ = ["letters_of", "tie_groups"]


def tie_groups(ranked: Sequence[str], told_apart: Collection[frozenset[str]]) -> tuple[tuple[str, ...], ...]:
    """Return the maximal sets of arms of which no two were told apart.

    Args:
        ranked: All arms, best first.
        told_apart: Pairs that were decided.

    Returns:
        The sets in the order of their best arm, then of the next; arms inside as ranked. An arm that differs from all
        others stands alone. Every pair not told apart is together in some set.
    """
    alike = {
        arm: {other for other in ranked if other != arm and frozenset((arm, other)) not in told_apart} for arm in ranked
    }
    place = {arm: index for index, arm in enumerate(ranked)}
    found: list[tuple[str, ...]] = []
    _extend(set(), set(ranked), set(), alike, found, place)
    return tuple(sorted(found, key=lambda group: [place[arm] for arm in group]))


def letters_of(groups: Sequence[Sequence[str]], arms: Sequence[str]) -> Mapping[str, str]:
    """Return the letters of each arm: one for each group that it belongs to (a ... z, A ... Z, then a2, b2, ...)."""
    return {arm: "".join(_letter(index) for index, group in enumerate(groups) if arm in group) for arm in arms}


def _letter(index: int) -> str:
    turn, place = divmod(index, len(ascii_letters))
    return ascii_letters[place] + (str(turn + 1) if turn else "")


def _extend(
    chosen: set[str],
    open_arms: set[str],
    closed: set[str],
    alike: Mapping[str, set[str]],
    found: list[tuple[str, ...]],
    place: Mapping[str, int],
) -> None:
    """Bron and Kerbosch with a pivot: `found` gets the maximal sets of `chosen` with arms of `open_arms`."""
    if not open_arms and not closed:
        found.append(tuple(sorted(chosen, key=place.__getitem__)))
        return
    pivot = max(sorted(open_arms | closed, key=place.__getitem__), key=lambda arm: len(alike[arm] & open_arms))
    for arm in sorted(open_arms - alike[pivot], key=place.__getitem__):
        _extend(chosen | {arm}, open_arms & alike[arm], closed & alike[arm], alike, found, place)
        open_arms = open_arms - {arm}
        closed = closed | {arm}

"""Two arms of a table laid side by side: which seeds and items they share, and the spread of their difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subspace.statistics.crossed import (
    NO_PSEUDO,
    PSEUDO_DIFFERENCE,
    PSEUDO_SHARE,
    Spread,
    crossed,
    linearised,
    unpaired,
)
from subspace.statistics.scores import ScoreTable

__all__ = ["Pair", "arm_spread", "lay_out", "scores_by_seed"]

Matrix = NDArray[np.float64]

_ENOUGH_SHARED_SEEDS = 4
"""From here on, seeds that only one arm has are left out rather than the pairing given up."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two arms on the items that both have.

    Attributes:
        first: Name of one arm.
        second: Name of the other.
        rows: Places of the seeds of `first` and of `second` in the table; the same where paired.
        items: Places of the items.
        scores: Of `first` and `second`, of shape (seeds, items).
        weights: Of the items, or None.
        paired: Whether row k of both is the same seed.
        spread: Of first - second.
    """

    first: str
    second: str
    rows: tuple[NDArray[np.intp], NDArray[np.intp]]
    items: NDArray[np.intp]
    scores: tuple[Matrix, Matrix]
    weights: Matrix | None
    paired: bool
    spread: Spread

    @property
    def units(self) -> Matrix:
        """Return paired differences of the units of effect sizes: items over seeds; seeds where there is one item."""
        first, second = self.scores
        if self.items.size > 1:
            by_item: Matrix = np.round(first.mean(axis=0) - second.mean(axis=0), 12)
            return by_item
        return (first - second)[:, 0] if self.paired else np.empty(0)


def lay_out(table: ScoreTable, first: str, second: str) -> Pair | None:
    """Return both arms side by side, or None where they have no item in common.

    Seeds are paired where one arm's seeds are all among the other's, or where at least four are common. Else all seeds
    of both are used, unpaired; and where an arm then has a single one, only the items speak.
    """
    a, b = table.arms.index(first), table.arms.index(second)
    items = np.flatnonzero(table.items_present()[[a, b]].all(axis=0))
    if items.size == 0:
        return None
    present = table.seeds_present()
    common = present[a] & present[b]
    fewer = int(min(present[a].sum(), present[b].sum()))
    paired = int(common.sum()) == fewer or int(common.sum()) >= _ENOUGH_SHARED_SEEDS
    rows = tuple(np.flatnonzero(common if paired else present[arm]) for arm in (a, b))
    scores = tuple(table.values[arm][np.ix_(row, items)] for arm, row in zip((a, b), rows, strict=True))
    weights = None if table.weights is None else table.weights[items]
    spread = _difference(scores[0], scores[1], weights, paired, table.binary)
    return Pair(first, second, (rows[0], rows[1]), items, (scores[0], scores[1]), weights, paired, spread)


def _difference(first: Matrix, second: Matrix, weights: Matrix | None, paired: bool, binary: bool) -> Spread:
    pseudo = PSEUDO_DIFFERENCE if binary and first.shape[1] > 1 else NO_PSEUDO
    if paired:
        return crossed(linearised(first - second, weights), pseudo=pseudo)
    first, second = linearised(first, weights), linearised(second, weights)
    if min(first.shape[0], second.shape[0]) > 1:
        return unpaired(first, second, pseudo=pseudo)
    return crossed((first.mean(axis=0) - second.mean(axis=0))[None], pseudo=pseudo)


def arm_spread(table: ScoreTable, arm: str, items: NDArray[np.intp]) -> Spread:
    """Return the spread of one arm's own score on these items."""
    values, weights = _arm(table, arm, items)
    pseudo = PSEUDO_SHARE if table.binary and items.size > 1 else NO_PSEUDO
    return crossed(linearised(values, weights), pseudo=pseudo)


def scores_by_seed(table: ScoreTable, arm: str, items: NDArray[np.intp]) -> Matrix:
    """Return the (weighted) mean over these items for each seed that the arm has, of shape (seeds,)."""
    values, weights = _arm(table, arm, items)
    by_seed: Matrix = np.average(values, axis=1, weights=weights)
    return by_seed


def _arm(table: ScoreTable, arm: str, items: NDArray[np.intp]) -> tuple[Matrix, Matrix | None]:
    place = table.arms.index(arm)
    rows = np.flatnonzero(table.seeds_present()[place])
    weights = None if table.weights is None else table.weights[items]
    return table.values[place][np.ix_(rows, items)], weights

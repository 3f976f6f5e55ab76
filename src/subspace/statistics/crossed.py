"""The variance of a mean over crossed seeds and items, in the two parts that are known with different certainty.

Legend: n seeds, m items, x_si the value (a score, or a paired difference of scores) of item i after seed s.

Model (two-way random effects, one value a cell), for seeds and items that are both samples of what could have been:

    x_si = mu + S_s + I_i + E_si

Mean squares of rows (seeds), columns (items) and the rest:

    MS_S = m sum_s (x_s. - x..)^2 / (n - 1)           expects  m var(S) + var(E)
    MS_I = n sum_i (x_.i - x..)^2 / (m - 1)           expects  n var(I) + var(E)
    MS_E = sum_si (x_si - x_s. - x_.i + x..)^2 / ((n - 1)(m - 1))

    var(x..) = [var(S) / n + var(E) / (n m)]  +  var(I) / m
             = A, estimated by MS_S / (n m)   +  D, estimated by (MS_I - MS_E) / (n m), not below 0

A has n - 1 degrees of freedom, few, and holds all noise that is drawn anew with each run; D has m - 1, mostly many.
`two_parts` turns both into intervals.

References: Searle, Casella, McCulloch, Variance Components (1992), ch. 4; Bonett and Price (2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_PSEUDO", "PSEUDO_DIFFERENCE", "PSEUDO_SHARE", "Pseudo", "Spread", "crossed", "linearised", "unpaired"]

Matrix = NDArray[np.float64]

_ROUNDING = 1e-12
"""Means that differ by no larger share are equal: else three equal differences would be proof of one."""


@dataclass(frozen=True, slots=True)
class Pseudo:
    """Items that a binary table gets in addition in its variance over items.

    Without them, no disagreement among m items would be taken for none at all; with them and one seed, the interval of
    a difference that was never seen ends near the 3 / m of the rule of three. They are answers of one seed: the mean
    over n seeds, which has its seeds' own variation besides, gets the n-th part.

    Attributes:
        items: How many.
        squares: Their sum of squares about the mean.
    """

    items: int = 0
    squares: float = 0.0


NO_PSEUDO = Pseudo()
PSEUDO_DIFFERENCE = Pseudo(2, 2.0)
"""Bonett and Price: a difference of shares gets one more item that one arm alone gets right, for either arm."""
PSEUDO_SHARE = Pseudo(4, 1.0)
"""Agresti and Coull: a share gets two right and two wrong items more, each 1/2 from the middle."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean and how far it may be off.

    Attributes:
        estimate: The mean over seeds and items.
        seed_part: A, what new seeds would change; NaN where nothing was repeated, 0 with one seed.
        seed_degrees: Its degrees of freedom f.
        item_part: D, what new items would change beyond that; 0 with one item.
        item_degrees: Its degrees of freedom g.
        seed_variance: var(S) of one seed, unbiased, so that it may fall below 0; NaN with one seed.
        item_variance: var(I) of one item, unbiased likewise; NaN with one item.
        rest_variance: var(E) of one cell; NaN with one seed or one item.
        num_seeds: n (the smaller number where seeds are not paired).
        num_items: m.
        scope: "seeds and items", "seeds", "items" or "nothing": over what it was repeated.
        paired: Whether differences were taken seed by seed.
    """

    estimate: float
    seed_part: float
    seed_degrees: float
    item_part: float
    item_degrees: float
    seed_variance: float
    item_variance: float
    rest_variance: float
    num_seeds: int
    num_items: int
    scope: str
    paired: bool = True

    @property
    def variance(self) -> float:
        """Return the variance of the mean, A + D."""
        return self.seed_part + self.item_part


def linearised(values: Matrix, weights: Matrix | None) -> Matrix:
    """Return values whose plain means are the weighted means of `values`.

    The weighted mean is a ratio of two sums over items, and an item's part in its error is w_i / mean(w) (x_si - D)
    with D the mean over all seeds. The values D + w_i / mean(w) (x_si - D) have these parts as deviations, and the same
    seed means.

    Args:
        values: Of shape (seeds, items).
        weights: Of shape (items,), or None for equal weights.
    """
    if weights is None:
        return values
    shares = weights / weights.mean()
    centre = (values * shares).mean()
    turned: Matrix = centre + shares * (values - centre)
    return turned


def crossed(values: Matrix, *, pseudo: Pseudo = NO_PSEUDO) -> Spread:
    """Return the spread of the mean of a full table.

    Args:
        values: Of shape (seeds, items), finite.
        pseudo: What a binary table gets in addition.
    """
    seeds, items = values.shape
    by_seed, by_item, nan = values.mean(axis=1), values.mean(axis=0), float("nan")
    mean, seed_square, item_square = float(by_seed.mean()), _square(by_seed), _square(by_item)
    if seeds == 1 and items == 1:
        return Spread(mean, nan, 0, nan, 0, nan, nan, nan, 1, 1, "nothing")
    if items == 1:
        return Spread(mean, seed_square / seeds, seeds - 1, 0.0, 0, seed_square, nan, nan, seeds, 1, "seeds")
    item_part = _item_part(by_item, pseudo, seeds)
    if seeds == 1:
        return Spread(mean, 0.0, 0, item_part, items - 1, nan, item_square, nan, 1, items, "items")
    rest = _rest(values)
    return Spread(
        estimate=mean,
        seed_part=seed_square / seeds,
        seed_degrees=seeds - 1,
        item_part=max(item_part - rest / (seeds * items), 0.0),
        item_degrees=items - 1,
        seed_variance=seed_square - rest / items,
        item_variance=item_square - rest / seeds,
        rest_variance=rest,
        num_seeds=seeds,
        num_items=items,
        scope="seeds and items",
    )


def unpaired(first: Matrix, second: Matrix, *, pseudo: Pseudo = NO_PSEUDO) -> Spread:
    """Return the spread of the difference of two arms that share items but no seeds.

    A is the sum of both arms' seed parts, with Welch's degrees of freedom.

    Args:
        first: Of shape (seeds of the first arm, items), finite, at least two seeds.
        second: Of shape (seeds of the second arm, items), finite, at least two seeds.
        pseudo: See `crossed`.
    """
    items, many = first.shape[1], first.shape[1] > 1
    by_item, nan = first.mean(axis=0) - second.mean(axis=0), float("nan")
    counts = np.array([first.shape[0], second.shape[0]], dtype=np.float64)
    squares = np.array([_square(arm.mean(axis=1)) for arm in (first, second)])
    rests = np.array([_rest(arm) if many else 0.0 for arm in (first, second)])
    parts = squares / counts
    below = float((parts**2 / (counts - 1)).sum())
    rest_part = float((rests / counts).sum())
    return Spread(
        estimate=float(by_item.mean()),
        seed_part=float(parts.sum()),
        seed_degrees=float(parts.sum()) ** 2 / below if below > 0 else float(counts.sum()) - 2,
        item_part=max(_item_part(by_item, pseudo, float(counts.mean())) - rest_part / items, 0.0) if many else 0.0,
        item_degrees=items - 1,
        seed_variance=float((squares - rests / items).sum()),
        item_variance=_square(by_item) - rest_part if many else nan,
        rest_variance=float(rests.sum()) if many else nan,
        num_seeds=int(counts.min()),
        num_items=items,
        scope="seeds and items" if many else "seeds",
        paired=False,
    )


def _square(means: Matrix) -> float:
    """Return the variance (n - 1) of means; 0 for a single one, and for equal ones but for rounding."""
    if means.size < 2 or float(np.ptp(means)) <= _ROUNDING * float(np.abs(means).max()):
        return 0.0
    return float(means.var(ddof=1))


def _rest(values: Matrix) -> float:
    """Return MS_E of a table of at least two seeds and two items."""
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    return float((rest**2).sum() / ((values.shape[0] - 1) * (values.shape[1] - 1)))


def _item_part(by_item: Matrix, pseudo: Pseudo, seeds: float) -> float:
    """Return MS_I / (n m), the variance of the mean over items, with the items that a binary table gets in addition."""
    num = by_item.size + pseudo.items / seeds
    return float((_square(by_item) * (by_item.size - 1) + pseudo.squares / seeds) / (num * (num - 1)))

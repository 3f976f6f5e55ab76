"""The variance of a mean over crossed seeds and items, with its degrees of freedom.

Legend: n seeds, m items, x_si the value (a score, or a paired difference of scores) of item i after seed s.

Model (two-way random effects, one value a cell), for seeds and items that are both samples of what could have been:

    x_si = mu + S_s + I_i + E_si

Mean squares of rows (seeds), columns (items) and the rest:

    MS_S = m sum_s (x_s. - x..)^2 / (n - 1)           expects  m var(S) + var(E)
    MS_I = n sum_i (x_.i - x..)^2 / (m - 1)           expects  n var(I) + var(E)
    MS_E = sum_si (x_si - x_s. - x_.i + x..)^2 / ((n - 1)(m - 1))

    var(x..) = var(S) / n + var(I) / m + var(E) / (n m)     estimated by  V = (MS_S + MS_I - MS_E) / (n m)

Satterthwaite's degrees of freedom of a sum of c_k MS_k:  V^2 / sum_k (c_k MS_k)^2 / f_k.

References: Satterthwaite (1946); Searle, Casella, McCulloch, Variance Components (1992); Bonett and Price (2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spread", "crossed", "linearised", "unpaired"]

Matrix = NDArray[np.float64]

PSEUDO_DIFFERENCE = (2, 2.0)
"""Bonett and Price: a difference of shares gets one item more for either arm (two items, squares 1 + 1)."""
PSEUDO_SHARE = (4, 1.0)
"""Agresti and Coull: a share gets two right and two wrong items more (four items, squares 4 x 1/4)."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean and how far it may be off.

    Attributes:
        estimate: The mean over seeds and items.
        variance: Of that mean, for new seeds and new items; NaN where nothing was repeated.
        degrees: Satterthwaite's degrees of freedom of the variance; inf where they do not matter.
        seed_variance: var(S) of one seed, unbiased, so that it may fall below 0; NaN with one seed.
        item_variance: var(I) of one item, unbiased likewise; NaN with one item.
        rest_variance: var(E) of one cell; NaN with one seed or one item.
        num_seeds: n (the smaller number where seeds are not paired).
        num_items: m.
        scope: "seeds and items", "seeds", "items" or "nothing": over what it was repeated.
        paired: Whether differences were taken seed by seed.
    """

    estimate: float
    variance: float
    degrees: float
    seed_variance: float
    item_variance: float
    rest_variance: float
    num_seeds: int
    num_items: int
    scope: str
    paired: bool = True


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


def crossed(values: Matrix, *, pseudo: tuple[int, float] = (0, 0.0)) -> Spread:
    """Return the spread of the mean of a full table.

    Args:
        values: Of shape (seeds, items), finite.
        pseudo: Items and sum of squares that a binary table gets in addition in the variance over items, so that no
            disagreement among m items is not taken for none at all (with m items and none found, the interval of a
            difference ends near the 3 / m of the rule of three).
    """
    seeds, items = values.shape
    mean, by_seed, by_item = values.mean(), values.mean(axis=1), values.mean(axis=0)
    seed_square = _square(by_seed) * items
    item_part = _item_part(by_item, pseudo)
    if seeds == 1 or items == 1:
        return _one_way(float(mean), seed_square, item_part, seeds, items, _square(by_item))
    rest_square = _rest(values)
    rest_degrees = (seeds - 1) * (items - 1)
    cells = seeds * items
    variance, degrees = _combine(
        seed_terms=[(seed_square / cells, seeds - 1)],
        item_term=(item_part, items - 1),
        rest_terms=[(rest_square / cells, rest_degrees)],
    )
    return Spread(
        estimate=float(mean),
        variance=variance,
        degrees=degrees,
        seed_variance=(seed_square - rest_square) / items,
        item_variance=_square(by_item) - rest_square / seeds,
        rest_variance=rest_square,
        num_seeds=seeds,
        num_items=items,
        scope="seeds and items",
    )


def unpaired(first: Matrix, second: Matrix, *, pseudo: tuple[int, float] = (0, 0.0)) -> Spread:
    """Return the spread of the difference of two arms that share items but no seeds (Welch's test on each seed part).

    Args:
        first: Of shape (seeds of the first arm, items), finite, at least two seeds.
        second: Of shape (seeds of the second arm, items), finite, at least two seeds.
        pseudo: See `crossed`.
    """
    items = first.shape[1]
    by_item = first.mean(axis=0) - second.mean(axis=0)
    seed_terms, rest_terms, seed_variance, rest_variance, rest_of_item = [], [], 0.0, 0.0, 0.0
    for arm in (first, second):
        seeds = arm.shape[0]
        square = _square(arm.mean(axis=1)) * items
        rest = _rest(arm) if items > 1 else 0.0
        seed_terms.append((square / (seeds * items), float(seeds - 1)))
        rest_terms.append((rest / (seeds * items), float((seeds - 1) * (items - 1))))
        seed_variance += (square - rest) / items
        rest_variance += rest
        rest_of_item += rest / seeds
    item_term = (_item_part(by_item, pseudo), items - 1) if items > 1 else (0.0, 0)
    variance, degrees = _combine(seed_terms=seed_terms, item_term=item_term, rest_terms=rest_terms if items > 1 else [])
    return Spread(
        estimate=float(by_item.mean()),
        variance=variance,
        degrees=degrees,
        seed_variance=seed_variance,
        item_variance=_square(by_item) - rest_of_item if items > 1 else float("nan"),
        rest_variance=rest_variance if items > 1 else float("nan"),
        num_seeds=min(first.shape[0], second.shape[0]),
        num_items=items,
        scope="seeds and items" if items > 1 else "seeds",
        paired=False,
    )


def _one_way(mean: float, seed_square: float, item_part: float, seeds: int, items: int, item_square: float) -> Spread:
    """Return the spread where only seeds or only items were repeated."""
    nan = float("nan")
    if seeds > 1:
        return Spread(mean, seed_square / seeds, seeds - 1, seed_square, nan, nan, seeds, items, "seeds")
    if items > 1:
        return Spread(mean, item_part, items - 1, nan, item_square, nan, seeds, items, "items")
    return Spread(mean, nan, nan, nan, nan, nan, seeds, items, "nothing")


def _square(means: Matrix) -> float:
    """Return the variance (n - 1) of means; 0 for a single one."""
    return float(means.var(ddof=1)) if means.size > 1 else 0.0


def _rest(values: Matrix) -> float:
    """Return MS_E of a table of at least two seeds and two items."""
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    return float((rest**2).sum() / ((values.shape[0] - 1) * (values.shape[1] - 1)))


def _item_part(by_item: Matrix, pseudo: tuple[int, float]) -> float:
    """Return what the items add to the variance of the mean, with the items that a binary table gets in addition."""
    extra, squares = pseudo
    num = by_item.size + extra
    if num < 2:
        return 0.0
    return float((((by_item - by_item.mean()) ** 2).sum() + squares) / (num * (num - 1)))


def _combine(
    seed_terms: list[tuple[float, float]], item_term: tuple[float, float], rest_terms: list[tuple[float, float]]
) -> tuple[float, float]:
    """Return variance and degrees of freedom of seed terms + item term - rest terms, each a (c MS, degrees).

    The result falls below one of its parts where a variance component is estimated below 0; the larger part is then the
    answer, with its own degrees of freedom.
    """
    seed_part, rest_part = sum(part for part, _ in seed_terms), sum(part for part, _ in rest_terms)
    if min(seed_part, item_term[0]) > rest_part:
        variance, terms = seed_part + item_term[0] - rest_part, [*seed_terms, item_term, *rest_terms]
    elif seed_part >= item_term[0]:
        variance, terms = seed_part, seed_terms
    else:
        variance, terms = item_term[0], [item_term]
    below = sum(part**2 / degrees for part, degrees in terms if degrees > 0)
    return variance, (variance**2 / below if below > 0 else float("inf"))

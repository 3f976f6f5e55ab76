"""Power: which true difference these seeds and items show, and what it takes to show one point.

Legend: n seeds, m items, D the true difference, v_S, v_I, v_E variances of the paired difference (see `crossed`).

    A = v_S / n + v_E / (n m),  f = n - 1          what seeds bring, estimated as A' = A U / f with U ~ chi2_f
    B = v_I / m                                    what items bring, taken as known
    power = mean over U of  P(|D + error| > w(A', B)),   error ~ N(0, A + B),  w the half width that decides

alpha is (1 - level) / hypotheses, Holm's first step: what a difference must pass when it is the only true one.

References: Cohen (1988); `two_parts` for the half width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from subspace.statistics.crossed import Spread
from subspace.statistics.findings import Power, PowerRow
from subspace.statistics.two_parts import critical_width

__all__ = ["Noise", "detectable_difference", "noise_of", "plan_power", "power_of"]

TARGET = 0.8
MOST_SEEDS, MOST_ITEMS = 1_000, 100_000_000
_POINTS = (1.0, 2.0, 3.0, 5.0)
_SEEDS = (3, 5, 10)
_MORE_ITEMS = 4
_ROOTS, _ROOT_WEIGHTS = np.polynomial.legendre.leggauss(60)
_NODES, _WEIGHTS = (1.0 + _ROOTS) / 2.0, _ROOT_WEIGHTS / 2.0

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Noise:
    """Variances of the paired difference, none below 0.

    Attributes:
        seed: v_S of one seed.
        item: v_I of one item.
        rest: v_E of one cell.
        scope: "seeds and items", "seeds" or "items": what was repeated when they were measured.
    """

    seed: float
    item: float
    rest: float
    scope: str = "seeds and items"


def noise_of(spreads: Sequence[Spread]) -> Noise | None:
    """Return the mean noise of several comparisons of one task; None where nothing was repeated.

    Means are taken before cutting at 0, so that estimates below 0 weigh as much as those above.
    """
    for scope in ("seeds and items", "seeds", "items"):
        chosen = [spread for spread in spreads if spread.scope == scope]
        if chosen:
            parts = [[spread.seed_variance, spread.item_variance, spread.rest_variance] for spread in chosen]
            seed, item, rest = np.maximum(np.nan_to_num(np.mean(parts, axis=0)), 0.0)
            return Noise(float(seed), float(item), float(rest), scope)
    return None


def power_of(
    difference: float, noise: Noise, *, seeds: int, items: int, alpha: float = 0.05, degrees: float | None = None
) -> float:
    """Return the probability that a true difference is found at `alpha`, two-sided.

    Args:
        difference: D.
        noise: Of the paired difference.
        seeds: n, at least 2 unless the scope is "items".
        items: m, at least 2 unless the scope is "seeds".
        alpha: Level of the test.
        degrees: Degrees of freedom of the seed noise; n - 1 unless it is shared by several arms.
    """
    widths, shares, deviation = _design(noise, seeds, items, alpha, degrees)
    if deviation == 0.0:
        return 1.0 if difference else 0.0
    above = ndtr((abs(difference) - widths) / deviation) + ndtr((-abs(difference) - widths) / deviation)
    return float(above @ shares)


def detectable_difference(
    noise: Noise,
    *,
    seeds: int,
    items: int,
    alpha: float = 0.05,
    degrees: float | None = None,
    target: float = TARGET,
) -> float:
    """Return the true difference that is found with probability `target`; infinite if none is."""
    deviation = _design(noise, seeds, items, alpha, degrees)[2]
    if deviation == 0.0:
        return 0.0

    def reached(difference: float) -> bool:
        return power_of(difference, noise, seeds=seeds, items=items, alpha=alpha, degrees=degrees) >= target

    high = deviation
    while not reached(high):
        high *= 2.0
        if not math.isfinite(high):
            return math.inf
    low = 0.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def plan_power(
    spreads: Sequence[Spread],
    *,
    seeds: int,
    items: int,
    level: float,
    hypotheses: int,
    one_point: float,
    shared_degrees: float | None = None,
) -> Power:
    """Return the power line of a task.

    Args:
        spreads: Of its comparisons.
        seeds: The present seeds per arm.
        items: The present items.
        level: Of the comparison.
        hypotheses: Comparisons in its family.
        one_point: What counts as one point.
        shared_degrees: Degrees of freedom of a seed noise that all arms share, where there is one.
    """
    noise, alpha = noise_of(spreads), (1.0 - level) / max(hypotheses, 1)
    if noise is None:
        return Power(None, one_point, None, None, (), alpha, num_seeds=seeds, num_items=items)

    def found(num_seeds: int, num_items: int) -> float:
        return power_of(one_point, noise, seeds=num_seeds, items=num_items, alpha=alpha)

    seeds_needed = None if noise.scope == "items" else _smallest(lambda n: found(n, items) >= TARGET, MOST_SEEDS)
    items_needed = None if noise.scope == "seeds" else _smallest(lambda m: found(seeds, m) >= TARGET, MOST_ITEMS)
    return Power(
        detectable=detectable_difference(noise, seeds=seeds, items=items, alpha=alpha),
        one_point=one_point,
        seeds_needed=seeds_needed,
        items_needed=items_needed,
        table=_table(noise, seeds, items, alpha, one_point),
        alpha=alpha,
        detectable_alone=detectable_difference(noise, seeds=seeds, items=items, alpha=1.0 - level),
        detectable_shared=None
        if shared_degrees is None
        else detectable_difference(noise, seeds=seeds, items=items, alpha=alpha, degrees=shared_degrees),
        seed_std=None if noise.scope == "items" else math.sqrt(noise.seed),
        item_std=None if noise.scope == "seeds" else math.sqrt(noise.item),
        rest_std=math.sqrt(noise.rest) if noise.scope == "seeds and items" else None,
        num_seeds=seeds,
        num_items=items,
    )


def _table(noise: Noise, seeds: int, items: int, alpha: float, one_point: float) -> tuple[PowerRow, ...]:
    """Return the power for differences, seeds and items around the present ones."""
    more_seeds = sorted({seeds, *_SEEDS}) if noise.scope != "items" else [seeds]
    more_items = sorted({items, _MORE_ITEMS * items}) if noise.scope != "seeds" else [items]
    return tuple(
        PowerRow(points * one_point, n, m, power_of(points * one_point, noise, seeds=n, items=m, alpha=alpha))
        for points in _POINTS
        for n in more_seeds
        for m in more_items
    )


@lru_cache(maxsize=1024)
def _design(
    noise: Noise, seeds: int, items: int, alpha: float, shared: float | None = None
) -> tuple[Vector, Vector, float]:
    """Return the half widths that may come out, their probabilities, and the standard deviation of the estimate."""
    seed_part, item_part = noise.seed / seeds + noise.rest / (seeds * items), noise.item / items
    degrees = seeds - 1 if shared is None else shared
    if noise.scope == "seeds":
        seed_part, item_part = noise.seed / seeds, 0.0
    elif noise.scope == "items":
        # one part alone: the items take the place of the seeds
        seed_part, degrees, item_part = noise.item / items, items - 1, 0.0
    if seed_part + item_part == 0.0:
        return np.zeros(1), np.ones(1), 0.0
    guesses = seed_part * stats.chi2.ppf(_NODES, degrees) / degrees
    if item_part == 0.0:
        widths = float(stats.t.isf(alpha / 2.0, degrees)) * np.sqrt(guesses)
    else:
        widths = critical_width(alpha / 2.0, guesses, item_part, (degrees, math.inf))
    return widths, _WEIGHTS, math.sqrt(seed_part + item_part)


def _smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number from 2 on that is enough; None where `most` is not."""
    high = 2
    while not enough(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high

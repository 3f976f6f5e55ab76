"""Intervals and p values from one statistic: a mean against the error that `two_parts` gives it.

    p = 2 P(error > |estimate|),   interval  estimate +- w  with  2 P(error > w) = 1 - level

The interval holds 0 exactly where p > 1 - level. With one item, or one seed, this is Student's t over the seeds, or the
items. Measured coverage: docs/statistics.md.

References: Student (1908); Behrens (1929); Fisher (1935).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from subspace.core.errors import UsageError
from subspace.statistics.crossed import Spread
from subspace.statistics.findings import Interval
from subspace.statistics.two_parts import critical_width, upper_tail

__all__ = ["METHODS", "check_level", "deviation_interval", "p_value", "t_interval"]

CROSSED = "t on crossed seed and item variances"
UNPAIRED = "Welch t on seed and item variances"
OVER_SEEDS = "t over seeds"
OVER_ITEMS = "t over items"
UNREPEATED = "not repeated"
CHI_SQUARE = "chi-square over seeds"
BOOTSTRAP = "percentile bootstrap over seeds and items"

METHODS = (CROSSED, UNPAIRED, OVER_SEEDS, OVER_ITEMS, UNREPEATED, CHI_SQUARE, BOOTSTRAP)
"""Every value of `Interval.method`."""


def t_interval(spread: Spread, level: float = 0.95, *, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Return the interval of the mean for new seeds and new items.

    Args:
        spread: The mean with its variance.
        level: Nominal coverage.
        bounds: What the true value cannot leave, e.g. (0, 1) of a share; the interval is cut there.

    Raises:
        UsageError: E-CLI-001 when the level is not between 0 and 1.
    """
    check_level(level)
    method = _method(spread)
    if not math.isfinite(spread.variance):
        return Interval(spread.estimate, bounds[0], bounds[1], level, method)
    half = _width((1.0 - level) / 2.0, spread)
    low, high = max(spread.estimate - half, bounds[0]), min(spread.estimate + half, bounds[1])
    return Interval(spread.estimate, low, high, level, method)


def p_value(spread: Spread, null: float = 0.0, *, side: str = "two-sided") -> float:
    """Return the p value of the hypothesis that the true mean is `null`.

    Without any variation at all (equal differences throughout) there is no standard error; the p value is then that of
    the sign test, 2 / 2^repeats, so that three equal losses in a row prove nothing.

    Args:
        spread: The mean with its variance.
        null: The hypothesis.
        side: "two-sided", "greater" (the truth is greater than `null`) or "less".
    """
    gap = spread.estimate - null
    if not math.isfinite(spread.variance):
        return 1.0
    if spread.variance <= 0.0:
        return _without_variation(spread, gap, side)
    if side == "two-sided":
        return min(1.0, 2.0 * _tail(abs(gap), spread))
    return _tail(gap if side == "greater" else -gap, spread)


def deviation_interval(scores: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the standard deviation of normal scores with its chi-square interval.

        [ s sqrt((n - 1) / chi2_{n-1}(1 - a/2)),  s sqrt((n - 1) / chi2_{n-1}(a/2)) ],   a = 1 - level

    Args:
        scores: One score a seed, of shape (seeds,).
        level: Nominal coverage.
    """
    check_level(level)
    degrees = scores.size - 1
    if degrees < 1:
        return Interval(math.nan, 0.0, math.inf, level, UNREPEATED)
    deviation, tail = float(np.std(scores, ddof=1)), (1.0 - level) / 2.0
    low = deviation * math.sqrt(degrees / float(stats.chi2.ppf(1.0 - tail, degrees)))
    high = deviation * math.sqrt(degrees / float(stats.chi2.ppf(tail, degrees)))
    return Interval(deviation, low, high, level, CHI_SQUARE)


def check_level(level: float) -> None:
    """Raise unless the level lies between 0 and 1."""
    if not 0.0 < level < 1.0:
        raise UsageError(
            "E-CLI-001", where="level", found=repr(level), expected="a number between 0 and 1", action="Take 0.95."
        )


def _method(spread: Spread) -> str:
    if spread.scope == "seeds and items":
        return CROSSED if spread.paired else UNPAIRED
    return {"seeds": OVER_SEEDS, "items": OVER_ITEMS}.get(spread.scope, UNREPEATED)


def _without_variation(spread: Spread, gap: float, side: str) -> float:
    if gap == 0.0:
        return 1.0
    repeats = spread.num_seeds if spread.scope == "seeds" else spread.num_items
    smallest = float(0.5**repeats)
    if side == "two-sided":
        return 2.0 * smallest
    return smallest if (gap > 0) == (side == "greater") else 1.0


def _width(probability: float, spread: Spread) -> float:
    """Return the error that is exceeded with this probability; Student's quantile where one part is all."""
    if spread.variance <= 0.0:
        return 0.0
    if spread.item_part == 0.0:
        return float(stats.t.isf(probability, spread.seed_degrees)) * math.sqrt(spread.seed_part)
    if spread.seed_part == 0.0:
        return float(stats.t.isf(probability, spread.item_degrees)) * math.sqrt(spread.item_part)
    degrees = (spread.seed_degrees, spread.item_degrees)
    return float(critical_width(probability, spread.seed_part, spread.item_part, degrees))


def _tail(gap: float, spread: Spread) -> float:
    """Return P(error > gap)."""
    if spread.item_part == 0.0:
        return float(stats.t.sf(gap / math.sqrt(spread.seed_part), spread.seed_degrees))
    if spread.seed_part == 0.0:
        return float(stats.t.sf(gap / math.sqrt(spread.item_part), spread.item_degrees))
    degrees = (spread.seed_degrees, spread.item_degrees)
    return float(upper_tail(gap, spread.seed_part, spread.item_part, degrees))

"""The error of a mean with two estimated parts of variance: the sum of two Student variables (Behrens and Fisher).

Legend: A variance of the mean from seeds, estimated with f degrees of freedom; D from items, estimated with g.

    error = sqrt(A) T_f + sqrt(D) T_g
    P(error > x) = mean over U ~ chi2_f, W ~ chi2_g of  Phi(-x / sqrt(A f / U + D g / W))

A few seeds leave A badly known; the mean over U weighs every A that could have given the one seen. Satterthwaite's
single t of a pooled number of degrees forgets this just where A came out small by chance, and then decides several
times too often at the small levels of a corrected family (docs/statistics.md has the figures). The sum decides at most
as often as it says, whatever the shares of both parts (Robinson 1976).

References: Behrens (1929); Fisher (1935); Robinson (1976), Properties of Student's t and of the Behrens-Fisher
solution; Tsui and Weerahandi (1989), generalized p values.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import ndtr

__all__ = ["critical_width", "upper_tail"]

Vector = NDArray[np.float64]

_SEED_NODES, _ITEM_NODES = 80, 24
_MANY_ITEMS = 200
"""From so many degrees of freedom on, the items' part of the variance counts as known."""
_STEPS = 40
_PRECISION = 1e-8


def upper_tail(gap: ArrayLike, seed_part: ArrayLike, item_part: ArrayLike, degrees: tuple[float, float]) -> Vector:
    """Return P(error > gap), elementwise.

    Args:
        gap: x, of any shape that broadcasts with the parts.
        seed_part: A; at least one of A and D is above 0.
        item_part: D.
        degrees: f and g; f may be 0 where A is 0, g where D is 0.
    """
    x, a, d = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (gap, seed_part, item_part)))
    seed_factors, item_factors, weights = _nodes(*degrees)
    deviations = np.sqrt(a[..., None] * seed_factors + d[..., None] * item_factors)
    tail: Vector = ndtr(-x[..., None] / deviations) @ weights
    return tail


def critical_width(
    probability: float, seed_part: ArrayLike, item_part: ArrayLike, degrees: tuple[float, float]
) -> Vector:
    """Return the x with P(error > x) = probability, elementwise.

    Args:
        probability: Of the upper tail, below one half.
        seed_part: A.
        item_part: D.
        degrees: f and g.
    """
    a, d = np.broadcast_arrays(np.asarray(seed_part, dtype=np.float64), np.asarray(item_part, dtype=np.float64))
    quantiles = [float(stats.t.isf(probability, f)) if f > 0 else 0.0 for f in degrees]
    # the sum's quantile lies between the normal one of both parts together and the sum of both quantiles
    low = float(stats.norm.isf(probability)) * np.sqrt(a + d) * 0.5
    high = quantiles[0] * np.sqrt(a) + quantiles[1] * np.sqrt(d)
    high = np.maximum(high, low) * 1.01
    seed_factors, item_factors, weights = _nodes(*degrees)
    deviations = np.sqrt(a[..., None] * seed_factors + d[..., None] * item_factors)
    width: Vector = (low + high) / 2.0
    for _ in range(_STEPS):
        steps = width[..., None] / deviations
        tail = ndtr(-steps) @ weights
        low, high = np.where(tail > probability, width, low), np.where(tail > probability, high, width)
        # Newton on the logarithm of both, where the tail of a Student variable is nearly straight
        slope = (np.exp(-0.5 * steps**2) * steps) @ weights / math.sqrt(2.0 * math.pi)
        newton = width * np.exp(np.clip(np.log(tail / probability) * tail / slope, -1.0, 1.0))
        moved: Vector = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2.0)
        done = bool((np.abs(moved - width) <= _PRECISION * width).all())
        width = moved
        if done:
            break
    return width


@lru_cache(maxsize=256)
def _nodes(seed_degrees: float, item_degrees: float) -> tuple[Vector, Vector, Vector]:
    """Return factors f / U and g / W of all nodes and their weights."""
    seed_factors, seed_weights = _scales(seed_degrees, _SEED_NODES)
    if item_degrees >= _MANY_ITEMS:
        return seed_factors, np.ones_like(seed_factors), seed_weights
    item_factors, item_weights = _scales(item_degrees, _ITEM_NODES)
    pairs = np.meshgrid(seed_factors, item_factors, indexing="ij")
    return pairs[0].ravel(), pairs[1].ravel(), np.outer(seed_weights, item_weights).ravel()


def _scales(degrees: float, num_nodes: int) -> tuple[Vector, Vector]:
    """Return nodes and weights of f / U for U ~ chi2_f, dense where U is small: there lie the tails."""
    if degrees <= 0:
        return np.ones(1), np.ones(1)
    roots, weights = np.polynomial.legendre.leggauss(num_nodes)
    at = (1.0 + roots) / 2.0
    shares, slopes = at**4, 4.0 * at**3
    factors: Vector = degrees / stats.chi2.ppf(shares, degrees)
    total: Vector = weights / 2.0 * slopes
    return factors, total / total.sum()

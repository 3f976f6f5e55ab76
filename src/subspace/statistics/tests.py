"""Tests beside the t statistic: Holm's correction, Wilcoxon's signed ranks, McNemar, equivalence.

References: Holm (1979); Wilcoxon (1945); McNemar (1947); Schuirmann (1987).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from subspace.statistics.crossed import Spread
from subspace.statistics.intervals import p_value

__all__ = ["equivalence_p", "holm", "mcnemar_exact", "mcnemar_over_seeds", "signed_rank_p", "smallest_signed_rank_p"]

_EXACT_BLOCKS = 100
"""Above, the distribution of signed ranks is normal to more digits than anyone reads."""


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p values adjusted by Holm: deciding at a keeps the chance of any false decision below a.

    The k-th smallest of h is multiplied by h - k + 1, never falls below a smaller one, and is cut at 1. It holds
    whatever the dependence between the tests.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.minimum(1.0, np.maximum.accumulate(p[order] * (p.size - np.arange(p.size))))
    adjusted = np.empty_like(p)
    adjusted[order] = raised
    return tuple(float(value) for value in adjusted)


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p value of Wilcoxon's signed-rank test, exact also with ties.

    Zeros are left out; ties share their mean rank. Under the null every sign is a fair coin: the distribution of the
    sum of positive ranks is counted, over twice the ranks so that mean ranks are whole numbers.

    Args:
        differences: Of shape (blocks,).
    """
    kept = differences[differences != 0.0]
    if kept.size == 0:
        return 1.0
    ranks = stats.rankdata(np.abs(kept))
    positive, total = float(ranks[kept > 0].sum()), float(ranks.sum())
    smaller = min(positive, total - positive)
    if kept.size > _EXACT_BLOCKS:
        z = (smaller - total / 2.0) / np.sqrt((ranks**2).sum() / 4.0)
        return float(min(1.0, 2.0 * stats.norm.cdf(z)))
    doubled = np.rint(2.0 * ranks).astype(np.int64)
    ways = np.zeros(int(doubled.sum()) + 1)
    ways[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(ways)
        shifted[rank:] = ways[: ways.size - rank]
        ways = (ways + shifted) / 2.0
    return float(min(1.0, 2.0 * ways[: round(2.0 * smaller) + 1].sum()))


def smallest_signed_rank_p(num_blocks: int) -> float:
    """Return the smallest two-sided p value that so many blocks can give: all signs equal, 2 / 2^blocks.

    >>> smallest_signed_rank_p(3), smallest_signed_rank_p(6)
    (0.25, 0.03125)
    """
    return float(min(1.0, 2.0 * 0.5**num_blocks))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p value of McNemar's test: the discordant items are fair coins.

    Args:
        only_first: Items that only the first arm gets right.
        only_second: Items that only the second arm gets right.
    """
    total = only_first + only_second
    if total == 0:
        return 1.0
    return float(min(1.0, 2.0 * stats.binom.cdf(min(only_first, only_second), total, 0.5)))


def mcnemar_over_seeds(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return McNemar's exact test over items where each item was answered after several seeds.

    Tables of several seeds must not be added up: the answers to one item after several seeds are not independent, and
    the sum would count an item once a seed. Here an item counts once, for the arm that got it right after more seeds
    (its net difference); items without a net difference drop out, as concordant items do. With one seed this is
    McNemar's test. It speaks of these trained models on new items, not of new seeds.

    Args:
        first: Answers of one arm, 0 or 1, of shape (seeds, items).
        second: Of the other, of shape (seeds of the other, items).
    """
    net = np.round(first.mean(axis=0) - second.mean(axis=0), 12)
    return mcnemar_exact(int((net > 0).sum()), int((net < 0).sum()))


def equivalence_p(spread: Spread, margin: float) -> float:
    """Return the p value of two one-sided tests: the larger of "not above -margin" and "not below margin".

    At a, the decision is that of the interval of level 1 - 2 a lying within the margin.

    Args:
        spread: Of the difference.
        margin: Positive, in metric units.
    """
    return max(p_value(spread, -margin, side="greater"), p_value(spread, margin, side="less"))

"""The hierarchical paired bootstrap: seeds and items drawn anew, the same draw for every arm.

Legend: b resamples, a arms, n seeds, m items, x_asi scores, w_i weights, U_bs and T_bi how often a seed or item was
drawn.

    mean_ba = sum_s U_bs sum_i T_bi w_i x_asi / (n sum_i T_bi w_i)

Two matrix products for all arms and pairs at once. It is shown and decides nothing: with three seeds it draws among 27
ordered samples, and its intervals hold the truth too rarely (docs/statistics.md).

References: Efron (1979); Davison and Hinkley, Bootstrap Methods and their Application (1997), 3.8; Owen (2007), The
pigeonhole bootstrap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_means", "draw_counts", "percentile_ends"]

_CHUNK_CELLS = 250_000
"""Counts drawn at once: 2 MB, which stay in the cache."""


def draw_counts(resamples: int, size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return how often each of `size` things is drawn in samples with replacement, of shape (resamples, size)."""
    drawn = generator.integers(0, size, size=(resamples, size))
    drawn += np.arange(resamples)[:, None] * size
    counts = np.bincount(drawn.ravel(), minlength=resamples * size)
    return counts.reshape(resamples, size).astype(np.float64)


def bootstrap_means(
    groups: list[NDArray[np.float64]], weights: NDArray[np.float64] | None, *, resamples: int, seed: int
) -> list[NDArray[np.float64]]:
    """Return resampled (weighted) means of arms, each of shape (resamples, arms of the group).

    Arms of one group share seeds and are drawn with the same seeds; groups share items alone (arms with unpaired
    seeds).

    Args:
        groups: Finite scores of shape (arms, seeds, items); the number of items is common.
        weights: Of shape (items,), or None.
        resamples: Number of resamples.
        seed: Of the random numbers.
    """
    generator = np.random.default_rng(seed)
    items = groups[0].shape[2]
    weight = np.ones(items) if weights is None else weights
    flat = [np.ascontiguousarray((group * weight).reshape(-1, items).T) for group in groups]
    chunks: list[list[NDArray[np.float64]]] = [[] for _ in groups]
    step = max(1, _CHUNK_CELLS // items)
    for start in range(0, resamples, step):
        num = min(step, resamples - start)
        counts = draw_counts(num, items, generator)
        below = (counts @ weight)[:, None]
        for group, columns, out in zip(groups, flat, chunks, strict=True):
            arms, seeds = group.shape[:2]
            by_seed = (counts @ columns / below).reshape(num, arms, seeds)
            out.append(np.einsum("bas,bs->ba", by_seed, draw_counts(num, seeds, generator)) / seeds)
    return [np.concatenate(out) for out in chunks]


def percentile_ends(resampled: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Return the ends of the percentile interval of resampled values of shape (resamples,)."""
    low, high = np.quantile(resampled, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)

"""Arms over all tasks: Wilcoxon's signed ranks over task x seed blocks.

A block is one seed of one task: the difference of both arms' scores, turned so that positive means that the first is
better. Blocks of different metrics are put on one scale: each task's differences are divided by their root mean square
over all pairs of arms of that task. Blocks of one task share its items, so the test speaks of new seeds on these items.

References: Wilcoxon (1945); Demsar (2006), Statistical comparisons of classifiers over multiple data sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subspace.statistics.effects import rank_biserial
from subspace.statistics.findings import PooledComparison
from subspace.statistics.pairing import Pair
from subspace.statistics.scores import ScoreTable
from subspace.statistics.tests import holm, signed_rank_p, smallest_signed_rank_p

__all__ = ["pool"]


def pool(tables: Sequence[ScoreTable], pairs: Sequence[Sequence[Pair]]) -> tuple[PooledComparison, ...]:
    """Return one comparison for each pair of arms with paired seeds in at least one task.

    Args:
        tables: The tables.
        pairs: The pairs of each table that are in the family.
    """
    blocks: dict[frozenset[str], tuple[str, str, list[NDArray[np.float64]]]] = {}
    for table, chosen in zip(tables, pairs, strict=True):
        sign = 1.0 if table.higher_is_better else -1.0
        differences = [sign * _by_seed(pair) for pair in chosen]
        cells = np.concatenate(differences) if differences else np.zeros(0)
        scale = float(np.sqrt((cells**2).mean())) if cells.size else 0.0
        for pair, values in zip(chosen, differences, strict=True):
            entry = blocks.setdefault(frozenset((pair.first, pair.second)), (pair.first, pair.second, []))
            turn = 1.0 if entry[0] == pair.first else -1.0
            entry[2].append(turn * values / (scale or 1.0))
    rows = [(first, second, np.concatenate(parts)) for first, second, parts in blocks.values()]
    rows = [row for row in rows if row[2].size]
    p_values = [signed_rank_p(row[2]) for row in rows]
    return tuple(
        PooledComparison(
            first=first,
            second=second,
            num_blocks=int(values.size),
            wilcoxon_p=p,
            p_adjusted=adjusted,
            min_p=smallest_signed_rank_p(values.size),
            rank_biserial=rank_biserial(values),
        )
        for (first, second, values), p, adjusted in zip(rows, p_values, holm(p_values), strict=True)
    )


def _by_seed(pair: Pair) -> NDArray[np.float64]:
    """Return the difference of both arms' scores for each common seed; none where seeds are not paired."""
    if not pair.paired:
        return np.empty(0)
    # twelve digits: equal scores must tie in rank although they were summed in another order
    by_seed: NDArray[np.float64] = np.round(
        np.average(pair.scores[0] - pair.scores[1], axis=1, weights=pair.weights), 12
    )
    return by_seed

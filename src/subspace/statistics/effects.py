"""Effect sizes of paired and unpaired scores.

References: Cohen (1988), d_z; Kerby (2014), the simple difference formula (rank-biserial); Cliff (1993), delta.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["cliffs_delta", "d_z", "rank_biserial"]


def d_z(differences: NDArray[np.float64]) -> float | None:
    """Return mean over standard deviation (n - 1) of paired differences; None where that is no number.

    Args:
        differences: Of shape (units,).
    """
    if differences.size < 2:
        return None
    deviation = float(differences.std(ddof=1))
    scale = float(np.abs(differences).max())
    # equal numbers have a deviation of rounding errors
    if deviation <= 1e-12 * scale or scale == 0.0:
        return None
    return float(differences.mean()) / deviation


def rank_biserial(differences: NDArray[np.float64]) -> float | None:
    """Return the matched-pairs rank-biserial correlation (W+ - W-) / (W+ + W-) of the signed ranks, zeros left out.

    Args:
        differences: Of shape (units,).
    """
    kept = differences[differences != 0.0]
    if kept.size == 0:
        return None
    ranks = stats.rankdata(np.abs(kept))
    return float((ranks * np.sign(kept)).sum() / ranks.sum())


def cliffs_delta(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return P(a score of first > a score of second) - P(<) over all pairs; None with fewer than two scores each.

    Args:
        first: One score a seed.
        second: One score a seed.
    """
    if first.size < 2 or second.size < 2:
        return None
    return float(np.sign(first[:, None] - second[None, :]).mean())

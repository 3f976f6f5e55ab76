"""When a basis is found anew, and what becomes of the moments then.

P old basis, P' new basis, C = P'^T P (r, r). The moments' coordinates belong to the old basis:

    keep       unchanged: coordinates are read in the new basis (GaLore as published)
    zero       forgotten: moments and their age start again (ReLoRA's reset)
    transport  m <- C m;  v <- |(C*C) (v/c2 - m^2/c1^2) + (C m)^2/c1^2| c2,   c1 = 1 - b1^t, c2 = 1 - b2^t
               (LDAdam: the mean is carried exactly, the variance as if coordinates were uncorrelated)

References: Zhao et al. 2024, arXiv 2403.03507; Lialin et al. 2023, arXiv 2307.05695; Robert et al. 2024,
arXiv 2410.16103, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from torch import Tensor

from subspace.projection.geometry import Geometry

__all__ = ["NUM_OVERLAPS", "due", "next_interval", "phase_of", "transport"]

NUM_OVERLAPS = 5
"""Refreshes over which an adaptive interval looks back."""

_STEADY = 0.4
"""Mean overlap of successive bases above which an adaptive interval grows. Random bases overlap by r/d."""
_LONGEST = 32
"""An adaptive interval grows to at most this many times the given one."""


def due(done: int, interval: int, phase: int = 0) -> bool:
    """Return whether the step after `done` whole steps begins with a new basis: the first always does.

    >>> [done for done in range(9) if due(done, 4)], [done for done in range(9) if due(done, 4, phase=1)]
    ([0, 4, 8], [0, 1, 5])
    """
    return done == 0 or done % interval == phase


def phase_of(index: int, count: int, interval: int) -> int:
    """Return the phase of weight `index` of `count`, spread evenly over the interval.

    >>> [phase_of(index, 4, 200) for index in range(4)]
    [0, 50, 100, 150]
    """
    return index * interval // max(count, 1) % interval


def next_interval(current: int, given: int, overlaps: Sequence[float]) -> int:
    """Return the interval after a refresh: doubled, or back to the given one, by the mean of the last overlaps.

    A sign-invariant form of Q-GaLore's lazy refresh (Zhang et al. 2024, arXiv 2407.08296, section 3.2): the overlap of
    the whole subspaces, 1 if equal, in place of the signed cosine of their first vectors.

    Args:
        current: The interval before.
        given: What the settings say.
        overlaps: Of old and new basis at the last refreshes; before there are `NUM_OVERLAPS`, nothing changes.
    """
    if len(overlaps) < NUM_OVERLAPS:
        return current
    return min(2 * current, _LONGEST * given) if fmean(overlaps) >= _STEADY else given


def transport(
    moments: tuple[Tensor, Tensor],
    geometry: Geometry,
    old: Sequence[Tensor],
    new: Sequence[Tensor],
    *,
    age: int,
    betas: tuple[float, float],
) -> None:
    """Carry the first and second moment from the old basis into the new one, in place.

    Args:
        moments: m and v, (.., low-rank shape), float32.
        geometry: Of the weight.
        old: The bases in the order of `geometry.basis_shapes`.
        new: Likewise.
        age: Updates that the moments have seen; 0 changes nothing.
        betas: Their decays.
    """
    if age == 0:
        return
    first, second = moments
    corrections = [after.mT @ before for before, after in zip(old, new, strict=True)]
    scale1, scale2 = 1 - betas[0] ** age, 1 - betas[1] ** age
    mean = first / scale1
    variance = second / scale2 - mean * mean
    carried = _rotate(first, geometry, corrections)
    spread = _rotate(variance, geometry, [correction.square() for correction in corrections])
    second.copy_((spread + (carried / scale1).square()).abs_().mul_(scale2))
    first.copy_(carried)


def _rotate(values: Tensor, geometry: Geometry, corrections: Sequence[Tensor]) -> Tensor:
    if geometry.side == "left":
        return corrections[0] @ values
    if geometry.side == "right":
        return values @ corrections[0].mT
    return corrections[0] @ values @ corrections[1].mT

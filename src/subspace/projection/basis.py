"""Finding the bases of many weights of one shape at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from subspace.linalg.decompose import align_signs, leading_basis
from subspace.projection.geometry import Basis, Geometry

__all__ = ["BASES", "find_bases", "num_stacked"]

BASES: tuple[Basis, ...] = get_args(Basis)

_STACKED_ELEMENTS = 2**22
"""Matrices are stacked for one batched decomposition up to this size; larger ones gain nothing by it."""
_TOGETHER_ELEMENTS = 2**24
"""Of a stack, which is copied and widened."""


def num_stacked(num_elements: int, how: Basis, count: int) -> int:
    """Return how many of `count` like matrices are decomposed together."""
    if how in ("random", "svd") or num_elements > _STACKED_ELEMENTS:
        return 1
    return min(count, max(1, _TOGETHER_ELEMENTS // max(1, num_elements)))


def find_bases(
    gradients: Sequence[Tensor],
    geometry: Geometry,
    how: Basis,
    previous: Sequence[Sequence[Tensor] | None],
    seeds: Sequence[int],
) -> list[tuple[Tensor, ...]]:
    """Return the new bases of every gradient, in the order of `geometry.basis_shapes`, float32.

    Args:
        gradients: Each (.., m, n); what is not finite in them counts as zero.
        geometry: Of all of them.
        how: See `Basis`.
        previous: The bases so far of each, or None; signs of estimated bases follow them.
        seeds: One for each.
    """
    most = num_stacked(gradients[0].numel(), how, len(gradients))
    if 1 < most < len(gradients):
        cuts = [slice(first, first + most) for first in range(0, len(gradients), most)]
        return [bases for cut in cuts for bases in find_bases(gradients[cut], geometry, how, previous[cut], seeds[cut])]
    sides: tuple[Literal["left", "right"], ...] = ("left", "right") if geometry.side == "both" else (geometry.side,)
    stacked = most > 1
    found = []
    for place, side in enumerate(sides):
        earlier = [None if bases is None else bases[place] for bases in previous]
        if stacked and (how != "warm" or all(basis is not None for basis in earlier)):
            before = torch.stack(earlier) if how == "warm" else None  # type: ignore[arg-type]  # none is None
            fresh = leading_basis(
                torch.stack(tuple(gradients)), geometry.rank, how=how, previous=before, seed=seeds[0], side=side
            )
            bases = list(fresh.unbind(0))
        else:
            bases = [
                leading_basis(gradient, geometry.rank, how=how, previous=basis, seed=seed, side=side)
                for gradient, basis, seed in zip(gradients, earlier, seeds, strict=True)
            ]
        if how not in ("svd", "random"):
            bases = [
                basis if old is None else align_signs(basis, old) for basis, old in zip(bases, earlier, strict=True)
            ]
        found.append([basis.contiguous().clone() if basis._is_view() else basis.contiguous() for basis in bases])
    return [tuple(side_bases[index] for side_bases in found) for index in range(len(gradients))]

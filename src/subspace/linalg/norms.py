"""Euclidean norms in float32, whatever the type of the numbers."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["wide_norm"]


def wide_norm(values: Tensor, dim: int | tuple[int, ...] | None = None, *, keepdim: bool = False) -> Tensor:
    """Return sqrt(sum x^2), float32, summed in float32 or wider without a wide copy of `values`.

    Args:
        values: Any float type.
        dim: Dimensions to sum over; None: all, for a 0-dim result.
        keepdim: Keep them with size 1.

    >>> wide_norm(torch.tensor([3.0, 4.0], dtype=torch.float64))
    tensor(5.)
    """
    # torch refuses to sum in a type narrower than that of the values
    summed = torch.promote_types(values.dtype, torch.float32)
    norm: Tensor = torch.linalg.vector_norm(values, dim=dim, keepdim=keepdim, dtype=summed)
    return norm.float()

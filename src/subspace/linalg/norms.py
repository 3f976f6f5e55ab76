"""Euclidean norms in float32, whatever the type of the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["wide_norm", "wide_norms"]

_WIDENED_ELEMENTS = 2**22


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
    if values.device.type == "cpu" and values.dtype != summed and values.numel() > _WIDENED_ELEMENTS:
        return _in_slices(values, dim, keepdim)
    norm: Tensor = torch.linalg.vector_norm(values, dim=dim, keepdim=keepdim, dtype=summed)
    return norm.float()


def wide_norms(values: Sequence[Tensor]) -> list[Tensor]:
    """Return `wide_norm` of tensors of one device and type, 0-dim each; few launches where they cost."""
    if values[0].device.type == "cpu":
        return [wide_norm(value) for value in values]
    summed = torch.promote_types(values[0].dtype, torch.float32)
    return [norm.float() for norm in torch._foreach_norm(list(values), 2, dtype=summed)]


def _in_slices(values: Tensor, dim: int | tuple[int, ...] | None, keepdim: bool) -> Tensor:
    """Return the norm slice by slice of the first dimension: on a CPU torch widens whole what it sums."""
    dims = range(values.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    over_slices = any(each % values.ndim == 0 for each in dims)
    step = max(1, _WIDENED_ELEMENTS * values.shape[0] // values.numel())
    parts = [
        torch.linalg.vector_norm(part, dim=tuple(dims), keepdim=True, dtype=torch.float32)
        for part in torch.split(values, step)
    ]
    norm = torch.cat(parts)
    if over_slices:
        norm = torch.linalg.vector_norm(norm, dim=0, keepdim=True)
    return norm if keepdim else norm.squeeze(tuple(dims))

"""The projection itself: matrix products into and out of a subspace, into given buffers.

m rows, n columns, r rank; any leading dimensions are a stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Projector"]


@dataclass(frozen=True)
class Projector:
    """An immutable pair of a side and its basis, or bases; it remembers its side.

    Attributes:
        side: `left`, `right` or `both`.
        left: Orthonormal columns (.., m, r), for `left` and `both`.
        right: Orthonormal columns (.., n, r), for `right` and `both`.

    References: Zhao et al. 2024, arXiv 2403.03507, eq. 3 and 6.
    """

    side: Literal["left", "right", "both"]
    left: Tensor | None = None
    right: Tensor | None = None

    @classmethod
    def of(cls, side: Literal["left", "right", "both"], basis: Tensor, basis_right: Tensor | None = None) -> Projector:
        """Return the projector of state tensors: `basis` is the right one for side `right`, else the left one."""
        return cls(side, right=basis) if side == "right" else cls(side, basis, basis_right)

    def to(self, like: Tensor) -> Projector:
        """Return the projector in the type and on the device of `like`."""
        left, right = (None if basis is None else basis.to(like) for basis in (self.left, self.right))
        return Projector(self.side, left, right)

    def project(self, gradient: Tensor, out: Tensor | None = None) -> Tensor:
        """Return P^T G, G Q or P^T G Q.

        Args:
            gradient: (.., m, n), of the bases' type.
            out: Receives the result if given.
        """
        if self.side == "left":
            assert self.left is not None
            return _product(self.left.mT, gradient, out)
        assert self.right is not None
        if self.side == "right":
            return _product(gradient, self.right, out)
        assert self.left is not None
        return _product(_product(self.left.mT, gradient, None), self.right, out)

    def lift(self, low: Tensor) -> Tensor:
        """Return P R, R Q^T or P R Q^T, of shape (.., m, n)."""
        first, second = self._factors(low)
        return first @ second

    def add_lifted(
        self, weight: Tensor, low: Tensor, *, beta: float = 1.0, alpha: float = 1.0, rows: slice | None = None
    ) -> Tensor:
        """Do weight <- beta * weight + alpha * lift(low) in place, in one pass over the weight.

        Args:
            weight: (.., m, n), or some of its rows; factors are taken in its type.
            low: (.., low-rank shape).
            rows: `weight` is these rows of the whole one.
        """
        first, second = self._factors(low, weight.dtype)
        if rows is not None:
            first = first[..., rows, :]
        if not first.dtype == second.dtype == weight.dtype:
            first, second = first.to(weight.dtype), second.to(weight.dtype)
        if weight.ndim == 2:
            return weight.addmm_(first, second, beta=beta, alpha=alpha)
        return weight.baddbmm_(first, second, beta=beta, alpha=alpha)

    def _factors(self, low: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Return two factors of the lifted matrix; `dtype` is that in which a product of two of three is taken."""
        if self.side == "left":
            assert self.left is not None
            return self.left, low
        assert self.right is not None
        if self.side == "right":
            return low, self.right.mT
        assert self.left is not None
        dtype = dtype or low.dtype
        return self.left.to(dtype) @ low.to(dtype), self.right.mT


def _product(first: Tensor, second: Tensor, out: Tensor | None) -> Tensor:
    if out is None:
        return first @ second
    multiply = torch.mm if out.ndim == 2 else torch.bmm
    return multiply(first, second, out=out)

"""Where the basis of a weight lives, and the shapes that follow. Imports no torch.

m rows (out_features), n columns (in_features), r rank, e matrices in a stack (experts); gradient G (e, m, n):

    left   basis P (e, m, r), low-rank gradient R = P^T G    (e, r, n), lifted P R
    right  basis Q (e, n, r), low-rank gradient R = G Q      (e, m, r), lifted R Q^T
    both   both bases,        low-rank gradient R = P^T G Q  (e, r, r), lifted P R Q^T
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from subspace.core.errors import ConfigError

__all__ = ["SIDES", "Basis", "Geometry", "Side", "geometry_of", "resolve_side"]

Side = Literal["shorter", "longer", "left", "right", "both"]
"""`shorter` puts the basis into the shorter dimension (GaLore's std; right where m = n), `longer` into the other."""
SIDES: tuple[Side, ...] = get_args(Side)
Basis = Literal["svd", "gram", "randomized", "warm", "random"]
"""How a basis is found: exact from the whole gradient or its Gram matrix; estimated by a sketch, or from the last
basis; or drawn, whatever the gradient."""


def resolve_side(side: Side, m: int, n: int) -> Literal["left", "right", "both"]:
    """Return the side of an (m, n) matrix.

    >>> resolve_side("shorter", 8, 4), resolve_side("shorter", 4, 8), resolve_side("longer", 4, 8)
    ('right', 'left', 'right')
    """
    if side == "shorter":
        return "right" if m >= n else "left"
    if side == "longer":
        return "left" if m >= n else "right"
    return side


@dataclass(frozen=True)
class Geometry:
    """A weight seen as a stack of matrices, and the subspace its gradient is projected into."""

    num_matrices: int
    m: int
    n: int
    side: Literal["left", "right", "both"]
    rank: int

    @cached_property
    def stack(self) -> tuple[int, ...]:
        """Leading dimensions: () for one matrix."""
        return () if self.num_matrices == 1 else (self.num_matrices,)

    @cached_property
    def matrix_shape(self) -> tuple[int, ...]:
        return (*self.stack, self.m, self.n)

    @cached_property
    def low_shape(self) -> tuple[int, ...]:
        """Shape of the low-rank gradient and of the moments."""
        rows = self.m if self.side == "right" else self.rank
        columns = self.n if self.side == "left" else self.rank
        return (*self.stack, rows, columns)

    @property
    def basis_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by state key: `basis`, and for both sides `basis_right` too."""
        left, right = (*self.stack, self.m, self.rank), (*self.stack, self.n, self.rank)
        return {"both": {"basis": left, "basis_right": right}, "left": {"basis": left}, "right": {"basis": right}}[
            self.side
        ]


def geometry_of(shape: tuple[int, ...], rank: int, side: Side) -> Geometry | None:
    """Return how a weight of `shape` is projected; None for vectors and scalars, which are not.

    Three dimensions are a stack of matrices (fused experts); four and more are a convolution, flattened to
    (out, in * kernel).

    Raises:
        ConfigError: E-CFG-016 if `rank` is below 1.

    >>> geometry_of((8, 4), 2, "shorter").low_shape
    (8, 2)
    """
    if rank < 1:
        raise ConfigError("E-CFG-016", where="rank", found=str(rank), expected="1 or more")
    if len(shape) < 2:
        return None
    num_matrices = shape[0] if len(shape) == 3 else 1
    m, n = shape[-2:] if len(shape) <= 3 else (shape[0], math.prod(shape[1:]))
    if min(num_matrices, m, n) < 1:
        return None
    return Geometry(num_matrices, m, n, resolve_side(side, m, n), min(rank, m, n))

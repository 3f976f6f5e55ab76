"""How much memory an optimizer's step passes through beside gradients and state, from shapes alone. Imports no torch.

Upper bounds for every device, in numbers of float32. N elements of a weight, L of its low-rank gradient, D rows of a
basis and n' its other dimension, k = min(m, n), q columns of a sketch:

    refresh     svd N + (m + n) (k + r) ;  gram 2 k^2 + 4 D r ;  randomized, warm n' q + 8 D q, and 2 k^2 where k is
                small ;  random 5 D r; a narrow gradient is widened beside it in slices of 2^24
    projection  L, and L in the gradient's type
    directions  L where low-rank gradients must stay, else a piece; 7 pieces for moments of 8 or 4 bits
    lifting     rows of 2^22 numbers of a narrow or coded weight, or L in its type
    together    where launches cost, k like weights: their bases and k L once more, in their type too if that is narrow;
                beside them stacks of small gradients and weights, of 2^24 numbers at the most

What libraries take inside a call is in no figure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.optim.pieces import LARGEST_PIECE, PART_ELEMENTS
from subspace.optim.settings import ProjectionSettings
from subspace.plan.shapes import TensorSpec
from subspace.projection.geometry import Geometry

if TYPE_CHECKING:
    from subspace.optim.settings import OptimizerSettings

__all__ = [
    "adam_bytes",
    "adamw_step_bytes",
    "basis_bytes",
    "lifting_bytes",
    "moment_pieces",
    "refresh_bytes",
    "together_bytes",
]

_WIDE = 4
"""Bytes of a float32."""
_CODING_PIECES = 7
"""Two moments, widened, and what coding one of them takes."""
_WIDENED_ELEMENTS = 2**24
_DRAWING = 5
"""Bytes over those of a drawn basis, as its random numbers come into being."""


def refresh_bytes(geometry: Geometry, settings: ProjectionSettings, itemsize: int, count: int = 1) -> int:
    """Return what finding the bases of like weights together takes.

    Args:
        geometry: Of the weight.
        settings: How a basis is found, and what becomes of the moments.
        itemsize: Bytes of a number of its gradient.
        count: How many are stacked.
    """
    count *= geometry.num_matrices
    m, n, rank, how = geometry.m, geometry.n, geometry.rank, settings.basis
    small, large, found = min(m, n), max(m, n), 0
    for rows in {"left": (m,), "right": (n,), "both": (m, n)}[geometry.side]:
        columns = min(rank + max(8, rank // 8), small)
        formed = large >= 2 * small and small <= 8 * columns  # G G^T itself
        numbers = {
            "svd": m * n + (m + n) * (small + rank),
            "gram": 2 * small**2 + 4 * rows * rank,
            "random": 5 * rows * rank,
        }.get(how, (m + n + 7 * rows) * columns + 2 * formed * small**2)
        numbers *= count
        if itemsize < _WIDE and how not in ("svd", "random"):
            numbers += (2 if how == "gram" else 1 + formed) * min(count * m * n, _WIDENED_ELEMENTS)
        found = max(found, numbers)
    if settings.moments == "transport":
        found = max(found, 6 * math.prod(geometry.low_shape))
    stack = itemsize * count * m * n if count > geometry.num_matrices else 0
    return stack + _WIDE * found


def basis_bytes(geometry: Geometry, settings: ProjectionSettings, *, drawn: bool) -> int:
    """Return what holding the bases of one weight in float32 takes where the state holds codes or a seed."""
    numbers = sum(map(math.prod, geometry.basis_shapes.values()))
    if drawn:
        return _WIDE * _DRAWING * numbers
    return 0 if settings.basis_bits == 32 else 3 * _WIDE * numbers


def together_bytes(geometry: Geometry, settings: ProjectionSettings, itemsize: int, count: int, *, drawn: bool) -> int:
    """Return what projecting `count` weights together takes, stacks of gradients and weights aside."""
    numbers = sum(map(math.prod, geometry.basis_shapes.values()))
    narrow = itemsize if itemsize < _WIDE else 0
    bases = basis_bytes(geometry, settings, drawn=drawn) + (_WIDE + narrow) * numbers
    return count * (bases + (_WIDE + narrow) * math.prod(geometry.low_shape))


def moment_pieces(num_elements: int, narrow: bool) -> int:
    """Return what widening and coding moments of so many numbers takes."""
    return _WIDE * _CODING_PIECES * min(num_elements, LARGEST_PIECE) if narrow else 0


def lifting_bytes(geometry: Geometry, itemsize: int) -> int:
    """Return what lifting a direction into one weight takes, whose numbers have so many bytes."""
    if itemsize >= _WIDE:
        return 0
    rows = _WIDE * min(math.prod(geometry.matrix_shape), PART_ELEMENTS)
    return max(rows, itemsize * math.prod(geometry.low_shape))


def adam_bytes(num_elements: int, narrow: bool, itemsize: int) -> int:
    """Return what AdamW of one weight that is not projected takes."""
    copies = 0 if itemsize >= _WIDE else 2 * _WIDE * min(num_elements, LARGEST_PIECE)
    return copies + moment_pieces(num_elements, narrow)


def adamw_step_bytes(trained: tuple[TensorSpec, ...], settings: OptimizerSettings) -> int:
    """Return what a step of `build_adamw`'s optimizer takes.

    >>> from subspace.optim.settings import OptimizerSettings
    >>> adamw_step_bytes((TensorSpec("w", (4, 2), "bfloat16"),), OptimizerSettings())
    64
    """
    if settings.name != "adamw" or all(tensor.dtype == "float32" for tensor in trained):
        return 0
    sizes = (adam_bytes(tensor.num_elements, False, tensor.num_bytes // tensor.num_elements) for tensor in trained)
    return max(sizes, default=0)

"""Large tensors piece by piece, so that what an update passes through stays small beside them.

Adam is elementwise, and so are codes but for their blocks: a piece begins where a block does. On a CPU a piece also
stays in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["LARGEST_PIECE", "PART_ELEMENTS", "aligned_rows", "piece_elements", "pieces", "row_slices"]

_PIECE_ELEMENTS = {"cpu": 2**18}
LARGEST_PIECE = 2**21
"""Of other devices, where launches cost more."""
PART_ELEMENTS = 2**22
"""Of the rows of a weight into which a product is added at once, about."""
_ALIGNMENT = 256
"""Numbers of a block of codes, or several whole ones."""


def piece_elements(device: torch.device) -> int:
    """Return how many numbers are handled at once."""
    return _PIECE_ELEMENTS.get(device.type, LARGEST_PIECE)


def pieces(num_elements: int, device: torch.device) -> Iterator[slice]:
    """Yield consecutive parts of so many numbers."""
    step = piece_elements(device)
    return (slice(first, min(first + step, num_elements)) for first in range(0, num_elements, step))


def aligned_rows(columns: int, num_elements: int) -> int:
    """Return how many rows have about so many elements and end where a block of codes does.

    >>> aligned_rows(896, 2**18), aligned_rows(401, 2**10)
    (292, 256)
    """
    unit = _ALIGNMENT // math.gcd(_ALIGNMENT, columns)
    return max(unit, num_elements // columns // unit * unit)


def row_slices(count: int, step: int) -> Iterator[slice]:
    """Yield consecutive parts of so many rows."""
    return (slice(first, min(first + step, count)) for first in range(0, count, step))

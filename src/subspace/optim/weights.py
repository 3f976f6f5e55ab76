"""Writing an update into a weight, however the weight is stored.

A weight is a float tensor, or a handle whose `stored` holds integer codes (`read()` gives floats, `write(values,
seed=...)` rounds them back).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["parts", "writable"]

_PART_ELEMENTS = 2**22
"""A stored weight is widened in rows of about this many numbers, never whole."""


@contextmanager
def writable(parameter: Tensor, shape: tuple[int, ...], seed: int, *, wide: bool = False) -> Iterator[Tensor]:
    """Give the weight as a tensor of `shape` to be changed in place, and store what became of it.

    Args:
        parameter: The weight.
        shape: A view of it, e.g. (m, n) of a convolution.
        seed: Of stochastic rounding, where the storage rounds.
        wide: Give float32 whatever the weight's type; else its own type.
    """
    stored = getattr(parameter, "stored", None)
    if stored is not None:
        value = stored.read().float()
        yield value.view(shape)
        stored.write(value, seed=seed)
        return
    own = not wide or parameter.dtype == torch.float32
    if own and parameter.is_contiguous():
        yield parameter.detach().view(shape)
        return
    value = parameter.detach().to(parameter.dtype if own else torch.float32, memory_format=torch.contiguous_format)
    value = value.contiguous()
    yield value.view(shape)
    parameter.detach().copy_(value.view(parameter.shape))


def parts(parameter: Tensor, shape: tuple[int, ...], seed: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, values) of a weight in turn, each to be changed in place; a float weight comes whole, in its type.

    Args:
        parameter: The weight.
        shape: A view of it, e.g. (m, n) of a convolution; rows are those of its last but one dimension.
        seed: Of stochastic rounding, where the storage rounds.
    """
    stored = getattr(parameter, "stored", None)
    if stored is None:
        with writable(parameter, shape, seed) as weight:
            yield slice(None), weight
        return
    step = max(1, _PART_ELEMENTS // shape[-1])
    for first in range(0, shape[-2], step):
        rows = slice(first, min(first + step, shape[-2]))
        values = stored.read(rows=rows)
        yield rows, values
        stored.write(values, seed=seed, rows=rows)

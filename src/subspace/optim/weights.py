"""Writing an update into a weight, however the weight is stored.

A weight is a float tensor, or a handle whose `stored` holds integer codes (`read()` gives floats, `write(values,
seed=...)` rounds them back).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from subspace.optim.pieces import PART_ELEMENTS, aligned_rows, piece_elements, pieces, row_slices

__all__ = ["add_scaled", "parts", "rows_of", "wide_pieces", "writable"]


def add_scaled(weight: Tensor, gradient: Tensor, factor: Tensor, *, alpha: float, beta: float = 1.0) -> None:
    """Do weight <- beta * weight + alpha * gradient * factor, rounded once.

    Args:
        weight: (.., m, n), or some of its rows.
        gradient: Of that shape.
        factor: One for a row, a column or a matrix.
        alpha: On the gradient.
        beta: On the weight.
    """
    gradient, factor = (
        value if value.dtype == weight.dtype else value.to(weight.dtype) for value in (gradient, factor)
    )
    if beta == 1.0 or weight.dtype == torch.float32:
        if beta != 1.0:
            weight.mul_(beta)
        weight.addcmul_(gradient, factor, value=alpha)
        return
    # a decay of less than half a unit in the last place would be lost if the weight were multiplied by itself
    weight.add_((gradient * factor).mul_(alpha).add_(weight, alpha=beta - 1.0))


def rows_of(factor: Tensor, rows: slice) -> Tensor:
    """Return the factors that belong to these rows of a matrix, of one a row, a column or a matrix."""
    return factor[..., rows, :] if factor.shape[-2] > 1 else factor


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
    """Yield (rows, values) of a weight in turn, each to be changed in place, in the weight's type or float32.

    Codes are widened in parts. A float weight comes whole, unless it is large and of a narrow type on a CPU, whose
    products keep their result in float32 for a while.

    Args:
        parameter: The weight.
        shape: A view of it, e.g. (m, n) of a convolution; rows are those of its last but one dimension.
        seed: Of stochastic rounding, where the storage rounds.
    """
    stored = getattr(parameter, "stored", None)
    if stored is None:
        with writable(parameter, shape, seed) as weight:
            if weight.device.type != "cpu" or weight.dtype.itemsize >= 4 or len(shape) > 2:
                yield slice(None), weight
                return
            for rows in row_slices(shape[0], aligned_rows(shape[1], PART_ELEMENTS)):
                yield rows, weight[rows]
        return
    step = max(1, PART_ELEMENTS // shape[-1])
    buffer = torch.empty((min(step, shape[-2]), shape[-1]), device=parameter.device)
    for rows in row_slices(shape[-2], step):
        values = stored.read(buffer[: rows.stop - rows.start], rows=rows)
        yield rows, values
        stored.write(values, seed=seed, rows=rows)


def wide_pieces(parameter: Tensor, seed: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield (elements, values) of a weight in turn: a few numbers, flat and float32, each to be changed in place.

    Args:
        parameter: The weight.
        seed: Of stochastic rounding, where the storage rounds.
    """
    stored = getattr(parameter, "stored", None)
    if stored is not None:
        count, columns = parameter.shape
        step = aligned_rows(columns, piece_elements(parameter.device))
        buffer = torch.empty((min(step, count), columns), device=parameter.device)
        for rows in row_slices(count, step):
            values = stored.read(buffer[: rows.stop - rows.start], rows=rows)
            yield slice(rows.start * columns, rows.stop * columns), values.view(-1)
            stored.write(values, seed=seed, rows=rows)
        return
    whole = tuple(parameter.shape)
    with writable(parameter, whole, seed, wide=not parameter.is_contiguous()) as weight:
        flat = weight.view(-1)
        wide = flat.dtype == torch.float32
        buffer = torch.empty(0 if wide else min(flat.numel(), piece_elements(flat.device)), device=flat.device)
        for part in pieces(flat.numel(), flat.device):
            if wide:
                yield part, flat[part]
            else:
                values = buffer[: part.stop - part.start].copy_(flat[part])
                yield part, values
                flat[part].copy_(values)

"""A trained weight held as int8 codes, rounded stochastically when it is written.

    w = s q,   q in -127 .. 127,   s >= max|w| / 127 over a group of at most 256 neighbours in a row

    write:   q = k + floor(w / s - k + u),   k = round(w / s),   u uniform in [0, 1)   =>   E[s q] = w

so that an update of a hundredth of a code moves the weight in one write of a hundred; rounded to nearest it would
never move. The scale is a bfloat16 number, so that s q is exact in float32, and a value that was not changed keeps its
code. The scale of a group is kept while the values still fill its range: a new one rounds the whole group anew.

The noise u is a hash of (seed, place in the weight): the same on every device, and no generator has a state.

m rows, n columns, g groups of a row. References: Zhang et al. 2024 (Q-GaLore), arXiv 2407.08296; Gupta et al. 2015,
arXiv 1502.02551. Differs from Q-GaLore: the range is symmetric, because its zero point, clamped to the codes, saturates
groups whose values have one sign; and the scales are buffers, which follow the codes into checkpoints and devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from subspace.core.seeding import derive_seed

__all__ = ["Int8Weight", "WeightHandle", "dequantized", "num_groups", "rounding_bytes"]

_GROUP = 256
_TOP = 127
_MIN_FILLED = 0.9
"""A scale is renewed when the largest value of its group has shrunk below this share of the range."""
_BLOCK_ELEMENTS = {"cpu": 1 << 16}
_OTHER_BLOCK_ELEMENTS = 1 << 22
"""Elements rounded at once: few enough for a cache, many enough for a GPU. The result does not depend on them."""


def num_groups(columns: int) -> int:
    """Return g = ceil(n / 256): the groups of a row are equally wide, the last one perhaps narrower.

    >>> [num_groups(columns) for columns in (64, 256, 896)]
    [1, 1, 4]
    """
    return -(-columns // _GROUP)


def rounding_bytes(num_elements: int) -> int:
    """Return what a write passes through beside its values, at the most on any device: six float32 numbers for each."""
    return 6 * 4 * min(num_elements, _OTHER_BLOCK_ELEMENTS)


def dequantized(codes: Tensor, scales: Tensor, dtype: torch.dtype, out: Tensor | None = None) -> Tensor:
    """Return s q as `dtype`: exact in float32, else that rounded.

    Args:
        codes: (m, n) int8.
        scales: (m, g) bfloat16.
        dtype: Type of the result.
        out: Receives it, contiguous, instead of a new tensor.
    """
    rows, columns = codes.shape
    groups = scales.shape[1]
    width = -(-columns // groups)
    if out is None:
        out = torch.empty((rows, columns), dtype=dtype, device=codes.device)
    # float16 has too narrow a range for the scales; torch then multiplies in float32
    factors = scales.to(torch.float32 if dtype == torch.float16 else dtype)
    out.copy_(codes)
    if width * groups == columns:
        out.view(rows, groups, width).mul_(factors[..., None])
    else:
        out.mul_(factors.repeat_interleave(width, dim=1)[:, :columns])
    return out


class Int8Weight(nn.Module):
    """One weight as codes and scales.

    Attributes:
        codes: (m, n) int8.
        scales: (m, g) bfloat16, whatever type the model is cast to.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    @classmethod
    @torch.no_grad()
    def nearest(cls, weight: Tensor) -> Int8Weight:
        """Return `weight`, (m, n), rounded to nearest; on the meta device, the shapes alone."""
        rows, columns = weight.shape
        codes = torch.empty((rows, columns), dtype=torch.int8, device=weight.device)
        stored = cls(codes, torch.zeros((rows, num_groups(columns)), dtype=torch.bfloat16, device=weight.device))
        if not weight.is_meta:
            for part in stored._blocks(slice(0, rows)):
                stored._round(part, weight[part].float(), None)
        return stored

    def read(
        self, out: Tensor | None = None, *, dtype: torch.dtype = torch.float32, rows: slice | None = None
    ) -> Tensor:
        """Return the weight, (m, n), or some of its rows.

        Args:
            out: Receives it, contiguous; its type is the result's.
            dtype: Type of a new tensor; float32 is exact.
            rows: Consecutive rows to read; all if None.
        """
        part = slice(None) if rows is None else rows
        return dequantized(self.codes[part], self.scales[part], dtype if out is None else out.dtype, out)

    @torch.no_grad()
    def write(self, values: Tensor, *, seed: int, rows: slice | None = None) -> None:
        """Round `values` into the codes, in place, stochastically.

        Written in parts or at once, on this device or another, the result is the same.

        Args:
            values: (m, n), or as many rows as `rows` says; left as they are.
            seed: Another one for every step and every weight.
            rows: Consecutive rows to write; all if None.
        """
        key = derive_seed(seed, "int8")
        whole = slice(*(rows or slice(None)).indices(self.codes.shape[0])[:2])
        for part in self._blocks(whole):
            self._round(part, values[part.start - whole.start : part.stop - whole.start].float(), key)

    @torch.no_grad()
    def move(self, direction: Tensor, *, rate: float, decay: float = 0.0, seed: int) -> None:
        """Do W <- W - rate (direction + decay W) without a float copy of the whole weight.

        Args:
            direction: (m, n), any float type.
            rate: Learning rate.
            decay: Decoupled weight decay.
            seed: As for `write`.
        """
        for part in self._blocks(slice(0, self.codes.shape[0])):
            values = self.read(rows=part).mul_(1 - rate * decay).sub_(direction[part], alpha=rate)
            self.write(values, seed=seed, rows=part)

    def _blocks(self, rows: slice) -> Iterator[slice]:
        limit = _BLOCK_ELEMENTS.get(self.codes.device.type, _OTHER_BLOCK_ELEMENTS)
        step = max(1, limit // self.codes.shape[1])
        for first in range(rows.start, rows.stop, step):
            yield slice(first, min(first + step, rows.stop))

    def _round(self, part: slice, values: Tensor, key: int | None) -> None:
        """Round float32 `values` into rows `part`; to nearest if there is no key."""
        count, columns = values.shape
        groups = self.scales.shape[1]
        padded = -(-columns // groups) * groups
        grouped = nn.functional.pad(values, (0, padded - columns)).view(count, groups, -1)
        scale = _renewed(self.scales[part].float(), grouped.abs().amax(-1))
        self.scales[part] = scale.to(torch.bfloat16)
        # An empty group has nothing but zeros, which any scale but zero can divide.
        scale = torch.where(scale == 0, 1.0, scale)[..., None]
        quotient = grouped / scale
        nearest = quotient.round()
        if key is not None:
            rest = quotient.sub_(nearest).view(count, padded)[:, :columns]  # 0 where `read` gave the value
            noise = _uniform(key, part.start * columns, count * columns, values.device).view(count, columns)
            nearest.view(count, padded)[:, :columns] += rest.add_(noise).floor_()
        self.codes[part] = nearest.clamp_(-_TOP, _TOP).view(count, padded)[:, :columns]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Weight:
        exact = self.scales
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.scales.dtype != torch.bfloat16:
            self.scales = exact.to(self.scales.device)
        return self


class WeightHandle(nn.Parameter):
    """Stands for a stored weight wherever a parameter is expected: shape, type, gradient, hooks, place in an optimizer.

    It holds one number, NaN, seen (m, n) times: what reads it instead of `stored` is found out at once, and nothing
    can be written into it.

    Attributes:
        stored: The weight.
    """

    stored: Int8Weight

    def __new__(
        cls, shape: torch.Size, dtype: torch.dtype, stored: Int8Weight, requires_grad: bool = True
    ) -> WeightHandle:
        one = torch.full((1,), torch.nan, dtype=dtype, device=stored.codes.device)
        handle: WeightHandle = torch.Tensor._make_subclass(cls, one.expand(shape), requires_grad)
        handle.stored = stored
        return handle

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: all is done when it is made."""

    def convert(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move or cast it in place, as modules do with their parameters; a plain `to` would fill the whole shape."""
        one = fn(self.data.as_strided((1,), (1,)))
        self.data = one.expand(self.shape)
        if self.grad is not None:
            self.grad = fn(self.grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightHandle:
        import copy

        if id(self) not in memo:
            stored = copy.deepcopy(self.stored, memo)
            memo[id(self)] = WeightHandle(self.shape, self.dtype, stored, self.requires_grad)
            if self.grad is not None:
                memo[id(self)].grad = self.grad.clone()
        copied: WeightHandle = memo[id(self)]
        return copied


def _renewed(old: Tensor, largest: Tensor) -> Tensor:
    """Return the scales of groups, (m, g), whose largest magnitudes are given: bfloat16 numbers, held in float32."""
    range_of_old = old * _TOP
    fits = (largest <= range_of_old) & (largest >= range_of_old * _MIN_FILLED)
    # up to the next number whose 16 low bits are zero, so that the largest value stays within the codes
    new = (largest / _TOP).view(torch.int32).add(0xFFFF).bitwise_and(~0xFFFF).view(torch.float32)
    return torch.where(fits, old, new)


def _uniform(key: int, first: int, count: int, device: torch.device) -> Tensor:
    """Return float32 numbers in [0, 1) for the places `first` to `first + count`: 24 bits of a hash of place and key.

    The hash is a 32-bit finalizer (xor, shift, multiply) with half of the key before and half inside it. Places count
    modulo 2^32.
    """
    x = torch.arange(count, dtype=torch.int32, device=device)
    x = x.add_(_signed(first)).bitwise_xor_(_signed(key))
    x = _folded(x, 16).mul_(_signed(0x7FEB352D)).bitwise_xor_(_signed(key >> 32))
    x = _folded(x, 15).mul_(_signed(0x846CA68B))
    x = _folded(x, 16)
    return (x >> 8).bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


def _folded(x: Tensor, bits: int) -> Tensor:
    """Return x ^ (x >>> bits); torch's shift keeps the sign, so what it drags in is masked."""
    return x.bitwise_xor_((x >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def _signed(value: int) -> int:
    """Return the 32 low bits as the int32 that has them."""
    return (value + 2**31) % 2**32 - 2**31

"""Block-wise codes of optimizer moments: 8 or 4 bits per number, one float32 scale per block.

    signed (first moment):     x = scale * sign(q) * (|q| / L)^p      L = 127, p = 2 at 8 bits;  L = 7,  p = 3 at 4 bits
    unsigned (second moment):  x = scale * (q / L)^p                  L = 255, p = 4 at 8 bits;  L = 15, p = 8 at 4 bits

scale is the largest magnitude of the block (256 numbers at 8 bits, 32 at 4). The power spends the levels where the
relative error matters: m / sqrt(v) sees the ratio of v, not its difference. Code 0 means exactly 0, and of unsigned
values only 0 gets it (Li et al.): a second moment that rounds to 0 would make the step explode. The curve is
arithmetic, not a table, so that a code costs a few elementwise passes on any device.

References: Dettmers et al. 2021, arXiv 2110.02861 (block-wise 8-bit states); Li et al. 2023, arXiv 2309.01507 (4-bit
states, zero excluded).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

__all__ = ["block_size", "code_sizes", "decode", "encode"]

_BLOCK = {8: 256, 4: 32}
_LEVELS = {(8, True): 127, (8, False): 255, (4, True): 7, (4, False): 15}
_POWER = {(8, True): 2, (8, False): 4, (4, True): 3, (4, False): 8}
_SMALLEST_SCALE = 2.0**-93
"""Scale of blocks that are smaller still: the least positive code, scale / L^p, stays a normal float32."""


def block_size(bits: int) -> int:
    """Return how many numbers share a scale.

    Raises:
        ValueError: If `bits` is neither 8 nor 4.
    """
    if bits not in _BLOCK:
        raise ValueError(f"codes of {bits} bits; 8 and 4 are known")
    return _BLOCK[bits]


def code_sizes(num_elements: int, bits: int) -> tuple[int, int]:
    """Return (number of uint8 codes, number of float32 scales) of a tensor of `num_elements`.

    >>> code_sizes(1000, 8), code_sizes(1001, 4)
    ((1000, 4), (501, 32))
    """
    block = block_size(bits)
    return (num_elements if bits == 8 else -(-num_elements // 2)), -(-num_elements // block)


def encode(values: Tensor, bits: int, *, signed: bool, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (codes, scales) of `values`.

    Args:
        values: Any shape, any float type; not negative where `signed` is False. A block with a number that is not
            finite gets a scale that is not finite, so that the fault stays visible after `decode`.
        bits: 8 (one code per byte) or 4 (byte i holds numbers i and i + ceil(N / 2) of N).
        signed: Which of the two curves.
        noise: Uniform in [0, 1), as many numbers as `values`: rounds up or down at random so that the mean of
            `decode` is the value. Without it the nearest code in the curve's coordinate is taken; a slow average,
            whose change per step is under half a code, then stands still.

    Returns:
        codes: uint8, flat, `code_sizes` many; 0 where the value is 0.
        scales: float32, one per block.

    >>> codes, scales = encode(torch.tensor([1.0, -0.25, 0.0]), 8, signed=True)
    >>> codes.view(torch.int8).tolist(), scales.tolist()
    ([127, -64, 0], [1.0])
    """
    block, levels, power = block_size(bits), _LEVELS[bits, signed], _POWER[bits, signed]
    flat = values.detach().reshape(-1).to(torch.float32)
    magnitude = flat.abs()
    scales = _block_maxima(magnitude, block).clamp_min_(_SMALLEST_SCALE)
    # q = (|x| L^p / scale)^(1/p); L^p goes into the scale, which saves a pass
    _each_block(magnitude, scales / float(levels**power), block, Tensor.div_)
    codes = _root(magnitude, power)
    codes = codes.round_() if noise is None else _rounded_at_random(codes, noise.reshape(-1), power, levels)
    if signed:
        return _pack(codes.copysign_(flat).to(torch.int8).view(torch.uint8), bits), scales
    return _pack(torch.maximum(codes, flat.sign(), out=codes).to(torch.uint8), bits), scales


def decode(
    codes: Tensor, scales: Tensor, shape: Sequence[int], bits: int, *, signed: bool, out: Tensor | None = None
) -> Tensor:
    """Return the float32 values that `codes` and `scales` of `encode` stand for.

    Args:
        codes: uint8, flat.
        scales: float32, one per block.
        shape: Shape of the values.
        bits: As at `encode`.
        signed: As at `encode`.
        out: Contiguous float32 buffer of that many elements to write into, or None for a new tensor.

    Raises:
        ValueError: If the numbers of codes, scales and elements do not belong together.
    """
    num_elements = prod(shape)
    if (codes.numel(), scales.numel()) != code_sizes(num_elements, bits):
        raise ValueError(f"{codes.numel()} codes and {scales.numel()} scales for shape {tuple(shape)} at {bits} bits")
    if out is None:
        out = torch.empty(tuple(shape), dtype=torch.float32, device=codes.device)
    flat = out.view(-1)
    _unpack(codes, flat, bits, signed)
    _power(flat.mul_(1.0 / _LEVELS[bits, signed]), _POWER[bits, signed], signed)
    _each_block(flat, scales, block_size(bits), Tensor.mul_)
    return out.view(tuple(shape))


def _block_maxima(magnitude: Tensor, block: int) -> Tensor:
    whole = magnitude.numel() // block * block
    maxima = magnitude[:whole].view(-1, block).amax(dim=1)
    if whole == magnitude.numel():
        return maxima
    return torch.cat((maxima, magnitude[whole:].amax().view(1)))


def _each_block(flat: Tensor, scales: Tensor, block: int, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Apply `operation` (Tensor.mul_ or Tensor.div_) to every block and its scale; the last one may be shorter."""
    whole = flat.numel() // block * block
    operation(flat[:whole].view(-1, block), scales[: whole // block].unsqueeze(1))
    if whole < flat.numel():
        operation(flat[whole:], scales[-1:])


def _root(values: Tensor, power: int) -> Tensor:
    """Return values^(1/power), in place: square roots where they do, since they cost a fifth of `pow`."""
    if power == 3:
        return values.pow_(1.0 / 3.0)
    while power > 1:
        values.sqrt_()
        power //= 2
    return values


def _power(values: Tensor, power: int, signed: bool) -> Tensor:
    """Return sign(values) |values|^power, in place."""
    if power == 3:
        return values.mul_(values.square())
    if signed:
        return values.mul_(values.abs())
    while power > 1:
        values.square_()
        power //= 2
    return values


def _rounded_at_random(codes: Tensor, noise: Tensor, power: int, levels: int) -> Tensor:
    """Return the level under or over each code, so that the mean of its power is the power of the code."""
    low = codes.floor()
    base = _power(low.clone(), power, False)
    share = (_power(codes, power, False) - base).div_(_power(low + 1.0, power, False).sub_(base))
    return low.add_(share.sub_(noise).ceil_()).clamp_max_(levels)  # ceil of (-1, 1] is noise < share, without a bool


def _pack(codes: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return codes
    half = -(-codes.numel() // 2)
    packed = codes[:half] & 15
    packed[: codes.numel() - half] |= codes[half:] << 4
    return packed


def _unpack(codes: Tensor, flat: Tensor, bits: int, signed: bool) -> None:
    """Write the integer codes into `flat`. Signed ones are two's complement, so an arithmetic shift brings the sign."""
    stored = codes.view(torch.int8) if signed else codes
    if bits == 8:
        flat.copy_(stored)
        return
    half = codes.numel()
    flat[:half].copy_((stored << 4) >> 4)
    flat[half:].copy_((stored >> 4)[: flat.numel() - half])

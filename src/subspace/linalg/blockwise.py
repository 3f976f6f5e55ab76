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

__all__ = ["block_size", "code_sizes", "decode", "decode_part", "encode", "encode_part"]

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
    num_elements = values.numel()
    num_codes, num_scales = code_sizes(num_elements, bits)
    codes = torch.zeros(num_codes, dtype=torch.uint8, device=values.device)
    scales = torch.empty(num_scales, dtype=torch.float32, device=values.device)
    encode_part(values, codes, scales, slice(0, num_elements), num_elements, bits, signed=signed, noise=noise)
    return codes, scales


def encode_part(
    values: Tensor,
    codes: Tensor,
    scales: Tensor,
    part: slice,
    num_elements: int,
    bits: int,
    *,
    signed: bool,
    noise: Tensor | None = None,
) -> None:
    """Write the codes and scales of some consecutive numbers among those of all.

    Args:
        values: The numbers of `part`.
        codes: Of all numbers, as `encode` gives them; codes of other numbers stay.
        scales: Likewise.
        part: Start, the first of a block, and stop, the end of one or of all numbers.
        num_elements: How many numbers there are in all.
        bits: As at `encode`.
        signed: As at `encode`.
        noise: Of `part`.
    """
    block, levels, power = block_size(bits), _LEVELS[bits, signed], _POWER[bits, signed]
    flat = values.detach().reshape(-1).to(torch.float32)
    magnitude = flat.abs()
    own = scales[part.start // block : -(-part.stop // block)]
    own.copy_(_block_maxima(magnitude, block)).clamp_min_(_SMALLEST_SCALE)
    # q = (|x| L^p / scale)^(1/p); L^p goes into the scale, which saves a pass
    _each_block(magnitude, own / float(levels**power), block, Tensor.div_)
    levelled = _root(magnitude, power)
    levelled = levelled.round_() if noise is None else _rounded_at_random(levelled, noise.reshape(-1), power, levels)
    if signed:
        whole = levelled.copysign_(flat).to(torch.int8).view(torch.uint8)
    else:
        whole = torch.maximum(levelled, flat.sign(), out=levelled).to(torch.uint8)
    _pack(whole, codes, part, num_elements, bits)


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
    decode_part(codes, scales, slice(0, num_elements), num_elements, bits, signed=signed, out=out.view(-1))
    return out.view(tuple(shape))


def decode_part(
    codes: Tensor, scales: Tensor, part: slice, num_elements: int, bits: int, *, signed: bool, out: Tensor
) -> Tensor:
    """Write the values of some consecutive numbers into `out`, flat; see `encode_part`."""
    _unpack(codes, out, part, num_elements, bits, signed)
    _power(out.mul_(1.0 / _LEVELS[bits, signed]), _POWER[bits, signed], signed)
    block = block_size(bits)
    _each_block(out, scales[part.start // block : -(-part.stop // block)], block, Tensor.mul_)
    return out


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


def _pack(whole: Tensor, codes: Tensor, part: slice, num_elements: int, bits: int) -> None:
    """Write integer codes of a part, a byte each, to where they belong."""
    if bits == 8:
        codes[part].copy_(whole)
        return
    lower, upper, middle = _halves(part, num_elements)
    codes[lower].bitwise_and_(0xF0).bitwise_or_(whole[:middle] & 15)
    codes[upper].bitwise_and_(0x0F).bitwise_or_(whole[middle:] << 4)


def _unpack(codes: Tensor, flat: Tensor, part: slice, num_elements: int, bits: int, signed: bool) -> None:
    """Write the integer codes into `flat`. Signed ones are two's complement, so an arithmetic shift brings the sign."""
    stored = codes.view(torch.int8) if signed else codes
    if bits == 8:
        flat.copy_(stored[part])
        return
    lower, upper, middle = _halves(part, num_elements)
    flat[:middle].copy_((stored[lower] << 4) >> 4)
    flat[middle:].copy_(stored[upper] >> 4)


def _halves(part: slice, num_elements: int) -> tuple[slice, slice, int]:
    """Return the bytes that hold numbers of a part in their lower and in their upper bits, and how many the former."""
    half = -(-num_elements // 2)
    middle = min(max(half, part.start), part.stop)
    return slice(part.start, middle), slice(middle - half, part.stop - half), middle - part.start

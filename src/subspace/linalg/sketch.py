"""Random numbers that are a function of a seed and a position: regenerated instead of stored, the same everywhere.

Number i comes from a hash of (seed, i) in wrapping 64-bit integers, not from a generator with a state: nothing to save
in a checkpoint, no stream that differs between devices, no trace in torch's own generator.

    hash(i) = mix(key + (i + 1) * step)                          key and odd step from the seed
    mix(z): z ^= z>>30; z *= C1; z ^= z>>27; z *= C2; z ^= z>>31
    two numbers from a hash: its halves are uniform, Box and Muller make them normal

References: Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators (OOPSLA); Salmon et al. 2011,
Parallel random numbers: as easy as 1, 2, 3 (SC); Box, Muller 1958.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, prod

import torch
from torch import Tensor

__all__ = ["gaussian", "gaussians", "mix_seed", "uniform", "uniform_part"]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_C1, _C2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix_seed(seed: int, *labels: int) -> int:
    """Return a seed in [0, 2**63) that depends on `seed` and on every label and its place.

    >>> mix_seed(1, 2) == mix_seed(1, 2) != mix_seed(2, 1)
    True
    """
    state = _mixed(seed + _GOLDEN)
    for label in labels:
        state = _mixed(state + label + _GOLDEN)
    return state >> 1


def gaussian(
    seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return independent standard normal numbers.

        radius = sqrt(-2 ln(|a| / 2^31)),   angle = 2 pi b / 2^32      a, b the signed halves of a hash
        radius cos(angle) and radius sin(angle)

    Computed in float32, then given in `dtype`; equal on all devices up to the last bits of log, cos and sin.
    """
    return gaussians((seed,), shape, device=device)[0].to(dtype)


def gaussians(seeds: Sequence[int], shape: tuple[int, ...], *, device: torch.device | str = "cpu") -> Tensor:
    """Return `gaussian(seed, shape)` of k seeds, (k, *shape), float32, in two calls more for each."""
    num_elements = prod(shape)
    numbers = torch.empty((len(seeds), num_elements), dtype=torch.float32, device=device)
    half = -(-num_elements // 2)
    radius, angle = _halves(seeds, half, numbers.device)
    radius.abs_().clamp_min_(0.5).mul_(2.0**-31).log_().mul_(-2.0).sqrt_()  # never the logarithm of 0
    angle.mul_(2.0 * pi * 2.0**-32)
    torch.cos(angle, out=numbers[:, :half]).mul_(radius)
    torch.mul(angle.sin_(), radius, out=radius)
    numbers[:, half:].copy_(radius[:, : num_elements - half])
    return numbers.view(len(seeds), *shape)


def uniform(seed: int, shape: tuple[int, ...], *, device: torch.device | str = "cpu") -> Tensor:
    """Return independent float32 numbers, uniform in [0, 1) in steps of 2^-24, bit for bit the same on every device."""
    num_elements = prod(shape)
    numbers = torch.empty(num_elements, dtype=torch.float32, device=device)
    half = -(-num_elements // 2)
    hashes = _hashes((seed,), half, numbers.device)[0]
    numbers[:half].copy_((hashes >> 40).bitwise_and_(2**24 - 1))  # 24 bits: what float32 holds exactly
    numbers[half:].copy_(hashes.bitwise_and_(2**24 - 1)[: num_elements - half])
    return numbers.mul_(2.0**-24).view(shape)


def uniform_part(seed: int, num_elements: int, part: slice, *, device: torch.device | str = "cpu") -> Tensor:
    """Return `uniform(seed, (num_elements,))[part]` without the rest; `part` has a start and a stop."""
    start, stop = part.start, part.stop
    if stop - start == num_elements:
        return uniform(seed, (num_elements,), device=device)
    half = -(-num_elements // 2)
    middle = min(max(half, start), stop)
    numbers = torch.empty(stop - start, dtype=torch.float32, device=device)
    upper = _hashes((seed,), middle - start, numbers.device, first=start)[0]
    numbers[: middle - start].copy_((upper >> 40).bitwise_and_(2**24 - 1))
    lower = _hashes((seed,), stop - middle, numbers.device, first=middle - half)[0]
    numbers[middle - start :].copy_(lower.bitwise_and_(2**24 - 1))
    return numbers.mul_(2.0**-24)


def _halves(seeds: Sequence[int], count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the signed upper and lower 32 bits of each hash, as float32."""
    hashes = _hashes(seeds, count, device)
    upper = (hashes >> 32).to(torch.float32)
    return upper, hashes.bitwise_left_shift_(32).bitwise_right_shift_(32).to(torch.float32)


def _hashes(seeds: Sequence[int], count: int, device: torch.device, first: int = 0) -> Tensor:
    """Return hashes of the positions first .. first + count - 1 as int64, (number of seeds, count)."""
    state = torch.arange(first + 1, first + count + 1, dtype=torch.int64, device=device).repeat(len(seeds), 1)
    for row, seed in zip(state.unbind(0), seeds, strict=True):
        key = _mixed(seed + _GOLDEN)
        step = _mixed(key + _GOLDEN) | 1  # a step of its own, or streams of two seeds would be shifts of one another
        row.mul_(_signed(step)).add_(_signed(key))
    scratch = torch.empty_like(state)
    for shift, factor in ((30, _C1), (27, _C2), (31, 1)):
        # the shift of a signed number brings copies of the sign, the mask takes them away
        torch.bitwise_right_shift(state, shift, out=scratch).bitwise_and_(2 ** (64 - shift) - 1)
        state.bitwise_xor_(scratch)
        if factor != 1:
            state.mul_(_signed(factor))
    return state


def _mixed(value: int) -> int:
    value &= _MASK
    value = ((value ^ value >> 30) * _C1) & _MASK
    value = ((value ^ value >> 27) * _C2) & _MASK
    return value ^ value >> 31


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value

"""Moments of 32, 8 or 4 bits in an optimizer's state.

Narrow moments are block-wise codes with one float32 scale a block; they are widened for a step and coded again after
it. Small tensors stay wide: their codes would save nothing that counts.

References: Dettmers et al. 2021, arXiv 2110.02861; Li et al. 2023, arXiv 2309.01507.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor

from subspace.linalg.blockwise import code_sizes, decode, decode_part, encode_part
from subspace.linalg.sketch import uniform_part
from subspace.optim.pieces import pieces
from subspace.plan.shapes import TensorSpec

__all__ = [
    "MIN_NARROW_ELEMENTS",
    "add_moments",
    "moment_specs",
    "narrow",
    "read_moment",
    "read_part",
    "write_moment",
    "write_part",
]

MIN_NARROW_ELEMENTS = 4096
"""Tensors with fewer elements keep float32 moments."""


def narrow(num_elements: int, bits: int) -> bool:
    """Return whether moments of that many elements are kept as codes."""
    return bits < 32 and num_elements >= MIN_NARROW_ELEMENTS


def add_moments(
    state: MutableMapping[str, Any], names: tuple[str, ...], shape: tuple[int, ...], bits: int, device: torch.device
) -> None:
    """Put zero moments of `shape` into `state`: `<name>`, and `<name>_scale` where they are codes. Code 0 is zero."""
    for spec in moment_specs("", names, shape, bits):
        dtype = torch.uint8 if spec.dtype == "uint8" else torch.float32
        state[spec.name] = torch.zeros(spec.shape, dtype=dtype, device=device)


def moment_specs(prefix: str, names: tuple[str, ...], shape: tuple[int, ...], bits: int) -> tuple[TensorSpec, ...]:
    """Return the tensors that `add_moments` makes, named `<prefix><name>`."""
    num_elements = math.prod(shape)
    if not narrow(num_elements, bits):
        return tuple(TensorSpec(prefix + name, shape) for name in names)
    num_codes, num_scales = code_sizes(num_elements, bits)
    return tuple(
        spec
        for name in names
        for spec in (
            TensorSpec(prefix + name, (num_codes,), "uint8"),
            TensorSpec(f"{prefix}{name}_scale", (num_scales,)),
        )
    )


def read_moment(
    state: MutableMapping[str, Any], name: str, shape: tuple[int, ...], bits: int, *, signed: bool
) -> Tensor:
    """Return a float32 moment: the state's own tensor where it is wide, a widened copy else."""
    kept: Tensor = state[name]
    if kept.dtype == torch.float32:
        return kept
    return decode(kept, state[f"{name}_scale"], shape, bits, signed=signed)


def read_part(
    state: MutableMapping[str, Any], name: str, part: slice, num_elements: int, bits: int, *, signed: bool
) -> Tensor:
    """Return consecutive numbers of a moment, flat and float32: a view of the state where it is wide, a copy else.

    Args:
        part: Start, where a block begins, and stop.
        num_elements: Of the whole moment.
    """
    kept: Tensor = state[name]
    if kept.dtype == torch.float32:
        return kept.view(-1)[part]
    out = torch.empty(part.stop - part.start, device=kept.device)
    return decode_part(kept, state[f"{name}_scale"], part, num_elements, bits, signed=signed, out=out)


def write_part(
    state: MutableMapping[str, Any], name: str, value: Tensor, part: slice, num_elements: int, bits: int, *, seed: int
) -> None:
    """Keep a part of a moment that `read_part` gave, after it has changed; as `write_moment` would, part by part."""
    kept: Tensor = state[name]
    if kept.dtype == torch.float32:
        own = kept.view(-1)[part]
        if own.data_ptr() != value.data_ptr():
            own.copy_(value)
        return
    noise = uniform_part(seed, num_elements, part, device=value.device)
    scales = state[f"{name}_scale"]
    encode_part(value, kept, scales, part, num_elements, bits, signed=name == "exp_avg", noise=noise)


def write_moment(state: MutableMapping[str, Any], name: str, value: Tensor, bits: int, *, seed: int) -> None:
    """Keep a moment that `read_moment` gave, after it has changed; nothing to do where it is the state's own.

    Args:
        seed: Codes are rounded up or down at random, so that a slow average moves in the mean although a step changes
            it by less than a code.
    """
    if value is state[name]:
        return
    flat = value.view(-1)
    for part in pieces(flat.numel(), flat.device):
        write_part(state, name, flat[part], part, flat.numel(), bits, seed=seed)

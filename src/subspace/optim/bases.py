"""Bases in an optimizer's state: float32, or packed codes of 4 bits.

Codes are uniform and symmetric, with one scale (the largest magnitude over 7) for 256 numbers; two codes make a byte.
A coded basis is orthonormal only roughly: the products of its columns are off by about 0.05.

References: Zhang et al. 2024, arXiv 2407.08296 (Q-GaLore keeps its projection in 4 bits).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from subspace.plan.shapes import TensorSpec
from subspace.projection.geometry import Geometry

__all__ = ["basis_specs", "read_bases", "write_bases"]

_GROUP = 256
_LARGEST = 7


def basis_specs(prefix: str, geometry: Geometry, bits: int) -> tuple[TensorSpec, ...]:
    """Return the tensors that keep the bases of a weight, named `<prefix><key>`."""
    specs: list[TensorSpec] = []
    for key, shape in geometry.basis_shapes.items():
        if bits == 32:
            specs.append(TensorSpec(prefix + key, shape))
        else:
            num_groups = -(-math.prod(shape) // _GROUP)
            specs.append(TensorSpec(prefix + key, (num_groups * _GROUP // 2,), "uint8"))
            specs.append(TensorSpec(f"{prefix}{key}_scale", (num_groups,)))
    return tuple(specs)


def read_bases(state: Mapping[str, Any], geometry: Geometry) -> tuple[Tensor, ...] | None:
    """Return the bases in the order of `geometry.basis_shapes`, float32; None if there are none yet."""
    if "basis" not in state:
        return None
    if state["basis"].dtype == torch.float32:
        return (state["basis"], state["basis_right"]) if geometry.side == "both" else (state["basis"],)
    return tuple(_read(state, key, shape) for key, shape in geometry.basis_shapes.items())


def write_bases(
    state: MutableMapping[str, Any], geometry: Geometry, bases: Sequence[Tensor], bits: int
) -> tuple[Tensor, ...]:
    """Keep bases; return them as `read_bases` will."""
    for key, basis in zip(geometry.basis_shapes, bases, strict=True):
        if bits == 32:
            state[key] = basis
        else:
            state[key], state[f"{key}_scale"] = _encode(basis)
    kept = read_bases(state, geometry)
    assert kept is not None
    return kept


def _read(state: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> Tensor:
    kept: Tensor = state[key]
    codes = torch.stack((kept & 15, kept >> 4), dim=-1).view(-1, _GROUP)
    values = (codes.float() - 8).mul_(state[f"{key}_scale"].unsqueeze(-1))
    return values.view(-1)[: math.prod(shape)].view(shape)


def _encode(basis: Tensor) -> tuple[Tensor, Tensor]:
    values = torch.nn.functional.pad(basis.reshape(-1), (0, -basis.numel() % _GROUP)).view(-1, _GROUP)
    scale = values.abs().amax(dim=-1) / _LARGEST
    codes = (values / scale.clamp(min=1e-12).unsqueeze(-1)).round_().add_(8).to(torch.uint8).view(-1, 2)
    return codes[:, 0] | (codes[:, 1] << 4), scale

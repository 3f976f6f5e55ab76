"""AdamW on one parameter that is not projected, its moments of 32, 8 or 4 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from subspace.optim.direction import adamw_, uncorrected_eps
from subspace.optim.lowbit import add_moments, read_moment, write_moment
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Plain, decay_rate

__all__ = ["plain_state", "update_plain_"]


def plain_state(shape: tuple[int, ...], settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
    """Return what is kept before the first update."""
    state: dict[str, Any] = {"step": 0}
    add_moments(state, ("exp_avg", "exp_avg_sq"), shape, settings.state_bits, device)
    return state


def update_plain_(plain: Plain, weight: Tensor, gradient: Tensor) -> None:
    """Update a float32 weight in place, and move the moments."""
    state, group, bits, shape = plain.state, plain.group, plain.settings.state_bits, tuple(weight.shape)
    reference = plain.settings.fidelity == "reference"
    first = read_moment(state, "exp_avg", shape, bits, signed=True)
    second = read_moment(state, "exp_avg_sq", shape, bits, signed=False)
    adamw_(
        [weight],
        [gradient],
        [first],
        [second],
        step=plain.step,
        lr=group["lr"],
        betas=group["betas"],
        eps=uncorrected_eps(group["eps"], group["betas"][1], plain.step) if reference else group["eps"],
        weight_decay=0.0 if reference else group["weight_decay"],
    )
    if reference and group["weight_decay"]:
        weight.add_(weight, alpha=-decay_rate(group))  # official codes decay after the update
    write_moment(state, "exp_avg", first, bits, seed=plain.seed + 1)
    write_moment(state, "exp_avg_sq", second, bits, seed=plain.seed + 2)

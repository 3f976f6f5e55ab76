"""AdamW on one parameter that is not projected, its moments of 32, 8 or 4 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from subspace.optim.direction import uncorrected_eps
from subspace.optim.lowbit import add_moments
from subspace.optim.moments import adamw_update_
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Plain, decay_rate

__all__ = ["plain_state", "update_plain_"]


def plain_state(shape: tuple[int, ...], settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
    """Return what is kept before the first update."""
    state: dict[str, Any] = {"step": 0}
    add_moments(state, ("exp_avg", "exp_avg_sq"), shape, settings.state_bits, device)
    return state


def update_plain_(plain: Plain, parameter: Tensor, gradient: Tensor) -> None:
    """Update a weight in place, and move the moments."""
    group, reference = plain.group, plain.settings.fidelity == "reference"
    adamw_update_(
        parameter,
        gradient,
        plain.state,
        bits=plain.settings.state_bits,
        seed=plain.seed,
        moment_seed=plain.seed + 1,
        decay_after=decay_rate(group) if reference else 0.0,  # official codes decay after the update
        step=plain.step,
        lr=group["lr"],
        betas=group["betas"],
        eps=uncorrected_eps(group["eps"], group["betas"][1], plain.step) if reference else group["eps"],
        weight_decay=0.0 if reference else group["weight_decay"],
    )

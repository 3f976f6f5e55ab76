"""AdamW on parameters that are not projected, their moments of 32, 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from subspace.optim.direction import uncorrected_eps
from subspace.optim.lowbit import add_moments
from subspace.optim.moments import adamw_update_, adamw_updates_
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Plain, decay_rate

__all__ = ["plain_state", "update_plains_"]


def plain_state(shape: tuple[int, ...], settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
    """Return what is kept before the first update."""
    state: dict[str, Any] = {"step": 0}
    add_moments(state, ("exp_avg", "exp_avg_sq"), shape, settings.state_bits, device)
    return state


def update_plains_(plains: Sequence[Plain]) -> None:
    """Update weights of one group in place, and move the moments: like ones together, which saves a call for each."""
    like: dict[tuple[Any, ...], list[Plain]] = {}
    for plain in plains:
        like.setdefault(_kind(plain), []).append(plain)
    for (together, *_), members in like.items():
        if together and len(members) > 1:
            _update_together_(members)
            continue
        for plain in members:
            _update_(plain)


def _kind(plain: Plain) -> tuple[Any, ...]:
    """Return what the members of one call share; the first says whether they can be in one at all."""
    parameter, gradient = plain.parameter, plain.gradient
    together = (
        plain.settings.fidelity == "paper"
        and plain.state["exp_avg"].dtype == torch.float32
        and parameter.is_contiguous()
        and not hasattr(parameter, "stored")
    )
    return together, parameter.device, parameter.dtype, gradient.dtype, plain.step


def _update_together_(plains: Sequence[Plain]) -> None:
    first = plains[0]
    adamw_updates_(
        [plain.parameter for plain in plains],
        [plain.gradient for plain in plains],
        [plain.state for plain in plains],
        step=first.step,
        lr=first.group["lr"],
        betas=first.group["betas"],
        eps=first.group["eps"],
        weight_decay=first.group["weight_decay"],
    )


def _update_(plain: Plain) -> None:
    group, reference = plain.group, plain.settings.fidelity == "reference"
    adamw_update_(
        plain.parameter,
        plain.gradient,
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

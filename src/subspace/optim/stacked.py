"""Bundles as one stack, for devices where a launch costs more than a copy: one batched product in place of many.

On a CPU it is the other way round: a stack of gradients is one more pass over them, and a product needs no launch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from subspace.optim.slots import Bundle
from subspace.projection.projector import Projector

__all__ = ["STACKED_DEVICES", "add_stack", "can_stack", "project_stack"]

STACKED_DEVICES = {"cuda", "xpu", "mps"}


def can_stack(bundle: Bundle) -> bool:
    """Return whether a bundle's products run as one: several plain matrices, their whole gradients there."""
    first = bundle.slots[0].parameter
    return (
        first.device.type in STACKED_DEVICES
        and len(bundle.slots) > 1
        and not bundle.geometry.stack
        and all(
            slot.low is None and slot.parameter.is_contiguous() and not hasattr(slot.parameter, "stored")
            for slot in bundle.slots
        )
    )


def project_stack(bundle: Bundle, projectors: Sequence[Projector], out: Tensor) -> None:
    """Write the projections of all gradients of a bundle into `out`, (k, low-rank shape), float32."""
    gradients = torch.stack([slot.gradient for slot in bundle.slots])
    out.copy_(_stack(projectors).to(gradients).project(gradients))


def add_stack(
    bundle: Bundle, projectors: Sequence[Projector], lows: Sequence[Tensor], *, beta: float, alpha: float
) -> None:
    """Do weight <- beta * weight + alpha * lift(low) for all weights of a bundle."""
    weights = [slot.parameter.detach().view(bundle.geometry.matrix_shape) for slot in bundle.slots]
    low = torch.stack(list(lows)).to(weights[0].dtype)
    lifted = list(_stack(projectors).to(low).lift(low).unbind(0))
    if beta != 1.0:
        torch._foreach_mul_(weights, beta)
    torch._foreach_add_(weights, lifted, alpha=alpha)


def _stack(projectors: Sequence[Projector]) -> Projector:
    """Return the projector of the stack."""
    sides = zip(*((projector.left, projector.right) for projector in projectors), strict=True)
    left, right = (None if any(b is None for b in bases) else torch.stack(bases) for bases in map(list, sides))
    return Projector(projectors[0].side, left, right)

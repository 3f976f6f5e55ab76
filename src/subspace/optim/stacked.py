"""Bundles where a launch costs more than a copy: small matrices as one stack, large ones one product at a time.

A stack of gradients is one more pass over them. On a CPU, where a product needs no launch, it never pays; elsewhere it
pays for matrices whose product takes less time than its launch. What the general path does for each weight (codes,
parts, seeds) is left out here either way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from subspace.optim.slots import Bundle
from subspace.projection.projector import Projector

__all__ = ["STACKED_DEVICES", "add_together", "as_stack", "can_stack", "project_together"]

STACKED_DEVICES = {"cuda", "xpu", "mps"}
_STACKED_ELEMENTS = 2**20
"""Of the largest matrix that is worth a copy: a few microseconds of memory traffic."""


def can_stack(bundle: Bundle) -> bool:
    """Return whether a bundle is several plain matrices in one piece, their whole gradients there."""
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


def project_together(bundle: Bundle, projectors: Sequence[Projector], out: Tensor) -> None:
    """Write the projections of all gradients of a bundle into `out`, (k, low-rank shape), float32."""
    gradients = [slot.gradient for slot in bundle.slots]
    if _small(bundle):
        stack = torch.stack(gradients)
        out.copy_(_stack(projectors).to(stack).project(stack))
        return
    for gradient, projector, low in zip(gradients, projectors, out.unbind(0), strict=True):
        if gradient.dtype == low.dtype:
            projector.project(gradient, out=low)
        else:
            low.copy_(projector.to(gradient).project(gradient))


def add_together(
    bundle: Bundle, projectors: Sequence[Projector], lows: Sequence[Tensor], *, beta: float, alpha: float
) -> None:
    """Do weight <- beta * weight + alpha * lift(low) for all weights of a bundle."""
    weights = [slot.parameter.detach().view(bundle.geometry.matrix_shape) for slot in bundle.slots]
    if not _small(bundle):
        for weight, projector, low in zip(weights, projectors, lows, strict=True):
            projector.add_lifted(weight, low, beta=beta, alpha=alpha)
        return
    low = torch.stack(list(lows)).to(weights[0].dtype)
    lifted = list(_stack(projectors).to(low).lift(low).unbind(0))
    if beta != 1.0:
        torch._foreach_mul_(weights, beta)
    torch._foreach_add_(weights, lifted, alpha=alpha)


def as_stack(views: Sequence[Tensor]) -> Tensor:
    """Return contiguous tensors that lie one after another in memory as one, (k, ...), without a copy."""
    first, size = views[0], views[0].numel() * views[0].element_size()
    assert all(view.data_ptr() == first.data_ptr() + place * size for place, view in enumerate(views))
    return first.as_strided((len(views), *first.shape), (first.numel(), *first.stride()))


def _small(bundle: Bundle) -> bool:
    return math.prod(bundle.geometry.matrix_shape) <= _STACKED_ELEMENTS


def _stack(projectors: Sequence[Projector]) -> Projector:
    """Return the projector of the stack."""
    sides = zip(*((projector.left, projector.right) for projector in projectors), strict=True)
    left, right = (None if any(b is None for b in bases) else torch.stack(bases) for bases in map(list, sides))
    return Projector(projectors[0].side, left, right)

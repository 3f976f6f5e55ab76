"""Bundles where a launch costs more than a copy: small matrices as one stack, large ones with few calls each.

A stack of gradients is one more pass over them. On a CPU, where a product needs no launch, it never pays; elsewhere it
pays for matrices whose product takes less time than its launch. What the general path does for each weight (codes,
parts, seeds) is left out here either way, and what can be done for a whole bundle is done once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from subspace.optim.slots import Bundle
from subspace.projection.projector import Projector

__all__ = ["STACKED_DEVICES", "Together", "as_stack", "can_stack"]

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


def as_stack(views: Sequence[Tensor]) -> Tensor:
    """Return contiguous tensors that lie one after another in memory as one, (k, ...), without a copy."""
    first, size = views[0], views[0].numel() * views[0].element_size()
    assert all(view.data_ptr() == first.data_ptr() + place * size for place, view in enumerate(views))
    return first.as_strided((len(views), *first.shape), (first.numel(), *first.stride()))


class Together:
    """The products of a bundle of k weights.

    Args:
        bundle: One of which `can_stack` holds.
        projectors: Of its weights, float32.
    """

    def __init__(self, bundle: Bundle, projectors: Sequence[Projector]) -> None:
        self._weights = [slot.parameter.detach().view(bundle.geometry.matrix_shape) for slot in bundle.slots]
        self._gradients = [slot.gradient for slot in bundle.slots]
        self._stack: Tensor | None = None
        self._whole: Projector | None = None
        self._each = projectors
        small = math.prod(bundle.geometry.matrix_shape) <= _STACKED_ELEMENTS
        if small:
            self._stack = torch.stack(self._gradients)
        if small or self._gradients[0].dtype != torch.float32:
            self._whole = _stack(projectors).to(self._gradients[0])
            self._each = _unstack(self._whole, len(projectors))

    def project(self, out: Tensor) -> None:
        """Write the projections of all gradients into `out`, (k, low-rank shape), float32."""
        wide = self._gradients[0].dtype == out.dtype
        low = out if wide else torch.empty_like(out, dtype=self._gradients[0].dtype)
        if self._stack is not None:
            assert self._whole is not None
            self._whole.project(self._stack, out=low)
        else:
            for gradient, projector, own in zip(self._gradients, self._each, low.unbind(0), strict=True):
                projector.project(gradient, out=own)
        if not wide:
            out.copy_(low)

    def add_lifted(self, low: Tensor, *, beta: float, alpha: float) -> None:
        """Do weight <- beta * weight + alpha * lift(low) for all; `low` is (k, low-rank shape)."""
        low = low.to(self._weights[0].dtype)
        if self._stack is None:
            for weight, projector, own in zip(self._weights, self._each, low.unbind(0), strict=True):
                projector.add_lifted(weight, own, beta=beta, alpha=alpha)
            return
        assert self._whole is not None
        if beta != 1.0:
            torch._foreach_mul_(self._weights, beta)
        torch._foreach_add_(self._weights, list(self._whole.to(low).lift(low).unbind(0)), alpha=alpha)

    def norms(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what `measure` gives of all gradients, (k, ...)."""
        if self._stack is not None:
            return measure(self._stack)
        return torch.stack([measure(gradient) for gradient in self._gradients])

    def scale(self, beta: float) -> None:
        """Do weight <- beta * weight for all."""
        if beta != 1.0:
            torch._foreach_mul_(self._weights, beta)

    def add_scaled(self, factor: Tensor, norm: Tensor, *, alpha: float) -> None:
        """Do weight <- weight + alpha * gradient * factor for all; uses the gradients up.

        Args:
            factor: (k, 1 or m, 1 or n).
            norm: (k,), not finite for a gradient that is not, which then counts as zero.
        """
        factor, faulty = factor.to(self._weights[0].dtype), ~torch.isfinite(norm)
        if self._stack is not None:
            scaled = self._stack.masked_fill_(faulty[:, None, None], 0.0).mul_(factor)
            torch._foreach_add_(self._weights, list(scaled.unbind(0)), alpha=alpha)
            return
        parts = (self._weights, self._gradients, factor.unbind(0), faulty.unbind(0))
        for weight, gradient, own, fault in zip(*parts, strict=True):
            weight.addcmul_(gradient.masked_fill_(fault, 0.0), own, value=alpha)


def _stack(projectors: Sequence[Projector]) -> Projector:
    """Return the projector of the stack."""
    sides = zip(*((projector.left, projector.right) for projector in projectors), strict=True)
    left, right = (None if any(b is None for b in bases) else torch.stack(bases) for bases in map(list, sides))
    return Projector(projectors[0].side, left, right)


def _unstack(whole: Projector, count: int) -> list[Projector]:
    left, right = ([None] * count if basis is None else list(basis.unbind(0)) for basis in (whole.left, whole.right))
    return [Projector(whole.side, *own) for own in zip(left, right, strict=True)]

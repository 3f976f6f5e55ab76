"""Bundles where a launch costs more than a copy: small matrices as one stack, large ones with few calls each.

A stack is one more pass over gradients and weights. On a CPU, where a product needs no launch, it never pays; elsewhere
it pays for matrices whose product takes less time than its launch. What the general path does for each weight (codes,
parts, seeds) is left out here either way, and what can be done for a whole bundle is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from subspace.optim.guards import not_finite
from subspace.optim.slots import Bundle, is_small
from subspace.optim.weights import add_scaled
from subspace.projection.projector import Projector

__all__ = ["LAUNCHING_DEVICES", "Together", "as_stack", "can_go_together"]

LAUNCHING_DEVICES = {"cuda", "xpu", "mps"}


def can_go_together(bundle: Bundle) -> bool:
    """Return whether a bundle is several plain matrices in one piece whose whole gradients or projections are there."""
    first = bundle.slots[0].parameter
    return (
        first.device.type in LAUNCHING_DEVICES
        and len(bundle.slots) > 1
        and not bundle.geometry.stack
        and bundle.settings.update == "after_backward"
        and len({(slot.low is None, slot.parameter.grad is None) for slot in bundle.slots}) == 1
        and (bundle.slots[0].low is None) != (first.grad is None)
        and all(slot.parameter.is_contiguous() and not hasattr(slot.parameter, "stored") for slot in bundle.slots)
    )


def as_stack(views: Sequence[Tensor]) -> Tensor:
    """Return contiguous tensors of one shape as one, (k, ...): without a copy if they lie one after another."""
    first, size = views[0], views[0].numel() * views[0].element_size()
    if any(view.data_ptr() != first.data_ptr() + place * size for place, view in enumerate(views)):
        return torch.stack(list(views))
    return first.as_strided((len(views), *first.shape), (first.numel(), *first.stride()))


class Together:
    """The products of a bundle of k weights.

    Args:
        bundle: One that can go together.
        projectors: Of its weights, float32.
    """

    def __init__(self, bundle: Bundle, projectors: Sequence[Projector]) -> None:
        shape = bundle.geometry.matrix_shape
        weights = [slot.parameter for slot in bundle.slots]
        self._live = [weight if weight.shape == shape else weight.detach().view(shape) for weight in weights]
        self._weights = self._live
        self._gradients = [slot.gradient for slot in bundle.slots if slot.parameter.grad is not None]
        self._projectors = projectors
        kind = (self._gradients or self._live)[0]
        self._is_small = is_small(bundle.geometry)
        if self._is_small or kind.dtype != torch.float32:
            whole = _stack(projectors).to(kind)
            self._projectors = [whole] if self._is_small else _unstack(whole, len(projectors))
        if self._is_small and self._gradients:
            self._gradients = [torch.stack(self._gradients)]

    def project(self, out: Tensor) -> None:
        """Write the projections of all gradients into `out`, (k, low-rank shape), float32."""
        kind = self._gradients[0].dtype
        low = out if kind == out.dtype else torch.empty_like(out, dtype=kind)
        for gradient, projector, own in zip(self._gradients, self._projectors, self._each(low), strict=True):
            projector.project(gradient, out=own)
        if low is not out:
            out.copy_(low)

    def norms(self, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what `measure` gives of all gradients, (k, ...)."""
        if self._is_small:
            return measure(self._gradients[0])
        return torch.stack([measure(gradient) for gradient in self._gradients])

    def add_lifted(self, low: Tensor, *, beta: float, alpha: float) -> None:
        """Do weight <- beta * weight + alpha * lift(low) for all, rounded once; `low` is (k, low-rank shape)."""
        low = low.to(self._live[0].dtype)
        for weight, projector, own in zip(self._copied(), self._projectors, self._each(low), strict=True):
            projector.add_lifted(weight, own, beta=beta, alpha=alpha)

    def add_scaled(self, factor: Tensor, norm: Tensor, *, alpha: float, beta: float = 1.0) -> None:
        """Do weight <- beta * weight + alpha * gradient * factor for all, rounded once; gradients are used up.

        Args:
            factor: (k, 1 or m, 1 or n).
            norm: (k,), not finite for a gradient that is not, which then counts as zero.
            alpha: On the gradient.
            beta: On the weight.
        """
        factors = self._each(factor.to(self._live[0].dtype))
        faults = self._each(not_finite(norm)[:, None, None])
        for weight, gradient, own, fault in zip(self._copied(), self._gradients, factors, faults, strict=True):
            add_scaled(weight, gradient.masked_fill_(fault, 0.0), own, alpha=alpha, beta=beta)

    def write(self) -> None:
        """Put what became of the weights in their place; comes last."""
        if self._weights is not self._live:
            torch._foreach_copy_(self._live, list(self._weights[0].unbind(0)))

    def _copied(self) -> list[Tensor]:
        """Return what is changed: the weights, or a stack of small ones."""
        if self._is_small and self._weights is self._live:
            self._weights = [torch.stack(self._live)]
        return self._weights

    def _each(self, whole: Tensor) -> Sequence[Tensor]:
        return [whole] if self._is_small else whole.unbind(0)


def _stack(projectors: Sequence[Projector]) -> Projector:
    """Return the projector of the stack."""
    sides = zip(*((projector.left, projector.right) for projector in projectors), strict=True)
    left, right = (None if any(b is None for b in bases) else torch.stack(bases) for bases in map(list, sides))
    return Projector(projectors[0].side, left, right)


def _unstack(whole: Projector, count: int) -> list[Projector]:
    left, right = ([None] * count if basis is None else list(basis.unbind(0)) for basis in (whole.left, whole.right))
    return [Projector(whole.side, *own) for own in zip(left, right, strict=True)]

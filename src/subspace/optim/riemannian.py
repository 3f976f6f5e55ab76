"""Keeps chosen parameters of any torch optimizer on the Stiefel manifold: orthonormal columns after every step.

Around the optimizer's own step, for every factor Y (d, r) that has a gradient G:

    before:  R = G - Y G^T Y  takes the place of G ;  Y0 = Y
    the optimizer steps as it always does, with whatever state it keeps
    after:   D = sqrt(c / d) (Y - Y0) ;  D <- D - Y0 sym(Y0^T D) ;  Y = retraction(Y0, D)

Clipping before the step sees Euclidean gradients. Weight decay on Y moves it along Y0, which the projection takes out,
so it has no effect. There is no state of our own: what the optimizer saves is enough to resume exactly.

d rows, r columns (rank), c reference width.

References: Li et al. 2025, arXiv 2510.01938, algorithm 1 (StelLA).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from subspace.core.errors import MethodError
from subspace.linalg.stiefel import RETRACTIONS, Retraction, canonical_gradient, tangent
from subspace.optim.pieces import piece_elements

__all__ = ["StiefelSteps"]


@dataclass(frozen=True)
class _Group:
    """Factors of one shape, moved as one batch: on a CPU of so many as stay in its cache.

    Attributes:
        factors: k parameters of shape (d, r).
        before: Y0 (k, d, r).
    """

    factors: list[Tensor]
    before: Tensor


class StiefelSteps:
    """Hooks on an optimizer that keep some of its parameters orthonormal; works in any loop.

        optimizer = torch.optim.AdamW(model.parameters())
        StiefelSteps(optimizer, stiefel_factors(model), gradient_scaling=model.config.hidden_size)

    The hooks live on the innermost torch optimizer, so they survive Accelerate's wrapper and a schedule. A step that a
    loss scaler skips, or that does not move a factor, leaves it as it was, to the bit. A copy or a pickle of an
    optimizer has no hooks; make a new object for it.

    Args:
        optimizer: Any torch optimizer, or a wrapper that has it as `.optimizer`.
        factors: Parameters of it with orthonormal columns, (d, r) with d >= r.
        retraction: `polar` (nearest orthonormal matrix) or `exponential` (canonical geodesic).
        gradient_scaling: The reference width c, so that factors of every height turn alike: the model's hidden size as
            published; None: no scaling.

    Raises:
        MethodError: E-MTH-001 if a factor is not a parameter of the optimizer (FSDP and DeepSpeed ZeRO train flat
            shards), has more columns than rows, or `retraction` is unknown.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        factors: Iterable[Tensor],
        *,
        retraction: Retraction = "polar",
        gradient_scaling: float | None = None,
    ) -> None:
        if retraction not in RETRACTIONS:
            found, expected = f"retraction {retraction!r}", f"one of {', '.join(RETRACTIONS)}"
            raise MethodError("E-MTH-001", where="StiefelSteps", found=found, expected=expected)
        self.optimizer = innermost(optimizer)
        self.gradient_scaling = gradient_scaling
        self._retract = RETRACTIONS[retraction]
        self._factors = list(dict.fromkeys(factors))
        self._moving: list[_Group] = []
        _check(self.optimizer, self._factors)
        self._handles = (
            self.optimizer.register_step_pre_hook(self._before_step),
            self.optimizer.register_step_post_hook(self._after_step),
        )

    def remove(self) -> None:
        """Take the hooks off; the factors are ordinary parameters from then on."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(callable(value) for value in (*args, *kwargs.values())):
            raise MethodError(
                "E-MTH-001",
                where="StiefelSteps",
                found="a step with a closure, whose gradients come after the step has begun",
                action="Compute loss and gradients first, then call step() without arguments.",
            )
        self._moving = []
        for members in _batches(factor for factor in self._factors if factor.grad is not None):
            before = _stack(members)
            gradients = [factor.grad for factor in members if factor.grad is not None]
            stacked = _stack(gradients)
            riemannian = canonical_gradient(before, stacked, out=stacked)
            torch._foreach_copy_(gradients, list(riemannian.unbind()))
            self._moving.append(_Group(members, before))

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for group in self._moving:
            change = _stack(group.factors).sub_(group.before)
            rests = torch.linalg.vector_norm(change.flatten(1), dim=1)[:, None, None] == 0
            if self.gradient_scaling is not None:
                change *= math.sqrt(self.gradient_scaling / change.shape[1])
            after = self._retract(group.before, tangent(group.before, change, out=change))
            # retraction of nothing rounds; a skipped step must not. No branch, so no wait for the device.
            torch.where(rests, group.before, after, out=change)
            torch._foreach_copy_(group.factors, list(change.unbind()))
        self._moving = []


def innermost(optimizer: Any) -> torch.optim.Optimizer:
    """Return the torch optimizer that really steps; Accelerate's and others wrap it as `.optimizer`."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    found: torch.optim.Optimizer = optimizer
    return found


def _batches(factors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield factors of one shape, type and device together, no more of them than are handled at once."""
    found: dict[tuple[Any, ...], list[Tensor]] = {}
    for factor in factors:
        found.setdefault((factor.shape, factor.dtype, factor.device), []).append(factor)
    for members in found.values():
        size = max(1, piece_elements(members[0].device) // (4 * members[0].numel()))  # four stacks at once
        yield from (members[first : first + size] for first in range(0, len(members), size))


def _stack(matrices: list[Tensor]) -> Tensor:
    """Return (k, d, r), float32 unless float64."""
    stacked = torch.stack(matrices)
    return stacked if stacked.dtype == torch.float64 else stacked.float()


def _check(optimizer: torch.optim.Optimizer, factors: list[Tensor]) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for index, factor in enumerate(factors):
        if factor.ndim != 2 or factor.shape[0] < factor.shape[1]:
            found, expected = f"shape {tuple(factor.shape)}", "(d, r) with d >= r"
        elif id(factor) not in held:
            found, expected = "not a parameter of the optimizer", "one that it holds whole"
        else:
            continue
        raise MethodError(
            "E-MTH-001",
            where=f"StiefelSteps, factor {index}",
            found=found,
            expected=expected,
            action="Make the optimizer over the model's own parameters; FSDP and DeepSpeed ZeRO train flat shards.",
        )

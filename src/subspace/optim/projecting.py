"""What rules are made of: gradients into their subspaces, directions there, and back into the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from subspace.linalg.sketch import mix_seed
from subspace.optim.bases import read_bases
from subspace.optim.moments import directions
from subspace.optim.slots import Bundle, Scratch, Slot
from subspace.optim.stacked import can_stack, project_stack
from subspace.optim.stateful import StatefulOptimizer
from subspace.optim.weights import parts
from subspace.projection.projector import Projector

__all__ = ["ProjectingOptimizer"]


class ProjectingOptimizer(StatefulOptimizer):
    """An optimizer that can project the gradients of a bundle and lift directions into its weights."""

    scratch: Scratch

    def projector(self, slot: Slot, state: dict[str, Any]) -> Projector:
        """Return the projector of a weight, in float32."""
        assert slot.geometry is not None
        bases = read_bases(state, slot.geometry)
        assert bases is not None
        return Projector.of(slot.geometry.side, *bases)

    def low_gradients(self, bundle: Bundle) -> list[Tensor]:
        """Return the projected gradients of a bundle, float32; a matrix that is not finite counts as zero.

        They may be overwritten, also those that a slot has accumulated.
        """
        if all(slot.parameter.grad is None for slot in bundle.slots):
            lows = [slot.low for slot in bundle.slots if slot.low is not None]
            for low in lows:
                _clear_faults(low)
            return lows
        stack = self.scratch.take("low", (len(bundle.slots), *bundle.geometry.low_shape), _device(bundle))
        if can_stack(bundle):
            project_stack(bundle, self.projectors(bundle), stack)
        else:
            for slot, state, out in zip(bundle.slots, bundle.states, stack.unbind(0), strict=True):
                self.project_into(out, slot, state)
        _clear_faults(stack)
        return list(stack.unbind(0))

    def projectors(self, bundle: Bundle) -> list[Projector]:
        """Return the projectors of a bundle's weights."""
        return [self.projector(slot, state) for slot, state in zip(bundle.slots, bundle.states, strict=True)]

    def project_into(self, out: Tensor, slot: Slot, state: dict[str, Any]) -> None:
        """Write into `out` what a slot has accumulated plus the projection of the gradient that it still holds."""
        assert slot.geometry is not None
        if slot.parameter.grad is None:
            assert slot.low is not None
            out.copy_(slot.low)
            return
        gradient, projector = slot.gradient, self.projector(slot, state)
        if gradient.dtype == torch.float32:
            projector.project(gradient, out=out)
        else:
            out.copy_(projector.to(gradient).project(gradient))
        if slot.low is not None:
            out.add_(slot.low)

    def directions(self, bundle: Bundle, lows: Sequence[Tensor], *, keep: bool = False) -> Sequence[Tensor]:
        """Return Adam's bias-corrected directions of low-rank gradients, and move their moments.

        Args:
            keep: Leave `lows` as they are; else they may be overwritten.
        """
        seeds = [self.rounding_seed(slot, bundle.step) for slot in bundle.slots]
        return directions(bundle, lows, seeds, self.scratch, keep=keep)

    def lifted_parts(
        self, bundle: Bundle, slot: Slot, state: dict[str, Any], low: Tensor, *, beta: float, alpha: float
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, values) of a weight in turn, beta * weight + alpha * lift(low), to be changed further."""
        projector, seed = self.projector(slot, state), self.rounding_seed(slot, bundle.step)
        for rows, weight in parts(slot.parameter, bundle.geometry.matrix_shape, seed):
            projector.add_lifted(weight, low, beta=beta, alpha=alpha, rows=rows)
            yield rows, weight

    def rounding_seed(self, slot: Slot, step: int) -> int:
        """Return the seed of stochastic rounding of a weight at a step; the next ones are for its moments."""
        return mix_seed(slot.settings.seed, slot.index, step)


def _clear_faults(lows: Tensor) -> None:
    """Put zeros into every matrix that is not finite throughout."""
    lows.masked_fill_(~torch.isfinite(lows.sum(dim=(-2, -1), keepdim=True)), 0.0)


def _device(bundle: Bundle) -> torch.device:
    return bundle.slots[0].parameter.device

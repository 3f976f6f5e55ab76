"""What rules are made of: gradients into their subspaces, directions there, and back into the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from subspace.optim.bases import read_bases
from subspace.optim.guards import not_finite
from subspace.optim.lowbit import narrow
from subspace.optim.moments import directions
from subspace.optim.pieces import LARGEST_PIECE, PART_ELEMENTS, aligned_rows, row_slices
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Bundle, Scratch, Slot, bundle_size, is_small
from subspace.optim.stateful import StatefulOptimizer
from subspace.optim.step_size import (
    adam_bytes,
    basis_bytes,
    lifting_bytes,
    moment_pieces,
    refresh_bytes,
    together_bytes,
)
from subspace.optim.together import Together, as_stack, can_go_together
from subspace.optim.weights import parts
from subspace.projection.basis import num_stacked
from subspace.projection.geometry import Geometry
from subspace.projection.projector import Projector

__all__ = ["ProjectingOptimizer"]

_CHANNEL_NUMBERS = 6
_LAUNCHING = "cuda"
"""Where most weights are updated together."""


class ProjectingOptimizer(StatefulOptimizer):
    """An optimizer that can project the gradients of a bundle and lift directions into its weights."""

    scratch: Scratch
    needs_whole_gradient: ClassVar[bool] = False
    """Whether the update needs the gradient itself and not its projection alone."""
    keeps_projections: ClassVar[bool] = False
    """Whether the update reads projections of gradients beside their directions."""

    def projector(self, slot: Slot, state: dict[str, Any]) -> Projector:
        """Return the projector of a weight, in float32."""
        assert slot.geometry is not None
        bases = read_bases(state, slot.geometry)
        assert bases is not None
        return Projector.of(slot.geometry.side, *bases)

    def low_gradients(self, bundle: Bundle, together: Together | None = None) -> list[Tensor]:
        """Return the projected gradients of a bundle, float32; a matrix that is not finite counts as zero.

        They may be overwritten, also those that a slot has accumulated.

        Args:
            together: The bundle's products, where the caller has them.
        """
        if all(slot.parameter.grad is None for slot in bundle.slots):
            lows = [slot.low for slot in bundle.slots if slot.low is not None]
            if can_go_together(bundle):
                whole = as_stack(lows)
                _clear_faults(whole)
                return list(whole.unbind(0))
            for low in lows:
                _clear_faults(low)
            return lows
        stack = self.scratch.take("low", (len(bundle.slots), *bundle.geometry.low_shape), _device(bundle))
        if together is None and can_go_together(bundle):
            together = Together(bundle, self.projectors(bundle))
        if together is not None:
            together.project(stack)
        else:
            for slot, state, out in zip(bundle.slots, bundle.states, stack.unbind(0), strict=True):
                self.project_into(out, slot, state)
        _clear_faults(stack)
        return list(stack.unbind(0))

    def projectors(self, bundle: Bundle) -> list[Projector]:
        """Return the projectors of a bundle's weights."""
        return [self.projector(slot, state) for slot, state in zip(bundle.slots, bundle.states, strict=True)]

    def project_together(self, bundle: Bundle) -> Tensor:
        """Put projections in the place of a bundle's gradients; return them as one, (k, low-rank shape)."""
        whole = torch.empty((len(bundle.slots), *bundle.geometry.low_shape), device=_device(bundle))
        Together(bundle, self.projectors(bundle)).project(whole)
        for slot, low in zip(bundle.slots, whole.unbind(0), strict=True):
            slot.low, slot.parameter.grad = low, None
        return whole

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
            narrow_projector = projector.to(gradient)
            for rows in _independent_rows(gradient, slot.geometry):
                out[..., rows, :].copy_(narrow_projector.project(gradient[..., rows, :]))
        if slot.low is not None:
            out.add_(slot.low)

    def directions(self, bundle: Bundle, lows: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return Adam's bias-corrected directions of low-rank gradients, and move their moments.

        Large ones are written over `lows`, unless the rule still needs these.
        """
        seeds = (slot.rounding_seed(bundle.step) for slot in bundle.slots)  # which only codes need
        return directions(bundle, lows, seeds, self.scratch, keep=self.keeps_projections)

    def lifted_parts(
        self, bundle: Bundle, slot: Slot, state: dict[str, Any], low: Tensor, *, beta: float, alpha: float
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, values) of a weight in turn, beta * weight + alpha * lift(low), to be changed further."""
        projector, seed = self.projector(slot, state), slot.rounding_seed(bundle.step)
        for rows, weight in parts(slot.parameter, bundle.geometry.matrix_shape, seed):
            projector.add_lifted(weight, low, beta=beta, alpha=alpha, rows=rows)
            yield rows, weight

    # What a step passes through beside held gradients and state, from shapes

    def planned_passing(self, writing_bytes: int = 0) -> int:
        """Return the bytes of it at their most, where gradients are clipped before the step; nothing is computed.

        Args:
            writing_bytes: What writing a weight takes that is stored as codes.
        """
        like: dict[tuple[Any, ...], list[Slot]] = {}
        for slot in self.slots.values():
            shape = tuple(slot.parameter.shape)
            like.setdefault((slot.geometry, slot.settings, shape, slot.parameter.dtype), []).append(slot)
        found = [self._passing_of(slots[0], len(slots), writing_bytes) for slots in like.values()]
        return max((*found, self._passing_of_plain()))

    def _passing_of_plain(self) -> int:
        """Return what parameters take that are not projected, narrow, and updated through one float32 copy."""
        sizes = [
            slot.parameter.numel()
            for slot in self.slots.values()
            if slot.geometry is None and slot.parameter.dtype.itemsize < 4 and slot.parameter.numel() <= LARGEST_PIECE
        ]
        return adam_bytes(sum(sizes), narrow=False, itemsize=2) if sizes else 0

    def update_bytes(self, geometry: Geometry, settings: ProjectionSettings, itemsize: int, count: int) -> int:
        """Return what updating `count` weights at once takes beside their projections.

        Args:
            itemsize: Bytes of a number of a weight and of its gradient.
        """
        size, limit = math.prod(geometry.low_shape), LARGEST_PIECE
        kept = count if self.keeps_projections or count > 1 or size <= limit else 0
        own = 4 * (kept * size or min(size, limit))
        if self.needs_whole_gradient:
            own += _CHANNEL_NUMBERS * 4 * count * max(geometry.low_shape)  # norms and factors
        narrowed = moment_pieces(size, narrow(size, settings.state_bits))
        bases = basis_bytes(geometry, settings, drawn=not self.keeps_bases(settings))
        return own + max(narrowed, bases + lifting_bytes(geometry, itemsize))

    def plain_bytes(self, shape: tuple[int, ...], settings: ProjectionSettings, itemsize: int) -> int:
        """Return what updating a weight takes that is not projected."""
        size = math.prod(shape)
        return adam_bytes(size, narrow(size, settings.state_bits), itemsize)

    def _passing_of(self, slot: Slot, count: int, writing_bytes: int) -> int:
        geometry, settings, itemsize = slot.geometry, slot.settings, slot.parameter.dtype.itemsize
        used_up = settings.update == "in_backward" and not settings.full_accumulator
        gradient = itemsize * slot.parameter.numel()
        if geometry is None:
            own = gradient if used_up and self.needs_whole_gradient else 0
            return own + self.plain_bytes(tuple(slot.parameter.shape), settings, itemsize) + writing_bytes
        in_hook = used_up and (self.needs_whole_gradient or settings.refresh_from == "micro_batch")
        count = min(count, bundle_size(geometry, _LAUNCHING))
        at_once = 1 if in_hook else count
        low, kept = math.prod(geometry.low_shape), self.keeps_bases(settings)
        project = (4 + (itemsize if itemsize < 4 else 0)) * low + basis_bytes(geometry, settings, drawn=not kept)
        together = num_stacked(slot.parameter.numel(), settings.basis, at_once)
        refresh = refresh_bytes(geometry, settings, itemsize, together) if kept else 0
        own = gradient if in_hook else 0
        stacks = gradient * at_once if at_once > 1 and is_small(geometry) else 0
        if at_once > 1:
            project = stacks + together_bytes(geometry, settings, itemsize, at_once, drawn=not kept)
        if self.needs_whole_gradient:
            # gradients and weights, stacked or each for itself, with what is scaled of one
            copies = 2 * stacks + (max(gradient, stacks) if itemsize < 4 else 0)
            update = 4 * at_once * low + self.update_bytes(geometry, settings, itemsize, at_once) + writing_bytes
            if at_once > 1:
                update += copies + project - stacks - 4 * at_once * low
            return own + max(refresh, project, update)
        # in a hook, and where gradients are clipped, a projection takes the place of its gradient
        update = self.update_bytes(geometry, settings, itemsize, count) + writing_bytes if in_hook else 0
        return max(own + max(refresh, project), update)


def _independent_rows(gradient: Tensor, geometry: Geometry) -> Iterable[slice]:
    """Return rows to be projected in turn: a CPU keeps a whole narrow product in float32 for a while."""
    if geometry.side != "right" or gradient.device.type != "cpu" or gradient.ndim > 2:
        return (slice(None),)
    return row_slices(geometry.m, aligned_rows(geometry.n, PART_ELEMENTS))


def _clear_faults(lows: Tensor) -> None:
    """Put zeros into every matrix that is not finite throughout."""
    lows.masked_fill_(not_finite(lows.sum(dim=(-2, -1), keepdim=True)), 0.0)


def _device(bundle: Bundle) -> torch.device:
    return bundle.slots[0].parameter.device

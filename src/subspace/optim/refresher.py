"""New bases for weights whose turn it is, and what follows for their moments."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from subspace.core.seeding import derive_seed
from subspace.linalg.angles import overlap
from subspace.linalg.norms import wide_norm
from subspace.linalg.sketch import mix_seed
from subspace.optim.bases import read_bases, write_bases
from subspace.optim.lowbit import read_moment, write_moment
from subspace.optim.microscope import Microscope, Refreshed
from subspace.optim.slots import Bundle, Slot
from subspace.projection.basis import find_bases
from subspace.projection.geometry import Geometry
from subspace.projection.refresh import NUM_OVERLAPS, due, next_interval, transport

__all__ = ["Refresher", "forget_moments"]

State = dict[str, Any]


class Refresher:
    """Keeps `basis` (and `basis_right`) in the states of projected weights.

    Weights refreshed in one step share the seed of an estimate, so that the order of refreshes does not count.
    """

    def __init__(self) -> None:
        self.microscope: Microscope | None = None

    def refresh(self, bundle: Bundle) -> None:
        """Find new bases where they are due and the whole gradient is there."""
        turn = [
            (slot, state)
            for slot, state in zip(bundle.slots, bundle.states, strict=True)
            if slot.low is None and self.is_due(slot, state)
        ]
        if turn:
            slots, states = zip(*turn, strict=True)
            self.find(slots, states, bundle.group["betas"])

    def is_due(self, slot: Slot, state: State) -> bool:
        """Return whether the next update of a weight begins with a new basis."""
        return "waiting" in state or due(state["step"], state["interval"], slot.phase)

    def find(self, slots: Sequence[Slot], states: Sequence[State], betas: tuple[float, float]) -> None:
        """Find new bases for weights of one geometry from their present gradients."""
        geometry, settings = slots[0].geometry, slots[0].settings
        assert geometry is not None
        # a basis found without a gradient is none
        previous = [None if state.pop("waiting", 0) else read_bases(state, geometry) for state in states]
        gradients = [slot.gradient for slot in slots]
        seeds = [
            derive_seed(settings.seed, "basis", state["step"], slot.index if settings.basis == "random" else -1)
            for slot, state in zip(slots, states, strict=True)
        ]
        with nullcontext() if self.microscope is None else self.microscope.timed():
            fresh = find_bases(gradients, geometry, settings.basis, previous, seeds)
        for slot, state, gradient, before, after in zip(slots, states, gradients, previous, fresh, strict=True):
            usable = _usable(gradient)  # zeros and NaN say nothing: the old basis stays, or a gradient is waited for
            if before is not None:
                after = tuple(torch.where(usable, new, old) for new, old in zip(after, before, strict=True))
            elif settings.fidelity == "paper" and not bool(usable.any()):
                state["waiting"] = 1
            after = write_bases(state, geometry, after, settings.basis_bits)
            if before is not None:
                if settings.refresh == "adaptive" and bool(usable.any()):  # a basis that had to be kept says nothing
                    _adapt(state, settings.refresh_interval, before, after, usable.view(-1))
                _carry(slot, state, geometry, before, after, betas)
            if self.microscope is not None:
                self.microscope.refreshed(Refreshed(slot, gradient, before, after))


def forget_moments(state: State) -> None:
    """Set moments to zero and let their bias correction begin again."""
    state["age"] = 0
    for key, value in state.items():
        if isinstance(value, Tensor) and key.startswith(("exp_avg", "hessian")):
            value.zero_()


def _adapt(state: State, given: int, before: tuple[Tensor, ...], after: tuple[Tensor, ...], usable: Tensor) -> None:
    """Lengthen or shorten an adaptive interval; `overlaps` holds the last ones, -1 where there are none.

    Args:
        state: Of the weight; that of an older version has no `overlaps`.
        given: The interval that the settings say.
        before: Bases of a stack of matrices.
        after: The new ones.
        usable: Which matrices have got a new basis, (e,).
    """
    each = [overlap(old, new).reshape(-1)[usable].min() for old, new in zip(before, after, strict=True)]
    moved = torch.stack(each).min().view(1)
    last = state.get("overlaps", moved.new_full((NUM_OVERLAPS,), -1.0))
    state["overlaps"] = torch.cat((last[1:], moved.to(last)))
    seen = [value for value in state["overlaps"].tolist() if value >= 0]
    state["interval"] = next_interval(state["interval"], given, seen)


def _carry(
    slot: Slot,
    state: State,
    geometry: Geometry,
    before: tuple[Tensor, ...],
    after: tuple[Tensor, ...],
    betas: tuple[float, float],
) -> None:
    """Do to the moments what the settings say."""
    settings = slot.settings
    if settings.moments == "zero":
        forget_moments(state)
    elif settings.moments == "transport":
        bits, shape = settings.state_bits, geometry.low_shape
        first = read_moment(state, "exp_avg", shape, bits, signed=True)
        second = read_moment(state, "exp_avg_sq", shape, bits, signed=False)
        transport((first, second), geometry, before, after, age=state["age"], betas=betas)
        seed = mix_seed(settings.seed, slot.index, state["step"], 1)
        write_moment(state, "exp_avg", first, bits, seed=seed)
        write_moment(state, "exp_avg_sq", second, bits, seed=seed + 1)


def _usable(gradient: Tensor) -> Tensor:
    """Return a bool (.., 1, 1) for every matrix of a stack: it is finite and not all zero."""
    size = wide_norm(gradient, (-2, -1), keepdim=True)
    usable: Tensor = torch.isfinite(size) & (size > 0)
    return usable

"""What a subspace optimizer keeps between steps: made at first use, known beforehand, saved and taken back to the bit.

State of a projected weight: `step` and `age` (updates seen by the weight and by its moments), `interval` (steps between
its refreshes), `overlaps` (of the last bases, where that interval adapts), `waiting` (1, there as long as no gradient
has said anything of a basis), `basis` (and `basis_right` for both sides), and what the rule keeps: tensors and ints
only, so that `torch.load(weights_only=True)` and safetensors carry it.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from subspace.optim.bases import basis_specs
from subspace.optim.in_backward import BackwardUpdates
from subspace.optim.plain import plain_state
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Slot
from subspace.optim.state_io import check_state_dict
from subspace.plan.shapes import TensorSpec
from subspace.projection.geometry import Geometry
from subspace.projection.refresh import NUM_OVERLAPS

__all__ = ["StatefulOptimizer"]

_META = torch.device("meta")


class StatefulOptimizer(torch.optim.Optimizer, abc.ABC):
    """An optimizer over slots whose state a rule defines."""

    slots: dict[nn.Parameter, Slot]
    backward_updates: BackwardUpdates

    @abc.abstractmethod
    def begin(self) -> None:
        """Make what is never saved."""

    @abc.abstractmethod
    def new_state(self, geometry: Geometry, settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
        """Return what the rule keeps for a projected weight before its first update, bases aside."""

    def new_plain_state(
        self, shape: tuple[int, ...], settings: ProjectionSettings, device: torch.device
    ) -> dict[str, Any]:
        """Return what is kept for a parameter that is not projected, before its first update."""
        return plain_state(shape, settings, device)

    @classmethod
    def keeps_bases(cls, settings: ProjectionSettings) -> bool:
        """Return whether bases are in the state, and not made again from a seed."""
        return True

    def state_of(self, slot: Slot) -> dict[str, Any]:
        """Return the state of a projected slot, made at its first use."""
        state: dict[str, Any] = self.state[slot.parameter]
        if not state:
            assert slot.geometry is not None
            state.update(step=0, age=0, interval=slot.settings.refresh_interval)
            state.update(self.new_state(slot.geometry, slot.settings, slot.parameter.device))
            if slot.settings.refresh == "adaptive":
                state["overlaps"] = torch.full((NUM_OVERLAPS,), -1.0, device=slot.parameter.device)
        return state

    def planned_state(self) -> tuple[TensorSpec, ...]:
        """Return the tensors of the state after the first step, named `<parameter>.<key>`; nothing is computed."""
        return tuple(
            dataclasses.replace(spec, name=f"{slot.name}.{spec.name}")
            for slot in self.slots.values()
            for spec in self.planned_of(slot)
        )

    def planned_of(self, slot: Slot) -> list[TensorSpec]:
        """Return the tensors of one parameter's state after its first step, named `<key>`."""
        specs: list[TensorSpec] = []
        if slot.geometry is None:
            state = self.new_plain_state(tuple(slot.parameter.shape), slot.settings, _META)
        else:
            state = self.new_state(slot.geometry, slot.settings, _META)
            if self.keeps_bases(slot.settings):
                specs += basis_specs("", slot.geometry, slot.settings.basis_bits)
            if slot.settings.refresh == "adaptive":
                specs.append(TensorSpec("overlaps", (NUM_OVERLAPS,)))
        specs += (
            TensorSpec(key, tuple(value.shape), str(value.dtype).removeprefix("torch."))
            for key, value in state.items()
            if isinstance(value, Tensor)
        )
        return specs

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; every tensor keeps the type it was saved in.

        Raises:
            CheckpointError: E-CKP-005 if an optimizer of another kind, rank or options gave it; nothing is changed.
        """
        check_state_dict(self, state_dict)
        settings = [group["settings"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, own in zip(self.param_groups, settings, strict=True):
            group["settings"] = own  # they may differ in when updates run
        live = (parameter for group in self.param_groups for parameter in group["params"])
        saved = (index for group in state_dict["param_groups"] for index in group["params"])
        for index, parameter in zip(saved, live, strict=True):
            for key, value in state_dict["state"].get(index, {}).items():
                tensor = isinstance(value, Tensor)
                self.state[parameter][key] = value.detach().to(parameter.device, copy=True) if tensor else value

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs: all but buffers, hooks, and a `step` that a schedule has wrapped."""
        own = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        made_anew = ("scratch", "backward_updates", "step")
        return super().__getstate__() | {key: value for key, value in own.items() if key not in made_anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "slots" not in state:
            return  # torch's load_state_dict brings groups and state alone
        self.begin()
        for slot in self.slots.values():
            if slot.settings.update == "in_backward":
                self.backward_updates.watch(slot)

"""What every subspace optimizer shares: which weights are projected, their bases and state, and the order of a step.

A group with a `rank` is projected where that saves memory; any other parameter gets plain AdamW with moments of the
same width. A concrete optimizer says how one bundle of projected weights is updated; what it keeps is in `stateful`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from subspace.core.errors import MethodError
from subspace.optim import public_name
from subspace.optim.bases import basis_specs
from subspace.optim.described import describe
from subspace.optim.groups import as_groups, check_group, plain_numbers
from subspace.optim.in_backward import BackwardUpdates
from subspace.optim.lowbit import moment_specs
from subspace.optim.plain import update_plains_
from subspace.optim.projecting import ProjectingOptimizer
from subspace.optim.refresher import Refresher
from subspace.optim.refusals import refuse
from subspace.optim.settings import ProjectionSettings, projection_settings
from subspace.optim.slots import Bundle, Group, Plain, Scratch, Slot, bundles
from subspace.projection.geometry import Geometry, geometry_of
from subspace.projection.refresh import phase_of

__all__ = ["SubspaceOptimizer"]

_META = torch.device("meta")
_EPS = 1e-8
_OPTIONS = tuple(field.name for field in dataclasses.fields(ProjectionSettings))


class SubspaceOptimizer(ProjectingOptimizer):
    """Base of the subspace optimizers.

    Args:
        params: Parameters, named parameters, or groups. A group with `rank` is projected; the options below may also be
            keys of a group.
        lr: Learning rate.
        betas: Decays of the moments.
        eps: Added to the root of the second moment; None: 1e-8, with fidelity `reference` the official 1e-6.
        weight_decay: Decoupled.
        rank: Of the subspace, for parameters given without groups; those with one dimension stay plain.
        preset: paper, fast or small, in place of the options that it bundles.
        options: The fields of `ProjectionSettings`; None means the class's own default.

    Raises:
        ConfigError: E-CFG-007, E-CFG-009, E-CFG-010, E-CFG-014 or E-CFG-016 for options or a rank that are unknown,
            wrong, or exclude each other.
    """

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings()
    """The method's own defaults."""
    refresher_class: ClassVar[type[Refresher]] = Refresher
    """What finds bases, or what stands in their place."""
    default_rank: ClassVar[int | None] = None
    """Rank of parameters given without groups and without a rank; 0: nothing is projected then; None: refuse."""
    plain_because: ClassVar[str] = "rank {rank} would keep more than it saves"
    """Why `geometry` is None for a matrix."""
    num_moments: ClassVar[int] = 2
    """Tensors of the (low-rank) gradient's shape that the state holds, which decides where projection saves memory."""
    official_eps: ClassVar[float] = 1e-6
    """What the official code adds by default."""
    explained_by: ClassVar[tuple[type, ...]] = ()
    """Classes whose docstrings explain arguments of `__init__`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        describe(cls, cls.built_in, cls.explained_by)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float | None = None,
        weight_decay: float = 0.0,
        *,
        rank: int | None = None,
        preset: str | None = None,
        **options: Any,
    ) -> None:
        self.settings = projection_settings(self.built_in, options, preset)
        self.slots: dict[nn.Parameter, Slot] = {}
        self.refresher = self.refresher_class()
        self.begin()
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(as_groups(params, rank, self.default_rank), defaults)

    def __repr__(self) -> str:
        """Show the groups, under the name by which people call the class."""
        shown: str = super().__repr__()
        return shown.replace(type(self).__name__, public_name(type(self).__name__), 1)

    def begin(self) -> None:
        """Make what is never saved: buffers, and what the hooks of a step have seen."""
        self.scratch, self.backward_updates = Scratch(), BackwardUpdates(self)

    # What a concrete optimizer says

    @abc.abstractmethod
    def update_bundle(self, bundle: Bundle) -> None:
        """Update the weights of a bundle; bases are fresh where they are due."""

    @classmethod
    def geometry(cls, shape: tuple[int, ...], rank: int, settings: ProjectionSettings) -> Geometry | None:
        """Return how a weight is projected; None where plain AdamW keeps no more.

        Official codes project whatever they are told to, and so does fidelity `reference`.
        """
        found = geometry_of(shape, rank, settings.side)
        if found is None or settings.fidelity == "reference" or cls._saves(found, settings):
            return found
        return None

    @classmethod
    def _saves(cls, geometry: Geometry, settings: ProjectionSettings) -> bool:
        """Return whether bases and low-rank moments take fewer bytes than whole moments of the same width."""
        if geometry.rank >= min(geometry.m, geometry.n):
            return False
        bases = basis_specs("", geometry, settings.basis_bits) if cls.keeps_bases(settings) else ()
        low, whole = (
            moment_specs("", ("first", "second")[: cls.num_moments], shape, settings.state_bits)
            for shape in (geometry.low_shape, geometry.matrix_shape)
        )
        kept, plain = (sum(spec.num_bytes for spec in specs) for specs in ((*bases, *low), whole))
        return kept < plain

    # Groups

    def add_param_group(self, param_group: Group) -> None:
        """Take over a group; its options are checked and kept under `settings`, where those of a used group are."""
        used = param_group.get("settings", {})
        given = used | {key: param_group[key] for key in (*_OPTIONS, "preset") if key in param_group}
        group = {key: value for key, value in param_group.items() if key not in given}
        super().add_param_group(group)
        check_group(group, (*_OPTIONS, "preset"))
        group.update(plain_numbers(group))
        settings = projection_settings(self.settings, given, given.pop("preset", None), where="group")
        for kind in type(self).__mro__:  # what a class refuses, those derived from it refuse
            refuse(kind.__name__, settings)
        group["settings"] = dataclasses.asdict(settings)
        if group["eps"] is None:
            group["eps"] = self.official_eps if settings.fidelity == "reference" else _EPS
        first = len(self.slots)
        names = group.get("param_names") or [str(first + place) for place in range(len(group["params"]))]
        rank = group.get("rank")
        for name, parameter in zip(names, group["params"], strict=True):
            shape = tuple(parameter.shape)
            geometry = None if rank is None else self.geometry(shape, rank, settings)
            slot = Slot(parameter, name, settings, geometry, len(self.slots), len(self.param_groups) - 1)
            self.slots[parameter] = slot
            if settings.update == "in_backward":
                self.backward_updates.watch(slot)
        projected = [slot for slot in self.slots.values() if slot.geometry is not None]
        for place, slot in enumerate(projected):
            if slot.settings.refresh == "staggered":
                slot.phase = phase_of(place, len(projected), slot.settings.refresh_interval)

    # A step

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch types it twice
        """Update every parameter that has a gradient, or an accumulated projection of one."""
        self.backward_updates.refuse_scaling()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index in range(len(self.param_groups)):
            self.step_slots([slot for slot in self.members(index) if slot.ready], index)
        self.backward_updates.forget()
        return loss

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether torch's loss scaler leaves gradients alone and lets `step` see that it is there."""
        return any(slot.settings.update == "in_backward" for slot in self.slots.values())

    def members(self, group_index: int) -> list[Slot]:
        """Return the slots of a group, wherever it now stands among the groups.

        Raises:
            MethodError: E-MTH-001 if a parameter has come into the group past `add_param_group`.
        """
        members = []
        for parameter in self.param_groups[group_index]["params"]:
            slot = self.slots.get(parameter)
            if slot is None:
                raise MethodError(
                    "E-MTH-001",
                    where=f"parameter group {group_index}",
                    found=f"a parameter of shape {tuple(parameter.shape)} that was not there when the group was made",
                    action="Make the optimizer from the parameters that are trained, or use add_param_group.",
                )
            slot.group_index = group_index
            members.append(slot)
        return members

    def step_slots(self, slots: list[Slot], group_index: int) -> None:
        """Update slots of one group that are ready."""
        group = self.param_groups[group_index]
        self._step_plain([slot for slot in slots if slot.geometry is None], group)
        for bundle in self.bundles([slot for slot in slots if slot.geometry is not None], group):
            self.refresher.refresh(bundle)
            microscope = self.refresher.microscope
            with nullcontext() if microscope is None else microscope.updating(bundle.slots):
                self.update_bundle(bundle)
            for slot, state in zip(bundle.slots, bundle.states, strict=True):
                state["step"] += 1
                state["age"] += 1
                slot.low = None

    def bundles(self, slots: list[Slot], group: Group) -> list[Bundle]:
        """Return projected slots of one group in bundles; a new slot gets its state."""
        for slot in slots:
            self.state_of(slot)
        return list(bundles(slots, self.state, group))

    def update_plains(self, plains: Sequence[Plain]) -> None:
        """Update the parameters of a group that are not projected, in float32: by AdamW, unless overridden."""
        update_plains_(plains)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients and what was accumulated of them."""
        super().zero_grad(set_to_none)
        for slot in self.slots.values():
            slot.low = None
        self.backward_updates.forget()

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale what the next step consumes to a global norm of at most `max_norm`; return the norm before.

        Where the update needs only the projection of a gradient, the projection's norm counts, whenever updates run.

        Raises:
            ConfigError: E-CFG-014 if the backward pass has used gradients up and `max_norm` is finite.
        """
        return self.backward_updates.clip(max_norm)

    def _step_plain(self, slots: list[Slot], group: Group) -> None:
        plains = []
        gradients = [slot.whole_gradient for slot in slots]  # raises before anything has changed
        for slot, gradient in zip(slots, gradients, strict=True):
            state = self.state[slot.parameter]
            if not state:
                state.update(self.new_plain_state(tuple(slot.parameter.shape), slot.settings, gradient.device))
            state["step"] = step = state["step"] + 1
            plains.append(Plain(slot, gradient, state, group, step))
        self.update_plains(plains)

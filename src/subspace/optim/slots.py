"""Parameters as a subspace optimizer sees them, and bundles of like ones that are updated together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from subspace.core.errors import MethodError
from subspace.linalg.sketch import mix_seed
from subspace.optim.direction import uncorrected_eps
from subspace.optim.settings import ProjectionSettings
from subspace.projection.geometry import Geometry

__all__ = ["Bundle", "Plain", "Scratch", "Slot", "bundle_size", "bundles", "decay_rate", "is_small"]

Group = dict[str, Any]

_BUNDLE_ELEMENTS = {"cpu": 2**18}
"""Low-rank elements handled at once: on a CPU so many as its caches hold; elsewhere launches cost more."""
_DEFAULT_BUNDLE_ELEMENTS = 2**23
_SMALL_ELEMENTS = 2**20
"""Of the largest matrix that is worth a copy where launches cost: a few microseconds of memory traffic."""
_STACKED_ELEMENTS = 2**24
"""Of a bundle of small matrices, whose gradients and weights are copied."""
_LARGE_ELEMENTS = 2**26
"""Of a bundle of larger ones: with a small rank, the limit on low-rank elements alone would take a whole model."""


@dataclass(eq=False)
class Slot:
    """One parameter and what is known of it.

    Attributes:
        geometry: How it is projected; None if it is not.
        index: Place among all parameters of the optimizer.
        group_index: Place of its group, as the last step found it.
        phase: Of staggered refreshes.
        low: Low-rank gradient accumulated so far: with updates in the backward pass, or after clipping.
    """

    parameter: nn.Parameter
    name: str
    settings: ProjectionSettings
    geometry: Geometry | None
    index: int
    group_index: int
    phase: int = 0
    low: Tensor | None = None

    @property
    def whole_gradient(self) -> Tensor:
        """The gradient in the parameter's shape.

        Raises:
            MethodError: E-MTH-001 if it is sparse.
        """
        gradient = self.parameter.grad
        assert gradient is not None
        if gradient.layout is not torch.strided:
            raise MethodError(
                "E-MTH-001",
                where=f"parameter {self.name}",
                found="a sparse gradient",
                expected="a dense one",
                action="Make the embedding with sparse=False.",
            )
        return gradient

    @property
    def gradient(self) -> Tensor:
        """The gradient as a matrix or a stack of matrices."""
        assert self.geometry is not None
        gradient, shape = self.whole_gradient, self.geometry.matrix_shape
        return gradient if gradient.shape == shape else gradient.reshape(shape)

    def rounding_seed(self, step: int) -> int:
        """Return the seed of stochastic rounding of the weight at a step; the next ones are for its moments."""
        return mix_seed(self.settings.seed, self.index, step)

    @property
    def ready(self) -> bool:
        """Whether there is something to update it with."""
        return self.parameter.grad is not None or self.low is not None


@dataclass(frozen=True)
class Bundle:
    """Projected weights of one group, shape, type and age, updated together."""

    slots: tuple[Slot, ...]
    states: tuple[dict[str, Any], ...]
    geometry: Geometry
    settings: ProjectionSettings
    group: Group

    @property
    def step(self) -> int:
        """Number of this update, counted from 1."""
        return int(self.states[0]["step"]) + 1

    @property
    def age(self) -> int:
        """Updates that the moments have seen, this one included."""
        return int(self.states[0]["age"]) + 1

    @property
    def eps(self) -> float:
        """The eps for torch's formula: official code adds it before the bias correction."""
        eps: float = self.group["eps"]
        if self.settings.fidelity == "reference":
            return uncorrected_eps(eps, self.group["betas"][1], self.age)
        return eps

    @property
    def correction(self) -> float:
        """sqrt(1 - b2^t) / (1 - b1^t): a bias-corrected direction over one that is not."""
        beta1, beta2 = self.group["betas"]
        return float(math.sqrt(1 - beta2**self.age) / (1 - beta1**self.age))

    @property
    def kept(self) -> float:
        """Factor on the weight in the pass that updates it; 1 where decay comes afterwards."""
        return 1.0 if self.settings.fidelity == "reference" else 1.0 - decay_rate(self.group)

    def decay_after(self, weight: Tensor) -> None:
        """Decay a weight that has been updated, as official codes do."""
        if self.settings.fidelity == "reference" and decay_rate(self.group):
            weight.add_(weight, alpha=-decay_rate(self.group))


@dataclass(frozen=True)
class Plain:
    """A parameter that is not projected, at one of its updates.

    Attributes:
        gradient: Of the parameter's shape and any type.
        step: Number of the update, counted from 1.
    """

    slot: Slot
    gradient: Tensor
    state: dict[str, Any]
    group: Group
    step: int

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter."""
        return self.slot.parameter

    @property
    def settings(self) -> ProjectionSettings:
        """Those of its group."""
        return self.slot.settings

    @property
    def seed(self) -> int:
        """Of rounding the weight; the next ones are for its moments."""
        return self.slot.rounding_seed(self.step)


def decay_rate(group: Group) -> float:
    """Return lr * decay."""
    return float(group["lr"]) * float(group["weight_decay"])


_MOST_KEPT_ELEMENTS = 2**22


class Scratch:
    """Float32 buffers that are used again at every step; large ones, which would lie beside activations, are not."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return a buffer of `shape` with arbitrary content; the last one of that name becomes invalid."""
        size = math.prod(shape)
        if size > _MOST_KEPT_ELEMENTS:
            return torch.empty(shape, device=device)
        buffer = self._buffers.get((name, device))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, device] = torch.empty(size, device=device)
        return buffer[:size].view(shape)


def bundle_size(geometry: Geometry, device_type: str) -> int:
    """Return how many weights are updated together at the most."""
    limit = _BUNDLE_ELEMENTS.get(device_type, _DEFAULT_BUNDLE_ELEMENTS)
    most = (_STACKED_ELEMENTS if is_small(geometry) else _LARGE_ELEMENTS) // math.prod(geometry.matrix_shape)
    return max(1, min(limit // math.prod(geometry.low_shape), most))


def is_small(geometry: Geometry) -> bool:
    """Return whether weights of this geometry are updated as a stack where launches cost."""
    return math.prod(geometry.matrix_shape) <= _SMALL_ELEMENTS


def bundles(slots: Iterable[Slot], states: Mapping[Tensor, dict[str, Any]], group: Group) -> Iterator[Bundle]:
    """Yield slots of one group in bundles of one geometry, settings, type, device, step and age, in their order."""
    found: dict[tuple[Any, ...], list[Slot]] = {}
    for slot in slots:
        parameter, state = slot.parameter, states[slot.parameter]
        key = (slot.geometry, slot.settings, parameter.dtype, parameter.device, state["step"], state["age"])
        found.setdefault(key, []).append(slot)
    for (geometry, settings, _, device, *_), members in found.items():
        size = bundle_size(geometry, device.type)
        for first in range(0, len(members), size):
            chosen = tuple(members[first : first + size])
            yield Bundle(chosen, tuple(states[slot.parameter] for slot in chosen), geometry, settings, group)

"""Watches the refreshes of a run: figures for the log, and the first bases. Imports no torch.

The first basis of three weights is kept, on which the logged drift rests; a checkpoint carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from subspace.core.errors import CheckpointError
from subspace.methods.base import Hook
from subspace.plan.shapes import TensorSpec

if TYPE_CHECKING:
    from torch import nn

    from subspace.optim.engine import SubspaceOptimizer
    from subspace.optim.microscope import Microscope
    from subspace.projection.geometry import Geometry

__all__ = ["RefreshWatch"]

_FIRST = "first_basis:"


class RefreshWatch(Hook):
    """Gives an optimizer a microscope, and the log what it sees."""

    def __init__(self) -> None:
        self._watched: dict[str, Geometry] = {}
        self._first: dict[str, Any] = {}
        self._microscope: Microscope | None = None

    def follow(self, projected: Mapping[str, Geometry]) -> None:
        """Choose the weights whose first basis is kept among those that have one."""
        from subspace.optim.microscope import watched_names

        self._watched = {name: projected[name] for name in watched_names(projected)}

    def look_into(self, optimizer: SubspaceOptimizer) -> None:
        """Watch an optimizer from now on."""
        from subspace.optim.microscope import Microscope

        self._microscope = optimizer.refresher.microscope = Microscope(self._watched)
        device = next(iter(optimizer.slots)).device
        self._microscope.first = {name: basis.to(device) for name, basis in self._first.items()}

    def after_step(self, model: nn.Module, step: int) -> Mapping[str, Any] | None:
        """Return the figures of the step's refreshes."""
        return None if self._microscope is None else self._microscope.event()

    def kept_specs(self) -> tuple[TensorSpec, ...]:
        """Return the first bases that will be kept."""
        return tuple(
            TensorSpec(_FIRST + name, next(iter(geometry.basis_shapes.values())))
            for name, geometry in self._watched.items()
        )

    def state(self) -> dict[str, Any]:
        """Return the first bases."""
        first = {} if self._microscope is None else self._microscope.first
        return {_FIRST + name: basis for name, basis in first.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave.

        Raises:
            CheckpointError: E-CKP-005 if it is something else.
        """
        foreign = [key for key in state if not key.startswith(_FIRST) or key.removeprefix(_FIRST) not in self._watched]
        if foreign:
            raise CheckpointError(
                "E-CKP-005",
                where="method state",
                found=f"{len(foreign)} unknown values ({', '.join(sorted(foreign)[:5])})",
                expected="the first bases of the weights that are watched",
                action="Resume with the recipe and the version of subspace that wrote the checkpoint.",
            )
        self._first = {key.removeprefix(_FIRST): value for key, value in state.items()}
        if self._microscope is not None:
            self._microscope.first = self._first

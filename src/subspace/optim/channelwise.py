"""APOLLO: the raw gradient, scaled as Adam scales its random projection.

    R = P^T G with P (m, r) of N(0, 1/r) ;  N = adam(R)
    channel  s_j = |N_j| / (|R_j| + 1e-8)   for every column j (right: every row)
    tensor   s   = |N| / (|R| + 1e-8)       for the whole matrix (APOLLO-Mini, with rank 1)
    W <- (1 - lr wd) W - lr sqrt(scale) G s,  limited in the growth of its norm

Only norms of projections count, so P need not be orthonormal and is made again from its seed at every step instead of
being kept. fidelity `reference` draws it from torch's own generator with the official succession of seeds, which
depends on the device; `paper` from a counter, the same everywhere. With `basis` other than random the projection is
onto singular vectors, which are kept.

References: Zhu et al. 2024, arXiv 2412.05270, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from subspace.core.errors import ConfigError
from subspace.core.seeding import derive_seed
from subspace.linalg.norms import wide_norm
from subspace.linalg.sketch import gaussian, gaussians
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.guards import finite_part
from subspace.optim.limiter import limited, stacked_limits
from subspace.optim.lowbit import add_moments
from subspace.optim.refresher import Refresher, forget_moments
from subspace.optim.residual import channel_axis, channel_norms
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Bundle, Slot
from subspace.optim.together import Together, as_stack, can_go_together
from subspace.optim.weights import add_scaled, parts, rows_of
from subspace.projection.geometry import Geometry
from subspace.projection.projector import Projector

__all__ = ["ChannelScaledAdamW"]

_MAX_DRAW = 2**63 - 1
_DRAWS = 15


class _Reseeder(Refresher):
    """Draws a new seed where a basis would be found."""

    def find(self, slots: Any, states: Any, betas: tuple[float, float]) -> None:
        seeded = [(slot, state) for slot, state in zip(slots, states, strict=True) if slot.settings.basis == "random"]
        for slot, state in seeded:
            if slot.settings.fidelity == "reference":
                first = state["step"] == 0
                state["basis_seed"] = slot.index + 1 if first else _next_official_seed(state["basis_seed"])
            else:
                state["basis_seed"] = derive_seed(slot.settings.seed, "sketch", slot.index, state["step"])
            if slot.settings.moments == "zero":
                forget_moments(state)
        if len(seeded) < len(slots):
            super().find(slots, states, betas)


class ChannelScaledAdamW(SubspaceOptimizer):
    """Scales the gradient by channel or tensor; known as APOLLO, and as APOLLO-Mini with `scaling="tensor"`, rank 1.

    State of a projected weight beside that of `SubspaceOptimizer`: `exp_avg`, `exp_avg_sq` of the low-rank gradient's
    shape, `limiter_norm`, and `basis_seed` (an int) in place of `basis` where it is random.

    Args:
        scaling: One factor for a `channel` or for the whole `tensor`; None: the class's own, which is `channel` here.
        limit_growth: Whether the norm of the update may grow by 1 % a step at most.
        scale: Its root is the factor on the update.
    """

    needs_whole_gradient: ClassVar[bool] = True
    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(basis="random")
    refresher_class: ClassVar[type[Refresher]] = _Reseeder
    default_scaling: ClassVar[Literal["channel", "tensor"]] = "channel"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float | None = None,
        weight_decay: float = 0.0,
        *,
        scaling: Literal["channel", "tensor"] | None = None,
        limit_growth: bool = True,
        **options: Any,
    ) -> None:
        self.scaling, self.limit_growth = scaling or self.default_scaling, limit_growth
        if self.scaling not in ("channel", "tensor"):
            raise ConfigError("E-CFG-010", where="scaling", found=repr(scaling), expected="channel or tensor")
        super().__init__(params, lr, betas, eps, weight_decay, **options)

    def new_state(self, geometry: Geometry, settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
        state: dict[str, Any] = {"limiter_norm": torch.zeros(geometry.stack, device=device)}
        add_moments(state, ("exp_avg", "exp_avg_sq"), geometry.low_shape, settings.state_bits, device)
        return state

    def projector(self, slot: Slot, state: dict[str, Any]) -> Projector:
        if "basis_seed" not in state:
            return super().projector(slot, state)
        geometry, seed, device = slot.geometry, state["basis_seed"], slot.parameter.device
        assert geometry is not None
        if slot.settings.fidelity == "reference":
            basis = _official_draw(seed, geometry, device)
        else:
            basis = gaussian(seed, geometry.basis_shapes["basis"], device=device)
        return Projector.of(geometry.side, basis.div_(math.sqrt(geometry.rank)))

    def projectors(self, bundle: Bundle) -> list[Projector]:
        if bundle.settings.basis != "random" or bundle.settings.fidelity == "reference":
            return super().projectors(bundle)
        geometry, device = bundle.geometry, bundle.slots[0].parameter.device
        seeds = [int(state["basis_seed"]) for state in bundle.states]
        bases = gaussians(seeds, geometry.basis_shapes["basis"], device=device).div_(math.sqrt(geometry.rank))
        return [Projector.of(geometry.side, basis) for basis in bases.unbind(0)]

    @classmethod
    def keeps_bases(cls, settings: ProjectionSettings) -> bool:
        return settings.basis != "random"

    def update_bundle(self, bundle: Bundle) -> None:
        if can_go_together(bundle) and bundle.settings.fidelity == "paper":
            self._update_together(bundle)
            return
        lows = self.low_gradients(bundle)
        before = [self._norms(bundle, low) for low in lows]  # of gradients that directions may overwrite
        directions = self.directions(bundle, lows)
        for slot, state, norm, direction in zip(bundle.slots, bundle.states, before, directions, strict=True):
            factor = self._norms(bundle, direction) / bundle.correction / (norm + 1e-8)
            self._update_one(bundle, slot, state, factor)

    def _norms(self, bundle: Bundle, matrix: Tensor) -> Tensor:
        """Return the norms of a matrix, low-rank or not, that belong to one factor each."""
        if self.scaling == "tensor":
            return wide_norm(matrix, (-2, -1), keepdim=True)
        return channel_norms(matrix, channel_axis(bundle.geometry))

    def _update_together(self, bundle: Bundle) -> None:
        """Do what `_update_one` does for every weight of a bundle, with few launches for each."""
        together = Together(bundle, self.projectors(bundle))
        lows = self.low_gradients(bundle, together)
        before = self._norms(bundle, as_stack(lows))
        after = self._norms(bundle, as_stack(self.directions(bundle, lows)))
        sizes = together.norms(lambda gradient: self._norms(bundle, gradient))
        with stacked_limits(bundle.states) as limits:
            factor = self._limited(bundle, limits, after / bundle.correction / (before + 1e-8), sizes)
        together.add_scaled(factor, sizes.sum(dim=(-2, -1)), alpha=-self._rate(bundle), beta=bundle.kept)
        together.write()

    def _limited(self, bundle: Bundle, state: dict[str, Any], factor: Tensor, sizes: Tensor) -> Tensor:
        """Return the factors on gradients with these norms, limited in the growth of the update's norm."""
        if not self.limit_growth:
            return factor
        size = (factor.square() * sizes.square()).sum(dim=(-2, -1)).sqrt()
        return factor * limited(state, size, official=bundle.settings.fidelity == "reference")[..., None, None]

    @staticmethod
    def _rate(bundle: Bundle) -> float:
        return float(bundle.group["lr"]) * bundle.correction * math.sqrt(bundle.settings.scale)

    def _update_one(self, bundle: Bundle, slot: Slot, state: dict[str, Any], factor: Tensor) -> None:
        sizes = self._norms(bundle, slot.gradient)
        gradient = finite_part(slot.gradient, sizes.sum(dim=(-2, -1)))
        factor, rate = self._limited(bundle, state, factor, sizes), self._rate(bundle)
        seed = slot.rounding_seed(bundle.step)
        for rows, weight in parts(slot.parameter, bundle.geometry.matrix_shape, seed):
            part, own = gradient[..., rows, :], rows_of(factor, rows)
            add_scaled(weight, part, own, alpha=-rate, beta=bundle.kept)
            bundle.decay_after(weight)


def _next_official_seed(seed: int) -> int:
    """Return the last of fifteen draws of a generator with this seed."""
    generator = torch.Generator().manual_seed(seed)
    return int(torch.randint(_MAX_DRAW, (_DRAWS,), generator=generator)[-1])


def _official_draw(seed: int, geometry: Geometry, device: torch.device) -> Tensor:
    """Return (m, r), or (n, r) from a draw of (r, n), from torch's generator of that device; one for a whole stack."""
    generator = torch.Generator(device=device).manual_seed(seed)
    rows, columns = geometry.basis_shapes["basis"][-2:]
    if geometry.side == "right":
        draw = torch.randn(columns, rows, generator=generator, device=device).mT
    else:
        draw = torch.randn(rows, columns, generator=generator, device=device)
    return draw.repeat(*geometry.stack, 1, 1)


class TensorScaledAdamW(ChannelScaledAdamW):
    """APOLLO-Mini: one factor for a whole matrix, from a projection of rank 1; `scale` 128.

    Args:
        scaling: One factor for a `channel` or for the whole `tensor`; None: `tensor`.
        rank: Of the subspace, for parameters given without groups; None: 1.
        scale: Its root is the factor on the update.
    """

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(basis="random", scale=128.0)
    default_scaling: ClassVar[Literal["channel", "tensor"]] = "tensor"
    default_rank: ClassVar[int | None] = 1

"""Flora: Adafactor on the whole gradient, with a momentum kept in a random subspace that is drawn anew.

    U = G as Adafactor normalises it
    down(X) = A X, up(Y) = A^T Y with A (r, m) of N(0, 1/r) for m < n;  down(X) = X B, up(Y) = Y B^T, B (n, r), else
    D = (1 - b1) U + b1 up(M)
    every `refresh_interval` steps: M <- down'(up(M)) with the next projection, which is used from then on
    M <- b1 M + (1 - b1) down(U)
    D <- D / max(1, rms(D) / clip) ;  W <- W - wd lr_t W ;  W <- W - lr_t D

E[up(down(X))] = X: the projection is an unbiased, noisy identity, made again from its seed whenever it is used. Weights
whose sides differ more than fourfold (embeddings) or are smaller than the rank keep a whole momentum.

The official code draws from torch's generators, which differ between devices; here a counter does, for both fidelities.

References: Hao et al. 2024, arXiv 2402.03293, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from subspace.core.seeding import derive_seed
from subspace.linalg.sketch import gaussian
from subspace.optim.adafactor import AdafactorRule, decay_
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.groups import refuse_arguments
from subspace.optim.guards import finite_part
from subspace.optim.lowbit import add_moments, narrow, read_moment, write_moment
from subspace.optim.refresher import Refresher
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Bundle, Plain, Slot
from subspace.optim.step_size import basis_bytes
from subspace.optim.weights import writable
from subspace.projection.geometry import Geometry, geometry_of
from subspace.projection.projector import Projector

__all__ = ["SketchedAdafactor"]

_MAX_RATIO = 4


class _NoRefresher(Refresher):
    """Leaves new projections to the update, which carries the momentum from one to the next."""

    def refresh(self, bundle: Bundle) -> None:
        return


class SketchedAdafactor(SubspaceOptimizer):
    """Adafactor with a sketched momentum; known as Flora.

    State of a projected weight: `step`, `age`, `interval`, the factors `exp_avg_sq_row` and `exp_avg_sq_col` of the
    whole gradient, `exp_avg` of the low-rank shape, and `basis_seed`.

    Args:
        lr: Learning rate; None with `relative_step`. The other arguments are those of `AdafactorRule`.
        beta1: Decay of the momentum.
        scale: Factor on the update.
    """

    needs_whole_gradient: ClassVar[bool] = True
    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(refresh_interval=1000, basis="random")
    refresher_class: ClassVar[type[Refresher]] = _NoRefresher
    plain_because: ClassVar[str] = (
        f"one side is more than {_MAX_RATIO} times the other or shorter than rank {{rank}}, or they are no single "
        "matrices: their momentum stays whole"
    )
    explained_by: ClassVar[tuple[type, ...]] = (AdafactorRule,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        *,
        eps: tuple[float, float] = (1e-30, 1e-3),
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        scale_parameter: bool = True,
        relative_step: bool | None = None,
        warmup_init: bool = False,
        **options: Any,
    ) -> None:
        refuse_arguments(options, betas="Its momentum has one decay, beta1.")
        relative = lr is None if relative_step is None else relative_step
        self.rule = AdafactorRule(eps, clip_threshold, decay_rate, beta1, scale_parameter, relative, warmup_init)
        self.rule.check(lr)
        super().__init__(params, lr, (beta1, 0.0), eps, weight_decay, **options)  # type: ignore[arg-type]  # its own lr and eps

    @classmethod
    def geometry(cls, shape: tuple[int, ...], rank: int, settings: ProjectionSettings) -> Geometry | None:
        found = geometry_of(shape, rank, settings.side)
        if found is None or min(found.m, found.n) < rank or len(shape) != 2:
            return None
        return found if max(found.m, found.n) <= _MAX_RATIO * min(found.m, found.n) else None

    def new_state(self, geometry: Geometry, settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
        state = self.rule.new_state(geometry.matrix_shape, False, settings.state_bits, device)
        add_moments(state, ("exp_avg",), geometry.low_shape, settings.state_bits, device)
        return state

    def new_plain_state(
        self, shape: tuple[int, ...], settings: ProjectionSettings, device: torch.device
    ) -> dict[str, Any]:
        return {"step": 0, **self.rule.new_state(shape, True, settings.state_bits, device)}

    @classmethod
    def keeps_bases(cls, settings: ProjectionSettings) -> bool:
        return False

    def update_bundle(self, bundle: Bundle) -> None:
        for slot, state in zip(bundle.slots, bundle.states, strict=True):
            gradient = finite_part(slot.gradient).float()
            shape = bundle.geometry.matrix_shape
            with writable(slot.parameter, shape, slot.rounding_seed(bundle.step), wide=True) as weight:
                rate = self.rule.rate(weight, bundle.group["lr"], bundle.step)
                update = self.rule.normalized(state, gradient, bundle.step)
                update = self.rule.clipped(self._with_momentum(slot, state, bundle, update)).mul_(rate)
                decay_(weight, bundle.group, rate)
                weight.sub_(update, alpha=bundle.settings.scale)

    def _with_momentum(self, slot: Slot, state: dict[str, Any], bundle: Bundle, update: Tensor) -> Tensor:
        """Return (1 - b1) U + b1 up(M), and move the momentum."""
        beta1, bits, shape = self.rule.beta1, bundle.settings.state_bits, bundle.geometry.low_shape
        assert beta1 is not None
        if "basis_seed" not in state:
            state["basis_seed"] = derive_seed(slot.settings.seed, "sketch", slot.index, 0)
        momentum = read_moment(state, "exp_avg", shape, bits, signed=True)
        projector = self.projector(slot, state)
        lifted = projector.lift(momentum)
        if bundle.step % bundle.settings.refresh_interval == slot.phase:
            state["basis_seed"] = derive_seed(slot.settings.seed, "sketch", slot.index, bundle.step)
            projector = self.projector(slot, state)
            momentum = projector.project(lifted)
        # products apart from sums: up(down(.)) magnifies what a fused multiply-add would round otherwise
        momentum = momentum.mul_(beta1).add_(projector.project(update).mul_(1.0 - beta1))
        seed = slot.rounding_seed(bundle.step) + 1
        write_moment(state, "exp_avg", momentum, bits, seed=seed)
        return update.mul_(1.0 - beta1).add_(lifted.mul_(beta1))

    def projector(self, slot: Slot, state: dict[str, Any]) -> Projector:
        geometry, device = slot.geometry, slot.parameter.device
        assert geometry is not None
        basis = gaussian(state["basis_seed"], geometry.basis_shapes["basis"], device=device)
        return Projector.of(geometry.side, basis.div_(math.sqrt(geometry.rank)))

    def update_plains(self, plains: Sequence[Plain]) -> None:
        for plain in plains:
            self._update_plain(plain)

    def _update_plain(self, plain: Plain) -> None:
        state, bits, beta1 = plain.state, plain.settings.state_bits, self.rule.beta1
        shape = tuple(plain.parameter.shape)
        assert beta1 is not None
        update = self.rule.normalized(state, plain.gradient.float(), plain.step)
        momentum = read_moment(state, "exp_avg", shape, bits, signed=True)
        momentum.mul_(beta1).add_(update, alpha=1.0 - beta1)
        write_moment(state, "exp_avg", momentum, bits, seed=plain.seed + 1)
        update = self.rule.clipped(update.copy_(momentum))
        del momentum  # where it is a widened copy
        with writable(plain.parameter, shape, plain.seed, wide=True) as weight:
            rate = self.rule.rate(weight, plain.group["lr"], plain.step)
            decay_(weight, plain.group, rate)
            weight.sub_(update.mul_(rate))

    def update_bytes(self, geometry: Geometry, settings: ProjectionSettings, itemsize: int, count: int) -> int:
        low, whole = 4 * math.prod(geometry.low_shape), 4 * math.prod(geometry.matrix_shape)
        wide = 2 * whole if itemsize < 4 else 0
        return 2 * whole + wide + 2 * low + basis_bytes(geometry, settings, drawn=True)

    def plain_bytes(self, shape: tuple[int, ...], settings: ProjectionSettings, itemsize: int) -> int:
        size = math.prod(shape)
        return 4 * size * ((1 if itemsize >= 4 else 2) + narrow(size, settings.state_bits))

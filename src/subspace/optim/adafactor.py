"""GaLore on Adafactor: a second moment kept as row and column means of the projected gradient.

    b2 = 1 - t^decay_rate ;  U2 = R*R + eps1
    row <- b2 row + (1 - b2) mean over columns of U2 ;  col <- b2 col + (1 - b2) mean over rows of U2
    U = R / sqrt(row / mean(row)) / sqrt(col) ;  U <- U / max(1, rms(U) / clip) ;  U <- lr_t U
    U <- exp_avg <- b1 exp_avg + (1 - b1) U                      (if beta1 is given: momentum of scaled updates)
    W <- W - wd lr_t W ;  W <- W - scale lift(U)

    lr_t = max(eps2, rms(W)) if scale_parameter, times min(0.01, 1 / sqrt(t)) if relative_step (warmup_init: 1e-6 t in
    place of 0.01), else times lr

Vectors, and matrices that are not projected, go through the same steps without projection; vectors keep a whole second
moment.

References: Shazeer and Stern 2018, arXiv 1804.04235; Zhao et al. 2024, arXiv 2403.03507.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from subspace.core.errors import ConfigError
from subspace.linalg.norms import wide_norm
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.groups import refuse_arguments
from subspace.optim.lowbit import add_moments, narrow, read_moment, write_moment
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Bundle, Group, Plain
from subspace.optim.step_size import basis_bytes, moment_pieces
from subspace.optim.weights import writable
from subspace.projection.geometry import Geometry

__all__ = ["AdafactorRule", "ProjectedAdafactor", "decay_", "rms"]

_FACTORS = ("exp_avg_sq_row", "exp_avg_sq_col")


def rms(values: Tensor) -> Tensor:
    """Return the root of the mean square, float32: 0-dim, or (e, 1, 1) for a stack (e, m, n) of matrices."""
    stacked = values.ndim == 3
    dims = (-2, -1) if stacked else None
    count = math.prod(values.shape[-2:] if stacked else values.shape)
    return wide_norm(values, dims, keepdim=stacked) / math.sqrt(max(count, 1))


class AdafactorRule:
    """The arithmetic of Adafactor for one tensor, on state that an optimizer keeps.

    Args:
        eps: Added to the square of the gradient, and the least root mean square of a weight.
        clip_threshold: Largest root mean square of an update, before the learning rate.
        decay_rate: Exponent c of the second moment's decay 1 - t^c, below 0.
        beta1: Decay of a momentum of updates; None: no momentum.
        scale_parameter: Take the learning rate times the root mean square of each weight.
        relative_step: Find the learning rate from the number of the step; None: where no lr is given.
        warmup_init: With `relative_step`: let it rise from 1e-6.
    """

    def __init__(
        self,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        scale_parameter: bool = True,
        relative_step: bool = False,
        warmup_init: bool = False,
    ) -> None:
        self.eps, self.clip_threshold, self.decay_rate, self.beta1 = eps, clip_threshold, decay_rate, beta1
        self.scale_parameter, self.relative_step, self.warmup_init = scale_parameter, relative_step, warmup_init

    def check(self, lr: float | None) -> None:
        """Refuse a learning rate beside `relative_step`, and neither.

        Raises:
            ConfigError: E-CFG-014.
        """
        if (lr is None) != self.relative_step:
            raise ConfigError(
                "E-CFG-014",
                where="lr",
                found=f"lr {lr} with relative_step {self.relative_step}",
                expected="a learning rate, or relative_step, which finds its own",
            )

    def new_state(self, shape: tuple[int, ...], momentum: bool, bits: int, device: torch.device) -> dict[str, Any]:
        """Return zero state for a tensor: factors of matrices, the whole second moment of vectors."""
        state: dict[str, Any] = {}
        if len(shape) < 2:
            state["exp_avg_sq"] = torch.zeros(shape, device=device)
        else:
            state["exp_avg_sq_row"] = torch.zeros(shape[:-1], device=device)
            state["exp_avg_sq_col"] = torch.zeros((*shape[:-2], shape[-1]), device=device)
        if momentum:
            add_moments(state, ("exp_avg",), shape, bits, device)
        return state

    def normalized(self, state: dict[str, Any], gradient: Tensor, step: int) -> Tensor:
        """Return the gradient over the root of its smoothed square, not yet clipped; moves the factors."""
        decay = 1.0 - step**self.decay_rate
        square = gradient.square().add_(self.eps[0])
        if "exp_avg_sq" in state:
            state["exp_avg_sq"].mul_(decay).add_(square, alpha=1.0 - decay)
            vector: Tensor = gradient * state["exp_avg_sq"].rsqrt()
            return vector
        row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
        row.mul_(decay).add_(square.mean(dim=-1), alpha=1.0 - decay)
        column.mul_(decay).add_(square.mean(dim=-2), alpha=1.0 - decay)
        del square  # as large as the gradient
        row_factor = (row / row.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
        factor: Tensor = row_factor * column.rsqrt().unsqueeze(-2)
        scaled: Tensor = factor.mul_(gradient)
        return scaled

    def clipped(self, update: Tensor) -> Tensor:
        """Scale an update in place to a root mean square of at most `clip_threshold`, each matrix of a stack."""
        return update.div_((rms(update) / self.clip_threshold).clamp(min=1.0))

    def rate(self, weight: Tensor, lr: float | None, step: int) -> Tensor:
        """Return lr_t, of the shape that `rms` gives."""
        if self.relative_step:
            highest = 1e-6 * step if self.warmup_init else 1e-2
            lr = min(highest, 1.0 / math.sqrt(step))
        assert lr is not None
        size = rms(weight).clamp(min=self.eps[1]) if self.scale_parameter else torch.ones((), device=weight.device)
        return size * lr


class ProjectedAdafactor(SubspaceOptimizer):
    """Adafactor in the subspace of a projector; known as GaLoreAdafactor.

    State of a projected weight beside that of `SubspaceOptimizer`: `exp_avg_sq_row`, `exp_avg_sq_col`, and `exp_avg`
    with `beta1`. Where that momentum would be smaller a weight is projected; without it projection saves no memory, and
    is done in the same places because it was asked for.

    Args:
        lr: Learning rate; None with `relative_step`. The other arguments are those of `AdafactorRule`.
    """

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(scale=0.25)
    num_moments: ClassVar[int] = 1
    explained_by: ClassVar[tuple[type, ...]] = (AdafactorRule,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        *,
        eps: tuple[float, float] = (1e-30, 1e-3),
        weight_decay: float = 0.0,
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        scale_parameter: bool = True,
        relative_step: bool | None = None,
        warmup_init: bool = False,
        **options: Any,
    ) -> None:
        refuse_arguments(options, betas="Its momentum has one decay, beta1.")
        relative = lr is None if relative_step is None else relative_step
        self.rule = AdafactorRule(eps, clip_threshold, decay_rate, beta1, scale_parameter, relative, warmup_init)
        self.rule.check(lr)
        super().__init__(params, lr, (beta1 or 0.0, 0.0), eps, weight_decay, **options)  # type: ignore[arg-type]  # its own lr and eps

    def new_state(self, geometry: Geometry, settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
        return self.rule.new_state(geometry.low_shape, self.rule.beta1 is not None, settings.state_bits, device)

    def new_plain_state(
        self, shape: tuple[int, ...], settings: ProjectionSettings, device: torch.device
    ) -> dict[str, Any]:
        return {"step": 0, **self.rule.new_state(shape, self.rule.beta1 is not None, settings.state_bits, device)}

    def update_bundle(self, bundle: Bundle) -> None:
        for slot, state, low in zip(bundle.slots, bundle.states, self.low_gradients(bundle), strict=True):
            seed = slot.rounding_seed(bundle.step)
            steps, bits = (bundle.step, bundle.age), bundle.settings.state_bits
            update = self.rule.clipped(self.rule.normalized(state, low, steps[1]))
            with writable(slot.parameter, bundle.geometry.matrix_shape, seed, wide=True) as weight:
                update, rate = self._scaled(state, update, weight, bundle.group, steps[0], bits, seed)
                decay_(weight, bundle.group, rate)
                projector = self.projector(slot, state)
                projector.add_lifted(weight, update, alpha=-bundle.settings.scale)

    def _scaled(
        self, state: dict[str, Any], update: Tensor, weight: Tensor, group: Group, step: int, bits: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return the update scaled by lr_t, its momentum where there is one, and lr_t; moves the momentum."""
        rate = self.rule.rate(weight, group["lr"], step)
        update = update.mul_(rate)
        if self.rule.beta1 is not None:
            average = read_moment(state, "exp_avg", tuple(update.shape), bits, signed=True)
            update = average.mul_(self.rule.beta1).add_(update, alpha=1.0 - self.rule.beta1).clone()
            write_moment(state, "exp_avg", average, bits, seed=seed + 1)
        return update, rate

    def update_plains(self, plains: Sequence[Plain]) -> None:
        for plain in plains:
            group, bits = plain.group, plain.settings.state_bits
            # before the weight is widened: the two are never there together
            update = self.rule.clipped(self.rule.normalized(plain.state, plain.gradient.float(), plain.step))
            with writable(plain.parameter, tuple(plain.parameter.shape), plain.seed, wide=True) as weight:
                update, rate = self._scaled(plain.state, update, weight, group, plain.step, bits, plain.seed)
                decay_(weight, group, rate)
                weight.sub_(update)

    def update_bytes(self, geometry: Geometry, settings: ProjectionSettings, itemsize: int, count: int) -> int:
        low, whole = 4 * math.prod(geometry.low_shape), 4 * math.prod(geometry.matrix_shape)
        bases = basis_bytes(geometry, settings, drawn=False)
        momentum = 0 if self.rule.beta1 is None else 2 * low
        return 2 * low + momentum + bases + (whole if itemsize < 4 else 0)

    def plain_bytes(self, shape: tuple[int, ...], settings: ProjectionSettings, itemsize: int) -> int:
        size = math.prod(shape)
        copies = 1 if itemsize >= 4 else 2
        if self.rule.beta1 is not None:
            coded = narrow(size, settings.state_bits)
            return 4 * size * (copies + 1 + coded) + moment_pieces(size, coded)
        return 4 * size * copies


def decay_(weight: Tensor, group: Group, rate: Tensor) -> None:
    """Do weight <- weight - decay lr_t weight."""
    if group["weight_decay"]:
        weight.addcmul_(weight, -group["weight_decay"] * rate)

"""Sophia-G: the sign of the momentum, damped where an estimate of the curvature is large.

    M <- b1 M + (1 - b1) G,   H <- b2 H + (1 - b2) B g*g every `hessian_interval` steps
    W <- W - lr sign(M) min(|M| / (rho H), 1)

g is the gradient of the mean loss over B targets drawn from the model's own output. State is as large as Adam's, and
every tenth step costs a second forward and backward pass.

References: Liu et al. 2023, arXiv 2305.14342. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from subspace.core.errors import MethodError
from subspace.methods.base import AttachContext, Hook, MethodCard, Refusal
from subspace.methods.projected import ProjectedMethod
from subspace.methods.projection_config import SHARED_REFUSALS, ProjectionConfig, optimizer_refusals
from subspace.optim.settings import OptimizerSettings, ProjectionSettings
from subspace.plan.shapes import Inventory, Placement

if TYPE_CHECKING:
    from torch import Tensor, nn

    from subspace.optim.engine import SubspaceOptimizer

__all__ = ["Sophia", "SophiaConfig"]


class SophiaConfig(ProjectionConfig):
    """Clipped sign momentum with an estimate of the curvature."""

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings()
    optimizer: ClassVar[str] = "curvature:CurvatureClipped"

    name: Literal["sophia"] = "sophia"
    rank: int | None = Field(default=None, ge=1)  # type: ignore[assignment]  # absent here: nothing is projected
    """Dimension of a subspace for momentum and curvature; absent: none, as published."""
    rho: float = Field(default=0.04, gt=0.0)
    """Curvature at which an update is damped; larger is bolder."""
    hessian_interval: int = Field(default=10, ge=1)
    """Steps between two estimates of the curvature."""

    def unread_training(self) -> tuple[str, ...]:
        return ("adam_epsilon",)

    def unread(self) -> Iterator[tuple[tuple[str, ...], str]]:
        yield from super().unread()
        if self.rank is None:
            yield ("refresh_interval", "side", "basis", "refresh", "moments", "project_embeddings"), "without a rank"
            if self.target == "weights":
                yield ("target_modules", "exclude_modules"), "without a rank"
            if self.preset == "fast":  # the moments of `small` are narrow without a rank too
                yield ("preset",), "without a rank"


class Sophia(ProjectedMethod, Hook):
    """Second-order clipped stochastic optimization; the hook is the method itself."""

    card = MethodCard(
        name="sophia",
        summary="The sign of the momentum, damped where an estimate of the curvature is large.",
        family="projection",
        reference="Liu et al. 2023, arXiv 2305.14342",
        low_rank="Nothing, unless a rank is given: then momentum and curvature.",
        use_when=(
            "To compare with Adam on long runs of large batches; it saves no memory, and a tenth of the steps "
            "costs twice."
        ),
        cost="m n trained numbers, 2 m n of state; one more forward and backward pass every hessian_interval steps",
        refuses=(
            *SHARED_REFUSALS,
            *optimizer_refusals("CurvatureClipped"),
            Refusal("training.loss_chunk_tokens", (None,), "Its targets are drawn from whole logits.", all_but=True),
        ),
        differs=(
            "The estimate reads training rows in their order, apart from those of the step.",
            "The number of targets enters when the curvature is estimated and not when it is used.",
            "adam_epsilon is not read; adam_beta1 0.965 and adam_beta2 0.99 are the paper's.",
        ),
    )
    config_class = SophiaConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._optimizer: Any = None
        self._context: AttachContext | None = None

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        if self.config.rank is None:
            return self.trained_as.place(inventory)
        return super().place(inventory)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        if context.batches is None:
            raise MethodError("E-MTH-001", where="method sophia", found="no batches to estimate the curvature on")
        self._context = context
        return super().attach(model, placements, context)

    def new_optimizer(
        self, groups: list[dict[str, Any]], settings: OptimizerSettings, options: dict[str, Any]
    ) -> SubspaceOptimizer:
        from subspace.optim.curvature import CurvatureClipped

        rate, betas = settings.learning_rate, (settings.beta1, settings.beta2)
        self._optimizer = optimizer = CurvatureClipped(groups, rate, betas, self.config.rho, **options)
        return optimizer

    def hooks(self) -> tuple[Hook, ...]:
        return *super().hooks(), self

    def after_step(self, model: nn.Module, step: int) -> None:
        """Estimate the curvature where it is due; the step's gradients are used up."""
        from subspace.optim.curvature import measure_curvature

        number, rest = divmod(step - 1, self.config.hessian_interval)
        if not rest:
            measure_curvature(model, self._optimizer, self._batch(number))

    def _batch(self, number: int) -> Mapping[str, Tensor]:
        """Return the batch of estimate `number`, counted from 0; the rows begin again after the last."""
        assert self._context is not None
        assert self._context.batches is not None
        batches = self._context.batches()
        return batches[number % len(batches)]

"""Flora: Adafactor on the whole gradient, its momentum compressed by a random projection that is drawn anew.

    U = adafactor(G),   W <- W - lr ((1 - b1) U + b1 up(M)),   M <- b1 M + (1 - b1) down(U)

down and up are A X and A^T Y with a random A (r, m) of N(0, 1/r), made again from its seed whenever it is used and
drawn anew every `refresh_interval` steps, M carried along. The state is M and the row and column means of G's squares.

References: Hao et al. 2024, arXiv 2402.03293. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from subspace.methods.base import MethodCard
from subspace.methods.projected import ProjectedMethod
from subspace.methods.projection_config import (
    SHARED_REFUSALS,
    WHOLE_GRADIENT_REFUSALS,
    ProjectionConfig,
    optimizer_refusals,
)
from subspace.optim.settings import OptimizerSettings, ProjectionSettings

if TYPE_CHECKING:
    from subspace.optim.engine import SubspaceOptimizer

__all__ = ["Flora", "FloraConfig"]


class FloraConfig(ProjectionConfig):
    """Adafactor whose momentum is compressed by a random projection."""

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(basis="random", refresh_interval=1000)
    optimizer: ClassVar[str] = "sketched:SketchedAdafactor"
    needs_whole_gradient: ClassVar[bool] = True

    name: Literal["flora"] = "flora"
    refresh_interval: int = Field(default=1000, ge=1)
    """Optimizer steps between new projections (the paper's kappa)."""
    scale: float = Field(default=1.0, gt=0.0)
    """Factor on the update."""
    scale_parameter: bool = True
    """Take the learning rate relative to the root mean square of each weight, as Adafactor does."""

    def unread_training(self) -> tuple[str, ...]:
        return "adam_beta2", "adam_epsilon"


class Flora(ProjectedMethod):
    """Low-rank adapters as gradient compressors."""

    card = MethodCard(
        name="flora",
        summary="Adafactor on the whole gradient, its momentum compressed by a random projection.",
        family="projection",
        reference="Hao et al. 2024, arXiv 2402.03293",
        low_rank="The momentum; the second moment is factored, and the change of a weight has full rank.",
        use_when="Where even GaLore's bases are too much, and a noisy momentum is no matter.",
        cost="m n trained numbers; state n' r + m + n; the projection is made again from a seed at every step",
        refuses=(*SHARED_REFUSALS, *WHOLE_GRADIENT_REFUSALS, *optimizer_refusals("SketchedAdafactor")),
        differs=(
            "Random numbers come from a counter and are the same on every device.",
            "training.adam_beta1 is the decay of the momentum; adam_beta2 and adam_epsilon are not read.",
            "Gradients are accumulated in full; the official accelerator can add up their projections.",
            "Weights more than four times as long as wide keep a whole momentum, as in the official code.",
            "fidelity is read by nothing: paper and reference are the same steps.",
            "A projection knows nothing of the gradient and is not kept, so that the microscope has nothing to log.",
        ),
    )
    config_class = FloraConfig

    def new_optimizer(
        self, groups: list[dict[str, Any]], settings: OptimizerSettings, options: dict[str, Any]
    ) -> SubspaceOptimizer:
        from subspace.optim.sketched import SketchedAdafactor

        relative = self.config.scale_parameter
        return SketchedAdafactor(
            groups, settings.learning_rate, beta1=settings.beta1, scale_parameter=relative, **options
        )

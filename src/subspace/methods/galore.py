"""GaLore: every weight is trained, with Adam on a low-rank projection of its gradient.

    R = P^T G,   N = adam(R),   W <- W - lr scale P N,   P (m, r) the leading singular vectors of G

P is found anew every `refresh_interval` steps. Moments are kept for R only: for an (m, n) weight m r + 2 n r numbers in
place of 2 m n.

References: Zhao et al. 2024, arXiv 2403.03507. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from subspace.config.base import Synonym
from subspace.methods.base import MethodCard
from subspace.methods.projected import ProjectedMethod
from subspace.methods.projection_config import SHARED_REFUSALS, ProjectionConfig, foreign_names, optimizer_refusals
from subspace.optim.settings import OptimizerSettings, ProjectionSettings

if TYPE_CHECKING:
    from subspace.optim.engine import SubspaceOptimizer

__all__ = ["GaLore", "GaLoreConfig"]


class GaLoreConfig(ProjectionConfig):
    """Adam, or Adafactor, on a low-rank projection of every gradient."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {**ProjectionConfig.synonyms, **foreign_names("galore")}

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(scale=0.25)
    optimizer: ClassVar[str] = "projected:ProjectedAdamW"

    name: Literal["galore"] = "galore"
    scale: float = Field(default=0.25, gt=0.0)
    """Factor on the lifted update."""
    rule: Literal["adamw", "adafactor"] = "adamw"
    """What runs inside the subspace."""

    def optimizer_place(self) -> str:
        return "adafactor:ProjectedAdafactor" if self.rule == "adafactor" else self.optimizer

    def unread_training(self) -> tuple[str, ...]:
        return ("adam_beta2", "adam_epsilon") if self.rule == "adafactor" else ()


_ADAMW = optimizer_refusals("ProjectedAdamW")
_ADAFACTOR = tuple(
    row
    for row in optimizer_refusals("ProjectedAdafactor", when=(("method.rule", ("adafactor",)),))
    if row.key not in {refusal.key for refusal in _ADAMW}
)


class GaLore(ProjectedMethod):
    """Gradient low-rank projection."""

    card = MethodCard(
        name="galore",
        summary="Trains every weight with Adam on a low-rank projection of its gradient.",
        family="projection",
        reference="Zhao et al. 2024, arXiv 2403.03507",
        low_rank="Gradients and moments of the projected weights; the change of a weight has any rank in the end.",
        use_when=(
            "Full training where Adam's moments do not fit. With update in_backward the gradients need no room either."
        ),
        cost=(
            "m n trained numbers; state m' r + 2 n' r for m' = min(m, n), n' = max(m, n); two products of 2 m "
            "n r FLOPs a step, one decomposition every refresh_interval steps"
        ),
        refuses=(*SHARED_REFUSALS, *_ADAMW, *_ADAFACTOR),
        differs=(
            "Weight decay is decoupled and comes before the update, as in AdamW; fidelity reference decays after it.",
            "eps is added after bias correction, as in torch; fidelity reference adds it before. The official "
            "default is 1e-6, which a recipe asks for by training.adam_epsilon.",
            "A weight on which the rank saves no memory gets plain AdamW; fidelity reference projects it all the same.",
            "A gradient that is not finite, or zero, leaves the basis as it is.",
            "rule adafactor reads training.adam_beta1 as its momentum, and neither adam_beta2 nor adam_epsilon.",
            "With adam_beta1 0 rule adafactor has no momentum, and projecting saves no memory: its second moment is "
            "two vectors already, and the basis is more.",
        ),
    )
    config_class = GaLoreConfig

    def new_optimizer(
        self, groups: list[dict[str, Any]], settings: OptimizerSettings, options: dict[str, Any]
    ) -> SubspaceOptimizer:
        if self.config.rule == "adamw":
            return super().new_optimizer(groups, settings, options)
        from subspace.optim.adafactor import ProjectedAdafactor

        return ProjectedAdafactor(groups, settings.learning_rate, beta1=settings.beta1 or None, **options)

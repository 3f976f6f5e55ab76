"""APOLLO: the raw gradient, scaled channel by channel as Adam would scale a random projection of it.

    R = P^T G with random P,   N = adam(R),   s_j = |N_j| / |R_j| for every column j
    W <- W - lr sqrt(scale) G diag(s),   its norm growing by 1 % a step at most

P is made again from its seed whenever it is used, so that the state is the two moments of R.

References: Zhu et al. 2024, arXiv 2412.05270. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from subspace.config.base import Synonym
from subspace.methods.base import MethodCard
from subspace.methods.projected import ProjectedMethod
from subspace.methods.projection_config import (
    SHARED_REFUSALS,
    WHOLE_GRADIENT_REFUSALS,
    ProjectionConfig,
    foreign_names,
    optimizer_refusals,
)
from subspace.optim.settings import ProjectionSettings

__all__ = ["DIFFERS", "Apollo", "ApolloConfig"]

DIFFERS = (
    "Random numbers come from a counter and are the same on every device; fidelity reference draws them from torch's "
    "generator with the official succession of seeds.",
    "The projection is never kept; the official code keeps it, although its memory figures count the seed alone.",
    "Weight decay is decoupled and comes before the update; fidelity reference decays after it.",
    "eps is added after bias correction, as in torch; fidelity reference adds it before. The official "
    "default is 1e-6, which a recipe asks for by training.adam_epsilon.",
    "A random projection is not kept, so that the microscope has nothing to log; with another basis it has.",
)


class ApolloConfig(ProjectionConfig):
    """The raw gradient, scaled as Adam would scale a random projection of it."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        **ProjectionConfig.synonyms,
        **foreign_names("apollo"),
        "apollo_proj": Synonym("basis"),
    }

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(basis="random")
    optimizer: ClassVar[str] = "channelwise:ChannelScaledAdamW"
    needs_whole_gradient: ClassVar[bool] = True

    name: Literal["apollo"] = "apollo"
    rank: int = Field(default=256, ge=1)
    """Rows of the random projection, r."""
    scale: float = Field(default=1.0, gt=0.0)
    """Its root is the factor on the update."""
    limit_growth: bool = True
    """Let the norm of an update grow by 1 % a step at most."""


class Apollo(ProjectedMethod):
    """Approximated gradient scaling."""

    card = MethodCard(
        name="apollo",
        summary="Scales the raw gradient, channel by channel, as Adam would scale a random projection of it.",
        family="projection",
        reference="Zhu et al. 2024, arXiv 2412.05270",
        low_rank="Moments of the projected weights; the change of a weight has full rank at every step.",
        use_when=(
            "Full training near the memory of SGD with the speed of a cheap step; it follows the raw "
            "gradient, so give it large batches."
        ),
        cost="m n trained numbers; state 2 n' r + 1 for n' = max(m, n); one product of 2 m n r FLOPs a step",
        refuses=(*SHARED_REFUSALS, *WHOLE_GRADIENT_REFUSALS, *optimizer_refusals("ChannelScaledAdamW")),
        differs=DIFFERS,
    )
    config_class: ClassVar[type[ApolloConfig]] = ApolloConfig

    def optimizer_options(self) -> dict[str, Any]:
        return {"limit_growth": self.config.limit_growth}

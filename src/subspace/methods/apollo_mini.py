"""APOLLO-Mini: APOLLO with one factor for a whole matrix, from a random projection of rank 1.

    R = p^T G with random p,   N = adam(R),   s = |N| / |R|,   W <- W - lr sqrt(scale) G s

The state of an (m, n) weight is 2 n + 1 numbers and a seed: next to nothing, as with SGD.

References: Zhu et al. 2024, arXiv 2412.05270, section 4.3. Imports no torch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from subspace.methods.apollo import DIFFERS, Apollo, ApolloConfig
from subspace.methods.base import MethodCard
from subspace.methods.projection_config import SHARED_REFUSALS, WHOLE_GRADIENT_REFUSALS, optimizer_refusals
from subspace.optim.settings import ProjectionSettings

__all__ = ["ApolloMini", "ApolloMiniConfig"]


class ApolloMiniConfig(ApolloConfig):
    """APOLLO with one factor for a whole matrix, from a random projection of rank 1."""

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(basis="random", scale=128.0)
    optimizer: ClassVar[str] = "channelwise:TensorScaledAdamW"

    name: Literal["apollo_mini"] = "apollo_mini"  # type: ignore[assignment]  # its own name
    rank: int = Field(default=1, ge=1)
    """Rows of the random projection, r."""
    scale: float = Field(default=128.0, gt=0.0)
    """Its root is the factor on the update."""


class ApolloMini(Apollo):
    """Gradient scaling by tensor, with the memory of SGD."""

    card = MethodCard(
        name="apollo_mini",
        summary="Scales the raw gradient of a whole matrix by one factor, from a random projection of rank 1.",
        family="projection",
        reference="Zhu et al. 2024, arXiv 2412.05270",
        low_rank="Moments of the projected weights, rank 1; the change of a weight has full rank at every step.",
        use_when="As apollo, where no memory is left at all.",
        cost="m n trained numbers; state 2 n' + 1 for n' = max(m, n)",
        refuses=(*SHARED_REFUSALS, *WHOLE_GRADIENT_REFUSALS, *optimizer_refusals("TensorScaledAdamW")),
        differs=DIFFERS,
    )
    config_class = ApolloMiniConfig

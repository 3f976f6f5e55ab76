"""Fira: GaLore plus the part of the gradient outside the subspace, scaled as Adam scaled the part inside.

    R = P^T G,   N = adam(R),   phi_j = |N_j| / |R_j| for every column j
    W <- W - lr scale (P N + (I - P P^T) G diag(phi)),   the norm of the second part growing by 1 % a step at most

The memory is GaLore's, and the change has full rank at every step.

References: Chen et al. 2024, arXiv 2410.01623. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

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

__all__ = ["Fira", "FiraConfig"]


class FiraConfig(ProjectionConfig):
    """GaLore plus the scaled part of the gradient outside the subspace."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {**ProjectionConfig.synonyms, **foreign_names("galore")}

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(scale=0.25)
    optimizer: ClassVar[str] = "residual:ResidualAdamW"
    needs_whole_gradient: ClassVar[bool] = True

    name: Literal["fira"] = "fira"
    scale: float = Field(default=0.25, gt=0.0)
    """Factor on the update; fidelity reference puts it on the part inside alone."""


class Fira(ProjectedMethod):
    """Full-rank training under a low-rank constraint on the moments."""

    card = MethodCard(
        name="fira",
        summary="GaLore plus the part of the gradient outside the subspace, scaled like the part inside.",
        family="projection",
        reference="Chen et al. 2024, arXiv 2410.01623",
        low_rank="Moments of the projected weights; the change of a weight has full rank at every step.",
        use_when=(
            "Where GaLore's memory is right and its result is not: it uses the whole gradient. It needs the "
            "gradient at the step."
        ),
        cost="as galore, and one number; the step reads the gradient and the weight once more",
        refuses=(*SHARED_REFUSALS, *WHOLE_GRADIENT_REFUSALS, *optimizer_refusals("ResidualAdamW")),
        differs=(
            "scale acts on both parts, as in the paper's algorithm; fidelity reference leaves the outer part unscaled "
            "and takes it as G - scale P R, as the official code does.",
            "Weight decay is decoupled and comes before the update; fidelity reference decays after it.",
            "eps is added after bias correction, as in torch; fidelity reference adds it before. The official "
            "default is 1e-6, which a recipe asks for by training.adam_epsilon.",
            "A weight on which the rank saves no memory gets plain AdamW; fidelity reference projects it all the same.",
            "The official fine-tuning script trains LoRA factors with it: that is target adapter.",
        ),
    )
    config_class = FiraConfig

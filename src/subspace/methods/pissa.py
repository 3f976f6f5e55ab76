"""PiSSA: LoRA that starts from the leading singular triplets of the weight, which leave the frozen part.

    W = U S V^T,   B0 = U_r sqrt(S_r / s),   A0 = sqrt(S_r / s) V_r^T,   frozen part W - s B0 A0

The adapter trains the directions in which the weight is large. It is handed out as a plain LoRA of rank 2r against
the original weight, so whoever loads it needs neither PiSSA nor its decomposition.

References: Meng et al. 2024, arXiv 2404.02948, eq. 2-5.
Differs from the paper: 1. the decomposition is exact unless `niter` is given. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from subspace.config.base import Synonym
from subspace.methods.base import MethodCard
from subspace.methods.low_rank import BaseChangeMethod, LowRankConfig

__all__ = ["Pissa", "PissaConfig"]


class PissaConfig(LowRankConfig):
    """LoRA that starts from the leading singular triplets of the weight."""

    synonyms: ClassVar[Mapping[str, Synonym]] = dict(LowRankConfig.synonyms) | {"pissa_iter": Synonym("niter")}

    name: Literal["pissa"] = "pissa"
    niter: int | None = Field(default=None, ge=1)
    """Subspace iterations of a randomized decomposition, fast on large layers; absent: the exact one."""


class Pissa(BaseChangeMethod):
    """Principal singular values and vectors adaptation."""

    card = MethodCard(
        name="pissa",
        summary="LoRA that starts from the leading singular triplets of the weight, which leave the frozen part.",
        family="adapter",
        reference="Meng et al. 2024, arXiv 2404.02948",
        low_rank="The trained part starts as the best rank-r approximation of each weight.",
        use_when=(
            "Where LoRA learns slowly: it starts in the directions that matter most to the weight. Not on "
            "quantized weights."
        ),
        cost="(m + n) r trained numbers, twice as many of state; one decomposition of the weight at the start",
        refuses=BaseChangeMethod.refusals,
        differs=("The decomposition is exact unless niter is given.",),
    )
    config_class = PissaConfig

    def initialisation(self) -> str:
        return "pissa" if self.config.niter is None else f"pissa_niter_{self.config.niter}"

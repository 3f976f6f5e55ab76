"""OLoRA: LoRA that starts from the leading columns of a QR decomposition of the weight.

    W = Q R,   B0 = Q_r (orthonormal columns),   A0 = R_r,   frozen part W - s B0 A0

Handed out as a plain LoRA of rank 2r against the original weight, like PiSSA. Not to be confused with O-LoRA, the
method for sequences of tasks.

References: Buyukakyuz 2024, arXiv 2406.01775. Imports no torch.
"""

from __future__ import annotations

from typing import Literal

from subspace.methods.base import MethodCard
from subspace.methods.low_rank import BaseChangeMethod, LowRankConfig

__all__ = ["Olora", "OloraConfig"]


class OloraConfig(LowRankConfig):
    """LoRA that starts from the leading columns of a QR decomposition of the weight."""

    name: Literal["olora"] = "olora"


class Olora(BaseChangeMethod):
    """Orthonormal low-rank adaptation."""

    card = MethodCard(
        name="olora",
        summary="LoRA that starts from the leading columns of a QR decomposition of the weight.",
        family="adapter",
        reference="Buyukakyuz 2024, arXiv 2406.01775",
        low_rank="The trained part starts as r orthonormal columns of each weight's QR decomposition times their rows.",
        use_when="As PiSSA, with a cheaper start: a QR decomposition in place of a singular value decomposition.",
        cost="(m + n) r trained numbers, twice as many of state; one QR decomposition of the weight at the start",
        refuses=BaseChangeMethod.refusals,
    )
    config_class = OloraConfig

    def initialisation(self) -> str:
        return "olora"

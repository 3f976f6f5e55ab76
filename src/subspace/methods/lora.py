"""LoRA: a frozen weight plus a trained product of two thin matrices.

    W' = W + s B A,   A (r, n), B (m, r),   s = alpha / r, or alpha / sqrt(r) with rslora

B starts at zero, so training starts from the base model's function. Only (m + n) r numbers per layer have gradients
and optimizer state. LoRA+ gives B a higher learning rate than A.

References: Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732 (rsLoRA); Hayou et al. 2024,
arXiv 2402.12354 (LoRA+). Imports no torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from subspace.config.base import Synonym
from subspace.methods.base import AttachContext, MethodCard
from subspace.methods.low_rank import LowRankConfig, LowRankMethod
from subspace.optim.settings import OptimizerSettings
from subspace.plan.shapes import Placement

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

__all__ = ["Lora", "LoraConfig"]


class LoraConfig(LowRankConfig):
    """A frozen weight plus a trained product of two thin matrices."""

    synonyms: ClassVar[Mapping[str, Synonym]] = dict(LowRankConfig.synonyms) | {
        "use_rslora": Synonym("rslora"),
        "loraplus_lr_ratio": Synonym("lora_plus_ratio"),
    }

    name: Literal["lora"] = "lora"
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    lora_plus_ratio: float | None = Field(default=None, ge=1.0)
    """Learning rate of B over that of A (LoRA+); 16 is the paper's value."""


class Lora(LowRankMethod):
    """LoRA, rsLoRA and LoRA+."""

    card = MethodCard(
        name="lora",
        summary="A frozen weight plus a trained product of two thin matrices.",
        family="adapter",
        reference="Hu et al. 2021, arXiv 2106.09685",
        low_rank="The change of every adapted weight has rank r.",
        use_when=(
            "The usual first choice: little memory, many tools that load its adapters. Its change cannot exceed rank r."
        ),
        cost="(m + n) r trained numbers, as many gradients, twice as many of state; the base needs no gradient",
        differs=("Biases are never trained.",),
    )
    config_class = LoraConfig

    def scale(self, rank: int) -> float:
        alpha: float = self.config.alpha
        return alpha / math.sqrt(rank) if self.config.rslora else alpha / rank

    def peft_options(self, placements: tuple[Placement, ...], context: AttachContext) -> dict[str, Any]:
        return super().peft_options(placements, context) | {"use_rslora": self.config.rslora}

    def optimizer(self, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
        from subspace.optim.adamw import build_adamw

        ratio = self.config.lora_plus_ratio
        if ratio is None:
            return build_adamw(model, settings)
        return build_adamw(model, settings, rate_factor=lambda name: ratio if ".lora_B." in name else 1.0)

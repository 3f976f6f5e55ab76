"""DoRA: LoRA on the direction of every weight row, and a trained length for it.

    W' = diag(g) (W + s B A),   g_i = magnitude_i / ||(W + s B A)_i||,   i a row of W

The magnitude starts at the row norms of W, so training starts from the base model's function. The norm is a constant
in the backward pass. Beyond LoRA a forward pass forms B A, (m, n), once more for the norm, and with dropout repeats
the base product on the dropped input; the plan counts both.

References: Liu et al. 2024, arXiv 2402.09353, eq. 5 and section 4.3. Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from subspace.adapters.specs import layer_tensor
from subspace.methods.base import AttachContext, MethodCard
from subspace.methods.low_rank import LowRankConfig, LowRankMethod
from subspace.plan.shapes import Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Dora", "DoraConfig"]


class DoraConfig(LowRankConfig):
    """LoRA on the direction of every weight row, and a trained length for it."""

    name: Literal["dora"] = "dora"


class Dora(LowRankMethod):
    """Weight-decomposed low-rank adaptation."""

    card = MethodCard(
        name="dora",
        summary="LoRA on the direction of every weight row, and a trained length for it.",
        family="adapter",
        reference="Liu et al. 2024, arXiv 2402.09353",
        low_rank="The change of every adapted weight's direction has rank r before it is normalised.",
        use_when="Where LoRA of the same rank stays behind full training and a slower step is no matter.",
        cost="(m + n) r + m trained numbers, twice as many of state; each step forms B A, an (m, n) product",
        differs=("With dropout the base product inside the gain sees the dropped input, as in PEFT.",),
    )
    config_class = DoraConfig

    def layer_tensors(self, inventory: Inventory, shape: ModuleShape, rank: int) -> tuple[TensorSpec, ...]:
        magnitude = layer_tensor(shape.name, "lora_magnitude_vector.default.weight", (shape.out_features,))
        return (*super().layer_tensors(inventory, shape, rank), magnitude)

    def traced_layer(self, linear: nn.Module, placement: Placement) -> nn.Module:
        from subspace.adapters.traced import TracedDora

        return TracedDora(linear, placement.rank, self.scale(placement.rank), self.config.dropout)

    def peft_options(self, placements: tuple[Placement, ...], context: AttachContext) -> dict[str, Any]:
        return super().peft_options(placements, context) | {"use_dora": True}

"""Prefix tuning: trained keys and values before every attention of a frozen model.

Each layer attends to `num_virtual_tokens` more positions whose keys and values are parameters. The input stays as long
as it was. Nothing of it can be put into weights, so a prefix is always loaded beside its model.

References: Li and Liang 2021, arXiv 2101.00190.
Differs from the paper: 1. the keys and values are trained directly, without the network that produces them there;
2. they start small (standard deviation 0.02). Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from subspace.adapters.specs import attention_shape
from subspace.methods.base import AttachContext, MethodCard, Refusal
from subspace.methods.virtual_tokens import VirtualTokenConfig, VirtualTokenMethod
from subspace.plan.shapes import Inventory, Placement

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Prefix", "PrefixConfig"]


class PrefixConfig(VirtualTokenConfig):
    """Trained keys and values before every attention."""

    name: Literal["prefix"] = "prefix"


class Prefix(VirtualTokenMethod):
    """Prefix tuning."""

    card = MethodCard(
        name="prefix",
        summary="Trained keys and values before every attention of a frozen model.",
        family="prompt",
        reference="Li and Liang 2021, arXiv 2101.00190",
        low_rank="Nothing; what is small is the number of added positions.",
        use_when="Where the weights must not change at all, and many tasks share one model at a time.",
        cost=(
            "2 v d trained numbers a layer for v tokens of width d, twice as many of state; attention reads v "
            "more positions"
        ),
        mergeable=False,
        refuses=(
            Refusal("data.packing", (True,), "Rows packed into one sequence would all share the first row's prefix."),
            Refusal(
                "training.gradient_checkpointing",
                (True,),
                "Recomputed layers drop the prefix.",
            ),
        ),
        differs=(
            "Keys and values are trained directly, without the network that produces them in the paper.",
            "They start small, with standard deviation 0.02.",
        ),
    )
    config_class = PrefixConfig

    def width(self, inventory: Inventory) -> int:
        layers = inventory.num_layers
        if inventory.is_encoder_decoder:
            blocks = {shape.block for shape in inventory.modules if "decoder" in shape.name.split(".")}
            layers = len(blocks - {None})
        return layers * 2 * inventory.num_key_value_heads * inventory.head_dim

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        from subspace.adapters.traced import trace_prefix

        trace_prefix(model, self.config.num_virtual_tokens)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        from subspace.adapters.peft_bridge import attach
        from subspace.adapters.starting_values import draw_prompt

        layers, heads, size = attention_shape(model.config)
        options = {
            "num_virtual_tokens": self.config.num_virtual_tokens,
            "num_layers": layers,
            "num_attention_heads": heads,
            "token_dim": heads * size,
        }
        attached = attach(model, "PrefixTuningConfig", options)
        draw_prompt(attached, context.seed, std=0.02)
        return attached

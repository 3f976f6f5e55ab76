"""Prompt tuning: trained embeddings before the input of a frozen model.

    [p_1 ... p_v, E(x_1) ... E(x_t)]

The p_i are parameters that start as the embeddings of randomly drawn tokens. Every layer then works on t + v
positions. Nothing of it can be put into weights, so a prompt is always loaded beside its model.

References: Lester et al. 2021, arXiv 2104.08691, section 2.
Differs from the paper: 1. tokens are drawn from the whole vocabulary, not from the 5,000 most frequent ones.
Imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from subspace.core.errors import MethodError
from subspace.methods.base import AttachContext, MethodCard, Refusal
from subspace.methods.virtual_tokens import VirtualTokenConfig, VirtualTokenMethod
from subspace.plan.shapes import Inventory, Placement

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Prompt", "PromptConfig"]


class PromptConfig(VirtualTokenConfig):
    """Trained embeddings before the input."""

    name: Literal["prompt"] = "prompt"


class Prompt(VirtualTokenMethod):
    """Prompt tuning."""

    card = MethodCard(
        name="prompt",
        summary="Trained embeddings before the input of a frozen model.",
        family="prompt",
        reference="Lester et al. 2021, arXiv 2104.08691",
        low_rank="Nothing; what is small is the number of added positions.",
        use_when="Where a task is to be told to a large frozen model by a few vectors; weak on small models.",
        cost="v d trained numbers for v tokens of width d, twice as many of state; the input is v positions longer",
        mergeable=False,
        refuses=(
            Refusal("data.packing", (True,), "Rows packed into one sequence would all share the first row's prompt."),
        ),
        differs=("Starting tokens are drawn from the whole vocabulary, not from the most frequent ones.",),
    )
    config_class = PromptConfig

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        if inventory.task == "classification" and any(tensor.name == "score.weight" for tensor in inventory.tensors):
            raise MethodError(
                "E-MTH-001",
                where="method.prompt",
                found=f"a {inventory.model_type} classifier, which cannot find a row's last token in embeddings",
                action="Use method prefix, or an encoder model.",
            )
        return ()

    def width(self, inventory: Inventory) -> int:
        words = next(shape for shape in inventory.modules if shape.kind == "embedding")
        return words.out_features

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        from subspace.adapters.traced import trace_prompt

        trace_prompt(model, self.config.num_virtual_tokens)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        from subspace.adapters.peft_bridge import attach
        from subspace.adapters.starting_values import draw_prompt

        # PEFT would make a second table for a decoder and never read it
        options = {"num_virtual_tokens": self.config.num_virtual_tokens, "num_transformer_submodules": 1}
        attached = attach(model, "PromptTuningConfig", options)
        draw_prompt(attached, context.seed)
        return attached

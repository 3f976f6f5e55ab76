"""(IA)^3: one trained factor per key, value and feed-forward channel; no matrices at all.

    keys, values:   y = l * (W x),  l (m,)         feed-forward:   y = W (l * x),  l (n,)

All factors start at one, so training starts from the base model's function. Folding multiplies rows or columns of W.

References: Liu et al. 2022, arXiv 2205.05638, section 3.3. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from subspace.adapters.specs import layer_tensor
from subspace.config.base import Synonym
from subspace.core.errors import ConfigError
from subspace.methods.adapter import AdapterMethod, TargetConfig
from subspace.methods.base import AttachContext, MethodCard
from subspace.plan.shapes import Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Ia3", "Ia3Config"]

_BERT_OUTPUT = r"re:.*layer\.\d+\.output\.dense"
_FEEDFORWARD = ("down_proj", "wo", "fc2", "mlp.c_proj", "dense_4h_to_h", _BERT_OUTPUT)


class Ia3Config(TargetConfig):
    """One trained factor per key, value and feed-forward channel."""

    synonyms: ClassVar[Mapping[str, Synonym]] = dict(TargetConfig.synonyms)

    name: Literal["ia3"] = "ia3"
    feedforward_modules: tuple[str, ...] | None = None
    """Those of the targets whose input is scaled, not their output; absent: the family's second feed-forward layers."""


class Ia3(AdapterMethod):
    """Infused adapter by inhibiting and amplifying inner activations."""

    card = MethodCard(
        name="ia3",
        summary="One trained factor per key, value and feed-forward channel.",
        family="adapter",
        reference="Liu et al. 2022, arXiv 2205.05638",
        low_rank="Nothing: the change of a weight is diagonal, one number per row or column.",
        use_when="The fewest trained numbers that still fold into the weights; for small shifts of a capable model.",
        cost="m or n trained numbers, twice as many of state",
    )
    config_class = Ia3Config
    peft_config = "IA3Config"
    family_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "": ("k_proj", "v_proj", "down_proj"),
        **dict.fromkeys(("t5", "mt5", "umt5"), ("k", "v", "wo")),
        **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), ("key", "value", _BERT_OUTPUT)),
        "deberta-v2": ("key_proj", "value_proj", _BERT_OUTPUT),
        **dict.fromkeys(("opt", "bart", "mbart"), ("k_proj", "v_proj", "fc2")),
        "gpt2": ("c_attn", "mlp.c_proj"),
        **dict.fromkeys(("gpt_neox", "bloom", "falcon"), ("query_key_value", "dense_4h_to_h")),
    }

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        placements = super().place(inventory)
        wanted = self.config.feedforward_modules
        if wanted and not any(self.is_feedforward(placement.module) for placement in placements):
            raise ConfigError(
                "E-CFG-016",
                where="method.feedforward_modules",
                found=f"none of the target modules matches {', '.join(wanted)}",
                expected="names among target_modules",
            )
        return placements

    def is_feedforward(self, module: str) -> bool:
        """Return whether the input of `module` is scaled, and not its output."""
        patterns = _FEEDFORWARD if self.config.feedforward_modules is None else self.config.feedforward_modules
        return any(
            re.fullmatch(pattern[3:], module) if pattern.startswith("re:") else f".{module}".endswith(f".{pattern}")
            for pattern in patterns
        )

    def layer_tensors(self, inventory: Inventory, shape: ModuleShape, rank: int) -> tuple[TensorSpec, ...]:
        size = (1, shape.in_features) if self.is_feedforward(shape.name) else (shape.out_features, 1)
        return (layer_tensor(shape.name, "ia3_l.default", size),)

    def traced_layer(self, linear: nn.Module, placement: Placement) -> nn.Module:
        from subspace.adapters.traced import TracedIA3

        return TracedIA3(linear, feedforward=self.is_feedforward(placement.module))

    def peft_options(self, placements: tuple[Placement, ...], context: AttachContext) -> dict[str, Any]:
        inputs = [placement.module for placement in placements if self.is_feedforward(placement.module)]
        return {"feedforward_modules": inputs}

"""Any adapter of PEFT by the import path of its config, without a method of ours.

    method: {name: custom_peft, config: peft.VeraConfig, arguments: {r: 64, vera_dropout: 0.1}}

The plan counts on PEFT's own layers: they are put into a skeleton of the model without memory. Other methods count from
formulas and need no PEFT for it; this one imports it to plan. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from subspace.config.base import Synonym
from subspace.methods.adapter import AdapterMethod, TargetConfig
from subspace.methods.base import AttachContext, MethodCard, Refusal
from subspace.plan.shapes import Account, Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CustomPeft", "CustomPeftConfig"]


class CustomPeftConfig(TargetConfig):
    """An adapter of PEFT that has no method here."""

    synonyms: ClassVar[Mapping[str, Synonym]] = dict(TargetConfig.synonyms)

    name: Literal["custom_peft"] = "custom_peft"
    config: str = Field(default="peft.LoHaConfig", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    """Import path of a PEFT config class; importing it runs its package's code."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Its arguments beside the target modules."""


class CustomPeft(AdapterMethod):
    """PEFT's layers, as PEFT starts them."""

    card = MethodCard(
        name="custom_peft",
        summary="Trains any adapter of PEFT, given by the import path of its config.",
        family="adapter",
        reference="The paper of the adapter that is chosen",
        low_rank="Whatever the chosen adapter says.",
        use_when="To compare an adapter that PEFT has and this package has no method for.",
        cost="What PEFT adds to a skeleton of the model without memory: counted, not computed from a formula",
        refuses=(
            Refusal("model.quantization", ("int8", "nf4"), "Not every adapter of PEFT has layers for such weights."),
        ),
        differs=(
            "Planning imports PEFT, because what is added is counted on its own layers.",
            "Buffers that an adapter keeps (VeRA's shared projections) are in no figure of the plan.",
            "Configs of virtual tokens are refused: prefix and prompt are methods.",
        ),
    )
    config_class = CustomPeftConfig

    def rank_of(self, shape: ModuleShape) -> int:
        from subspace.adapters.foreign_peft import adapter_rank

        return adapter_rank(self._kind(), self.config.arguments)

    def layer_tensors(self, inventory: Inventory, shape: ModuleShape, rank: int) -> tuple[TensorSpec, ...]:
        raise NotImplementedError("all layers are counted together")

    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        from subspace.adapters.foreign_peft import foreign_tensors

        return Account(added=foreign_tensors(inventory, placements, self._kind(), self.config.arguments))

    def traced_layer(self, linear: nn.Module, placement: Placement) -> nn.Module:
        raise NotImplementedError("PEFT's own layers are traced")

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        from subspace.adapters.foreign_peft import trace_foreign

        trace_foreign(model, self._kind(), self.config.arguments, placements)

    def peft_options(self, placements: tuple[Placement, ...], context: AttachContext) -> dict[str, Any]:
        return dict(self.config.arguments)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        import torch

        from subspace.adapters.foreign_peft import attach_foreign
        from subspace.core.seeding import derive_seed

        self.refuse_quantized(model)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(context.seed, "peft"))
            return attach_foreign(model, self._kind(), self.config.arguments, placements)

    def _kind(self) -> type:
        from peft import PeftConfig

        from subspace.optim.foreign import foreign_class

        return foreign_class(self.config.config, PeftConfig, "method.config")

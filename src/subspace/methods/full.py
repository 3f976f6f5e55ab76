"""Full fine-tuning: every weight is trained.

The baseline of every comparison, and the upper end of what a run costs: weight, gradient and two moments for each
parameter. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from subspace.core.errors import MethodError
from subspace.methods.base import AttachContext, Method, MethodCard, MethodConfig, Refusal
from subspace.plan.shapes import Account, Inventory, Placement

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Full", "FullConfig"]

_QUANTIZED = "Quantized weights have no gradients; train an adapter on them instead."


class FullConfig(MethodConfig):
    """Train every weight."""

    name: Literal["full"] = "full"


class Full(Method):
    """Every parameter of the base model, tied ones once."""

    card = MethodCard(
        name="full",
        summary="Trains every weight.",
        family="full",
        reference="",
        low_rank="Nothing.",
        use_when=(
            "The bound that the others are measured against; choose it where weights, gradients and two moments fit."
        ),
        cost="m n trained numbers, m n gradients, 2 m n of state",
        refuses=(Refusal("model.quantization", ("int8", "nf4"), _QUANTIZED),),
    )
    config_class = FullConfig

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        return ()

    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        return Account(trained_base=tuple(tensor.name for tensor in inventory.tensors))

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        model.requires_grad_(True)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        if getattr(model, "is_quantized", False):
            raise MethodError(
                "E-MTH-001", where="model.quantization", found="a quantized base with method full", action=_QUANTIZED
            )
        return model.requires_grad_(True)

    def fold(self, model: nn.Module) -> nn.Module:
        return model

    def export(self, model: nn.Module, folder: Path) -> None:
        saved: Any = model
        saved.save_pretrained(folder)

"""Any torch optimizer by its import path: every weight is trained with it, and nothing of ours is in its update.

    method: {name: custom_optimizer, optimizer: torch.optim.SGD, arguments: {momentum: 0.9}}

What it keeps is found by running it on tensors without memory, and that it can be stopped and resumed to the bit by
trying it: four steps on two small tensors, against two, save, load, two. One that hides state, needs a closure or reads
a clock is refused before the run begins. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from subspace.methods.base import AttachContext, Method, MethodCard, MethodConfig, Refusal
from subspace.methods.full import Full, FullConfig
from subspace.optim.settings import OptimizerSettings
from subspace.plan.shapes import Account, Inventory, Placement, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["CustomOptimizer", "CustomOptimizerConfig"]


class CustomOptimizerConfig(MethodConfig):
    """Every weight, trained by an optimizer of other people."""

    name: Literal["custom_optimizer"] = "custom_optimizer"
    optimizer: str = Field(default="torch.optim.SGD", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")
    """Import path of a subclass of torch.optim.Optimizer; importing it runs its package's code."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Its arguments beside parameters, learning rate and weight decay, which the training section gives."""

    def unread_training(self) -> tuple[str, ...]:
        return ("optim", "adam_beta1", "adam_beta2", "adam_epsilon")


class CustomOptimizer(Method):
    """Full fine-tuning with a foreign optimizer."""

    card = MethodCard(
        name="custom_optimizer",
        summary="Trains every weight with any torch optimizer, given by its import path.",
        family="full",
        reference="",
        low_rank="Nothing, unless the optimizer itself projects.",
        use_when="To compare an optimizer of other people with ours without writing a method.",
        cost="m n trained numbers, m n gradients, and what the optimizer keeps, measured on tensors without memory",
        refuses=(
            Refusal("model.quantization", ("int8", "nf4"), "Quantized weights have no gradients."),
            Refusal("model.trained_weights", ("int8",), "A foreign optimizer writes into plain weights only."),
            Refusal("training.optim", ("adamw",), "The optimizer is method.optimizer.", all_but=True),
        ),
        differs=(
            "adam_beta1, adam_beta2 and adam_epsilon are not read; give them as arguments.",
            "weight_decay is handed on where the optimizer has one, without biases and norms.",
            "An optimizer whose state is not in its state_dict as tensors and numbers is refused: it could not resume.",
        ),
    )
    config_class = CustomOptimizerConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._full = Full(FullConfig())

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        return ()

    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        return self._full.account(inventory, placements)

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        self._full.trace(model, placements)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        return self._full.attach(model, placements, context)

    def optimizer(self, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
        from subspace.optim.foreign import build_foreign

        return build_foreign(model.named_parameters(), self.config.optimizer, self.config.arguments, settings)

    def state_specs(self, trained: tuple[TensorSpec, ...], settings: OptimizerSettings) -> tuple[TensorSpec, ...]:
        from subspace.optim.foreign import foreign_state, require_resumable

        require_resumable(self.config.optimizer, self.config.arguments, settings)
        return foreign_state(trained, self.config.optimizer, self.config.arguments, settings)

    def fold(self, model: nn.Module) -> nn.Module:
        return model

    def export(self, model: nn.Module, folder: Path) -> None:
        self._full.export(model, folder)

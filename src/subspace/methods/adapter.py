"""What the methods share that put a small trained part beside chosen linear layers. Imports no torch."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from subspace.adapters.specs import head_copies
from subspace.config.base import Synonym
from subspace.core.errors import MethodError
from subspace.methods.base import AttachContext, Method, MethodConfig
from subspace.plan.placement import check_rank, default_targets, match_linear
from subspace.plan.shapes import Account, Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AdapterMethod", "PeftMethod", "TargetConfig"]


class TargetConfig(MethodConfig):
    """Which linear layers are adapted."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        key: Synonym("target_modules", {"all": "all-linear"})
        for key in ("lora_target", "lora_target_modules", "target", "targets", "modules")
    }

    target_modules: Literal["all-linear"] | tuple[str, ...] | None = None
    """`all-linear`, or endings of names; `re:` begins a regular expression; absent: the family's usual ones."""
    exclude_modules: tuple[str, ...] = ()
    """Names, endings or `re:` expressions of modules to leave out."""

    @field_validator("target_modules", "exclude_modules", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Read `q_proj,v_proj` and a single name as a list, and `all` as people mean it."""
        if not isinstance(value, str) or value == "all-linear":
            return value
        if value == "all":
            return "all-linear"
        return (value,) if value.startswith("re:") else tuple(part.strip() for part in value.split(","))


class PeftMethod(Method):
    """A method whose trained part is a PEFT adapter."""

    def continue_from(self, model: nn.Module, folder: Path) -> None:
        from subspace.adapters.peft_bridge import continue_adapter

        continue_adapter(model, folder)

    def fold(self, model: nn.Module) -> nn.Module:
        from subspace.adapters.peft_bridge import merge_adapter

        return merge_adapter(model)

    def export(self, model: nn.Module, folder: Path) -> None:
        from subspace.adapters.peft_bridge import export_adapter

        export_adapter(model, folder)


class AdapterMethod(PeftMethod):
    """A method that replaces linear layers by PEFT's; what differs between methods is in five small hooks."""

    config: Any
    peft_config: ClassVar[str]
    """Name of PEFT's config class."""
    rank_key: str = "method.rank"
    """The recipe's key that `rank_of` reads, for messages."""
    family_targets: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Usual targets by model type where they are not LoRA's."""

    def rank_of(self, shape: ModuleShape) -> int:
        """Return the planned rank of a module; 0 for methods without one."""
        return 0

    @abc.abstractmethod
    def layer_tensors(self, inventory: Inventory, shape: ModuleShape, rank: int) -> tuple[TensorSpec, ...]:
        """Return what PEFT's layer holds beside the base weight."""

    @abc.abstractmethod
    def traced_layer(self, linear: nn.Module, placement: Placement) -> nn.Module:
        """Return the layer whose arithmetic is PEFT's."""

    @abc.abstractmethod
    def peft_options(self, placements: tuple[Placement, ...], context: AttachContext) -> dict[str, Any]:
        """Return the arguments of PEFT's config class, without task and targets."""

    def start(self, model: nn.Module, context: AttachContext) -> None:
        """Set the starting values of an adapter that PEFT has just made."""

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        targets = self.config.target_modules
        if targets is None:
            own = self.family_targets
            targets = own.get(inventory.model_type, own[""]) if own else default_targets(inventory.model_type)
        shapes = match_linear(inventory, targets, self.config.exclude_modules, "method.target_modules")
        for shape in shapes:
            if self.rank_of(shape):
                check_rank(shape, self.rank_of(shape), self.rank_key)
        return tuple(Placement(shape.name, self.rank_of(shape)) for shape in shapes)

    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        shapes = {shape.name: shape for shape in inventory.modules}
        added = [
            tensor
            for placement in placements
            for tensor in self.layer_tensors(inventory, shapes[placement.module], placement.rank)
        ]
        return Account(added=(*added, *head_copies(inventory)))

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        from subspace.adapters.traced import trace_linears

        trace_linears(model, placements, self.traced_layer)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        from subspace.adapters import peft_bridge

        self.refuse_quantized(model)
        options = self.peft_options(placements, context)
        attached = peft_bridge.attach(model, self.peft_config, options, placements)
        self.start(attached, context)
        return attached

    def refuse_quantized(self, model: nn.Module) -> None:
        """Raise where the card refuses a quantized base and `model` is one.

        Raises:
            MethodError: E-MTH-001.
        """
        from subspace.adapters.peft_bridge import is_quantized

        for refusal in self.card.refuses:
            if refusal.key == "model.quantization" and is_quantized(model):
                raise MethodError(
                    "E-MTH-001",
                    where="model.quantization",
                    found=f"a quantized base with method {self.card.name}",
                    action=refusal.reason,
                )

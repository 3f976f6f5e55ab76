"""The contract between a method and everything that plans, trains, saves and exports it. Imports no torch."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from subspace.config.base import Section
from subspace.core.errors import CheckpointError, MethodError
from subspace.optim.settings import OptimizerSettings
from subspace.plan.shapes import Account, Inventory, Placement, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["AttachContext", "Hook", "Method", "MethodCard", "MethodConfig", "Refusal"]

Family = Literal["full", "adapter", "prompt", "projection"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One value of an independent axis that a method cannot be combined with."""

    key: str
    """Dotted recipe key, e.g. `model.quantization`."""
    values: tuple[object, ...]
    reason: str
    all_but: bool = False
    """Refuse every value but those."""
    when: tuple[tuple[str, tuple[object, ...]], ...] = ()
    """Keys and values that must hold as well."""

    def applies(self, tree: Mapping[str, Any]) -> bool:
        """Return whether a recipe asks for what is refused."""
        if any(_value(tree, key) not in values for key, values in self.when):
            return False
        return (_value(tree, self.key) in self.values) != self.all_but

    def __str__(self) -> str:
        """Say what is refused, e.g. `model.quantization = int8, nf4`."""
        sign = "other than" if self.all_but else "="
        conditions = "".join(f", with {key} = {_listed(values)}" for key, values in self.when)
        return f"{self.key} {sign} {_listed(self.values)}{conditions}"


def _value(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(map(str, values))


@dataclass(frozen=True, slots=True)
class MethodCard:
    """What a reader must know of a method before using it."""

    name: str
    summary: str
    """One line."""
    family: Family
    reference: str
    """Authors, year, arXiv id; "" for none."""
    low_rank: str
    """What is low-rank, in plain words."""
    use_when: str
    """When to choose it, and when not: one or two sentences."""
    cost: str
    """What it trains and keeps for one (m, n) weight, as formulas."""
    mergeable: bool = True
    refuses: tuple[Refusal, ...] = ()
    differs: tuple[str, ...] = ()
    """Numbered differences from the paper."""


class MethodConfig(Section):
    """The `method` section; every method derives its own and sets `name` to a Literal."""

    name: str

    def unread_training(self) -> tuple[str, ...]:
        """Return the keys of the training section that nothing reads beside this method."""
        return ()


@dataclass(frozen=True)
class AttachContext:
    """What a method may look at while it changes the model.

    Attributes:
        seed: Seed of initial values; derive by name with `core.seeding.derive_seed`.
        total_steps: Optimizer steps of the run.
        batches: Gives the training batches of one pass, each made when it is asked for, on the model's device; reading
            them does not move the run's data cursor.
        restoring: True when `load_state` and the trained values follow: costly initialisation can be left out.
    """

    seed: int = 0
    total_steps: int = 1
    batches: Callable[[], Sequence[Mapping[str, torch.Tensor]]] | None = None
    restoring: bool = False


class Hook:
    """Acts around an optimizer step; the calls do nothing unless overridden."""

    def before_step(self, model: nn.Module, step: int) -> None:
        """Called with clipped gradients, before the optimizer; `step` counts from 1."""

    def after_step(self, model: nn.Module, step: int) -> Mapping[str, Any] | None:
        """Called after the optimizer, before gradients are cleared; a mapping returned is logged as an event."""
        return None


class Method(abc.ABC):
    """A way to train few numbers instead of all.

    A method object belongs to one run. `place`, `account` and `trace` read shapes; the rest acts on a live model.
    """

    card: ClassVar[MethodCard]
    config_class: ClassVar[type[MethodConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        """Return which modules get which rank.

        Raises:
            ConfigError: E-CFG-016 if a pattern matches nothing or a rank exceeds min(m, n); E-CFG-017 on a tied weight.
        """

    @abc.abstractmethod
    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        """Return what is trained and added, equal to the live tensors to the byte."""

    @abc.abstractmethod
    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        """Give a meta-device model the arithmetic that `attach` will give the real one, in plain torch.

        The plan counts FLOPs and saved activations on the result; no weights, no peft.
        """

    @abc.abstractmethod
    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        """Freeze, swap and wrap; return the model to train. Only what is trained requires gradients afterwards."""

    def optimizer(self, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
        """Return the optimizer over everything that requires gradients."""
        from subspace.optim.adamw import build_adamw

        return build_adamw(model, settings)

    def state_specs(self, trained: tuple[TensorSpec, ...], settings: OptimizerSettings) -> tuple[TensorSpec, ...]:
        """Return the optimizer's state tensors after its first step, computed from the trained tensors."""
        from subspace.optim.state_size import adamw_state

        return adamw_state(trained, settings)

    def step_bytes(self, trained: tuple[TensorSpec, ...], settings: OptimizerSettings, writing_bytes: int = 0) -> int:
        """Return what the optimizer's step passes through beside held gradients and state, at its most.

        Args:
            trained: Every tensor with a gradient.
            settings: The numbers that every optimizer reads.
            writing_bytes: What writing a trained weight takes that is stored as codes.
        """
        from subspace.optim.step_size import adamw_step_bytes

        return adamw_step_bytes(trained, settings) + writing_bytes

    def kept_specs(self, inventory: Inventory, placements: tuple[Placement, ...]) -> tuple[TensorSpec, ...]:
        """Return the tensors that the method object holds outside model and optimizer during the run."""
        return ()

    def held_gradients(self, trained: tuple[TensorSpec, ...], accumulation: int) -> tuple[TensorSpec, ...]:
        """Return what is held of gradients between the backward passes of a step and at its end, at the most.

        Args:
            trained: Every tensor with a gradient.
            accumulation: Micro-batches of a step.
        """
        return trained

    def notes(self, inventory: Inventory, placements: tuple[Placement, ...]) -> tuple[str, ...]:
        """Return sentences that a reader of the plan should know."""
        return ()

    def leaves_adapter(self) -> bool:
        """Return whether `export` writes an adapter and not a model."""
        return self.card.family in ("adapter", "prompt")

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        """Return a scalar added to the loss and logged as its own term, or None."""
        return None

    def hooks(self) -> tuple[Hook, ...]:
        """Return what acts around optimizer steps."""
        return ()

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Return what lives outside trained parameters and optimizer: tensors and JSON values, flat."""
        return {}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; called after `attach`, before trained values are loaded.

        Raises:
            CheckpointError: E-CKP-005 if it is not what this method keeps.
        """
        if state:
            raise CheckpointError(
                "E-CKP-005",
                where="method state",
                found=f"{len(state)} values ({', '.join(sorted(state)[:5])})",
                expected=f"none with method {self.card.name}",
                action="Resume with the recipe that wrote the checkpoint.",
            )

    def continue_from(self, model: nn.Module, folder: Path) -> None:
        """Give the adapter that `attach` has just made the values of a trained one, to go on training it.

        Args:
            model: What `attach` returned.
            folder: A PEFT adapter folder.

        Raises:
            MethodError: E-MTH-001 if the method has no adapter to continue from.
            CheckpointError: E-CKP-005, E-CKP-006 or E-CKP-010 if the folder holds none that fits.
        """
        raise MethodError(
            "E-MTH-001",
            where="model.adapter_name_or_path",
            found=f"an adapter to continue with method {self.card.name}, which has none",
            action="Fold the adapter first with `subspace export`, and start from the folded model.",
        )

    @abc.abstractmethod
    def fold(self, model: nn.Module) -> nn.Module:
        """Return a plain model of the base's class with the method's change in its weights.

        Raises:
            NotMergeableError: If there is nothing that plain weights could hold.
        """

    @abc.abstractmethod
    def export(self, model: nn.Module, folder: Path) -> None:
        """Write what the ecosystem loads: a PEFT adapter folder, or a model folder, into an existing folder."""

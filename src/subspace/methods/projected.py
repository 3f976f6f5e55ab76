"""What the methods share that train weights through a projection of their gradients. Imports no torch.

The weights are those of the model (`target: weights`, everything is trained) or those of a LoRA adapter (`target:
adapter`, the base is frozen): the rest of the method is then that of `full` or of `lora`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.core.errors import ConfigError
from subspace.methods.base import AttachContext, Hook, Method
from subspace.methods.full import Full, FullConfig
from subspace.methods.lora import Lora, LoraConfig
from subspace.methods.refresh_watch import RefreshWatch
from subspace.optim.settings import OptimizerSettings, ProjectionSettings
from subspace.plan.placement import Targets, match_linear
from subspace.plan.shapes import Account, Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subspace.optim.engine import SubspaceOptimizer
    from subspace.projection.geometry import Geometry

__all__ = ["ProjectedMethod"]


class ProjectedMethod(Method):
    """A method that is an optimizer: what is trained is trained as in `full`, or as in `lora`."""

    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._seed = 0
        self._projected: dict[str, Geometry] = {}
        self._watch = RefreshWatch() if config.microscope else None
        self.trained_as: Method = Full(FullConfig())
        if config.target == "adapter":
            adapter = Lora(
                LoraConfig(
                    rank=config.adapter_rank,
                    alpha=config.adapter_alpha,
                    dropout=config.adapter_dropout,
                    target_modules=config.target_modules,
                    exclude_modules=config.exclude_modules,
                )
            )
            adapter.rank_key = "method.adapter_rank"
            self.trained_as = adapter

    def optimizer_class(self) -> type[SubspaceOptimizer]:
        """Return the optimizer."""
        module, _, name = self.config.optimizer_place().partition(":")
        found: type[SubspaceOptimizer] = getattr(import_module(f"subspace.optim.{module}"), name)
        return found

    def optimizer_options(self) -> dict[str, Any]:
        """Return its arguments beside learning rate, decay, betas, eps and `ProjectionSettings`."""
        return {}

    @property
    def settings(self) -> ProjectionSettings:
        """The optimizer's options."""
        settings: ProjectionSettings = self.config.settings(self._seed)
        return settings

    def leaves_adapter(self) -> bool:
        return self.trained_as.leaves_adapter()

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        if self.config.target == "adapter":
            placements = self.trained_as.place(inventory)
            factors = self._factors(inventory, placements)
            self._project(factors)
            self._require_projected(factors)
            return placements
        chosen = self._chosen(inventory)
        tensors = {tensor.name: tensor.shape for tensor in inventory.tensors}
        owned = {f"{shape.name}.weight": shape.name for shape in chosen if f"{shape.name}.weight" in tensors}
        self._project({name: tensors[name] for name in owned})
        self._require_projected({module: tensors[name] for name, module in owned.items()})
        return tuple(
            Placement(module, self._projected[name].rank if name in self._projected else 0)
            for name, module in owned.items()
        )

    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        return self.trained_as.account(inventory, placements)

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        self.trained_as.trace(model, placements)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        self._seed = context.seed
        attached = self.trained_as.attach(model, placements, context)
        shapes = {name: tuple(value.shape) for name, value in attached.named_parameters() if value.requires_grad}
        if self.config.target == "weights":
            chosen = {f"{placement.module}.weight" for placement in placements if placement.rank}
            shapes = {name: shape for name, shape in shapes.items() if name in chosen}
        self._project(shapes)
        return attached

    def optimizer(self, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
        trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        optimizer = self._build(trained, settings)
        if self._watch is not None:
            self._watch.look_into(optimizer)
        return optimizer

    def state_specs(self, trained: tuple[TensorSpec, ...], settings: OptimizerSettings) -> tuple[TensorSpec, ...]:
        return self._without_numbers(trained, settings).planned_state()

    def step_bytes(self, trained: tuple[TensorSpec, ...], settings: OptimizerSettings, writing_bytes: int = 0) -> int:
        return self._without_numbers(trained, settings).planned_passing(writing_bytes)

    def _without_numbers(self, trained: tuple[TensorSpec, ...], settings: OptimizerSettings) -> SubspaceOptimizer:
        """Return the optimizer over shapes alone."""
        import torch
        from torch import nn

        empty = [
            (spec.name, nn.Parameter(torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")))
            for spec in trained
        ]
        return self._build(empty, settings)

    def held_gradients(self, trained: tuple[TensorSpec, ...], accumulation: int) -> tuple[TensorSpec, ...]:
        settings = self.settings
        if settings.update == "after_backward" or settings.full_accumulator:
            return trained
        kind = self.optimizer_class()
        if kind.needs_whole_gradient:
            return ()
        held = []
        for spec in trained:
            geometry = self._projected.get(spec.name)
            if geometry is None or settings.refresh_from == "step":
                held.append(spec)
            else:
                held.append(TensorSpec(spec.name, geometry.low_shape))
        return tuple(held)

    def notes(self, inventory: Inventory, placements: tuple[Placement, ...]) -> tuple[str, ...]:
        plain = [placement.module for placement in placements if not placement.rank]
        if self.config.target == "adapter":
            factors = self._factors(inventory, placements) if self.config.rank else ()
            plain = [name.removesuffix(".default.weight") for name in factors if name not in self._projected]
        if not plain:
            return ()
        endings = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in plain))
        reason = self.optimizer_class().plain_because.format(rank=self.config.rank)
        return (f"{endings}: {len(plain)} weights are not projected, because {reason}.",)

    def kept_specs(self, inventory: Inventory, placements: tuple[Placement, ...]) -> tuple[TensorSpec, ...]:
        return () if self._watch is None else self._watch.kept_specs()

    def hooks(self) -> tuple[Hook, ...]:
        return () if self._watch is None else (self._watch,)

    def state(self, model: nn.Module) -> dict[str, Any]:
        return {} if self._watch is None else self._watch.state()

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        if self._watch is None:
            super().load_state(model, state)
        else:
            self._watch.load_state(state)

    def continue_from(self, model: nn.Module, folder: Path) -> None:
        self.trained_as.continue_from(model, folder)

    def fold(self, model: nn.Module) -> nn.Module:
        return self.trained_as.fold(model)

    def export(self, model: nn.Module, folder: Path) -> None:
        self.trained_as.export(model, folder)

    def _build(self, trained: list[tuple[str, Any]], settings: OptimizerSettings) -> SubspaceOptimizer:
        """Return the optimizer over named parameters: projected, plain matrices, and vectors without decay."""
        from subspace.optim.groups import projected_groups

        groups = projected_groups(trained, self._projected, self.config.rank, settings.weight_decay)
        own = self.settings
        options = {name: getattr(own, name) for name in own.__slots__}
        return self.new_optimizer(groups, settings, {**options, **self.optimizer_options()})

    def new_optimizer(
        self, groups: list[dict[str, Any]], settings: OptimizerSettings, options: dict[str, Any]
    ) -> SubspaceOptimizer:
        """Return the optimizer with Adam's numbers."""
        betas = (settings.beta1, settings.beta2)
        return self.optimizer_class()(groups, settings.learning_rate, betas, settings.epsilon, **options)

    def _factors(self, inventory: Inventory, placements: tuple[Placement, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the adapter's matrices."""
        added = self.trained_as.account(inventory, placements).added
        return {spec.name: spec.shape for spec in added if spec.trained and len(spec.shape) > 1}

    def _require_projected(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse a rank with which the method would do nothing."""
        if self.config.rank and not self._projected:
            name, shape = max(shapes.items(), key=lambda item: min(item[1]))
            quarter = max(1, min(shape) // 4)
            raise ConfigError(
                "E-CFG-016",
                where="method.rank",
                found=f"with rank {self.config.rank} no weight is projected, not even {name} of {shape}, because "
                + self.optimizer_class().plain_because.format(rank=self.config.rank),
                action=f"Try method.rank={quarter}, about a quarter of its shorter side.",
            )

    def _chosen(self, inventory: Inventory) -> tuple[ModuleShape, ...]:
        targets: Targets = self.config.target_modules or "all-linear"
        excluded = self.config.exclude_modules
        chosen = match_linear(inventory, targets, excluded, "method.target_modules")
        if not self.config.project_embeddings:
            return chosen
        names = {shape.name for shape in chosen}
        return chosen + tuple(
            shape
            for shape in inventory.modules
            if shape.name not in names
            and inventory.vocab_size == (shape.in_features if shape.kind == "embedding" else shape.out_features)
            and shape.kind in ("embedding", "linear")
        )

    def _project(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Note how the weights of these names are projected, where that saves memory."""
        kind, rank, settings = self.optimizer_class(), self.config.rank, self.settings
        found = {name: kind.geometry(shape, rank, settings) for name, shape in shapes.items()} if rank else {}
        self._projected = {name: geometry for name, geometry in found.items() if geometry is not None}
        if self._watch is not None:
            self._watch.follow(self._projected if kind.keeps_bases(settings) else {})

"""What the methods share that train weights through a projection of their gradients. Imports no torch.

The weights are those of the model (`target: weights`, everything is trained) or those of a LoRA adapter (`target:
adapter`, the base is frozen): the rest of the method is then that of `full` or of `lora`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.core.errors import CheckpointError, ConfigError
from subspace.methods.base import AttachContext, Hook, Method
from subspace.methods.full import Full, FullConfig
from subspace.methods.lora import Lora, LoraConfig
from subspace.optim.settings import OptimizerSettings, ProjectionSettings
from subspace.plan.placement import Targets, match_linear
from subspace.plan.shapes import Account, Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subspace.optim.engine import SubspaceOptimizer
    from subspace.projection.geometry import Geometry

__all__ = ["ProjectedMethod"]

_FIRST = "first_basis:"


class ProjectedMethod(Method, Hook):
    """A method that is an optimizer: what is trained is trained as in `full`, or as in `lora`."""

    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._seed = 0
        self._projected: dict[str, Geometry] = {}
        self._microscope: Any = None
        self._first: dict[str, Any] = {}
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
        if self.config.microscope:
            from subspace.optim.microscope import Microscope

            self._microscope = Microscope(self._watched())
            optimizer.refresher.microscope = self._microscope
            device = next(iter(optimizer.slots)).device
            self._microscope.first = {name: basis.to(device) for name, basis in self._first.items()}
        return optimizer

    def _watched(self) -> tuple[str, ...]:
        """Return the names of the weights whose first basis is kept."""
        from subspace.optim.microscope import watched_names

        keeps = self.config.microscope and self.optimizer_class().keeps_bases(self.settings)
        return watched_names(self._projected) if keeps else ()

    def state_specs(self, trained: tuple[TensorSpec, ...], settings: OptimizerSettings) -> tuple[TensorSpec, ...]:
        import torch
        from torch import nn

        empty = [
            (spec.name, nn.Parameter(torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")))
            for spec in trained
        ]
        return self._build(empty, settings).planned_state()

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
        return (
            f"{endings}: {len(plain)} weights are not projected, because rank {self.config.rank} would keep more than "
            "it saves.",
        )

    def kept_specs(self, inventory: Inventory, placements: tuple[Placement, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(_FIRST + name, next(iter(self._projected[name].basis_shapes.values())))
            for name in self._watched()
        )

    def hooks(self) -> tuple[Hook, ...]:
        return (self,)

    def after_step(self, model: nn.Module, step: int) -> Mapping[str, Any] | None:
        """Return the figures of the step's refreshes."""
        return None if self._microscope is None else self._microscope.event()

    def state(self, model: nn.Module) -> dict[str, Any]:
        first = {} if self._microscope is None else self._microscope.first
        return {_FIRST + name: basis for name, basis in first.items()}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        foreign = [
            key for key in state if not key.startswith(_FIRST) or key.removeprefix(_FIRST) not in self._watched()
        ]
        if foreign:
            raise CheckpointError(
                "E-CKP-005",
                where="method state",
                found=f"{len(foreign)} unknown values ({', '.join(sorted(foreign)[:5])})",
                expected="the first bases of the weights that are watched",
                action="Resume with the recipe that wrote the checkpoint.",
            )
        self._first = {key.removeprefix(_FIRST): value for key, value in state.items()}
        if self._microscope is not None:
            self._microscope.first = self._first

    def continue_from(self, model: nn.Module, folder: Path) -> None:
        self.trained_as.continue_from(model, folder)

    def fold(self, model: nn.Module) -> nn.Module:
        return self.trained_as.fold(model)

    def export(self, model: nn.Module, folder: Path) -> None:
        self.trained_as.export(model, folder)

    def _build(self, trained: list[tuple[str, Any]], settings: OptimizerSettings) -> SubspaceOptimizer:
        """Return the optimizer over named parameters: projected, plain matrices, and vectors without decay."""
        from subspace.optim.adamw import decays

        found: dict[tuple[int | None, float], list[tuple[str, Any]]] = {}
        for name, parameter in trained:
            decay = settings.weight_decay if decays(name, parameter) else 0.0
            rank = self.config.rank if name in self._projected else None
            found.setdefault((rank, decay), []).append((name, parameter))
        groups = [
            {"params": members, "weight_decay": decay, **({} if rank is None else {"rank": rank})}
            for (rank, decay), members in found.items()
        ]
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
            name, shape = min(shapes.items(), key=lambda item: min(item[1]))
            raise ConfigError(
                "E-CFG-016",
                where="method.rank",
                found=f"rank {self.config.rank} saves nothing on any weight, e.g. {name} of {shape}",
                action="Lower it.",
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

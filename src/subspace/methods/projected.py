"""What the methods share that train weights through a projection of their gradients. Imports no torch.

The weights are those of the model (`target: weights`, everything is trained) or those of a LoRA adapter (`target:
adapter`, the base is frozen): the rest of the method is then that of `full` or of `lora`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from subspace.config.base import Synonym
from subspace.core.errors import ConfigError, SubspaceError
from subspace.methods.adapter import TargetConfig
from subspace.methods.base import AttachContext, Method, Refusal
from subspace.methods.full import Full, FullConfig
from subspace.methods.lora import Lora, LoraConfig
from subspace.optim.refusals import REFUSALS, refuse
from subspace.optim.settings import OptimizerSettings, Preset, ProjectionSettings, projection_settings
from subspace.plan.placement import Targets, match_linear
from subspace.plan.shapes import Account, Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subspace.optim.engine import SubspaceOptimizer

__all__ = ["SHARED_REFUSALS", "WHOLE_GRADIENT_REFUSALS", "ProjectedMethod", "ProjectionConfig", "optimizer_refusals"]

_IN_BACKWARD = ("method.update", ("in_backward",))
_KEEPS_NOTHING = ("method.full_accumulator", (None, False))
_USED_UP = "An update in the backward pass uses the whole gradient up at once; method.full_accumulator keeps it"

SHARED_REFUSALS = (
    Refusal(
        "training.optim",
        ("adamw_8bit", "paged_adamw_8bit"),
        "It brings its own optimizer; method.state_bits sets the width of its moments.",
    ),
    Refusal(
        "model.quantization",
        ("int8", "nf4"),
        "Quantized weights have no gradients; model.trained_weights: int8 trains codes.",
        when=(("method.target", ("weights",)),),
    ),
    Refusal(
        "training.mixed_precision",
        ("fp16",),
        "Loss scaling looks for overflow in whole gradients, which an update in the backward pass has freed; use bf16.",
        when=(_IN_BACKWARD,),
    ),
)
"""What no method of the family can be combined with."""
WHOLE_GRADIENT_REFUSALS = (
    Refusal(
        "training.gradient_accumulation_steps",
        (1,),
        f"{_USED_UP}, so that it can be accumulated.",
        all_but=True,
        when=(_IN_BACKWARD, _KEEPS_NOTHING),
    ),
    Refusal(
        "training.max_grad_norm",
        (0.0,),
        f"{_USED_UP}, so that its norm can be clipped.",
        all_but=True,
        when=(_IN_BACKWARD, _KEEPS_NOTHING),
    ),
    Refusal(
        "training.max_bad_steps",
        (0,),
        f"{_USED_UP}, so that a step can be skipped.",
        all_but=True,
        when=(_IN_BACKWARD, _KEEPS_NOTHING),
    ),
)
"""What methods that need the whole gradient cannot be combined with when they update in the backward pass."""


def optimizer_refusals(optimizer: str) -> tuple[Refusal, ...]:
    """Return what the table `optim.refusals` says of an optimizer, in the recipe's keys."""
    rows = (row for row in REFUSALS if row.optimizer == optimizer)
    return tuple(Refusal(f"method.{row.key}", row.values, row.reason) for row in rows)


class ProjectionConfig(TargetConfig):
    """Which weights are projected, into what, and how the state is kept."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        **{key: value for key, value in TargetConfig.synonyms.items() if key != "target"},
        "r": Synonym("rank"),
        "update_proj_gap": Synonym("refresh_interval"),
        "T": Synonym("refresh_interval"),
        "proj_type": Synonym(
            "side", {"std": "shorter", "reverse_std": "longer", "left": "left", "right": "right", "full": "both"}
        ),
    }

    built_in: ClassVar[ProjectionSettings]
    """The method's own defaults."""
    optimizer: ClassVar[str]
    """Its optimizer, as `module:Class` in `subspace.optim`."""

    rank: int = Field(default=128, ge=1)
    """Dimension of the subspace, r."""
    refresh_interval: int = Field(default=200, ge=1)
    """Optimizer steps between new bases."""
    target: Literal["weights", "adapter"] = "weights"
    """Train the model's weights, or a LoRA adapter beside frozen ones."""
    target_modules: Literal["all-linear"] | tuple[str, ...] | None = "all-linear"
    """What is projected (or adapted): `all-linear`, or endings of names; `re:` begins a regular expression."""
    project_embeddings: bool = False
    """Project the embedding and the output head too, which hold most of a small model's optimizer state."""
    adapter_rank: int = Field(default=32, ge=1)
    """With `target: adapter`: rank of the LoRA adapter."""
    adapter_alpha: float = Field(default=64.0, gt=0.0)
    """With `target: adapter`: numerator of its factor."""
    adapter_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """With `target: adapter`: share of its inputs that is dropped."""
    preset: Preset | None = None
    """`paper`, `fast` (warm, staggered refreshes) or `small` (the same, moments of 8 bits), in place of the options."""
    side: Literal["shorter", "longer", "left", "right", "both"] | None = None
    """Dimension in which the basis lives; absent: the shorter one."""
    basis: Literal["svd", "gram", "randomized", "warm", "random"] | None = None
    """How a basis is found; absent: as published."""
    refresh: Literal["interval", "staggered", "adaptive"] | None = None
    """All at once, spread over the weights, or less often where the basis hardly moves; absent: all at once."""
    moments: Literal["keep", "zero", "transport"] | None = None
    """What becomes of the moments at a refresh; absent: kept."""
    state_bits: Literal[32, 8, 4] | None = None
    """Width of the moments; absent: 32."""
    fidelity: Literal["paper", "reference"] = "paper"
    """The published method, or the official code step for step."""
    update: Literal["after_backward", "in_backward"] = "after_backward"
    """Update after the backward pass, or use and free each gradient as soon as it exists."""
    refresh_from: Literal["step", "micro_batch"] = "step"
    """With `update: in_backward`: find a basis from the gradient of the whole step, kept in full meanwhile, or from
    that of its first micro-batch."""
    full_accumulator: bool | None = None
    """With `update: in_backward`, where the method needs the whole gradient: keep it until the step, so that
    accumulation and clipping work."""

    @model_validator(mode="after")
    def _decided_once(self) -> ProjectionConfig:
        try:
            refuse(self.optimizer_place().partition(":")[2], self.settings())
        except SubspaceError as error:
            raise ValueError(f"{error.found}. {error.action}") from None
        return self

    def optimizer_place(self) -> str:
        """Return the optimizer that the options ask for."""
        return self.optimizer

    def settings(self, seed: int = 0) -> ProjectionSettings:
        """Return the optimizer's options, the method's own defaults filled in."""
        given = {name: getattr(self, name) for name in ProjectionSettings.__slots__ if hasattr(self, name)}
        return projection_settings(self.built_in, given | {"seed": seed}, self.preset, where="method")


class ProjectedMethod(Method):
    """A method that is an optimizer: what is trained is trained as in `full`, or as in `lora`."""

    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._seed = 0
        self._projected: dict[str, int] = {}
        self.trained_as: Method = Full(FullConfig())
        if config.target == "adapter":
            self.trained_as = Lora(
                LoraConfig(
                    rank=config.adapter_rank,
                    alpha=config.adapter_alpha,
                    dropout=config.adapter_dropout,
                    target_modules=config.target_modules,
                    exclude_modules=config.exclude_modules,
                )
            )

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
            added = self.trained_as.account(inventory, placements).added
            self._projected = {spec.name: self.config.rank for spec in added if ".lora_" in spec.name}
            return placements
        chosen = self._chosen(inventory)
        tensors = {tensor.name: tensor for tensor in inventory.tensors}
        placements = tuple(
            Placement(shape.name, self._rank_of(tensors[f"{shape.name}.weight"]))
            for shape in chosen
            if f"{shape.name}.weight" in tensors
        )
        if not any(placement.rank for placement in placements):
            smallest = min((shape.out_features, shape.in_features) for shape in chosen)
            raise ConfigError(
                "E-CFG-016",
                where="method.rank",
                found=f"rank {self.config.rank} saves nothing on any module, e.g. {chosen[0].name} of {smallest}",
                action="Lower it.",
            )
        self._set_projected(placements)
        return placements

    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        return self.trained_as.account(inventory, placements)

    def trace(self, model: nn.Module, placements: tuple[Placement, ...]) -> None:
        self.trained_as.trace(model, placements)

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        self._seed = context.seed
        attached = self.trained_as.attach(model, placements, context)
        if self.config.target == "weights":
            self._set_projected(placements)
        else:
            named = (name for name, value in attached.named_parameters() if value.requires_grad and ".lora_" in name)
            self._projected = dict.fromkeys(named, self.config.rank)
        return attached

    def optimizer(self, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
        trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        return self._build(trained, settings)

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
            rank = self._projected.get(spec.name)
            geometry = None if rank is None else kind.geometry(spec.shape, rank, settings)
            if geometry is None or settings.refresh_from == "step":
                held.append(spec)
            else:
                held.append(TensorSpec(spec.name, geometry.low_shape))
        return tuple(held)

    def notes(self, inventory: Inventory, placements: tuple[Placement, ...]) -> tuple[str, ...]:
        plain = [placement.module for placement in placements if not placement.rank]
        if not plain:
            return ()
        endings = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in plain))
        return (
            f"{endings}: plain AdamW on {len(plain)} modules, because rank {self.config.rank} would keep more than it "
            "saves.",
        )

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
            found.setdefault((self._projected.get(name), decay), []).append((name, parameter))
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

    def _rank_of(self, weight: TensorSpec) -> int:
        """Return the rank of a weight; 0 where plain AdamW keeps no more."""
        geometry = self.optimizer_class().geometry(weight.shape, self.config.rank, self.settings)
        return 0 if geometry is None else geometry.rank

    def _set_projected(self, placements: tuple[Placement, ...]) -> None:
        # the rank that was asked for: a smaller weight clips it by itself
        self._projected = {f"{p.module}.weight": self.config.rank for p in placements if p.rank}

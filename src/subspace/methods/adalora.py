"""AdaLoRA: an adapter in singular-value form whose ranks move to where they matter while it trains.

    W' = W + alpha / r0 P diag(E) Q,   P (m, r0), E (r0, 1), Q (r0, n)
    importance of a triplet = smoothed |w g| times its smoothed deviation, summed over E_i and the means of Q_i, P_i
    budget b(t): r0 per layer for `warmup_steps`, then falling with the cube of the time left to `rank` per layer,
    constant for `final_steps`; every `allocation_interval` steps E is set to zero outside the top b(t) triplets
    loss += orthogonality * mean over P and Q of ||P'P - I||_F

Gradients and optimizer state keep the initial rank, and the plan charges it; only the exported adapter shrinks.
References: Zhang et al. 2023, arXiv 2303.10512, eq. 3-12. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from subspace.adapters.specs import layer_tensor
from subspace.config.base import Synonym
from subspace.core.errors import CheckpointError
from subspace.methods.adapter import AdapterMethod
from subspace.methods.base import AttachContext, Hook, MethodCard
from subspace.methods.low_rank import LowRankConfig
from subspace.plan.shapes import Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["AdaLora", "AdaLoraConfig"]

_KEPT = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of PEFT's allocator: importance, its average, that of its deviation


class AdaLoraConfig(LowRankConfig):
    """An adapter whose ranks move to where they matter while it trains."""

    synonyms: ClassVar[Mapping[str, Synonym]] = dict(LowRankConfig.synonyms) | {
        "target_r": Synonym("rank"),
        "init_r": Synonym("initial_rank"),
        "tinit": Synonym("warmup_steps"),
        "tfinal": Synonym("final_steps"),
        "deltaT": Synonym("allocation_interval"),
        "orth_reg_weight": Synonym("orthogonality"),
    }

    name: Literal["adalora"] = "adalora"
    initial_rank: int | None = Field(default=None, ge=2)
    """Rank of every layer at the start; absent: half as much again as `rank`, which is the mean at the end."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps before ranks begin to fall; absent: a tenth of the run."""
    final_steps: int | None = Field(default=None, ge=0)
    """Steps at the end in which ranks stand; absent: a fifth of the run."""
    allocation_interval: int = Field(default=10, ge=1)
    """Steps between two allocations."""
    beta1: float = Field(default=0.85, gt=0.0, lt=1.0)
    """Smoothing of the importance."""
    beta2: float = Field(default=0.85, gt=0.0, lt=1.0)
    """Smoothing of its deviation."""
    orthogonality: float = Field(default=0.5, ge=0.0)
    """Factor on the penalty that keeps the factors orthogonal."""

    @model_validator(mode="after")
    def _falls(self) -> AdaLoraConfig:
        if self.first_rank <= self.rank:
            raise ValueError(f"initial_rank {self.initial_rank} must exceed rank {self.rank}, or no rank can move")
        return self

    @property
    def first_rank(self) -> int:
        """The rank of every layer at the start."""
        return self.initial_rank or self.rank + -(-self.rank // 2)


class AdaLora(AdapterMethod, Hook):
    """Adaptive budget allocation; the hook is the method itself."""

    card = MethodCard(
        name="adalora",
        summary="An adapter in singular-value form whose ranks move to where they matter while it trains.",
        family="adapter",
        reference="Zhang et al. 2023, arXiv 2303.10512",
        low_rank="The change of every adapted weight; its rank falls from initial_rank to what its importance earns.",
        use_when="Where it is not known which layers need rank, and the run is long enough to find out.",
        cost="(m + n + 1) r0 trained numbers, twice as many of state, three times for the allocation",
        differs=("Warm-up and final phase are shares of the run unless given in steps.",),
    )
    config_class = AdaLoraConfig
    peft_config = "AdaLoraConfig"
    rank_key = "method.initial_rank"
    _settled = False  # the final allocation has been made
    _known: Mapping[str, int] | None = None  # ranks of the last event

    def rank_of(self, shape: ModuleShape) -> int:
        return int(self.config.first_rank)

    def layer_tensors(self, inventory: Inventory, shape: ModuleShape, rank: int) -> tuple[TensorSpec, ...]:
        return (
            layer_tensor(shape.name, "lora_A.default", (rank, shape.in_features)),
            layer_tensor(shape.name, "lora_B.default", (shape.out_features, rank)),
            layer_tensor(shape.name, "lora_E.default", (rank, 1)),
            layer_tensor(shape.name, "ranknum.default", (1,), trained=False),
        )

    def kept_specs(self, inventory: Inventory, placements: tuple[Placement, ...]) -> tuple[TensorSpec, ...]:
        factors = (tensor for tensor in self.account(inventory, placements).added if ".lora_" in tensor.name)
        return tuple(TensorSpec(f"{key}:{tensor.name}", tensor.shape) for tensor in factors for key in _KEPT)

    def traced_layer(self, linear: nn.Module, placement: Placement) -> nn.Module:
        from subspace.adapters.traced import TracedAdaLora

        return TracedAdaLora(linear, placement.rank, self.config.alpha, self.config.dropout)

    def peft_options(self, placements: tuple[Placement, ...], context: AttachContext) -> dict[str, Any]:
        config, total = self.config, context.total_steps
        final = min(total // 5 if config.final_steps is None else config.final_steps, total - 1)
        warmup = min(total // 10 if config.warmup_steps is None else config.warmup_steps, total - final - 1)
        schedule = {"total_step": total, "tinit": warmup, "tfinal": final, "deltaT": config.allocation_interval}
        # PEFT adds the penalty to outputs.loss, which not every loop reads; `penalty` does it, once
        smoothing = {"beta1": config.beta1, "beta2": config.beta2, "orth_reg_weight": 0.0}
        own = {"target_r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout}
        return own | schedule | smoothing

    def start(self, model: nn.Module, context: AttachContext) -> None:
        from subspace.adapters.peft_bridge import adapter_layers
        from subspace.adapters.starting_values import draw_adalora

        draw_adalora(model, context.seed)
        for layer in adapter_layers(model).values():
            layer.ranknum.requires_grad_(False)  # PEFT makes it trainable when it casts a narrow base's adapter

    def penalty(self, model: nn.Module) -> torch.Tensor | None:
        if not self.config.orthogonality:
            return None
        import torch

        terms = []
        for name, factor in model.named_parameters():
            if name.endswith((".lora_A.default", ".lora_B.default")):
                gram = factor @ factor.T if ".lora_A." in name else factor.T @ factor
                terms.append(torch.linalg.norm(gram - torch.eye(*gram.shape, device=gram.device)))
        weight: float = self.config.orthogonality
        return weight * torch.stack(terms).mean()

    def hooks(self) -> tuple[Hook, ...]:
        return (self,)

    def after_step(self, model: nn.Module, step: int) -> Mapping[str, Any] | None:
        """Move ranks, gradients still there; return an event if they changed."""
        tuner: Any = model.base_model
        config, allocator = tuner.peft_config["default"], tuner.rankallocator
        last = config.total_step - config.tfinal
        settles = step >= last and not self._settled  # a skipped step must not skip the final allocation
        if settles and not allocator.exp_avg_ipt:
            allocator.update_ipt(tuner.model)
        tuner.update_and_allocate(last if settles else step)
        self._settled = self._settled or settles
        ranks = _ranks(config)
        if ranks is None or ranks == self._known:
            return None
        self._known = ranks
        return {"kind": "ranks", "total_rank": sum(ranks.values()), "ranks": ranks}

    def state(self, model: nn.Module) -> dict[str, Any]:
        tuner: Any = model.base_model
        kept = {f"{key}:{name}": value for key in _KEPT for name, value in getattr(tuner.rankallocator, key).items()}
        return kept | {"rank_pattern": tuner.peft_config["default"].rank_pattern, "settled": self._settled}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        tuner: Any = model.base_model
        owners = dict(tuner.model.named_parameters())
        foreign = [key for key in state if ":" in key and key.partition(":")[2] not in owners]
        if foreign or not {"rank_pattern", "settled"} <= state.keys():
            told = f"unknown tensors ({', '.join(foreign[:5])})" if foreign else "no rank_pattern"
            raise CheckpointError("E-CKP-005", where="method state", found=told, expected="the state of this recipe")
        for label, value in state.items():
            key, _, name = label.partition(":")
            if name:
                getattr(tuner.rankallocator, key)[name] = value.to(owners[name].device, copy=True)
        config = tuner.peft_config["default"]
        config.rank_pattern, self._settled = state["rank_pattern"], state["settled"]
        self._known = _ranks(config)

    def export(self, model: nn.Module, folder: Path) -> None:
        from subspace.adapters.peft_bridge import export_adapter

        tuner: Any = model.base_model
        pattern = tuner.peft_config["default"].rank_pattern or {}
        named = {name.removesuffix(".default"): kept for name, kept in pattern.items()}
        export_adapter(model, folder, {"orth_reg_weight": self.config.orthogonality, "rank_pattern": named or None})


def _ranks(config: Any) -> dict[str, int] | None:
    """Return the rank of every module, None before the first allocation."""
    if config.rank_pattern is None:
        return None
    return {name.partition(".lora_E")[0]: sum(kept) for name, kept in sorted(config.rank_pattern.items())}

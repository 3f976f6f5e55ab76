"""EVA: LoRA whose A starts from the directions in which the layer's inputs vary most on the training data.

    A0 = leading r right singular vectors of the inputs of W over some batches,   B0 = 0

With rho > 1 ranks move to the layers whose directions explain most, up to rho * r for a layer, the sum unchanged; they
are known only once the data were seen, so the plan shows the ranks before.

References: Paischer et al. 2024, arXiv 2410.07170, sections 3.2-3.3.
Differs from the paper: 1. ranks stay equal unless rho is given; 2. directions that have not settled after `num_batches`
forward passes (beyond the rank of the data they never do) are taken as they are. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from subspace.core.errors import CheckpointError, ConfigError, MethodError
from subspace.methods.base import AttachContext, MethodCard
from subspace.methods.low_rank import LowRankConfig, LowRankMethod
from subspace.plan.shapes import Inventory, Placement

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Batch = Mapping[str, Tensor]

__all__ = ["Eva", "EvaConfig"]


class EvaConfig(LowRankConfig):
    """LoRA whose A starts from the main directions of the layer's inputs."""

    name: Literal["eva"] = "eva"
    rho: float = Field(default=1.0, ge=1.0, le=64.0)
    """Largest rank of a layer over `rank`; 1 keeps the ranks equal."""
    num_batches: int = Field(default=32, ge=2)
    """Forward passes after which the directions are taken as they are."""
    tokens: Literal["answer", "all"] = "answer"
    """Whose inputs count: tokens with a loss, or all but padding. Classification counts all."""
    whiten: bool = False
    """Divide the directions by the root of their singular values."""


class Eva(LowRankMethod):
    """Explained variance adaptation."""

    card = MethodCard(
        name="eva",
        summary="LoRA whose A starts from the directions in which the layer's inputs vary most on the training data.",
        family="adapter",
        reference="Paischer et al. 2024, arXiv 2410.07170",
        low_rank="The change of every adapted weight has rank r and starts in the main directions of its inputs.",
        use_when="Where the data differ from what the model was trained on; it reads some batches before it starts.",
        cost="(m + n) r trained numbers, twice as many of state; forward passes over num_batches batches at the start",
        differs=(
            "Ranks stay equal unless rho is given.",
            "Directions that have not settled after num_batches forward passes are taken as they are.",
        ),
    )
    config_class = EvaConfig

    def place(self, inventory: Inventory) -> tuple[Placement, ...]:
        placements = super().place(inventory)
        for placement in placements:
            shape = inventory.module(placement.module)
            if 2 * self._most(placement.rank) > shape.in_features:
                raise ConfigError(
                    "E-CFG-016",
                    where="method.rank",
                    found=f"{self._most(placement.rank)} directions of the {shape.in_features} inputs of {shape.name}",
                    expected="at most half of them",
                    action="Lower method.rank or method.rho.",
                )
        return placements

    def peft_options(self, placements: tuple[Placement, ...], context: AttachContext) -> dict[str, Any]:
        from peft import EvaConfig as PeftEvaConfig

        eva = PeftEvaConfig(rho=self.config.rho, whiten=self.config.whiten)
        return super().peft_options(placements, context) | {"init_lora_weights": "eva", "eva_config": eva}

    def start(self, model: nn.Module, context: AttachContext) -> None:
        if context.restoring:
            return
        import torch
        from peft import get_eva_state_dict

        live: Any = model
        batches = self._enough(live, context)
        # PEFT goes round the batches until the directions settle; the threshold is lifted when that lasts too long
        eva = live.peft_config["default"].eva_config
        threshold = eva.tau = torch.tensor(0.99)
        num_passes = 0

        def forward(model: nn.Module, batch: Batch) -> None:
            nonlocal num_passes
            num_passes += 1
            if num_passes > self.config.num_batches:
                threshold.fill_(-1.0)
            model(**batch)

        vectors = get_eva_state_dict(
            live,
            batches,
            forward_fn=forward,
            prepare_model_inputs_fn=lambda batch, _: self._masks(batch, two_stacks=live.config.is_encoder_decoder),
            prepare_layer_inputs_fn=_chosen_inputs,
            show_progress_bar=False,
        )
        eva.tau = 0.99
        self._install(live, vectors)

    def state(self, model: nn.Module) -> dict[str, Any]:
        from subspace.adapters.peft_bridge import adapter_layers

        return {"ranks": {name: layer.r["default"] for name, layer in adapter_layers(model).items()}}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        import torch

        from subspace.adapters.peft_bridge import adapter_layers

        layers, ranks = adapter_layers(model), state.get("ranks", {})
        if not ranks or not ranks.keys() <= layers.keys():
            raise CheckpointError(
                "E-CKP-005",
                where="method state ranks",
                found=f"ranks of {', '.join(sorted(ranks)[:5]) or 'no module'}",
                expected="a rank for each of the modules that are adapted",
            )
        rows = {name: torch.zeros(ranks.get(name, 0), layer.in_features) for name, layer in layers.items()}
        self._install(model, {f"base_model.model.{name}": value for name, value in rows.items()})

    def export(self, model: nn.Module, folder: Path) -> None:
        from subspace.adapters.peft_bridge import export_adapter

        export_adapter(model, folder, {"init_lora_weights": True, "eva_config": None})

    def _install(self, model: Any, vectors: dict[str, Tensor]) -> None:
        """Set A to the given rows; layers get as many ranks as there are rows, and go where there are none."""
        from peft import initialize_lora_eva_weights
        from peft.tuners.tuners_utils import cast_adapter_dtype

        initialize_lora_eva_weights(model, eva_state_dict=vectors)
        cast_adapter_dtype(model, "default")  # a layer of another rank is made anew, in the type of the base

    def _most(self, rank: int) -> int:
        most: int = round(rank * self.config.rho)
        return most

    def _enough(self, model: nn.Module, context: AttachContext) -> list[Batch]:
        """Return the batches with at least twice as many counted tokens as directions are sought.

        Raises:
            MethodError: E-MTH-001 if there is none; PEFT would go on looking for ever.
        """
        from subspace.adapters.peft_bridge import adapter_layers

        config: Any = model.config
        masks = partial(self._masks, two_stacks=config.is_encoder_decoder)
        needed = 2 * max(self._most(layer.r["default"]) for layer in adapter_layers(model).values())
        found = [] if context.batches is None else list(islice(context.batches(), self.config.num_batches))
        large: list[Batch] = [dict(batch) for batch in found if min(int(mask.sum()) for mask in masks(batch)) >= needed]
        if not large:
            raise MethodError(
                "E-MTH-001",
                where="method.eva",
                found=f"no batch with {needed} tokens to look at",
                expected="twice as many as the rank times rho",
                action="Raise training.per_device_train_batch_size, lower method.rank, or set method.tokens: all.",
            )
        return large

    def _masks(self, batch: Batch, *, two_stacks: bool) -> tuple[torch.Tensor, ...]:
        """Return the counted tokens of the only stack, or of encoder and decoder, (b, t) each."""
        import torch

        inputs, labels = batch["input_ids"], batch.get("labels")
        mask = batch.get("attention_mask", torch.ones_like(inputs)).bool()
        if labels is not None and two_stacks:
            return mask, labels != -100
        if labels is None or labels.ndim == 1 or self.config.tokens == "all":
            return (mask,)
        return (mask & (labels != -100),)


def _chosen_inputs(inputs: Any, masks: tuple[torch.Tensor, ...], name: str) -> torch.Tensor:
    """Return the rows (tokens, n) that a layer of that name is given for counted tokens."""
    parts = name.split(".")
    crossed = not {"EncDecAttention", "encoder_attn"}.isdisjoint(parts) and parts[-1] in ("k", "v", "k_proj", "v_proj")
    mask = masks[-1] if "decoder" in parts and not crossed else masks[0]
    chosen: torch.Tensor = (inputs if hasattr(inputs, "shape") else inputs[0])[mask]
    return chosen

"""The `training` section of a recipe, with Hugging Face's key names. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from subspace.config.base import Section, Synonym
from subspace.core.seeding import MAX_SEED

__all__ = ["TrainingConfig"]

Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Every = Annotated[int, Field(ge=1)] | Literal["epoch"]


class TrainingConfig(Section):
    """How long, how fast, on what, and where the run is kept."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        "lr": Synonym("learning_rate"),
        "epochs": Synonym("num_train_epochs"),
        "num_epochs": Synonym("num_train_epochs"),
        "batch_size": Synonym("per_device_train_batch_size"),
        "micro_batch_size": Synonym("per_device_train_batch_size"),
        "grad_accumulation": Synonym("gradient_accumulation_steps"),
        "accumulation": Synonym("gradient_accumulation_steps"),
        "scheduler": Synonym("lr_scheduler_type"),
        "lr_scheduler": Synonym("lr_scheduler_type"),
        "optimizer": Synonym(
            "optim", {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_bnb_8bit": "adamw_8bit"}
        ),
        "max_norm": Synonym("max_grad_norm"),
        "bf16": Synonym("mixed_precision", {True: "bf16", False: "no"}),
        "fp16": Synonym("mixed_precision", {True: "fp16", False: "no"}),
    }

    output_dir: str = ""
    """Run folder; empty: `outputs/<recipe name>`. What lies there is never overwritten."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps in all; wins over `num_train_epochs`."""
    num_train_epochs: int | None = Field(default=None, ge=1)
    """Passes over the training rows."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Rows (packed: sequences) in a micro-batch."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Micro-batches in an optimizer step."""
    learning_rate: Rate = 2e-4
    """Peak learning rate."""
    optim: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """Optimizer of methods that do not bring their own."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=1.0)
    """Decoupled weight decay of matrices; biases, norms and magnitudes have none."""
    adam_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of the first moment."""
    adam_beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the second moment."""
    adam_epsilon: float = Field(default=1e-8, gt=0.0, le=1.0)
    """Added to the root of the second moment."""
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Gradients are scaled down to this global norm; 0 switches clipping off."""
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial", "inverse_sqrt"] = (
        "cosine"
    )
    """Shape of the learning rate over the run (as in transformers)."""
    warmup_ratio: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the steps in which the rate rises."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps in which the rate rises; wins over `warmup_ratio`."""
    seed: int = Field(default=42, ge=0, lt=MAX_SEED)
    """Seed of initial values, data order and dropout."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """Where the model is trained."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Type of the forward and backward pass."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass (non-reentrant)."""
    loss_chunk_tokens: int | None = Field(default=None, ge=1)
    """Positions whose logits exist at one moment, so that the logits never exist whole; absent: all of them."""
    eval_steps: Every | None = None
    """Optimizer steps between evaluations of the loss on the validation rows; `epoch`: one after every epoch."""
    per_device_eval_batch_size: int = Field(default=16, ge=1)
    """Rows in an evaluation batch."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Evaluations without a better loss after which the run ends."""
    load_best_at_end: bool = False
    """Keep the trained values with the lowest validation loss instead of the last ones."""
    save_steps: Every | None = None
    """Optimizer steps between checkpoints; `epoch`: one after every epoch; absent: one at the end."""
    save_total_limit: int = Field(default=2, ge=2)
    """Complete checkpoints that are kept."""
    logging_steps: int = Field(default=1, ge=1)
    """Optimizer steps between log records."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers that also receive the log."""
    max_bad_steps: int = Field(default=5, ge=0)
    """Steps in a row with a loss or gradient that is not finite, skipped before the run is aborted."""

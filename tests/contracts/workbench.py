"""Builds what the contract tests look at: a tiny model, its inventory, a method attached to it, a few steps."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from cases import CASES
from torch import Tensor, nn

from subspace.methods.base import AttachContext, Method
from subspace.methods.registry import REGISTRY
from subspace.models.tiny import tiny_model
from subspace.optim.settings import OptimizerSettings
from subspace.plan.inventory import take_inventory
from subspace.plan.shapes import Inventory, Placement, TensorSpec
from subspace.training.loss import count_targets, summed_loss

FAMILIES = (
    ("llama", "causal_lm"),
    ("qwen2", "causal_lm"),
    ("gemma", "causal_lm"),
    ("bert", "classification"),
    ("t5", "seq2seq"),
)
"""Model family and task."""
NUM_STEPS = 6


def new_method(name: str, **changes: Any) -> Method:
    """Return a fresh method object with its smallest config."""
    method_class = REGISTRY.load(name)
    method: Method = method_class(method_class.config_class(**{**CASES[name], "name": name, **changes}))
    return method


def base_model(family: str, task: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return copy.deepcopy(_base_model(family, task)).to(dtype)


@functools.cache
def _base_model(family: str, task: str) -> nn.Module:
    model: Any = tiny_model(family, task, num_labels=3)  # type: ignore[arg-type]
    model.set_attn_implementation("eager")
    model.config.pad_token_id = 0
    built: nn.Module = model
    return built


def meta_model(family: str, task: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the same model without weights, ties kept."""
    model: Any = base_model(family, task)
    with torch.device("meta"):
        empty: nn.Module = type(model)._from_config(model.config, attn_implementation="eager", dtype=dtype)
    return empty


@functools.cache
def inventory_of(family: str, task: str, dtype: torch.dtype = torch.float32) -> Inventory:
    return take_inventory(meta_model(family, task, dtype), task=task)


def batch_of(task: str, seed: int = 0, rows: int = 4, length: int = 12) -> dict[str, Tensor]:
    """Return a full batch; token 0 is padding and does not occur."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 300, (rows, length), generator=generator)
    labels = {
        "causal_lm": ids.clone(),
        "classification": torch.randint(3, (rows,), generator=generator),
        "seq2seq": torch.randint(3, 300, (rows, length - 4), generator=generator),
    }
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels[task]}


@dataclass
class Bench:
    """A method attached to a tiny model."""

    method: Method
    inventory: Inventory
    placements: tuple[Placement, ...]
    model: nn.Module
    task: str
    total_steps: int

    def optimizer(self, **settings: Any) -> torch.optim.Optimizer:
        return self.method.optimizer(self.model, OptimizerSettings(**{"learning_rate": 1e-2, **settings}))

    def step(self, optimizer: torch.optim.Optimizer, number: int, batch: Mapping[str, Tensor] | None = None) -> float:
        """Do optimizer step `number` as the loop does, dropout seeded by the number; return the loss."""
        batch = batch_of(self.task, seed=number) if batch is None else batch
        self.model.train()
        torch.manual_seed(number)
        loss = summed_loss(self.model, batch, self.task) / count_targets(batch, self.task)
        loss.backward()
        penalty = self.method.penalty(self.model)
        if penalty is not None:
            penalty.backward()
        for hook in self.method.hooks():
            hook.before_step(self.model, number)
        optimizer.step()
        for hook in self.method.hooks():
            hook.after_step(self.model, number)
        optimizer.zero_grad()
        return float(loss.detach())

    def logits(self, batch: Mapping[str, Tensor] | None = None) -> Tensor:
        return logits_of(self.model, self.task, batch)


def attached(
    name: str,
    family: str = "llama",
    task: str = "causal_lm",
    *,
    dtype: torch.dtype = torch.float32,
    total_steps: int = NUM_STEPS,
    restoring: bool = False,
    seed: int = 7,
    **changes: Any,
) -> Bench:
    """Attach method `name` to a tiny model."""
    method, inventory = new_method(name, **changes), inventory_of(family, task, dtype)
    placements = method.place(inventory)
    context = AttachContext(seed=seed, total_steps=total_steps, batches=lambda: _batches(task), restoring=restoring)
    model = method.attach(base_model(family, task, dtype), placements, context)
    return Bench(method, inventory, placements, model, task, total_steps)


def logits_of(model: nn.Module, task: str, batch: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return the logits at the batch's own positions, dropout off."""
    batch = batch_of(task, seed=99) if batch is None else batch
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if task == "seq2seq":
        inputs["decoder_input_ids"] = batch["labels"]
    if task != "classification":
        inputs["use_cache"] = False
    model.eval()
    with torch.no_grad(), warnings.catch_warnings():
        logits: Tensor = model(**inputs).logits
    return logits if task == "classification" else logits[:, -batch["labels"].shape[1] :]


def specs(tensors: Mapping[str, Tensor]) -> set[tuple[str, tuple[int, ...], str]]:
    """Return name, shape and type of every tensor."""
    return {(name, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in tensors.items()}


def planned(tensors: tuple[TensorSpec, ...]) -> set[tuple[str, tuple[int, ...], str]]:
    return {(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors}


def _batches(task: str) -> list[dict[str, Tensor]]:
    return [batch_of(task, seed=seed) for seed in range(1000, 1008)]

"""A loop around a tiny model, with batches of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from subspace.methods.full import Full, FullConfig
from subspace.optim.settings import OptimizerSettings
from subspace.runs.log import RunLog
from subspace.training.config import TrainingConfig
from subspace.training.loop import Loop
from subspace.training.monitors import MachineMonitor
from subspace.training.schedule import Schedule


def rows(epoch: int, index: int) -> dict[str, Tensor]:
    """Return 4 rows of 8 tokens with answers of different lengths."""
    generator = torch.Generator().manual_seed(1000 * epoch + index)
    ids = torch.randint(3, 60, (4, 8), generator=generator)
    labels = ids.clone()
    for row in range(4):
        labels[row, : 1 + (row + index) % 6] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def make_loop(folder: Path, model: nn.Module, total_steps: int = 4, batch: Any = rows, **changes: Any) -> Loop:
    """Return a loop of full training; `changes` go to the training section."""
    settings = {"max_steps": total_steps, "learning_rate": 1e-2, "lr_scheduler_type": "constant", **changes}
    config = TrainingConfig(**settings)
    method = Full(FullConfig())
    method.attach(model, (), context=None)  # type: ignore[arg-type]  # full reads none
    optimizer = method.optimizer(model, OptimizerSettings(learning_rate=1e-2))
    AcceleratorState._reset_state(reset_partial_state=True)  # or it keeps the precision of a run before it
    return Loop(
        model=model,
        method=method,
        optimizer=optimizer,
        schedule=Schedule(config, optimizer, total_steps),
        accelerator=Accelerator(cpu=True),
        config=config,
        task="causal_lm",
        total_steps=total_steps,
        num_batches=10,
        batch=batch,
        log=RunLog(folder / "log.jsonl"),
        monitor=MachineMonitor("cpu"),
        save=lambda progress: None,
    )


def values(model: nn.Module) -> Tensor:
    """Return all parameters as one vector."""
    return torch.cat([value.detach().flatten() for value in model.parameters()])

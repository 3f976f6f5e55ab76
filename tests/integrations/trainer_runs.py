"""Short trainings in the real Trainer and SFTTrainer, to be repeated and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from subspace.adapters.stella import add_stella
from subspace.integrations.curvature_callback import CurvatureCallback
from subspace.integrations.stella_callback import StellaCallback
from subspace.integrations.transformers_optimizers import optimizer_cls_and_kwargs
from subspace.models.tiny import tiny_model, write_tiny_folder
from subspace.optim.riemannian import innermost

QUIET = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
"""Theirs, not ours."""

PROJECTED: dict[str, Any] = {"rank": 4, "refresh_interval": 2}
"""With six steps and a checkpoint after the third there are refreshes on both sides of it."""
METHODS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "apollo": PROJECTED,
    "apollo_mini": {"refresh_interval": 2},
    "fira": PROJECTED,
    "flora": PROJECTED,
    "galore": PROJECTED,
    "galore_adafactor": PROJECTED,
    "qgalore": PROJECTED,
    "sophia": {"rho": 1e4},  # gradients are so small that with the usual one curvature would not count
    "stella": {},
}
SETTINGS: dict[str, Any] = {
    "max_steps": 6,
    "save_steps": 3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "adam_beta1": 0.8,
    "weight_decay": 0.1,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}
LEARNING_RATES = [0.0, 0.005, 0.01, 0.01 * (2 + 2**0.5) / 4, 0.005, 0.01 * (2 - 2**0.5) / 4]
"""Two steps of warm-up, then half a cosine over four."""


@dataclasses.dataclass
class Finished:
    """A training that has ended.

    Attributes:
        trainer: The Trainer.
        rates: Of every group at every step, as the innermost optimizer read them.
        weights: All of the model.
    """

    trainer: Any
    rates: list[list[float]]
    weights: dict[str, Tensor]


def rows(count: int = 24) -> list[dict[str, list[int]]]:
    found = ([1, *((7 * row + 3 * place) % 300 + 3 for place in range(8))] for row in range(count))
    return [{"input_ids": ids, "labels": ids} for ids in found]


def tiny_llama(method: str = "") -> Any:
    model = tiny_model("llama", hidden_size=16)
    return add_stella(model, ["q_proj", "down_proj"], rank=4) if method == "stella" else model


def new_trainer(folder: Path, method: str, settings: dict[str, Any], model: Any = None, **options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(output_dir=str(folder), **(SETTINGS | settings))
    return Trainer(model or tiny_llama(method), args, train_dataset=rows(), **_ours(args, method, options))


def new_sft_trainer(folder: Path, method: str, settings: dict[str, Any], peft: Any = None, **options: Any) -> Any:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = folder.with_name("base")
    if not base.exists():
        write_tiny_folder(base, "llama", "causal_lm", 0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    if method == "stella":
        add_stella(model, ["q_proj", "down_proj"], rank=4)
    lines = [{"prompt": f"{number} plus one is", "completion": f" {number + 1}"} for number in range(24)]
    args = trl.SFTConfig(output_dir=str(folder), bf16=False, **(SETTINGS | settings))
    return trl.SFTTrainer(
        model,
        args,
        train_dataset=Dataset.from_list(lines),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=peft,
        **_ours(args, method, options),
    )


def _ours(args: Any, method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what a user adds to a Trainer."""
    if method == "stella":
        return {"callbacks": [StellaCallback()]}
    added = {"optimizer_cls_and_kwargs": optimizer_cls_and_kwargs(args, method, **options)}
    return added | ({"callbacks": [CurvatureCallback(interval=2)]} if method == "sophia" else {})


def train(trainer: Any, resume_from: Path | None = None) -> Finished:
    rates: list[list[float]] = []
    optimizer = innermost(trainer.create_optimizer())
    optimizer.register_step_pre_hook(lambda *_: rates.append([group["lr"] for group in optimizer.param_groups]))
    trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    weights = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
    return Finished(trainer, rates, weights)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)

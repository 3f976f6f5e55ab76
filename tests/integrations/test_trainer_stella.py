"""StelLA in transformers' real Trainer; that it resumes is in test_trainer_optimizers and test_sft_trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_runs import QUIET, SETTINGS, largest_difference, rows, tiny_llama, train

from subspace.adapters.stella import hidden_size, stiefel_factors
from subspace.core.errors import MethodError
from subspace.integrations.stella_callback import StellaCallback
from subspace.integrations.transformers_optimizers import create_optimizer
from subspace.optim.riemannian import StiefelSteps

pytestmark = QUIET


def trainer_with(folder: Path, callback: StellaCallback, model: Any = None, **settings: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(output_dir=str(folder), **(SETTINGS | {"save_strategy": "no"} | settings))
    return Trainer(model or tiny_llama("stella"), args, train_dataset=rows(), callbacks=[callback])


def by_hand(model: Any, steps: int, **options: Any) -> dict[str, torch.Tensor]:
    """Train on the Trainer's first rows in their order, without schedule or accumulation."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    StiefelSteps(optimizer, stiefel_factors(model), **options)
    model.train()
    for step in range(steps):
        batch = {key: torch.tensor([row[key] for row in rows()[2 * step : 2 * step + 2]]) for key in rows()[0]}
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.5)
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "options", [{}, {"retraction": "exponential", "gradient_scaling": False}, {"gradient_scaling": 4}]
)
def test_the_weights_of_a_plain_loop(tmp_path: Path, options: dict[str, Any]) -> None:
    settings = {
        "max_steps": 3,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "adam_beta1": 0.9,
        "weight_decay": 0.0,
        "max_grad_norm": 0.5,
        "train_sampling_strategy": "sequential",
    }
    trained = train(trainer_with(tmp_path, StellaCallback(**options), **settings))
    model = tiny_llama("stella")
    scaling = {True: float(hidden_size(model)), False: None}.get(options.get("gradient_scaling", True), 4.0)
    expected = by_hand(model, 3, retraction=options.get("retraction", "polar"), gradient_scaling=scaling)
    assert largest_difference(trained.weights, expected) < 1e-6
    for factor in stiefel_factors(trained.trainer.model):
        assert float((factor.T @ factor - torch.eye(4)).abs().max()) < 1e-5


def test_training_twice_and_after_a_failure(tmp_path: Path) -> None:
    """Hooks that stood twice, or on after the end, would turn the bases twice."""

    def hooks(trainer: Any) -> int:
        optimizer = trainer.optimizer
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        return len(optimizer._optimizer_step_pre_hooks)

    trainer = trainer_with(tmp_path, StellaCallback(), max_steps=1)
    trainer.train()
    assert hooks(trainer) == 0
    seen: list[int] = []

    def fails(*_: Any) -> None:
        seen.append(hooks(trainer))
        raise RuntimeError("of the user")

    handle = trainer.model.register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="of the user"):
        trainer.train()
    handle.remove()
    trainer.model.register_forward_hook(lambda *_: seen.append(hooks(trainer)))
    trainer.train()
    assert set(seen) == {1}
    assert hooks(trainer) == 0


def test_with_our_adamw(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    settings = SETTINGS | {"save_strategy": "no", "optim": "adamw_torch", "adam_beta2": 0.95}
    theirs = train(trainer_with(tmp_path, StellaCallback(), **settings))
    args, model = TrainingArguments(output_dir=str(tmp_path), **settings), tiny_llama("stella")
    optimizer = create_optimizer(model, args, "adamw")
    ours = train(Trainer(model, args, train_dataset=rows(), callbacks=[StellaCallback()], optimizers=(optimizer, None)))
    # decay of a basis, which theirs has, lies along the basis and is taken out
    decayed = {name for group in optimizer.param_groups if group["weight_decay"] for name in group["param_names"]}
    assert decayed == {name for name, _ in model.named_parameters() if name.endswith("stella_S")}
    assert largest_difference(ours.weights, theirs.weights) < 1e-5


def test_a_model_without_stella_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="add_stella"):
        trainer_with(tmp_path, StellaCallback(), tiny_llama()).train()

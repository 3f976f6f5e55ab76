"""Our optimizers and StelLA in TRL's real SFTTrainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from trainer_runs import (
    LEARNING_RATES,
    METHODS,
    PROJECTED,
    QUIET,
    assert_same,
    largest_difference,
    new_sft_trainer,
    train,
)

from subspace.adapters.stella import stiefel_factors
from subspace.optim.riemannian import innermost

pytest.importorskip("trl")
pytestmark = QUIET


@pytest.mark.parametrize("method", ["apollo", "fira", "galore", "sophia", "stella"])
def test_resumes_to_the_weights_of_the_uninterrupted_training(tmp_path: Path, method: str) -> None:
    trainer = new_sft_trainer(tmp_path / "run", method, {}, **METHODS[method])
    before = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
    whole = train(trainer)
    for group in innermost(trainer.optimizer).param_groups:
        assert group["betas"][0] == 0.8
        assert group["weight_decay"] in (0.1, 0.0)
    for rates, expected in zip(whole.rates, LEARNING_RATES, strict=True):
        assert rates == pytest.approx([expected] * len(rates))
    resumed = train(
        new_sft_trainer(tmp_path / "again", method, {}, **METHODS[method]), tmp_path / "run" / "checkpoint-3"
    )
    assert_same(whole.weights, resumed.weights)
    changed = {name for name, value in before.items() if not torch.equal(value, whole.weights[name])}
    assert changed
    if method == "stella":
        assert all(".stella_" in name for name in changed)
        for factor in stiefel_factors(trainer.model):
            error = factor.T @ factor - torch.eye(factor.shape[1])
            assert float(error.abs().max()) < 1e-5


def test_a_method_on_the_factors_of_a_lora(tmp_path: Path) -> None:
    from peft import LoraConfig

    lora = LoraConfig(r=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    first = new_sft_trainer(tmp_path / "run", "fira", {}, peft=lora, rank=2, refresh_interval=2)
    whole = train(first)
    optimizer = innermost(first.optimizer)
    (group,) = optimizer.param_groups
    assert group["rank"] == 2
    assert group["param_names"]
    assert all(".lora_" in name for name in group["param_names"])
    # (8, 16) and (32, 8): both save; moments are (2, 16) and (32, 2)
    assert all(min(optimizer.state[value]["exp_avg"].shape) == 2 for value in group["params"])
    again = new_sft_trainer(tmp_path / "again", "fira", {}, peft=lora, rank=2, refresh_interval=2)
    resumed = train(again, tmp_path / "run" / "checkpoint-3")
    assert_same(whole.weights, resumed.weights)


def test_in_backward(tmp_path: Path) -> None:
    settings = {"max_grad_norm": 0.0, "save_strategy": "no"}
    options = PROJECTED | {"max_consumed_norm": 0.05}
    after = train(new_sft_trainer(tmp_path / "after", "galore", settings, **options))
    inside = train(new_sft_trainer(tmp_path / "inside", "galore", settings, update="in_backward", **options))
    assert largest_difference(after.weights, inside.weights) < 1e-6

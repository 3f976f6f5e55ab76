"""Learning rates are transformers' own, step by step, and need no state."""

from __future__ import annotations

import pytest
import torch
from transformers import get_scheduler

from subspace.core.errors import ConfigError
from subspace.training.config import TrainingConfig
from subspace.training.schedule import Schedule, num_total_steps, num_warmup_steps

SHAPES = ("constant", "constant_with_warmup", "linear", "cosine", "polynomial", "inverse_sqrt")


def optimizer() -> torch.optim.Optimizer:
    weights = [torch.zeros(2, requires_grad=True) for _ in range(2)]
    return torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.16}], lr=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_transformers(shape: str) -> None:
    config = TrainingConfig(max_steps=20, warmup_steps=4, lr_scheduler_type=shape, learning_rate=0.01)  # type: ignore[arg-type]
    ours, theirs = optimizer(), optimizer()
    schedule = Schedule(config, ours, 20)
    scheduler = get_scheduler(shape, optimizer=theirs, num_warmup_steps=4, num_training_steps=20)
    for step in range(1, 21):
        assert schedule.apply(step) == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-12)
        if shape != "polynomial":  # its end rate is absolute, so a group's factor is not the first one's
            assert ours.param_groups[1]["lr"] == pytest.approx(theirs.param_groups[1]["lr"], abs=1e-12)
        theirs.step()
        scheduler.step()


def test_any_step_can_be_asked_first() -> None:
    config = TrainingConfig(max_steps=20, learning_rate=0.01)
    first, later = optimizer(), optimizer()
    forwards, backwards = Schedule(config, first, 20), Schedule(config, later, 20)
    forward = [forwards.apply(step) for step in range(1, 21)]
    assert [backwards.apply(step) for step in range(20, 0, -1)] == forward[::-1]


def test_lengths() -> None:
    config = TrainingConfig(num_train_epochs=3, gradient_accumulation_steps=4, warmup_ratio=0.1)
    assert num_total_steps(config, 10) == 9
    assert num_warmup_steps(config, 9) == num_warmup_steps(config, 14) == 1
    assert num_warmup_steps(TrainingConfig(num_train_epochs=3, warmup_steps=3, warmup_ratio=0.1), 9) == 3
    assert num_total_steps(TrainingConfig(max_steps=5, num_train_epochs=3), 10) == 5


def test_more_warmup_than_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"E-CFG-015 training.warmup_steps: 12 warm-up steps in a run of 9"):
        num_warmup_steps(TrainingConfig(num_train_epochs=1, warmup_steps=12), 9)
    assert num_warmup_steps(TrainingConfig(num_train_epochs=1, warmup_steps=9), 9) == 9

"""What the loop does to the weights is what a loop written out here does: clipping, schedule, penalty, hooks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subspace.methods.base import Hook
from subspace.models.tiny import tiny_model
from subspace.runs.log import read_log
from subspace.training.loss import count_targets, count_tokens, summed_loss
from subspace.training.signals import StopFlag
from training.loop_bench import make_loop, rows, values

RATE = 1e-2
STEPS = 4


def bare_loop(model: nn.Module, max_grad_norm: float, rates: list[float]) -> list[dict[str, float]]:
    """Train with transformers' own loss, one row after another; return what a log would hold."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    records = []
    for index, rate in enumerate(rates):
        batch = rows(0, index)
        targets = int((batch["labels"][:, 1:] != -100).sum())
        total = 0.0
        for row in range(4):
            part = {key: value[row : row + 1] for key, value in batch.items()}
            own = int((part["labels"][:, 1:] != -100).sum())
            loss = model(**part).loss * own / targets
            loss.backward()
            total += float(loss.detach())
        norm = torch.stack([value.grad.norm() for value in model.parameters()]).norm()
        if max_grad_norm and norm > max_grad_norm:
            for value in model.parameters():
                value.grad *= max_grad_norm / norm
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        records.append({"loss": total, "grad_norm": float(norm), "learning_rate": rate})
    return records


@pytest.mark.parametrize("max_grad_norm", [0.05, 0.0])
def test_equals_a_loop_written_out(max_grad_norm: float, tmp_path: Path) -> None:
    """Warm-up over two steps, then linear to zero; the bound is below every norm, so that each step is clipped."""
    ours, theirs = tiny_model("llama", "causal_lm", seed=4), tiny_model("llama", "causal_lm", seed=4)
    shape = {"lr_scheduler_type": "linear", "warmup_steps": 2, "learning_rate": RATE}
    loop = make_loop(tmp_path, ours, STEPS, max_grad_norm=max_grad_norm, **shape)
    loop.run(StopFlag())
    expected = bare_loop(theirs, max_grad_norm, [0.0, RATE / 2, RATE, RATE / 2])
    records = [record for record in read_log(tmp_path / "log.jsonl")[0] if record["event"] == "step"]
    for found, wanted in zip(records, expected, strict=True):
        assert wanted["grad_norm"] > 0.05
        assert {key: found[key] for key in wanted} == pytest.approx(wanted, rel=1e-4)
    # Adam hides a common factor of all gradients; unequal norms of the steps do not let it
    assert torch.allclose(values(ours), values(theirs), atol=2e-5)


def test_clipped_gradients_have_the_norm_that_was_asked_for(tmp_path: Path) -> None:
    class Look(Hook):
        def __init__(self) -> None:
            self.norms: list[float] = []

        def before_step(self, model: nn.Module, step: int) -> None:
            self.norms.append(float(torch.stack([value.grad.norm() for value in model.parameters()]).norm()))

    look = Look()
    loop = make_loop(tmp_path, tiny_model("llama", "causal_lm"), STEPS, max_grad_norm=0.05)
    loop.method.hooks = lambda: (look,)  # type: ignore[method-assign]
    loop.run(StopFlag())
    assert look.norms == pytest.approx([0.05] * STEPS, rel=1e-3)


def test_hooks_stand_around_the_update_and_their_events_are_logged(tmp_path: Path) -> None:
    model = tiny_model("llama", "causal_lm")

    class Watch(Hook):
        def __init__(self) -> None:
            self.before = values(model)

        def before_step(self, model: nn.Module, step: int) -> None:
            assert torch.equal(values(model), self.before)

        def after_step(self, model: nn.Module, step: int) -> Mapping[str, Any] | None:
            assert all(value.grad is not None for value in model.parameters())
            assert not torch.equal(values(model), self.before)
            self.before = values(model)
            return {"rank": step + 1} if step == 2 else None

    watch = Watch()
    loop = make_loop(tmp_path, model, total_steps=3)
    loop.method.hooks = lambda: (watch,)  # type: ignore[method-assign]
    loop.run(StopFlag())
    events = [record for record in read_log(tmp_path / "log.jsonl")[0] if record["event"] == "method"]
    assert [(event["step"], event["rank"]) for event in events] == [(2, 3)]
    assert all(value.grad is None for value in model.parameters())


def test_a_penalty_pulls_and_is_logged_apart(tmp_path: Path) -> None:
    """Half the squared norm of the head adds the head itself to its gradient, once a step."""

    def gradients(factor: float, name: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
        (tmp_path / name).mkdir()
        model = tiny_model("llama", "causal_lm", seed=2)
        head = model.lm_head.weight
        loop = make_loop(tmp_path / name, model, total_steps=1, gradient_accumulation_steps=2, max_grad_norm=0.0)
        loop.method.penalty = (  # type: ignore[method-assign]
            lambda model: factor * head.square().sum() / 2 if factor else None
        )
        before, kept = head.detach().clone(), []

        class Keep(Hook):
            def before_step(self, model: nn.Module, step: int) -> None:
                kept.append(head.grad.clone())

        loop.method.hooks = lambda: (Keep(),)  # type: ignore[method-assign]
        loop.run(StopFlag())
        records, _ = read_log(tmp_path / name / "log.jsonl")
        return kept[0], before, records[0]

    plain, head, without = gradients(0.0, "plain")
    pulled, _, record = gradients(0.5, "pulled")
    assert torch.allclose(pulled - plain, 0.5 * head, atol=1e-6)
    assert record["penalty"] == pytest.approx(0.25 * float(head.square().sum()), rel=1e-5)
    assert record["loss"] == pytest.approx(without["loss"], rel=1e-6)
    assert "penalty" not in without


@pytest.mark.parametrize(("family", "task"), [("llama", "causal_lm"), ("t5", "seq2seq"), ("bert", "classification")])
def test_the_loss_is_transformers_own_times_the_targets(family: Any, task: Any) -> None:
    model = tiny_model(family, task).eval()
    batch = rows(0, 3)
    batch["attention_mask"][0, 6:] = 0
    batch["labels"][3, 0] = batch["input_ids"][3, 0]  # the first token is a target only where it is not the prompt
    if task == "classification":
        batch["labels"] = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        expected, found = model(**batch).loss, summed_loss(model, batch, task)
    count = count_targets(batch, task)
    assert count == {"causal_lm": 16, "seq2seq": 17, "classification": 4}[task]
    assert count_tokens(batch) == 30
    assert float(found) == pytest.approx(count * float(expected), rel=1e-5)

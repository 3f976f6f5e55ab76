"""The loop: every target weighs the same, a stop loses nothing, bad steps are skipped and counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from subspace.core.errors import NumericsError
from subspace.methods.base import Hook
from subspace.models.tiny import tiny_model
from subspace.runs.log import read_log
from subspace.training.hooks import Listener
from subspace.training.signals import StopFlag
from subspace.training.state import Progress
from training.loop_bench import make_loop, rows, values


def test_micro_batches_do_not_change_the_step(tmp_path: Path) -> None:
    """One batch of eight rows trains like two of four, although their targets differ in number."""

    def joined(epoch: int, index: int) -> dict[str, Tensor]:
        parts = [rows(epoch, 2 * index), rows(epoch, 2 * index + 1)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    logs = []
    for name, batch, accumulation in (("whole", joined, 1), ("parts", rows, 2)):
        (tmp_path / name).mkdir()
        model = tiny_model("llama", "causal_lm", seed=1)
        loop = make_loop(tmp_path / name, model, batch=batch, gradient_accumulation_steps=accumulation)
        loop.run(StopFlag())
        logs.append([record for record in read_log(tmp_path / name / "log.jsonl")[0] if record["event"] == "step"])
    for whole, parts in zip(*logs, strict=True):
        assert whole["num_targets"] == parts["num_targets"]
        assert whole["loss"] == pytest.approx(parts["loss"], abs=1e-4)
        assert whole["grad_norm"] == pytest.approx(parts["grad_norm"], rel=1e-3)


def test_a_step_ends_with_its_epoch(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, tiny_model("llama", "causal_lm"), total_steps=5, gradient_accumulation_steps=4)
    seen: list[tuple[int, int]] = []
    loop.batch = lambda epoch, index: (seen.append((epoch, index)), rows(epoch, index))[1]
    loop.run(StopFlag())
    assert seen == [(0, index) for index in range(10)] + [(1, index) for index in range(8)]
    assert (loop.progress.epoch, loop.progress.batch) == (1, 8)


def test_a_signal_in_an_accumulation_drops_it_and_saves_the_last_whole_step(tmp_path: Path) -> None:
    model = tiny_model("llama", "causal_lm")
    loop = make_loop(tmp_path, model, total_steps=5, gradient_accumulation_steps=2)
    stop, saved = StopFlag(), []
    loop.save = lambda progress: saved.append((progress.step, values(model)))
    before: dict[int, Tensor] = {}

    def batch(epoch: int, index: int) -> dict[str, Tensor]:
        before[index] = values(model)
        if index == 5:  # the second micro-batch of step 3
            stop._remember(15, None)
        return rows(epoch, index)

    loop.batch = batch
    result = loop.run(stop)
    assert (result.finished, result.exit_status) == (False, 75)
    step, at_stop = saved[-1]
    assert step == loop.progress.step == 2
    assert torch.equal(at_stop, before[4])
    assert all(value.grad is None for value in model.parameters())


def test_stopped_and_continued_equals_uninterrupted(tmp_path: Path) -> None:
    def trained(steps: tuple[int, ...]) -> Tensor:
        model = tiny_model("llama", "causal_lm", seed=3)
        model.config.attention_dropout = 0.1
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.1
        loop = make_loop(tmp_path, model, total_steps=6)
        for end in steps:
            loop.total_steps = end
            loop.progress = Progress(**loop.progress.to_json())
            torch.manual_seed(end)  # whatever happened in between
            loop.run(StopFlag())
        return values(model)

    assert torch.equal(trained((6,)), trained((2, 3, 6)))
    assert not torch.equal(trained((6,)), trained((5,)))


def test_steps_that_are_not_finite_change_nothing_and_are_counted(tmp_path: Path) -> None:
    model = tiny_model("llama", "causal_lm")
    loop = make_loop(tmp_path, model, total_steps=3, max_bad_steps=1)

    class Poison(Hook):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def before_step(self, model: nn.Module, step: int) -> None:
            self.steps.append(step)

    hook = Poison()
    loop.method.hooks = lambda: (hook,)  # type: ignore[method-assign]
    weight = model.lm_head.weight
    handle = weight.register_hook(lambda grad: grad * (math.nan if loop.progress.step == 1 else 1.0))
    loop.run(StopFlag())
    handle.remove()
    assert hook.steps == [1, 3]
    assert loop.progress.num_skipped == 1
    records, _ = read_log(tmp_path / "log.jsonl")
    assert [record["step"] for record in records if record["event"] == "skip"] == [2]
    assert torch.isfinite(values(model)).all()


def test_bad_steps_count_in_a_row_only(tmp_path: Path) -> None:
    model = tiny_model("llama", "causal_lm")
    loop = make_loop(tmp_path, model, total_steps=5, max_bad_steps=1)
    model.lm_head.weight.register_hook(lambda grad: grad * (math.nan if loop.progress.step in (1, 3) else 1.0))
    assert loop.run(StopFlag()).finished
    assert (loop.progress.num_skipped, loop.progress.num_bad) == (2, 0)


def test_too_many_bad_steps_end_the_run(tmp_path: Path) -> None:
    model = tiny_model("llama", "causal_lm")
    loop = make_loop(tmp_path, model, total_steps=9, max_bad_steps=2)
    model.lm_head.weight.register_hook(lambda grad: grad * math.inf)
    start = values(model)
    with pytest.raises(NumericsError, match=r"E-NUM-001 step 3.*3 bad steps in a row"):
        loop.run(StopFlag())
    assert torch.equal(values(model), start)


def test_early_stopping_and_best_values(tmp_path: Path) -> None:
    losses = iter([3.0, 3.5, 2.0, 2.5, 2.0, 1.0])  # the second 2.0 is no better than the first
    loop = make_loop(tmp_path, tiny_model("llama", "causal_lm"), 9, eval_steps=1, early_stopping_patience=2)
    loop.evaluate = lambda: {"loss": next(losses)}
    kept: list[int] = []
    saved: list[int] = []
    loop.keep_best = lambda progress: kept.append(progress.step)
    loop.save = lambda progress: saved.append(progress.step)
    assert loop.run(StopFlag()).finished
    assert (loop.progress.step, loop.progress.best_step, loop.progress.best_loss) == (5, 3, 2.0)
    assert (kept, saved) == ([1, 3], [5])


def test_epochs_end_with_what_is_due_then(tmp_path: Path) -> None:
    """Ten batches, four to a step: steps 3, 6 and 9 end an epoch, and 7 is the last of all."""
    loop = make_loop(
        tmp_path,
        tiny_model("llama", "causal_lm"),
        7,
        eval_steps="epoch",
        save_steps="epoch",
        gradient_accumulation_steps=4,
    )
    done: list[tuple[str, int]] = []
    loop.save = lambda progress: done.append(("save", progress.step))
    loop.evaluate = lambda: done.append(("eval", loop.progress.step)) or {"loss": 1.0}  # type: ignore[func-returns-value]
    loop.run(StopFlag())
    assert done == [(what, step) for step in (3, 6, 7) for what in ("eval", "save")]
    records, _ = read_log(tmp_path / "log.jsonl")
    found = [record for record in records if record["event"] == "eval"]
    assert [record["epoch"] for record in found] == [1.0, 2.0, 2.4]
    assert all(0 <= record["machine"]["seconds"] <= record["machine"]["elapsed_seconds"] for record in found)


def test_what_is_due_is_done_and_the_end_has_everything(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, tiny_model("llama", "causal_lm"), 5, save_steps=2, eval_steps=3, logging_steps=4)
    done: list[tuple[str, int]] = []
    loop.save = lambda progress: done.append(("save", progress.step))

    def evaluate() -> dict[str, float]:
        loop.model.eval()
        done.append(("eval", loop.progress.step))
        return {"loss": 1.0}

    def batch(epoch: int, index: int) -> dict[str, Tensor]:
        assert index == 0 or loop.model.training  # the first batch is fetched by a model that was just loaded
        return rows(epoch, index)

    loop.evaluate, loop.batch = evaluate, batch
    loop.model.eval()
    loop.run(StopFlag())
    assert loop.model.training
    assert done == [("save", 2), ("eval", 3), ("save", 4), ("eval", 5), ("save", 5)]
    records, _ = read_log(tmp_path / "log.jsonl")
    events = [(record["event"], record["step"]) for record in records]
    assert events == [
        ("checkpoint", 2),
        ("eval", 3),
        ("step", 4),
        ("checkpoint", 4),
        ("step", 5),
        ("eval", 5),
        ("checkpoint", 5),
    ]


@pytest.mark.parametrize(("at", "finished"), [(2, False), (3, True)])
def test_a_signal_between_steps_saves_that_step_and_is_too_late_after_the_last(
    at: int, finished: bool, tmp_path: Path
) -> None:
    loop = make_loop(tmp_path, tiny_model("llama", "causal_lm"), total_steps=3)
    stop, saved, fetched = StopFlag(), [], []
    loop.save = lambda progress: saved.append(progress.step)
    loop.batch = lambda epoch, index: (fetched.append(index), rows(epoch, index))[1]
    loop.after_step = lambda step: stop._remember(15, None) if step == at else None
    result = loop.run(stop)
    assert (result.finished, loop.progress.step, saved) == (finished, at, [at])
    assert fetched == list(range(at))


def test_listeners_hear_every_step_and_records_average_between_logs(tmp_path: Path) -> None:
    class Ear(Listener):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_step(self, step: int, loss: float) -> None:
            self.losses.append(loss)

    (tmp_path / "single").mkdir()
    ear = Ear()
    loop = make_loop(tmp_path, tiny_model("llama", "causal_lm"), total_steps=6, logging_steps=3)
    loop.listeners = (ear,)
    loop.run(StopFlag())
    records, _ = read_log(tmp_path / "log.jsonl")
    steps = [record for record in records if record["event"] == "step"]
    assert [record["step"] for record in steps] == [3, 6]
    assert len(ear.losses) == 6
    single = make_loop(tmp_path / "single", tiny_model("llama", "causal_lm"), total_steps=6)
    single.run(StopFlag())
    each = [record["loss"] for record in read_log(tmp_path / "single" / "log.jsonl")[0] if record["event"] == "step"]
    means = [sum(each[:3]) / 3, sum(each[3:]) / 3]
    assert [record["loss"] for record in steps] == pytest.approx(means, rel=1e-12)
    assert {"tokens_per_second", "rss_bytes", "elapsed_seconds"} <= steps[0]["machine"].keys()
    assert steps[1]["num_tokens"] == 6 * 32

    def num_targets(index: int) -> int:
        return int((rows(0, index)["labels"][:, 1:] != -100).sum())

    assert steps[1]["num_targets"] == loop.progress.num_targets == sum(num_targets(index) for index in range(6))

"""What is advised when memory runs out lowers the peak, by about what is promised."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from subspace.plan.advice import suggest, suggestions
from subspace.plan.graph import measure
from subspace.plan.plan import Batch, Plan
from subspace.training.loss import summed_loss

from .live import FAMILIES, block_linears, build, lora
from .test_plan import full_plan, inventory_of, lora_plan


def saved(plan: Plan, *refused: str) -> dict[str, int]:
    return {item.override: item.saved_bytes for item in suggestions(plan, refused)}


@pytest.fixture(scope="module")
def large() -> Plan:
    """A plan in which activations weigh most: 4 rows of 256 tokens, as measured."""
    return measured(Batch(batch_size=4, length=256))


def measured(batch: Batch) -> Plan:
    model, task = build("llama", device="meta")
    lora(model, block_linears(model))
    cost = measure(
        model,
        task=task,
        batch_size=batch.batch_size,
        length=batch.length,
        padded=True,
        gradient_checkpointing=batch.gradient_checkpointing,
        loss=lambda live, inputs: summed_loss(live, inputs, task, batch.loss_chunk_tokens),
    )
    return lora_plan(inventory_of("llama"), batch=batch, cost=cost)


@pytest.mark.parametrize(
    ("override", "batch"),
    [
        (
            "training.per_device_train_batch_size=2 training.gradient_accumulation_steps=2",
            Batch(batch_size=2, length=256, accumulation=2),
        ),
        ("training.gradient_checkpointing=true", Batch(batch_size=4, length=256, gradient_checkpointing=True)),
    ],
)
def test_promise_is_what_the_next_plan_saves(large: Plan, override: str, batch: Batch) -> None:
    real = large.peak_bytes - measured(batch).peak_bytes
    assert saved(large)[override] == pytest.approx(real, rel=0.1)


def test_chunks_save_the_logits_where_these_weigh_most(monkeypatch: pytest.MonkeyPatch) -> None:
    task, settings = FAMILIES["llama"]
    monkeypatch.setitem(FAMILIES, "llama", (task, settings | {"num_hidden_layers": 1, "vocab_size": 4096}))
    whole, chunked = (measured(Batch(4, 256, loss_chunk_tokens=size)) for size in (None, 256))
    promised = saved(whole)["training.loss_chunk_tokens=256"]
    assert promised == pytest.approx(whole.peak_bytes - chunked.peak_bytes, rel=0.1)
    assert promised > 0.5 * whole.peak_bytes
    assert not any("loss_chunk" in name for name in saved(chunked))
    few = measured(Batch(1, 256))
    assert not any("loss_chunk" in name for name in saved(few))


def test_shorter_rows_save_at_least_what_is_promised(large: Plan) -> None:
    real = large.peak_bytes - measured(Batch(batch_size=4, length=128)).peak_bytes
    assert 0 < saved(large)["data.max_length=128"] <= real


def test_largest_saving_comes_first_as_a_sentence(large: Plan) -> None:
    sizes = [item.saved_bytes for item in suggestions(large)]
    assert sizes == sorted(sizes, reverse=True)
    assert suggest(large)[0].startswith("training.gradient_checkpointing=true saves about ")
    assert suggest(large)[0].endswith("MiB (blocks are computed twice)")


def test_what_is_done_already_is_not_advised() -> None:
    plan = lora_plan(inventory_of("llama"), batch=Batch(1, 16, accumulation=2))
    assert set(saved(plan)) >= {"training.gradient_checkpointing=true"}
    done = dataclasses.replace(plan, batch=Batch(1, 16, accumulation=2, gradient_checkpointing=True))
    assert not any("batch_size" in name or "checkpointing" in name or "max_length" in name for name in saved(done))


def test_odd_batch_keeps_its_accumulation() -> None:
    plan = lora_plan(inventory_of("llama"), batch=Batch(3, 64))
    assert "training.per_device_train_batch_size=1" in saved(plan)


def test_quantization_is_advised_for_frozen_weights_only() -> None:
    inventory = inventory_of("llama")
    plan = lora_plan(inventory)
    blocks = 4 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 80)
    assert saved(plan)["model.quantization=nf4"] == 4 * blocks - round(blocks * 0.516)
    assert "model.quantization=nf4" not in saved(plan, "model.quantization")
    assert "model.quantization=nf4" not in saved(full_plan(inventory))
    assert "model.quantization=nf4" not in saved(lora_plan(dataclasses.replace(inventory, quantization="int8")))


def test_smaller_types_are_advised_where_they_would_be() -> None:
    plan = full_plan(inventory_of("llama"))
    assert saved(plan)["model.dtype=bfloat16"] == plan.weight_bytes // 2
    assert saved(plan)["training.optim=adamw_8bit"] == pytest.approx(0.75 * plan.optimizer_state_bytes, rel=0.01)
    half = lora_plan(inventory_of("llama", dtype=torch.bfloat16))
    assert "model.dtype=bfloat16" not in saved(half)

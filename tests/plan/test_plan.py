"""The plan's figures are those of the live tensors, and survive JSON."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from subspace.core.errors import CheckpointError
from subspace.plan.inventory import take_inventory
from subspace.plan.placement import match_linear
from subspace.plan.plan import Batch, Plan, compose
from subspace.plan.shapes import Account, GraphCost, Inventory, Placement, TensorSpec

from .live import LoraLinear, build, lora, real_loss

COST = GraphCost(
    forward_flops=1000,
    backward_flops=2000,
    recompute_flops=900,
    saved_activation_bytes=40_000,
    logits_bytes=8_000,
    transient_bytes=50_000,
    backward_peak_bytes=60_000,
)


def inventory_of(family: str, **options: Any) -> Inventory:
    model, task = build(family, device="meta", **options)
    return take_inventory(model, task=task)


def lora_plan(inventory: Inventory, *, rank: int = 4, batch: Batch | None = None, **changes: Any) -> Plan:
    """Return the plan of LoRA on every linear layer, as `LoraLinear` lays it out, with AdamW."""
    shapes = match_linear(inventory, "all-linear", (), "test")
    added = [
        TensorSpec(f"{shape.name}.{part}.weight", size, trained=True)
        for shape in shapes
        for part, size in (("A", (rank, shape.in_features)), ("B", (shape.out_features, rank)))
    ]
    return _composed(
        inventory, Account(added=tuple(added)), tuple(Placement(s.name, rank) for s in shapes), batch, changes
    )


def full_plan(inventory: Inventory, *, batch: Batch | None = None, **changes: Any) -> Plan:
    account = Account(trained_base=tuple(tensor.name for tensor in inventory.tensors))
    return _composed(inventory, account, (), batch, changes)


def _composed(
    inventory: Inventory,
    account: Account,
    placements: tuple[Placement, ...],
    batch: Batch | None,
    changes: dict[str, Any],
) -> Plan:
    trained = [t for t in (*inventory.tensors, *account.added) if t.trained or t.name in account.trained_base]
    moments = tuple(TensorSpec(f"{t.name}.{key}", t.shape) for t in trained for key in ("exp_avg", "exp_avg_sq"))
    steps = tuple(TensorSpec(f"{t.name}.step", ()) for t in trained)
    facts: dict[str, Any] = {
        "method": "lora" if placements else "full",
        "model": "tiny",
        "inventory": inventory,
        "placements": placements,
        "account": account,
        "optimizer_state": (*moments, *steps),
        "cost": COST,
        "batch": batch or Batch(batch_size=4, length=128, accumulation=2, steps=10),
    }
    return compose(**facts | changes)


def live_bytes(model: nn.Module, task: str) -> dict[str, int]:
    """Return what two steps of AdamW leave behind."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        real_loss(model, task).backward()
        optimizer.step()
    state = [t for per in optimizer.state.values() for t in per.values()]
    return {
        "weight_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradient_bytes": sum(p.grad.numel() * p.grad.element_size() for p in trained if p.grad is not None),
        "optimizer_state_bytes": sum(t.numel() * t.element_size() for t in state),
        "buffer_bytes": sum(b.numel() * b.element_size() for b in model.buffers()),
        "trained_parameters": sum(p.numel() for p in trained),
        "num_parameters": sum(p.numel() for p in model.parameters()),
    }


@pytest.mark.parametrize("family", ["llama", "qwen2", "t5", "gpt2"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_bytes_are_those_of_the_live_tensors(family: str, method: str) -> None:
    real, task = build(family, device="cpu")
    inventory = take_inventory(build(family, device="meta")[0], task=task)
    plan = lora_plan(inventory) if method == "lora" else full_plan(inventory)
    if method == "lora":
        lora(real, [placement.module for placement in plan.placements])
    live = live_bytes(real, task)
    assert {name: getattr(plan, name) for name in live} == live
    names = {name.replace(".base.", ".") for name, p in real.named_parameters() if p.requires_grad}
    assert {tensor.name for tensor in plan.trained_tensors} == names


def test_half_precision_base_keeps_adapters_in_float32() -> None:
    plan = lora_plan(inventory_of("llama", dtype=torch.bfloat16))
    assert plan.weight_bytes == 2 * plan.frozen_parameters + 4 * plan.trained_parameters
    assert plan.gradient_bytes == 4 * plan.trained_parameters


def test_parameters_of_lora_are_rank_times_both_sides() -> None:
    plan = lora_plan(inventory_of("llama"), rank=3)
    sides = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 80)  # q o, k v, gate up down
    assert plan.trained_parameters == 4 * 3 * sides
    assert plan.trained_share == plan.trained_parameters / (plan.trained_parameters + plan.frozen_parameters)


def test_peak_with_and_without_accumulation() -> None:
    inventory = inventory_of("llama")
    several = lora_plan(inventory, kept=(TensorSpec("initial", (10,)),))
    assert several.kept_bytes == 40
    held = several.weight_bytes + several.buffer_bytes + several.optimizer_state_bytes + 40
    assert several.peak_bytes == held + several.gradient_bytes + COST.transient_bytes
    single = lora_plan(inventory, batch=Batch(4, 128))
    assert single.working_bytes == max(COST.backward_peak_bytes, single.gradient_bytes)


def test_peak_where_gradients_are_used_up_in_the_pass() -> None:
    """The method names what it holds itself, with flags of its own."""
    inventory = inventory_of("llama")
    whole = full_plan(inventory, batch=Batch(4, 128))
    named = tuple(dataclasses.replace(tensor, trained=False) for tensor in whole.trained_tensors)
    assert full_plan(inventory, batch=Batch(4, 128), held_gradients=named) == whole
    few = (TensorSpec("low", (100,)),)
    single, several = (full_plan(inventory, batch=Batch(4, 128, n), held_gradients=few) for n in (1, 2))
    assert single.gradient_bytes == several.gradient_bytes == 400
    assert single.working_bytes == several.working_bytes == 400 + COST.transient_bytes
    late = dataclasses.replace(COST, backward_peak_bytes=50_100)
    assert full_plan(inventory, batch=Batch(4, 128), cost=late, held_gradients=few).working_bytes == 50_100


@pytest.mark.parametrize("accumulation", [1, 2])
def test_peak_where_the_optimizer_s_step_passes_through_more_than_the_passes(accumulation: int) -> None:
    inventory, batch = inventory_of("llama"), Batch(4, 128, accumulation)
    small, large = (lora_plan(inventory, batch=batch, step_bytes=size) for size in (10, 10**9))
    assert small.working_bytes == lora_plan(inventory, batch=batch).working_bytes
    assert large.working_bytes == large.gradient_bytes + 10**9
    assert large.peak_bytes == large.held_bytes + large.working_bytes
    assert Plan.from_json(json.loads(json.dumps(large.to_json()))) == large
    older = {name: value for name, value in small.to_json().items() if name != "step_bytes"}
    assert Plan.from_json(older) == dataclasses.replace(small, step_bytes=0)


def test_flops_of_a_step_and_of_the_run() -> None:
    plan = lora_plan(inventory_of("llama"), batch=Batch(4, 128, accumulation=3, steps=10))
    assert (plan.forward_flops, plan.backward_flops, plan.recompute_flops) == (3000, 6000, 2700)
    assert (plan.step_flops, plan.run_flops) == (11_700, 117_000)
    unknown = lora_plan(inventory_of("llama"), batch=Batch(4, 128))
    assert unknown.run_flops is None
    assert any("steps" in note for note in unknown.notes)


def test_stored_bytes_replace_those_of_the_shapes() -> None:
    inventory = inventory_of("llama")
    names = [f"{shape.name}.weight" for shape in match_linear(inventory, "all-linear", (), "test")]
    plain = lora_plan(inventory)
    packed = lora_plan(inventory, stored_bytes=dict.fromkeys(names, 100))
    originals = sum(tensor.num_bytes for tensor in inventory.tensors if tensor.name in names)
    assert packed.weight_bytes == plain.weight_bytes - originals + 100 * len(names)
    assert plain.quantizable_bytes == originals == 4 * plain.quantizable_parameters
    assert packed.quantizable_bytes == 0
    assert full_plan(inventory).quantizable_bytes == 0


def test_modules_own_what_is_trained_in_them() -> None:
    plan = lora_plan(inventory_of("t5"))
    module = next(m for m in plan.modules if m.name == "decoder.block.1.layer.1.EncDecAttention.k")
    assert (module.rank, module.shape, module.trained_parameters) == (4, (48, 32), 4 * 80)
    assert sum(m.trained_parameters for m in plan.modules) == plan.trained_parameters
    assert [m.name for m in plan.modules] == [p.module for p in plan.placements]


def test_tensors_under_foreign_names_find_their_module() -> None:
    inventory = inventory_of("bert")
    added = (
        TensorSpec("base_model.model.bert.encoder.layer.1.output.dense.lora_A.default.weight", (2, 80), trained=True),
        TensorSpec("base_model.model.classifier.modules_to_save.default.weight", (3, 32), trained=True),
        TensorSpec("prompt_encoder.default.embedding.weight", (8, 32), trained=True),
    )
    plan = lora_plan(inventory, account=Account(added=added), placements=())
    owners = [(m.name, m.trained_parameters) for m in plan.modules]
    assert owners == [
        ("bert.encoder.layer.1.output.dense", 160),
        ("classifier", 96),
        ("prompt_encoder.default.embedding", 256),
    ]


@pytest.mark.parametrize("steps", [None, 10])
def test_round_trip_through_json(steps: int | None) -> None:
    plan = lora_plan(inventory_of("llama"), batch=Batch(4, 128, steps=steps), notes=("One.",))
    text = json.dumps(plan.to_json())
    assert Plan.from_json(json.loads(text)) == plan
    assert json.loads(text)["peak_bytes"] == plan.peak_bytes
    assert plan.notes[0] == "One."


def test_other_schema_is_refused() -> None:
    values = lora_plan(inventory_of("llama")).to_json() | {"schema": 99}
    with pytest.raises(CheckpointError, match=r"E-CKP-007 plan.json: schema 99; expected 1"):
        Plan.from_json(values)


def test_layer_of_these_tests_is_lora() -> None:
    layer = LoraLinear(nn.Linear(6, 5), 2)
    x = torch.randn(3, 6)
    weight = layer.base.weight + 0.5 * layer.B.weight @ layer.A.weight
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.base.bias))


def test_composing_and_showing_import_no_torch() -> None:
    code = (
        "import sys\n"
        "from subspace.plan import advice, placement, plan, render, shapes, inventory\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

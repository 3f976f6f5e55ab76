"""What the plan measures on fake tensors is what a real pass computes and keeps."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from subspace.core.errors import ConfigError
from subspace.plan import meter
from subspace.plan.graph import measure

from .live import (
    LENGTH,
    METHODS,
    ROWS,
    block_linears,
    build,
    full,
    lora,
    real_flops,
    real_peak,
    real_saved,
    real_saved_recomputing,
)

FAMILIES = ["llama", "qwen2", "gemma", "bert", "t5"]
CASES = [*itertools.product(FAMILIES, ["full", "lora"]), ("llama", "dora"), ("t5", "dora")]


def pair(family: str, method: str, **options: Any) -> tuple[nn.Module, nn.Module, str]:
    """Return (model without weights, real model, task) with the same arithmetic."""
    (meta, task), (real, _) = (build(family, device=device, **options) for device in ("meta", "cpu"))
    for model in (meta, real):
        METHODS[method](model, block_linears(model))
    return meta, real, task


@pytest.mark.parametrize(("family", "method"), CASES)
def test_flops_are_those_of_a_real_pass(family: str, method: str) -> None:
    meta, real, task = pair(family, method)
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH)
    forward, total = real_flops(real, task)
    assert cost.forward_flops == pytest.approx(forward, rel=0.01)
    assert cost.flops == pytest.approx(total, rel=0.01)
    assert cost.recompute_flops == 0


@pytest.mark.parametrize(("family", "method"), [*CASES, ("deberta-v2", "lora"), ("gpt2", "lora")])
def test_saved_activations_are_those_of_a_real_pass(family: str, method: str) -> None:
    meta, real, task = pair(family, method)
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH)
    assert cost.saved_activation_bytes == pytest.approx(real_saved(real, task), rel=0.02)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_recomputation_keeps_block_inputs_and_one_block(family: str, method: str) -> None:
    meta, real, task = pair(family, method)
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH, gradient_checkpointing=True)
    assert cost.saved_activation_bytes == pytest.approx(real_saved_recomputing(real, task), rel=0.02)
    without = measure(meta, task=task, batch_size=ROWS, length=LENGTH)
    assert (cost.forward_flops, cost.backward_flops) == (without.forward_flops, without.backward_flops)
    assert 0.5 * cost.forward_flops < cost.recompute_flops <= cost.forward_flops


def test_sdpa_is_measured_as_the_kernel_that_runs() -> None:
    meta, real, task = pair("llama", "lora", attention="sdpa")
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH)
    assert cost.saved_activation_bytes == pytest.approx(real_saved(real, task), rel=0.02)
    even = measure(meta, task=task, batch_size=ROWS, length=LENGTH, padded=False)
    assert even.saved_activation_bytes == pytest.approx(real_saved(real, task, padding=0), rel=0.02)
    assert even.saved_activation_bytes < cost.saved_activation_bytes
    eager = measure(pair("llama", "lora")[0], task=task, batch_size=ROWS, length=LENGTH)
    assert cost.forward_flops == eager.forward_flops
    assert cost.saved_activation_bytes < eager.saved_activation_bytes


@pytest.mark.parametrize("kind", meter._ATTENTION)
def test_attention_counts_with_fewer_heads_of_keys_than_of_queries(kind: str) -> None:
    batch, heads, key_heads, rows, columns, width, value_width = 2, 6, 2, 5, 7, 4, 3
    query = torch.empty(batch, heads, rows, width)
    key, value = (torch.empty(batch, key_heads, columns, size) for size in (width, value_width))
    grad = torch.empty(batch, heads, rows, value_width)
    scores, mixed = (2 * batch * heads * rows * columns * size for size in (width, value_width))
    forward, backward = (
        meter._FORMULAS[getattr(torch.ops.aten, f"_scaled_dot_product_{kind}{part}")] for part in ("", "_backward")
    )
    assert forward(query, key, value, out_val=None) == scores + mixed
    assert backward(grad, query, key, value, out_val=None) == 3 * scores + 2 * mixed


def test_mixed_precision_is_measured_with_its_casts() -> None:
    meta, real, task = pair("llama", "lora")
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH, mixed_precision="bf16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = real_saved(real, task)
    assert cost.saved_activation_bytes == pytest.approx(expected, rel=0.02)


def test_own_loss_is_what_is_measured() -> None:
    meta, _ = build("llama", device="meta")
    full(meta, [])

    def first_logits(model: nn.Module, inputs: Any) -> torch.Tensor:
        return model(input_ids=inputs["input_ids"], use_cache=False, logits_to_keep=1).logits.sum()

    usual = measure(meta, task="causal_lm", batch_size=ROWS, length=LENGTH)
    own = measure(meta, task="causal_lm", batch_size=ROWS, length=LENGTH, loss=first_logits)
    assert own.forward_flops == usual.forward_flops - 2 * ROWS * (LENGTH - 1) * 32 * 96
    assert (own.logits_bytes, usual.logits_bytes > 0) == (0, True)


def test_formulas_of_lora_hold_on_llama() -> None:
    """search.md A3, on 4 layers of width 32: FLOPs per token 2N + 2P + A forward, 2N + 4P + 2A - e backward."""
    meta, task = build("llama", device="meta")
    linears = {n: m for n, m in meta.named_modules() if isinstance(m, nn.Linear)}
    names, rank, layers, width = block_linears(meta), 4, 4, 32
    weights = sum(m.in_features * m.out_features for m in linears.values())
    added = rank * sum(linears[name].in_features + linears[name].out_features for name in names)
    attention = layers * 4 * LENGTH * width
    lora(meta, names, rank)
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH)
    # Queries, keys and values of the first block read an input without gradient: its product is never formed.
    spared = 2 * sum(32 * size + rank * 32 for size in (32, 16, 16))
    rope = 2 * (8 // 2)  # positions times frequencies: one product per row of the batch, outside the formulas
    tokens = ROWS * LENGTH
    assert cost.forward_flops == pytest.approx(tokens * (2 * weights + 2 * added + attention + rope), rel=1e-3)
    assert cost.backward_flops == pytest.approx(tokens * (2 * weights + 4 * added + 2 * attention - spared), rel=1e-3)


def test_adapters_in_the_upper_half_only_spare_the_lower_half_its_backward_pass() -> None:
    costs = {}
    for lowest in (0, 2):
        meta, task = build("llama", device="meta")
        lora(meta, [name for name in block_linears(meta) if int(name.split(".")[2]) >= lowest])
        costs[lowest] = measure(meta, task=task, batch_size=ROWS, length=LENGTH)
    assert costs[2].backward_flops < 0.65 * costs[0].backward_flops
    assert costs[2].forward_flops == pytest.approx(costs[0].forward_flops, rel=0.2)
    assert costs[2].saved_activation_bytes < 0.65 * costs[0].saved_activation_bytes


def test_live_bytes_hold_gradients_apart() -> None:
    meta, task = build("llama", device="meta")
    full(meta, [])
    gradient_bytes = sum(p.numel() * 4 for p in meta.parameters())
    cost = measure(meta, task=task, batch_size=1, length=4)
    assert cost.saved_activation_bytes < cost.transient_bytes < gradient_bytes
    assert gradient_bytes <= cost.backward_peak_bytes < cost.transient_bytes + gradient_bytes


@pytest.mark.parametrize(("family", "method"), [("llama", "full"), ("llama", "lora"), ("bert", "full"), ("t5", "lora")])
def test_live_peak_is_that_of_the_allocator(family: str, method: str) -> None:
    meta, real, task = pair(family, method)
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH)
    assert cost.backward_peak_bytes == pytest.approx(real_peak(real, task), rel=0.01)


def test_live_peak_with_recomputation_is_that_of_the_allocator() -> None:
    meta, real, task = pair("llama", "full")
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH, gradient_checkpointing=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        real.gradient_checkpointing_enable({"use_reentrant": False})  # keeps 5 KiB of generator state for each block
    assert cost.backward_peak_bytes == pytest.approx(real_peak(real, task), rel=0.02)


def test_model_is_given_back_as_it_was() -> None:
    meta, task = build("qwen2", device="meta")
    lora(meta, block_linears(meta))
    meta.eval()
    before = {name: (id(p), p.requires_grad) for name, p in meta.named_parameters()}
    measure(meta, task=task, batch_size=1, length=8, gradient_checkpointing=True)
    assert {name: (id(p), p.requires_grad) for name, p in meta.named_parameters()} == before
    assert not meta.training
    assert all(p.is_meta and p.grad is None for p in meta.parameters())
    assert meta.lm_head.weight is meta.model.embed_tokens.weight
    assert not any(getattr(module, "gradient_checkpointing", False) for module in meta.modules())


def test_frozen_model_has_no_backward_pass() -> None:
    meta, task = build("llama", device="meta")
    meta.requires_grad_(False)
    cost = measure(meta, task=task, batch_size=1, length=8)
    assert (cost.backward_flops, cost.saved_activation_bytes) == (0, 0)


def test_model_that_cannot_recompute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    meta, task = build("llama", device="meta")
    monkeypatch.setattr(type(meta), "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match=r"E-CFG-014 training.gradient_checkpointing: LlamaForCausalLM"):
        measure(meta, task=task, batch_size=1, length=8, gradient_checkpointing=True)


_SEVEN_BILLION = """
import json, resource, sys, time
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from plan.live import block_linears, lora
from subspace.plan.graph import measure
from subspace.plan.inventory import take_inventory

with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(LlamaConfig(), dtype=torch.bfloat16, attn_implementation="sdpa")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
inventory = take_inventory(model, task="causal_lm")
lora(model, block_linears(model), 16)
start = time.perf_counter()
cost = measure(model.bfloat16(), task="causal_lm", batch_size=1, length=512)
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "grown_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "peft": "peft" in sys.modules,
    "parameters": inventory.num_parameters,
    "flops": cost.flops,
    "saved": cost.saved_activation_bytes,
}))
"""


def test_seven_billion_parameters_are_measured_without_weights_and_without_peft(pytestconfig: pytest.Config) -> None:
    tests = pytestconfig.rootpath / "tests"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SEVEN_BILLION],
        cwd=tests,
        env={"PYTHONPATH": f"{tests}:{pytestconfig.rootpath / 'src'}", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"7B: measured in {found['seconds']:.1f} s, process {time.perf_counter() - start:.1f} s, {found}")
    assert found["parameters"] == 6_738_415_616
    # 2 N forward and 2 N backward per token and a little more for adapters and attention, which is what 4 N N bounds.
    assert 4 * 6.6e9 * 512 < found["flops"] < 4.3 * 6.6e9 * 512
    assert not found["peft"]
    assert found["grown_bytes"] < 300 * 2**20
    assert found["peak_bytes"] < 1.5 * 2**30

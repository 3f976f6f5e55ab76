"""Every method trains under the loss in chunks, and the plan knows what it then computes and holds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import torch
from cases import GRAPHS
from test_trace import LENGTH, ROWS, TARGETS, live_kept_bytes
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from workbench import FAMILIES, attached, batch_of, meta_model, new_method

from subspace.models.int8_modules import store_int8
from subspace.models.tiny import tiny_model
from subspace.plan.graph import measure
from subspace.plan.shapes import GraphCost
from subspace.training.loss import summed_loss

CHUNK = 8


@pytest.mark.parametrize("name", GRAPHS)
def test_every_method_has_the_gradients_of_the_whole_loss(name: str) -> None:
    bench, batch = attached(name), batch_of("causal_lm")
    found = []
    for chunk in (None, 5):
        bench.model.zero_grad()
        bench.model.train()
        torch.manual_seed(3)
        (summed_loss(bench.model, batch, "causal_lm", chunk) / 44).backward()
        found.append({n: p.grad.clone() for n, p in bench.model.named_parameters() if p.grad is not None})
    whole, chunked = found
    assert whole.keys() == chunked.keys() != set()
    for key, value in whole.items():
        assert (chunked[key] - value).abs().max() <= 1e-6, key


def planned(traced: nn.Module, task: str, chunk: int | None, **options: Any) -> GraphCost:
    return measure(
        traced,
        task=task,
        batch_size=ROWS,
        length=LENGTH,
        target_length=TARGETS,
        loss=lambda model, inputs: summed_loss(model, inputs, task, chunk),
        **options,
    )


@pytest.mark.parametrize(
    ("name", "family", "task"),
    [
        *((name, "llama", "causal_lm") for name in GRAPHS),
        *(("full", family, task) for family, task in FAMILIES if task != "classification"),
        ("lora", "t5", "seq2seq"),
        ("prefix", "t5", "seq2seq"),
    ],
)
def test_the_plan_costs_what_the_real_model_costs(name: str, family: str, task: str) -> None:
    method, traced = new_method(name), meta_model(family, task)
    bench, batch = attached(name, family, task), batch_of(task, rows=ROWS, length=LENGTH)
    method.trace(traced, bench.placements)
    cost, whole = planned(traced, task, CHUNK), planned(traced, task, None)
    bench.model.train()
    with FlopCounterMode(display=False) as counter:
        summed_loss(bench.model, batch, task, CHUNK).backward()
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert cost.saved_activation_bytes == pytest.approx(_kept(bench.model, batch, task), rel=0.02)
    assert cost.flops <= whole.flops  # the last position of a row predicts nothing
    assert (cost.logits_bytes, whole.logits_bytes > 0) == (0, True)
    assert cost.transient_bytes < whole.transient_bytes


def test_two_gradients_of_a_large_embedding_are_added_in_place() -> None:
    """Its use as a head and its use as an embedding each give one; a third of their size would be made of fake ones."""
    import transformers

    model = tiny_model("qwen2", vocab_size=8192).train()
    model.set_attn_implementation("eager")
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(model.config, attn_implementation="eager")
    batch = batch_of("causal_lm", rows=ROWS, length=LENGTH)
    summed_loss(model, batch, "causal_lm", CHUNK).backward()
    model.zero_grad()
    peak = allocator_peak(lambda: summed_loss(model, batch, "causal_lm", CHUNK).backward())
    assert planned(empty, "causal_lm", CHUNK).backward_peak_bytes == pytest.approx(peak, rel=0.02)


def allocator_peak(run: Callable[[], None]) -> int:
    """Return the most bytes that torch's CPU allocator gave out at one moment."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("mixed", ["no", "bf16"])
@pytest.mark.parametrize(("name", "family"), [("full", "llama"), ("full", "qwen2"), ("lora", "llama")])
def test_the_planned_peak_is_that_of_the_allocator(name: str, family: str, mixed: str) -> None:
    """Also in mixed precision, where the head's gradient is cast in pieces, and where the head is the embedding."""
    method, traced = new_method(name), meta_model(family, "causal_lm")
    bench, batch = attached(name, family), batch_of("causal_lm", rows=ROWS, length=LENGTH)
    method.trace(traced, bench.placements)
    bench.model.train()

    def real_pass() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed == "bf16"):
            loss = summed_loss(bench.model, batch, "causal_lm", CHUNK)
        loss.backward()

    real_pass()
    bench.model.zero_grad()
    peak = allocator_peak(real_pass)
    cost = planned(traced, "causal_lm", CHUNK, mixed_precision=mixed)
    assert cost.backward_peak_bytes == pytest.approx(peak, rel=0.02)


def _kept(model: nn.Module, batch: Any, task: str) -> int:
    """Return what autograd keeps after a forward pass with chunks."""
    import test_trace

    plain = test_trace.summed_loss
    test_trace.summed_loss = lambda model, batch, task: summed_loss(model, batch, task, CHUNK)
    try:
        return live_kept_bytes(model, batch, task)
    finally:
        test_trace.summed_loss = plain


def test_a_head_held_as_codes_is_unpacked_beside_its_gradient() -> None:
    """The weight that the loss multiplies with is there as long as the loss is."""
    transients = []
    for coded in (False, True):
        traced = tiny_model("llama", "causal_lm", vocab_size=4096, num_layers=1).to("meta")
        if coded:
            store_int8(traced)
        transients.append(planned(traced, "causal_lm", CHUNK).transient_bytes)
    head = traced.get_output_embeddings().weight
    assert transients[1] - transients[0] >= head.numel() * head.element_size()

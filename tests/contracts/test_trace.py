"""The traced model without weights does the products and keeps the tensors of the really attached one."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import GRAPHS
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from workbench import FAMILIES, attached, base_model, batch_of, inventory_of, meta_model, new_method

from subspace.methods.base import AttachContext
from subspace.plan.graph import measure
from subspace.training.loss import summed_loss

ROWS, LENGTH, TARGETS = 2, 32, 28


class Kept:
    """Stands in the graph for a tensor that autograd keeps."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def live_flops(model: nn.Module, batch: Mapping[str, Tensor], task: str) -> int:
    model.train()
    with FlopCounterMode(display=False) as counter:
        summed_loss(model, batch, task).backward()
    return counter.get_total_flops()


def live_kept_bytes(model: nn.Module, batch: Mapping[str, Tensor], task: str) -> int:
    """Return the bytes of distinct storages that autograd keeps after a forward pass, weights apart."""
    kept: list[weakref.ref[Kept]] = []

    def pack(tensor: Tensor) -> Kept:
        holder = Kept(tensor)
        kept.append(weakref.ref(holder))
        return holder

    model.train()
    with saved_tensors_hooks(pack, lambda holder: holder.tensor):
        loss = summed_loss(model, batch, task)
    gc.collect()
    held = [holder.tensor.untyped_storage() for holder in (reference() for reference in kept) if holder is not None]
    weights = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in held if storage.data_ptr() not in weights}
    assert loss.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("family", "task"),
    [
        pytest.param(family, task, id=family, marks=() if family == "llama" else pytest.mark.slow)
        for family, task in FAMILIES
    ],
)
@pytest.mark.parametrize("name", GRAPHS)
def test_trace_costs_what_the_real_model_costs(name: str, family: str, task: str) -> None:
    check(name, family, task, torch.float32)


@pytest.mark.parametrize("name", GRAPHS)
def test_trace_casts_like_the_real_model(name: str) -> None:
    check(name, "llama", "causal_lm", torch.bfloat16)


@pytest.mark.parametrize("name", ["lora", "dora", "adalora"])
def test_trace_without_dropout(name: str) -> None:
    check(name, "qwen2", "causal_lm", torch.float32, dropout=0.0)


def test_planning_needs_no_peft() -> None:
    """Importing PEFT takes seconds that a plan does not have."""
    code = (
        "import sys, workbench\n"
        "for name in set(workbench.CASES) - {'custom_peft'}:\n"  # which counts on PEFT's own layers, as its card says
        "    method, model = workbench.new_method(name), workbench.meta_model('llama', 'causal_lm')\n"
        "    inventory = workbench.inventory_of('llama', 'causal_lm')\n"
        "    placements = method.place(inventory)\n"
        "    method.account(inventory, placements), method.kept_specs(inventory, placements)\n"
        "    method.trace(model, placements)\n"
        "print('peft' in sys.modules)"
    )
    folder = str(Path(__file__).parent)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert result.stdout.strip() == "False"


def check(name: str, family: str, task: str, dtype: torch.dtype, **changes: Any) -> None:
    method, traced = new_method(name, **changes), meta_model(family, task, dtype)
    bench = attached(name, family, task, dtype=dtype, **changes)
    method.trace(traced, bench.placements)
    cost = measure(
        traced,
        task=task,
        batch_size=ROWS,
        length=LENGTH,
        target_length=TARGETS,
        loss=lambda model, inputs: summed_loss(model, inputs, task),
    )
    batch = batch_of(task, rows=ROWS, length=LENGTH)
    flops = live_flops(bench.model, batch, task)
    assert cost.forward_flops + cost.backward_flops == pytest.approx(flops, rel=0.01)
    assert cost.saved_activation_bytes == pytest.approx(live_kept_bytes(bench.model, batch, task), rel=0.02)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("changes", [{}, {"target_modules": ("re:.*layers\\.1\\..*q_proj",)}], ids=["all", "top"])
def test_recomputing_ends_above_the_lowest_adapter(changes: dict[str, Any]) -> None:
    """With only the top block adapted neither the plan nor the run goes back to the bottom."""
    method, traced = new_method("lora", **changes), meta_model("llama", "causal_lm")
    live: Any = base_model("llama", "causal_lm")
    placements = method.place(inventory_of("llama", "causal_lm"))
    live.gradient_checkpointing_enable({"use_reentrant": False})
    model = method.attach(live, placements, AttachContext(seed=7))
    method.trace(traced, placements)
    cost = measure(
        traced,
        task="causal_lm",
        batch_size=ROWS,
        length=LENGTH,
        gradient_checkpointing=True,
        loss=lambda model, inputs: summed_loss(model, inputs, "causal_lm"),
    )
    flops = live_flops(model, batch_of("causal_lm", rows=ROWS, length=LENGTH), "causal_lm")
    assert cost.flops == pytest.approx(flops, rel=0.01)

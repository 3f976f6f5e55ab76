"""Adapters on 8- and 4-bit weights, on the CPU: they learn, resume to the bit, and leave for the unquantized base."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from workbench import Bench, batch_of, inventory_of, logits_of, new_method, planned, specs

from subspace.adapters.peft_bridge import load_adapter, merge_adapter
from subspace.core.errors import MethodError, NotMergeableError
from subspace.methods.base import AttachContext
from subspace.models.config import ModelConfig
from subspace.models.load import load_model
from subspace.models.quantized import weight_bytes
from subspace.models.tiny import write_tiny_folder
from subspace.optim.state_io import pack, unpack
from subspace.training.state import load_trained, trained_tensors

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method. is deprecated", "ignore:MatMul8bitLt:UserWarning"
)

ADAPTERS = ("lora", "dora", "eva", "adalora", "stella", "ia3", "prefix", "prompt")
SMALL = pytest.mark.parametrize(
    ("name", "quantization"),
    [
        pytest.param(name, quantization, marks=() if name in ("lora", "dora") else pytest.mark.slow)
        for name in ADAPTERS
        for quantization in ("int8", "nf4")
    ],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("tiny"), "llama", hidden_size=64)


def base(folder: Path, quantization: str) -> nn.Module:
    return load_model(ModelConfig(model_name_or_path=str(folder), quantization=quantization))  # type: ignore[arg-type]


def quantized(name: str, folder: Path, quantization: str, *, restoring: bool = False) -> Bench:
    method, inventory = new_method(name), inventory_of("llama", "causal_lm")
    placements = method.place(inventory)
    context = AttachContext(
        seed=7, total_steps=6, batches=lambda: (batch_of("causal_lm", seed) for seed in range(4)), restoring=restoring
    )
    model = method.attach(base(folder, quantization), placements, context)
    return Bench(method, inventory, placements, model, "causal_lm", 6)


def codes(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if not value.is_floating_point()}


@SMALL
def test_learns_and_leaves_the_codes_alone(name: str, quantization: str, folder: Path) -> None:
    bench = quantized(name, folder, quantization)
    account = bench.method.account(bench.inventory, bench.placements)
    assert specs(trained_tensors(bench.model)) == planned(tuple(spec for spec in account.added if spec.trained))
    before, size = codes(bench.model), weight_bytes(base(folder, quantization))
    assert before
    optimizer, batch = bench.optimizer(learning_rate=3e-2), batch_of("causal_lm", rows=2, length=8)
    losses = [bench.step(optimizer, number, batch) for number in range(1, 21)]
    assert min(losses[-3:]) < losses[0] - 0.05
    after = codes(bench.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    added = sum(spec.num_bytes for spec in account.added)
    assert weight_bytes(bench.model) == size + added


@SMALL
def test_resume_is_exact(name: str, quantization: str, folder: Path) -> None:
    whole, halted = quantized(name, folder, quantization), quantized(name, folder, quantization)
    first = whole.optimizer()
    losses = [whole.step(first, number) for number in range(1, 7)]
    optimizer = halted.optimizer()
    found = [halted.step(optimizer, number) for number in (1, 2, 3)]
    resumed = quantized(name, folder, quantization, restoring=True)
    resumed.method.load_state(resumed.model, copy.deepcopy(halted.method.state(halted.model)))
    load_trained(resumed.model, trained_tensors(halted.model), "checkpoint")
    second = resumed.optimizer()
    unpack(second, *pack(optimizer))
    found += [resumed.step(second, number) for number in (4, 5, 6)]
    assert found == losses
    wanted = trained_tensors(whole.model)
    assert all(torch.equal(value, wanted[key]) for key, value in trained_tensors(resumed.model).items())


@SMALL
def test_export_fits_the_unquantized_base(name: str, quantization: str, folder: Path, tmp_path: Path) -> None:
    bench = quantized(name, folder, quantization)
    optimizer = bench.optimizer()
    for number in (1, 2, 3):
        bench.step(optimizer, number)
    bench.method.export(bench.model, tmp_path)
    same = load_adapter(base(folder, quantization), tmp_path)
    torch.testing.assert_close(logits_of(same, "causal_lm"), bench.logits(), rtol=0, atol=1e-5)
    plain = load_adapter(base(folder, "none"), tmp_path)
    wanted = logits_of(plain, "causal_lm")
    if bench.method.card.mergeable:
        with pytest.raises(NotMergeableError, match=r"E-CKP-008 .*quantized base"):
            bench.method.fold(bench.model)
        torch.testing.assert_close(logits_of(merge_adapter(plain), "causal_lm"), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("name", ["full", "pissa", "olora"])
def test_refusals_are_honoured(name: str, quantization: str, folder: Path) -> None:
    refused = {(refusal.key, value) for refusal in new_method(name).card.refuses for value in refusal.values}
    assert ("model.quantization", quantization) in refused
    with pytest.raises(MethodError, match=r"E-MTH-001 model.quantization"):
        quantized(name, folder, quantization)


def test_every_other_method_takes_a_quantized_base() -> None:
    from subspace.methods.registry import REGISTRY

    refusing: set[Any] = {
        name
        for name in REGISTRY.names()
        for refusal in new_method(name).card.refuses
        if "quantization" in refusal.key and not refusal.when  # those that train weights take one for an adapter
    }
    assert refusing == {"full", "pissa", "olora", "custom_optimizer", "custom_peft"}

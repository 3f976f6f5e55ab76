"""What every method promises on a live model: starts, trains, folds, leaves, comes back."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CASES
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from workbench import NUM_STEPS, Bench, attached, base_model, batch_of, logits_of, new_method

from subspace.core.errors import CheckpointError, NotMergeableError
from subspace.methods.base import AttachContext
from subspace.methods.registry import REGISTRY
from subspace.optim.settings import OptimizerSettings
from subspace.optim.state_io import pack, unpack
from subspace.training.state import load_trained, split_tensors, trained_tensors

EVERY = pytest.mark.parametrize(
    ("family", "task"),
    [
        pytest.param("llama", "causal_lm", id="llama"),
        pytest.param("bert", "classification", id="bert"),
        pytest.param("t5", "seq2seq", id="t5", marks=pytest.mark.slow),
    ],
)
MERGEABLE = [name for name in CASES if REGISTRY.load(name).card.mergeable]
TRAINS_BASE = [name for name in CASES if REGISTRY.load(name).card.family in ("full", "projection")]
ADAPTERS = [name for name in CASES if name not in TRAINS_BASE]
UNREAD = {
    "flora": ("adam_beta2", "adam_epsilon"),
    "sophia": ("adam_epsilon",),
    "custom_optimizer": ("adam_beta1", "adam_beta2", "adam_epsilon"),
}
"""Settings that a method's rule does not know; its card says so."""
CHANGES_BASE = {*TRAINS_BASE, "pissa", "olora"}
"""Methods whose frozen weights are not the base's: all are trained, or a part is moved into the adapter."""


def trained_bench(name: str, family: str = "llama", task: str = "causal_lm", steps: int = 4, **changes: Any) -> Bench:
    bench = attached(name, family, task, **changes)
    optimizer = bench.optimizer()
    for number in range(1, steps + 1):
        bench.step(optimizer, number)
    return bench


def frozen(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if not value.requires_grad}


@pytest.mark.parametrize("name", CASES)
@EVERY
def test_attach_is_deterministic(name: str, family: str, task: str) -> None:
    torch.manual_seed(1)
    first = attached(name, family, task).model.state_dict()
    torch.manual_seed(2)
    second = attached(name, family, task).model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name not in {"pissa", "olora", "eva", "ia3"}])
def test_attach_depends_on_the_seed(name: str) -> None:
    first, second = trained_tensors(attached(name, seed=1).model), trained_tensors(attached(name, seed=2).model)
    assert any(not torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", CASES)
def test_attach_leaves_the_random_state_alone(name: str) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    attached(name)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("name", ["lora", "dora", "adalora"])
def test_a_module_starts_alike_whatever_else_is_adapted(name: str) -> None:
    few = trained_tensors(attached(name, target_modules=("q_proj",)).model)
    many = trained_tensors(attached(name, target_modules="all-linear").model)
    assert few.keys() < many.keys()
    assert all(torch.equal(value, many[key]) for key, value in few.items())


@pytest.mark.parametrize("name", MERGEABLE)
@EVERY
def test_zero_steps_change_nothing(name: str, family: str, task: str) -> None:
    wanted = logits_of(base_model(family, task), task)
    bench = attached(name, family, task)
    torch.testing.assert_close(bench.logits(), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(bench.method.fold(bench.model), task), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@EVERY
def test_what_is_frozen_stays(name: str, family: str, task: str) -> None:
    bench = attached(name, family, task)
    before = frozen(bench.model)
    optimizer = bench.optimizer(weight_decay=0.1)
    for number in (1, 2):
        bench.step(optimizer, number)
    after = frozen(bench.model)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    if name not in CHANGES_BASE:
        plain = base_model(family, task).state_dict()
        sizes = {tuple(value.shape) for value in plain.values()}
        kept = [value for value in before.values() if tuple(value.shape) in sizes]
        found = sum(
            any(value.shape == own.shape and torch.equal(value, own) for own in kept) for value in plain.values()
        )
        assert found == len(plain)


@pytest.mark.parametrize("name", CASES)
@EVERY
def test_loss_falls(name: str, family: str, task: str) -> None:
    bench = attached(name, family, task, total_steps=20)
    optimizer, batch = bench.optimizer(learning_rate=3e-2), batch_of(task, rows=2, length=8)
    losses = [bench.step(optimizer, number, batch) for number in range(1, 21)]
    assert min(losses[-3:]) < losses[0] - 0.05


@pytest.mark.parametrize("name", MERGEABLE)
@EVERY
def test_fold_keeps_the_function(name: str, family: str, task: str) -> None:
    bench = trained_bench(name, family, task)
    wanted = bench.logits()
    folded = [copy.deepcopy(bench.method).fold(copy.deepcopy(bench.model)) for _ in range(3)]
    assert type(folded[0]) is type(base_model(family, task))
    assert folded[0].state_dict().keys() == base_model(family, task).state_dict().keys()
    torch.testing.assert_close(logits_of(folded[0], task), wanted, rtol=0, atol=1e-5)
    for other in folded[1:]:
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in folded[0].state_dict().items())


@pytest.mark.parametrize("name", CASES)
def test_only_what_the_card_says_cannot_fold(name: str) -> None:
    bench = attached(name)
    if bench.method.card.mergeable:
        folded = bench.method.fold(bench.model)
        if name in ADAPTERS:
            with pytest.raises(NotMergeableError, match=r"E-CKP-008 .*folded already"):
                bench.method.fold(folded)
    else:
        with pytest.raises(NotMergeableError, match=r"E-CKP-008 .*change no weight"):
            bench.method.fold(bench.model)


@pytest.mark.parametrize("name", ADAPTERS)
@EVERY
def test_plain_peft_loads_the_export(name: str, family: str, task: str, tmp_path: Path) -> None:
    from peft import PeftModel

    bench = trained_bench(name, family, task)
    wanted = bench.logits()
    bench.method.export(bench.model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own: a renamed property, and AdaLoRA's pattern, which it does use
        loaded = PeftModel.from_pretrained(base_model(family, task), str(tmp_path))
    torch.testing.assert_close(logits_of(loaded, task), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(bench.logits(), wanted, rtol=0, atol=0)


def test_full_export_is_a_model_folder(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    bench = trained_bench("full")
    bench.method.export(bench.model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    torch.testing.assert_close(logits_of(loaded, "causal_lm"), bench.logits(), rtol=0, atol=0)
    assert [path.suffix for path in tmp_path.iterdir() if path.name.startswith("model")] == [".safetensors"]


@pytest.mark.parametrize("name", ADAPTERS)
def test_export_names_the_run_s_model_and_repeats_itself(name: str, tmp_path: Path) -> None:
    bench = attached(name)
    method = new_method(name)
    model = base_model("llama", "causal_lm")
    model.name_or_path = "org/model"  # type: ignore[assignment]  # transformers reads it from here
    context = AttachContext(seed=7, total_steps=NUM_STEPS, batches=lambda: [batch_of("causal_lm")])
    model = method.attach(model, bench.placements, context)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        method.export(model, folder)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/model"
    assert str(tmp_path) not in json.dumps(config)


def save(bench: Bench, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write a checkpoint as the pipeline does: tensors as safetensors, the rest as JSON."""
    state_tensors, values = split_tensors(bench.method.state(bench.model))
    optimizer_tensors, meta = pack(optimizer)
    for stem, tensors in (
        ("trained", trained_tensors(bench.model)),
        ("method", state_tensors),
        ("optim", optimizer_tensors),
    ):
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{stem}.safetensors")
    (folder / "state.json").write_text(json.dumps({"method": values, "optim": meta}, allow_nan=False))


def restore(name: str, family: str, task: str, folder: Path) -> tuple[Bench, torch.optim.Optimizer]:
    bench = attached(name, family, task, restoring=True)
    values = json.loads((folder / "state.json").read_text())
    bench.method.load_state(bench.model, {**load_file(folder / "method.safetensors"), **values["method"]})
    load_trained(bench.model, load_file(folder / "trained.safetensors"), "checkpoint")
    optimizer = bench.optimizer()
    unpack(optimizer, load_file(folder / "optim.safetensors"), values["optim"])
    return bench, optimizer


@pytest.mark.parametrize("name", CASES)
@EVERY
def test_three_and_three_are_six(name: str, family: str, task: str, tmp_path: Path) -> None:
    """6 steps = 3 + save + load + 3, to the bit: weights, losses, method state."""
    whole = attached(name, family, task)
    optimizer = whole.optimizer()
    losses = [whole.step(optimizer, number) for number in range(1, NUM_STEPS + 1)]

    halted = attached(name, family, task)
    first = halted.optimizer()
    found = [halted.step(first, number) for number in (1, 2, 3)]
    save(halted, first, tmp_path)
    resumed, second = restore(name, family, task, tmp_path)
    found += [resumed.step(second, number) for number in (4, 5, 6)]

    assert found == losses
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    left, right = whole.method.state(whole.model), resumed.method.state(resumed.model)
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]) if isinstance(value, Tensor) else value == right[key]


@pytest.mark.parametrize("name", CASES)
def test_foreign_method_state_is_refused(name: str) -> None:
    bench = attached(name, restoring=True)
    with pytest.raises(CheckpointError, match="E-CKP-00"):
        bench.method.load_state(bench.model, {"other": torch.zeros(2)})


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name not in {"pissa", "olora"}])
def test_a_trained_adapter_is_continued(name: str, tmp_path: Path) -> None:
    bench = trained_bench(name)
    wanted = bench.logits()
    bench.method.export(bench.model, tmp_path)
    fresh = attached(name)
    if name == "adalora":  # its ranks have shrunk
        with pytest.raises(CheckpointError, match="E-CKP-005"):
            fresh.method.continue_from(fresh.model, tmp_path)
        return
    fresh.method.continue_from(fresh.model, tmp_path)
    torch.testing.assert_close(fresh.logits(), wanted, rtol=0, atol=1e-6)
    fresh.step(fresh.optimizer(), 1)


@pytest.mark.parametrize("name", ADAPTERS)
def test_checkpointing_does_not_reach_below_the_adapters(name: str) -> None:
    """PEFT's own way would make the embeddings' output require gradients and so lengthen every backward pass."""
    method, bench = new_method(name), attached(name)
    if any(refusal.key == "training.gradient_checkpointing" for refusal in method.card.refuses):
        return
    model: Any = base_model("llama", "causal_lm")
    with pytest.warns(FutureWarning, match="gradient_checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    context = AttachContext(seed=7, total_steps=NUM_STEPS, batches=lambda: [batch_of("causal_lm")])
    wrapped: Any = method.attach(model, bench.placements, context)
    embedded = wrapped.get_input_embeddings()(batch_of("causal_lm")["input_ids"])
    assert not embedded.requires_grad


@pytest.mark.parametrize("name", CASES)
def test_settings_reach_the_optimizer(name: str) -> None:
    bench = attached(name)
    optimizer = bench.method.optimizer(bench.model, OptimizerSettings(learning_rate=3e-3, beta1=0.7, epsilon=1e-6))
    for group in optimizer.param_groups:
        found = {"lr": group["lr"], "beta1": group["betas"][0], "beta2": group["betas"][1], "epsilon": group["eps"]}
        wanted = {"lr": 3e-3, "beta1": 0.7, "beta2": 0.999, "epsilon": 1e-6}
        unread = [key for key in wanted if f"adam_{key}" in UNREAD.get(name, ())]
        assert {key: value for key, value in found.items() if key not in unread} == {
            key: value for key, value in wanted.items() if key not in unread
        }
    held = {id(value) for group in optimizer.param_groups for value in group["params"]}
    assert held == {id(value) for value in bench.model.parameters() if value.requires_grad}

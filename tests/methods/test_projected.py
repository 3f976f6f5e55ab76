"""Methods that are optimizers: what their state weighs, where they may update, what they train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from subspace.config.load import document_from
from subspace.core.errors import ConfigError
from subspace.models.load import meta_model
from subspace.optim import Apollo, ApolloMini, FiraAdamW, Flora, GaLoreAdafactor, GaLoreAdamW, QGaLoreAdamW, SophiaG
from subspace.optim.settings import OptimizerSettings
from subspace.pipeline.execute import train
from subspace.pipeline.planning import make_plan
from subspace.pipeline.run_config import RunConfig, parse_run_config
from subspace.plan.inventory import take_inventory
from subspace.plan.shapes import TensorSpec

QWEN = {"model_name_or_path": "Qwen/Qwen2-0.5B", "dtype": "bfloat16"}
OPTIMIZERS = (GaLoreAdamW, GaLoreAdafactor, FiraAdamW, Apollo, ApolloMini, Flora, QGaLoreAdamW, SophiaG)


def recipe(out: Path, method: dict[str, Any], **training: Any) -> RunConfig:
    tree = {
        "model": {"model_name_or_path": "builtin/tiny-llama"},
        "data": {"source": "builtin/word-problems", "max_length": 48, "max_samples": 256},
        "method": method,
        "training": {"max_steps": 5, "per_device_train_batch_size": 2, "output_dir": str(out), **training},
        "evaluation": {"metrics": ["loss"]},
    }
    return parse_run_config(document_from(tree))[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(("bits", "most"), [(32, 0.18), (8, 0.06), (4, 0.04)])
def test_state_of_qwen2_half_billion(bits: int, most: float) -> None:
    """Rank 128 with the embedding projected, against AdamW's two float32 moments."""
    config = recipe(Path("x"), {"name": "galore", "rank": 128, "project_embeddings": True, "state_bits": bits})
    model = meta_model(config.model.model_copy(update={"model_name_or_path": "Qwen/Qwen2-0.5B"}))
    inventory = take_inventory(model, task="causal_lm")
    method = config.new_method()
    method.account(inventory, method.place(inventory))
    state = sum(spec.num_bytes for spec in method.state_specs(inventory.tensors, OptimizerSettings()))
    assert state <= most * 8 * inventory.num_parameters
    assert state > 0.9 * most * 8 * inventory.num_parameters * {32: 0.92, 8: 0.88, 4: 0.86}[bits]


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_live_state_is_the_planned_one(kind: type[torch.optim.Optimizer], bits: int) -> None:
    """Matrices whose moments are codes at narrow widths, a stack, a convolution, a vector, and one not worth it."""
    shapes = [(160, 96), (96, 160), (2, 96, 80), (64, 16, 3, 3), (96,), (8, 6)]
    named = [(f"w{place}", nn.Parameter(torch.randn(shape))) for place, shape in enumerate(shapes)]
    groups = [{"params": named, "rank": 32}]
    optimizer: Any = kind(groups, lr=1e-3, state_bits=bits)  # type: ignore[call-arg]
    for _ in range(2):
        for _, parameter in named:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    live = {
        TensorSpec(f"{name}.{key}", tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, parameter in named
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, torch.Tensor)
    }
    assert live == set(optimizer.planned_state())
    codes = kind is QGaLoreAdamW or (bits < 32 and kind is not GaLoreAdafactor)  # row and column means stay wide
    assert {spec.dtype for spec in live} == ({"float32", "uint8"} if codes else {"float32"})


@pytest.mark.parametrize("name", ["galore", "qgalore"])
def test_in_backward_is_after_backward(name: str, tmp_path: Path) -> None:
    """Accumulation 8, clipping, a cosine schedule and refreshes between: the same weights either way.

    The rank is one at which singular values are apart: behind the gradient's numerical rank a basis is rounding noise,
    and differs between any two ways of adding the same numbers.
    """
    method = {"name": name, "rank": 4, "refresh_interval": 2, "state_bits": 32}
    training = {"gradient_accumulation_steps": 8, "max_grad_norm": 1.0, "learning_rate": 1e-3}
    if name == "qgalore":
        method |= {"basis_bits": 32}
    after = train(recipe(tmp_path / "after", method, **training))
    inside = train(recipe(tmp_path / "inside", {**method, "update": "in_backward"}, **training))
    found, wanted = weights(inside.folder), weights(after.folder)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)
    rates = []
    for run in (after, inside):
        records = map(json.loads, (run.folder / "unified_log.jsonl").read_text().splitlines())
        rates.append([record["learning_rate"] for record in records if record["event"] == "step"])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 5


def test_in_backward_holds_what_the_plan_says(tmp_path: Path) -> None:
    """With bases from the first micro-batch nothing of a projected gradient outlives its hook."""
    method = {"name": "galore", "rank": 16, "update": "in_backward", "refresh_from": "micro_batch"}
    config = recipe(tmp_path / "run", {**method, "project_embeddings": True}, gradient_accumulation_steps=2)
    run = config.new_method()
    model = meta_model(config.model)
    inventory = take_inventory(model, task="causal_lm")
    run.account(inventory, run.place(inventory))
    held = {spec.name: spec.shape for spec in run.held_gradients(inventory.tensors, 2)}
    assert held["model.layers.0.self_attn.q_proj.weight"] == (128, 16)
    assert held["model.norm.weight"] == (128,)
    assert sum(map(len, held.values())) > 0
    assert sum(spec.num_bytes for spec in run.held_gradients(inventory.tensors, 2)) < 0.2 * 4 * inventory.num_parameters


def test_the_plan_counts_what_a_step_passes_through() -> None:
    """An embedding in the subspace: its SVD takes more than a copy of it, its Gram matrix and pieces do not."""
    method = {"name": "galore", "rank": 128, "project_embeddings": True, "update": "in_backward"}
    method |= {"refresh_from": "micro_batch", "state_bits": 8}
    sizes = {}
    for basis in ("svd", "gram"):
        config = recipe(Path("x"), {**method, "basis": basis})
        config = config.model_copy(update={"model": config.model.model_copy(update=QWEN)})
        plan = make_plan(config, num_labels=None, total_steps=None)
        sizes[basis] = plan.step_bytes
        assert plan.working_bytes >= plan.gradient_bytes + plan.step_bytes
    embedding, low = 151936 * 896, 4 * 151936 * 128
    assert sizes["svd"] > 2 * 4 * embedding
    assert 2 * embedding + low < sizes["gram"] < 3.2 * embedding


@pytest.mark.parametrize("name", ["fira", "apollo", "flora"])
@pytest.mark.parametrize(
    ("training", "word"),
    [
        ({"gradient_accumulation_steps": 2, "max_grad_norm": 0.0, "max_bad_steps": 0}, "accumulated"),
        ({"max_grad_norm": 1.0, "max_bad_steps": 0}, "clipped"),
        ({"max_grad_norm": 0.0, "max_bad_steps": 5}, "skipped"),
        ({"mixed_precision": "fp16", "max_grad_norm": 0.0, "max_bad_steps": 0, "device": "cuda"}, "bf16"),
    ],
)
def test_whole_gradients_cannot_be_used_up_and_kept(name: str, training: dict[str, Any], word: str) -> None:
    method = {"name": name, "rank": 16, "update": "in_backward"}
    with pytest.raises(ConfigError, match=f"E-CFG-014 .*{word}"):
        recipe(Path("x"), method, **training)
    if "mixed_precision" not in training:
        recipe(Path("x"), {**method, "full_accumulator": True}, **training)


def test_the_factors_of_an_adapter_are_trained_instead(tmp_path: Path) -> None:
    """Fira on LoRA, as its official fine-tuning script does: the base stays, an adapter is left."""
    method = {"name": "fira", "target": "adapter", "rank": 4, "adapter_rank": 8, "adapter_alpha": 16.0}
    result = train(recipe(tmp_path / "run", {**method, "refresh_interval": 2}, learning_rate=1e-2))
    adapter = load_file(result.folder / "adapter" / "adapter_model.safetensors")
    assert {tuple(value.shape)[0 if ".lora_A." in name else 1] for name, value in adapter.items()} == {8}
    assert all(value.abs().sum() > 0 for name, value in adapter.items() if ".lora_B." in name)
    assert not (result.folder / "model").exists()

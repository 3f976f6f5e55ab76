"""StelLA's trajectory on a tiny Llama is the official implementation's (12 steps, 4 settings; Apache-2.0, Sony).

The recorded trajectory lies beside the repository; `adapters_continual.md` there says how it was made.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from subspace.adapters.stella import StellaLinear, StellaOptions, attach_stella, hidden_size, stella_layers
from subspace.adapters.stella import stiefel_factors as factors_of
from subspace.optim.groups import decays
from subspace.optim.riemannian import StiefelSteps
from subspace.plan.shapes import Placement

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "stella_llama.safetensors"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="needs ../shared/golden/stella_llama.safetensors")
CASES = ("case0", "case1", "case2", "case3")


@cache
def recorded() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(str(GOLDEN), framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        return tensors, {name: json.loads(text) for name, text in stream.metadata().items()}


def base_model() -> nn.Module:
    """Return the recorded base with transformers' own choice of attention, as the recording has it.

    One gradient crosses zero in case 2, and AdamW makes 3e-5 of another attention's rounding there.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tensors, settings = recorded()
    model = LlamaForCausalLM(LlamaConfig(**settings["model_config"]))
    found = {name.removeprefix("base."): value for name, value in tensors.items() if name.startswith("base.")}
    model.load_state_dict(found)
    return model


def adapted_model(case: str) -> nn.Module:
    """Return the model with the recorded first adapter."""
    settings, model = recorded()[1][case], base_model()
    names = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in settings["targets"]]
    options = StellaOptions(alpha=settings["alpha"], diagonal=settings["diagonal_s"])
    attach_stella(model, [Placement(name, settings["rank"]) for name in names], options, seed=0)
    with torch.no_grad():
        for name, layer in stella_layers(model).items():
            for key, value in official(case, "initial", name).items():
                getattr(layer, key).copy_(value)
    return model


def official(case: str, when: str, module: str) -> dict[str, Tensor]:
    tensors = recorded()[0]
    prefix = f"{case}.{when}.base_model.model.{module}"
    u, vt, s = (tensors[f"{prefix}.stella_{key}.default.weight"] for key in ("U", "Vt", "S"))
    return {"stella_U": u, "stella_V": vt.T, "stella_S": s}


def train(model: nn.Module, settings: dict[str, Any]) -> list[float]:
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    groups = [
        {"params": [value for name, value in trained.items() if decays(name, value) is decayed], "weight_decay": decay}
        for decayed, decay in ((True, settings["weight_decay_on_s"]), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"])
    way = {"polar": "polar", "exp_map": "exponential"}[settings["retraction"]]
    StiefelSteps(optimizer, factors_of(model), retraction=way, gradient_scaling=hidden_size(model))  # type: ignore[arg-type]
    losses = []
    for ids in recorded()[0]["input_ids"]:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), settings["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("case", CASES)
def test_trajectory_is_the_official_one(case: str) -> None:
    tensors, settings = recorded()
    model = adapted_model(case)
    losses = train(model, settings[case])
    torch.testing.assert_close(torch.tensor(losses).double(), tensors[f"{case}.losses"], rtol=0, atol=5e-6)
    layers = stella_layers(model)
    assert len(layers) == 10
    worst = max(difference(layer, official(case, "final", name)) for name, layer in layers.items())
    moved = max(difference(layer, official(case, "initial", name)) for name, layer in layers.items())
    assert worst <= 5e-6
    assert moved > 1e-2


def difference(layer: StellaLinear, wanted: dict[str, Tensor]) -> float:
    return max(float((getattr(layer, key).detach() - value).abs().max()) for key, value in wanted.items())

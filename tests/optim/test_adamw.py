"""AdamW: equal to torch's, groups by kind of parameter, float32 moments, sizes known beforehand."""

from __future__ import annotations

import sys

import pytest
import torch
from optim_nets import NAMES, Net
from torch import nn

from subspace.core.errors import ConfigError
from subspace.optim import moments
from subspace.optim.adamw import WideAdamW, build_adamw
from subspace.optim.settings import OptimizerSettings
from subspace.optim.state_size import adamw_state
from subspace.plan.shapes import TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")


def specs_of(model: Net) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."), trained=True)
        for name, value in model.named_parameters()
        if value.requires_grad
    )


def live_state(optimizer: torch.optim.Optimizer) -> set[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of every state tensor, a shared one under its first owner."""
    found, seen = set(), set()
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, torch.Tensor) and value.data_ptr() not in seen:
                    seen.add(value.data_ptr())
                    found.add((f"{name}.{key}", tuple(value.shape), str(value.dtype).removeprefix("torch.")))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_size_is_exact(name: str, dtype: torch.dtype) -> None:
    model, settings = Net(dtype), OptimizerSettings(name=name)
    optimizer = build_adamw(model, settings)
    for seed in range(2):
        model.backward(seed)
        optimizer.step()
    planned = {(spec.name, spec.shape, spec.dtype) for spec in adamw_state(specs_of(model), settings)}
    assert live_state(optimizer) == planned


def test_only_matrices_decay() -> None:
    optimizer = build_adamw(Net(), OptimizerSettings(weight_decay=0.1))
    decay = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert decay == {"big": 0.1, "small": 0.1, "bias": 0.0, "lora_E.default": 0.0}


def test_rate_factor_makes_groups() -> None:
    settings = OptimizerSettings(learning_rate=1e-3)
    optimizer = build_adamw(Net(), settings, rate_factor=lambda name: 16.0 if name == "small" else 1.0)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates == {"big": 1e-3, "small": 16e-3, "bias": 1e-3, "lora_E.default": 1e-3}


def test_float32_weights_get_torch_fused_adamw() -> None:
    optimizer = build_adamw(Net(), OptimizerSettings())
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize("fused", [True, False])
def test_wide_adamw_equals_torch_in_float32(fused: bool) -> None:
    ours, theirs = Net(), Net()
    options = {"lr": 1e-2, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1, "fused": fused}
    mine = WideAdamW([item for item in ours.named_parameters() if item[1].requires_grad], **options)
    reference = torch.optim.AdamW([value for value in theirs.parameters() if value.requires_grad], **options)
    for seed in range(5):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            model.backward(seed)
            optimizer.step()
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


def test_narrow_weights_keep_float32_moments() -> None:
    """With bfloat16 moments the second one would stand still: 0.001 of it is under half a unit in the last place."""
    model = Net(torch.bfloat16)
    optimizer = build_adamw(model, OptimizerSettings())
    assert isinstance(optimizer, WideAdamW)
    for _ in range(300):
        for parameter in (model.big, model.small, model.bias):
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    torch.testing.assert_close(optimizer.state[model.big]["exp_avg_sq"][0, 0], torch.tensor(1 - 0.999**300))
    assert model.big.dtype == torch.bfloat16


def test_narrow_weights_together_step_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "piece_elements", lambda device: 60)
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 5), (30,), (7, 9), (3,), (2, 8))
    values = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    together = [nn.Parameter(value.clone()) for value in values]
    alone = [nn.Parameter(value.clone()) for value in values]
    optimizers = [WideAdamW(together, lr=0.5, weight_decay=0.1)]
    optimizers += [WideAdamW([weight], lr=0.5, weight_decay=0.1) for weight in alone]
    for step in range(4):
        for place, pair in enumerate(zip(together, alone, strict=True)):
            gradient = torch.randn(shapes[place], generator=generator).bfloat16()
            for weight in pair:
                weight.grad = None if (step, place) == (1, 3) else gradient.clone()  # one is a step behind
        for optimizer in optimizers:
            optimizer.step()
    assert all(map(torch.equal, together, alone))
    assert [float(optimizers[0].state[weight]["step"]) for weight in together] == [4.0, 4.0, 4.0, 3.0, 4.0]


def test_missing_bitsandbytes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"E-CFG-020 .*bitsandbytes"):
        build_adamw(Net(), OptimizerSettings(name="adamw_8bit"))

"""On a GPU, where bundles run in few calls: what a CPU gives, to the same bits after a resume, without waiting.

pytest -m gpu
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, make, named_weights
from torch import Tensor, nn

from subspace.optim.curvature import CurvatureClipped
from subspace.optim.engine import SubspaceOptimizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

DEVICE = "cuda"
SHAPES: dict[str, tuple[int, ...]] = {
    **{f"tall{number}": (48, 20) for number in range(3)},
    **{f"wide{number}": (20, 48) for number in range(3)},
    **{f"large{number}": (1100, 1000) for number in range(2)},
    "experts": (3, 20, 24),
    "convolution": (12, 3, 2, 2),
    **{f"bias{number}": (7 + number,) for number in range(4)},
}
"""`large` is more than what is stacked."""


def on(device: str, dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    weights = named_weights(SHAPES)
    return {name: nn.Parameter(weight.detach().to(device, dtype)) for name, weight in weights.items()}


def step(optimizer: SubspaceOptimizer, weights: dict[str, nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for weight in weights.values():
        weight.grad = torch.randn(weight.shape, generator=generator).to(weight)
    optimizer.step()
    if isinstance(optimizer, CurvatureClipped):
        optimizer.update_hessian(64)


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("basis", ["gram", "randomized", "warm"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_gpu_steps_as_a_cpu_does(kind: str, basis: str) -> None:
    ended = {}
    for device in ("cpu", DEVICE):
        weights = on(device)
        options: dict[str, Any] = {"state_bits": 32, "basis_bits": 32, "refresh_interval": 3}
        optimizer = make(kind, weights, **options, **({} if kind == "SketchedAdafactor" else {"basis": basis}))
        for number in range(5):
            step(optimizer, weights, number)
        ended[device] = weights
    for name, weight in ended["cpu"].items():
        moved = float((weight - named_weights(SHAPES)[name].float()).detach().abs().max())
        assert moved > 1e-3
        torch.testing.assert_close(ended[DEVICE][name].detach().cpu(), weight.detach(), rtol=1e-4, atol=2e-2 * moved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_no_step_between_refreshes_waits_for_the_device(kind: str, dtype: torch.dtype) -> None:
    weights = on(DEVICE, dtype)
    optimizer = make(kind, weights, refresh_interval=100)
    for number in range(2):
        step(optimizer, weights, number)
    for weight in weights.values():
        weight.grad = torch.randn_like(weight)
    torch.cuda.synchronize()
    with no_waiting():
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_clipped_steps_on_a_gpu_are_those_on_a_cpu_and_wait_for_nothing(kind: str, dtype: torch.dtype) -> None:
    norms, ended = [], []
    for device in ("cpu", DEVICE):
        weights = on(device, dtype)
        optimizer = make(kind, weights, refresh_interval=100, state_bits=32, basis_bits=32)
        for number in range(3):
            generator = torch.Generator().manual_seed(number)
            for weight in weights.values():
                weight.grad = torch.randn(weight.shape, generator=generator).to(weight)
            with no_waiting() if device != "cpu" and number else nullcontext():
                norm = optimizer.clip_grad_norm_(5.0)
                optimizer.step()
            norms.append(float(norm))
        ended.append(weights)
    torch.testing.assert_close(norms[3:], norms[:3], rtol=1e-3, atol=0)
    for name, weight in ended[0].items():
        torch.testing.assert_close(ended[1][name].detach().cpu(), weight.detach(), rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_three_and_three_are_six_on_a_gpu(kind: str, dtype: torch.dtype, bits: int) -> None:
    whole = on(DEVICE, dtype)
    uncut = make(kind, whole, refresh_interval=2, state_bits=bits)
    for number in range(3):
        step(uncut, whole, number)
    weights = {name: nn.Parameter(weight.detach().clone()) for name, weight in whole.items()}
    resumed = make(kind, weights, refresh_interval=2, state_bits=bits)
    resumed.load_state_dict(uncut.state_dict())
    for number in range(3, 6):
        step(uncut, whole, number)
        step(resumed, weights, number)
    for name, weight in whole.items():
        assert torch.equal(weights[name], weight), name
        for key, value in uncut.state[weight].items():
            if isinstance(value, Tensor):
                assert torch.equal(value, resumed.state[weights[name]][key]), (name, key)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_gradient_that_is_not_a_number_stays_out_of_every_weight_on_a_gpu(kind: str) -> None:
    weights = on(DEVICE)
    matrices = {name: weight for name, weight in weights.items() if weight.ndim > 1}
    optimizer = make(kind, matrices)
    for number in range(2):
        step(optimizer, matrices, number)
    for name, weight in matrices.items():
        weight.grad = torch.randn_like(weight)
        if name in ("tall1", "wide2", "large0"):
            weight.grad[3, 2] = torch.nan
    optimizer.step()
    for number in range(2, 4):
        step(optimizer, matrices, number)
    assert all(bool(torch.isfinite(weight).all()) for weight in matrices.values())


@pytest.mark.parametrize("bits", [32, 8])
def test_updates_in_the_backward_pass_are_those_after_it_on_a_gpu(bits: int) -> None:
    ended = []
    for update in ("after_backward", "in_backward"):
        weights = on(DEVICE)
        optimizer = make("ProjectedAdamW", weights, update=update, state_bits=bits, refresh_interval=3)
        for number in range(5):
            generator = torch.Generator().manual_seed(number)
            factors = [torch.randn(weight.shape, generator=generator).to(DEVICE) for weight in weights.values()]
            losses = [(weight * factor).sum() for weight, factor in zip(weights.values(), factors, strict=True)]
            torch.stack(losses).sum().backward()
            optimizer.clip_grad_norm_(1e9)
            optimizer.step()
            optimizer.zero_grad()
        ended.append(weights)
    for name, weight in ended[0].items():
        torch.testing.assert_close(ended[1][name].detach(), weight.detach(), rtol=0, atol=1e-6 if bits == 32 else 2e-2)

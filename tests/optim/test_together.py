"""A bundle in few calls gives what its weights give one by one: as one stack, large matrices, and plain parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from subspace.optim import Apollo, ApolloMini, FiraAdamW, GaLoreAdamW, moments, plain, slots, together


def trained(
    kind: type[torch.optim.Optimizer],
    shape: tuple[int, int],
    side: str,
    dtype: torch.dtype = torch.float32,
    *,
    clipped: bool = False,
) -> list[Tensor]:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape).to(dtype)) for _ in range(3)]
    optimizer = kind(weights, lr=1e-2, weight_decay=0.1, rank=4, refresh_interval=3, side=side)  # type: ignore[call-arg]
    for _ in range(5):
        for weight in weights:
            weight.grad = torch.randn(shape).to(dtype)
        if clipped:
            optimizer.clip_grad_norm_(3.0)  # type: ignore[attr-defined]
        optimizer.step()
    return weights


# on both sides R starts as a diagonal, and Adam turns the rounding errors beside it into whole steps
@pytest.mark.parametrize("side", ["shorter", "longer"])
@pytest.mark.parametrize("shape", [(24, 10), (10, 24)])
@pytest.mark.parametrize("kind", [GaLoreAdamW, FiraAdamW, Apollo, ApolloMini])
@pytest.mark.parametrize("largest_stacked", [2**20, 0])
@pytest.mark.parametrize("clipped", [False, True])
def test_a_bundle_steps_as_single_weights_do(
    kind: type[torch.optim.Optimizer],
    shape: tuple[int, int],
    side: str,
    largest_stacked: int,
    clipped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = trained(kind, shape, side, clipped=clipped)
    used = []
    monkeypatch.setattr(together, "LAUNCHING_DEVICES", {"cpu"})
    monkeypatch.setattr(slots, "_SMALL_ELEMENTS", largest_stacked)
    original = together.Together.__init__

    def noticed(self: together.Together, *args: object) -> None:
        original(self, *args)  # type: ignore[arg-type]
        used.append(self._is_small)

    monkeypatch.setattr(together.Together, "__init__", noticed)
    found = trained(kind, shape, side, clipped=clipped)
    # what is clipped by its projection is projected first, and lifted at the step
    assert used == [largest_stacked > 0] * (10 if clipped and kind is GaLoreAdamW else 5)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [GaLoreAdamW, FiraAdamW, Apollo, ApolloMini])
def test_a_gradient_that_is_not_finite_leaves_its_weight_and_no_other(
    kind: type[torch.optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "LAUNCHING_DEVICES", {"cpu"})
    weights = [nn.Parameter(torch.randn(12, 8)) for _ in range(3)]
    optimizer = kind(weights, lr=1e-2, rank=4)  # type: ignore[call-arg]
    for weight in weights:
        weight.grad = torch.randn(12, 8)
    optimizer.step()
    before = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.grad = torch.randn(12, 8)
    weights[1].grad[3, 2] = torch.nan  # type: ignore[index]
    optimizer.step()
    assert all(torch.isfinite(weight).all() for weight in weights)
    moved = [float((weight.detach() - old).abs().max()) for weight, old in zip(weights, before, strict=True)]
    assert moved[0] > 0
    assert moved[2] > 0


@pytest.mark.parametrize("kind", [GaLoreAdamW, FiraAdamW, Apollo])
@pytest.mark.parametrize("largest_stacked", [2**20, 0])
def test_a_narrow_bundle_steps_nearly_as_single_weights_do(
    kind: type[torch.optim.Optimizer], largest_stacked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = trained(kind, (24, 10), "shorter", torch.bfloat16)
    monkeypatch.setattr(together, "LAUNCHING_DEVICES", {"cpu"})
    monkeypatch.setattr(slots, "_SMALL_ELEMENTS", largest_stacked)
    for left, right in zip(trained(kind, (24, 10), "shorter", torch.bfloat16), wanted, strict=True):
        torch.testing.assert_close(left.float(), right.float(), rtol=2**-7, atol=2e-2)  # weights move by 0.01 a step


@pytest.mark.parametrize("kind", [GaLoreAdamW, FiraAdamW, Apollo])
@pytest.mark.parametrize("way", ["alone", "stacked", "large"])
def test_decay_is_not_lost_in_the_rounding_of_a_narrow_weight(
    kind: type[torch.optim.Optimizer], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lr decay is a tenth of a unit in the last place: multiplied by itself, a weight would never move."""
    monkeypatch.setattr(together, "LAUNCHING_DEVICES", set() if way == "alone" else {"cpu"})
    monkeypatch.setattr(slots, "_SMALL_ELEMENTS", 0 if way == "large" else 2**20)
    left = []
    for decay in (0.0, 0.3):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.full((32, 16), 1.0, dtype=torch.bfloat16)) for _ in range(2)]
        scale = 256.0 if kind is Apollo else 16.0  # its root counts: steps of a unit in the last place or more
        optimizer = kind(weights, lr=1e-3, weight_decay=decay, rank=8, scale=scale)  # type: ignore[call-arg]
        for _ in range(100):
            for weight in weights:
                weight.grad = torch.randn(32, 16).bfloat16()
            optimizer.step()
        left.append(torch.stack([weight.detach().float().mean() for weight in weights]).mean())
    assert float(left[0] - left[1]) > 0.015  # 0.03 in exact arithmetic


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_parameters_together_step_to_the_same_bits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(size).to(dtype)) for size in (7, 300, 64, 1000, 5)]
        optimizer = GaLoreAdamW(weights, lr=1e-2, weight_decay=0.1, rank=4)
        for _ in range(4):
            for place, weight in enumerate(weights):
                weight.grad = None if place == 2 and optimizer.state.get(weights[2]) else torch.randn_like(weight)
            optimizer.step()
        kept = [value for weight in weights for value in optimizer.state[weight].values() if torch.is_tensor(value)]
        return [*weights, *kept]

    monkeypatch.setattr(moments, "piece_elements", lambda device: 512)  # more than one chunk of the narrow ones
    together = run()
    calls = []
    monkeypatch.setattr(plain, "_kind", lambda one: calls.append(1) or (False,))
    alone = run()
    assert calls
    assert all(map(torch.equal, together, alone))

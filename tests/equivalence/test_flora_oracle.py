"""Fidelity `reference` repeats flora-opt in fp32 for 100 steps, on the projections that the official run drew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from equivalence_runs import STEPS, batch_loss, difference, oracle, random_gradients, tiny_llama
from torch import Tensor, nn

from subspace.optim import Flora
from subspace.optim.slots import Slot
from subspace.projection.projector import Projector

flora_opt = oracle("flora_opt")
TOLERANCE = 1e-6
RANK, KAPPA = 4, 5
SHAPES = [(24, 10), (10, 24), (12, 12), (50, 10), (10, 50), (3, 3), (7,)]
"""The first three have a sketched momentum; the rest differs too much in its sides, is below the rank, or a vector."""
SKETCHED = 3
RULES: dict[str, dict[str, Any]] = {
    "lr": {"lr": 1e-2},
    "decay": {"lr": 1e-2, "weight_decay": 0.1},
    "fixed-scale": {"lr": 1e-3, "scale_parameter": False, "weight_decay": 0.1},
    "relative": {"lr": None, "relative_step": True},
    "warm-up": {"lr": None, "relative_step": True, "warmup_init": True, "weight_decay": 0.1},
    "clip": {"lr": 1e-2, "clip_threshold": 0.2, "decay_rate": -0.6, "beta1": 0.8},
}


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Record every matrix that `torch.randn` gives, in order."""
    drawn: list[Tensor] = []
    original = torch.randn

    def recording(*args: Any, **kwargs: Any) -> Tensor:
        result = original(*args, **kwargs)
        drawn.append(result.clone())
        return result

    monkeypatch.setattr(torch, "randn", recording)
    yield drawn
    monkeypatch.undo()


class Injected(Flora):  # type: ignore[misc,valid-type]
    """Flora on given projections: those of one weight in their order, the next one after every renewal."""

    given: dict[nn.Parameter, list[Tensor]]

    def projector(self, slot: Slot, state: dict[str, Any]) -> Projector:
        seen = self.__dict__.setdefault("seen", {}).setdefault(slot.index, [])
        if state["basis_seed"] not in seen:
            seen.append(state["basis_seed"])
        drawn = self.given[slot.parameter][seen.index(state["basis_seed"])]
        assert slot.geometry is not None
        basis = drawn if slot.geometry.side == "right" else drawn.mT
        return Projector.of(slot.geometry.side, basis / RANK**0.5)


def official_run(
    rule: dict[str, Any], start: list[Tensor], gradients: list[list[Tensor]], draws: list[Tensor]
) -> tuple[list[list[Tensor]], dict[int, list[Tensor]]]:
    """Return the weights after every step, and each weight's distinct projections in their order."""
    weights = [nn.Parameter(value.clone()) for value in start]
    optimizers = [flora_opt.Flora([weight], rank=RANK, kappa=KAPPA, seed=i, **rule) for i, weight in enumerate(weights)]
    trajectory, projections = [], {index: [] for index in range(len(weights))}
    for step in gradients:
        for index, (weight, gradient, optimizer) in enumerate(zip(weights, step, optimizers, strict=True)):
            draws.clear()
            weight.grad = gradient.clone()
            optimizer.step()
            known = projections[index]
            for drawn in draws:
                if not known or not torch.equal(drawn, known[-1]):
                    known.append(drawn)
        trajectory.append([weight.detach().clone() for weight in weights])
    return trajectory, projections


@pytest.mark.parametrize("name", RULES)
def test_on_random_gradients(name: str, draws: list[Tensor]) -> None:
    rule = {"beta1": 0.9, **RULES[name]}
    generator = torch.Generator().manual_seed(0)
    start = [torch.empty(shape).normal_(generator=generator) for shape in SHAPES]
    gradients = list(random_gradients(SHAPES))
    trajectory, projections = official_run(rule, start, gradients, draws)
    assert [len(projections[index]) for index in range(len(SHAPES))] == [STEPS // KAPPA + 1] * SKETCHED + [0] * 4

    weights = [nn.Parameter(value.clone()) for value in start]
    optimizer = Injected([{"params": weights, "rank": RANK}], refresh_interval=KAPPA, fidelity="reference", **rule)
    optimizer.given = {weight: projections[index] for index, weight in enumerate(weights)}
    for step, expected in zip(gradients, trajectory, strict=True):
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        assert difference(weights, expected) <= TOLERANCE


def test_on_a_llama(draws: list[Tensor]) -> None:
    model = tiny_llama()
    weights = list(model.parameters())
    rule = {"lr": 0.01, "beta1": 0.9, "weight_decay": 0.1}
    start = [weight.detach().clone() for weight in weights]
    follower = torch.optim.SGD(weights, lr=0.3)
    gradients = []
    for step in range(STEPS):
        follower.zero_grad()
        batch_loss(model, step).backward()
        gradients.append([weight.grad.clone() for weight in weights if weight.grad is not None])
        follower.step()
    trajectory, projections = official_run(rule, start, gradients, draws)

    ours = [nn.Parameter(value.clone()) for value in start]
    optimizer = Injected([{"params": ours, "rank": RANK}], refresh_interval=KAPPA, fidelity="reference", **rule)
    optimizer.given = {weight: projections[index] for index, weight in enumerate(ours)}
    largest = 0.0
    for step, expected in zip(gradients, trajectory, strict=True):
        for weight, gradient in zip(ours, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        largest = max(largest, difference(ours, expected))
    assert largest <= TOLERANCE

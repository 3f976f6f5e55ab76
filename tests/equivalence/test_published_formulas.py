"""Fidelity `paper` against the published algorithms, each written out in this file in plain torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from equivalence_runs import SHAPES, difference, random_gradients
from torch import Tensor, nn

from subspace.core.seeding import derive_seed
from subspace.linalg.sketch import gaussian
from subspace.optim import Apollo, ApolloMini, FiraAdamW, Flora, GaLoreAdamW, QGaLoreAdamW, SophiaG

RANK, INTERVAL, STEPS = 3, 4, 30
RATE, BETAS, EPS, DECAY = 1e-2, (0.9, 0.99), 1e-8, 0.1
TOLERANCE = 1e-6


class Formula:
    """One weight, its moments, and the side of its projection; `update` of a subclass is the published step."""

    def __init__(self, weight: Tensor, scale: float = 1.0) -> None:
        self.weight, self.scale, self.step = weight.clone(), scale, 0
        self.left = weight.shape[0] < weight.shape[1]
        self.basis: Tensor | None = None
        self.first = self.second = torch.zeros(())
        self.norm = 0.0

    def __call__(self, gradient: Tensor) -> None:
        if self.step % INTERVAL == 0:
            self.basis = self.find(gradient)
        self.step += 1
        self.weight = (1 - RATE * DECAY) * self.weight - RATE * self.update(gradient)

    def find(self, gradient: Tensor) -> Tensor:
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        return left[:, :RANK] if self.left else right[:RANK].T

    def down(self, gradient: Tensor) -> Tensor:
        return self.basis.T @ gradient if self.left else gradient @ self.basis

    def up(self, low: Tensor) -> Tensor:
        return self.basis @ low if self.left else low @ self.basis.T

    def adam(self, low: Tensor) -> Tensor:
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * low
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * low**2
        mean = self.first / (1 - BETAS[0] ** self.step)
        return mean / ((self.second / (1 - BETAS[1] ** self.step)).sqrt() + EPS)

    def limited(self, update: Tensor) -> Tensor:
        """Let the norm grow by 1 %; that Adam corrects early steps is no growth."""
        correction = math.sqrt(1 - BETAS[1] ** self.step) / (1 - BETAS[0] ** self.step)
        norm = float(update.norm()) / correction
        allowed = norm if self.step == 1 else min(norm, 1.01 * self.norm)
        self.norm = allowed
        return update * (allowed / norm)

    def update(self, gradient: Tensor) -> Tensor:
        raise NotImplementedError


class GaLore(Formula):
    def update(self, gradient: Tensor) -> Tensor:
        return self.scale * self.up(self.adam(self.down(gradient)))


class Fira(Formula):
    def update(self, gradient: Tensor) -> Tensor:
        low = self.down(gradient)
        direction = self.adam(low)
        axis = 0 if self.left else 1
        phi = direction.norm(dim=axis, keepdim=True) / low.norm(dim=axis, keepdim=True)
        residual = self.limited((gradient - self.up(low)) * phi)
        return self.scale * (self.up(direction) + residual)


class Apollo_(Formula):  # noqa: N801  # the optimizer has the name
    """`index` is the weight's place in the optimizer, from which its projections follow."""

    index, whole = 0, False

    def find(self, gradient: Tensor) -> Tensor:
        rank = 1 if self.whole else RANK
        seed = derive_seed(0, "sketch", self.index, self.step)
        return gaussian(seed, (min(gradient.shape), rank)) / rank**0.5

    def update(self, gradient: Tensor) -> Tensor:
        low = self.down(gradient)
        direction = self.adam(low)
        axis = (0, 1) if self.whole else (0 if self.left else 1)
        factor = direction.norm(dim=axis, keepdim=True) / low.norm(dim=axis, keepdim=True)
        return math.sqrt(self.scale) * self.limited(gradient * factor)


class ApolloMini_(Apollo_):  # noqa: N801
    whole = True


class FourBit(GaLore):
    """Q-GaLore's projection of 4 bits: 15 levels, one scale for 256 numbers in a row."""

    def find(self, gradient: Tensor) -> Tensor:
        basis = super().find(gradient)
        blocks = basis.reshape(-1).split(256)
        return torch.cat([(b / (b.abs().max() / 7)).round() * (b.abs().max() / 7) for b in blocks]).view(basis.shape)


CASES: dict[str, tuple[Any, type[Formula], float, dict[str, Any]]] = {
    "galore": (GaLoreAdamW, GaLore, 0.25, {}),
    "fira": (FiraAdamW, Fira, 0.25, {}),
    "apollo": (Apollo, Apollo_, 1.0, {}),
    "apollo-mini": (ApolloMini, ApolloMini_, 128.0, {}),
    "q-galore": (QGaLoreAdamW, FourBit, 0.25, {"state_bits": 32, "refresh": "interval"}),
}


@pytest.mark.parametrize("name", CASES)
def test_projected_adam(name: str) -> None:
    maker, formula, scale, options = CASES[name]
    generator = torch.Generator().manual_seed(0)
    shapes = [(40, 90), (90, 40), (24, 24)] if name == "q-galore" else list(SHAPES.values())
    weights = [nn.Parameter(torch.randn(shape, generator=generator) / 10) for shape in shapes]
    expected = [formula(weight.detach(), scale) for weight in weights]
    for index, one in enumerate(expected):
        one.index = index  # type: ignore[attr-defined]
    options = {"rank": 1 if name == "apollo-mini" else RANK, "refresh_interval": INTERVAL, "scale": scale, **options}
    optimizer = maker(weights, lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, **options)
    assert all(slot.geometry is not None for slot in optimizer.slots.values())
    for gradients in random_gradients(shapes, STEPS):
        for weight, gradient, one in zip(weights, gradients, expected, strict=True):
            weight.grad = gradient
            one(gradient)
        optimizer.step()
        assert difference(weights, [one.weight for one in expected]) <= TOLERANCE


def test_flora() -> None:
    shape, rate, beta, kappa = (20, 12), 1e-2, 0.9, 4
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(shape, generator=generator) / 10)
    optimizer = Flora([weight], lr=rate, beta1=beta, weight_decay=DECAY, rank=RANK, refresh_interval=kappa)
    expected, row, column = weight.detach().clone(), torch.zeros(20), torch.zeros(12)
    drawn = gaussian(derive_seed(0, "sketch", 0, 0), (12, RANK)) / RANK**0.5
    momentum = torch.zeros(20, RANK)
    for step, (gradient,) in enumerate(random_gradients([shape], STEPS), start=1):
        decay = 1 - step**-0.8
        row = decay * row + (1 - decay) * (gradient**2 + 1e-30).mean(1)
        column = decay * column + (1 - decay) * (gradient**2 + 1e-30).mean(0)
        normalized = gradient / (torch.outer(row, column) / row.mean()).sqrt()
        update = (1 - beta) * normalized + beta * momentum @ drawn.T
        if step % kappa == 0:
            lifted = momentum @ drawn.T
            drawn = gaussian(derive_seed(0, "sketch", 0, step), (12, RANK)) / RANK**0.5
            momentum = lifted @ drawn
        momentum = beta * momentum + (1 - beta) * normalized @ drawn
        update = update / max(1.0, float(update.square().mean().sqrt()))
        size = rate * max(1e-3, float(expected.square().mean().sqrt()))
        expected = expected - DECAY * size * expected - size * update
        weight.grad = gradient
        optimizer.step()
        assert difference([weight], [expected]) <= TOLERANCE


@pytest.mark.parametrize("rank", [None, RANK])
def test_sophia(rank: int | None) -> None:
    """On a whole weight and inside a subspace; curvature from sampled labels at every second step."""
    rate, (beta1, beta2), rho, decay, samples = 1e-3, (0.965, 0.99), 0.04, 0.1, 64
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(20, 12, generator=generator) / 10)
    optimizer = SophiaG([weight], lr=rate, rho=rho, rank=rank, refresh_interval=1000)
    expected, basis, clipped = weight.detach().clone(), torch.eye(12), 0
    momentum = hessian = torch.zeros(())
    for step, (gradient, sampled) in enumerate(random_gradients([(20, 12)] * 2, STEPS)):
        if step == 0 and rank:
            basis = torch.linalg.svd(gradient, full_matrices=False).Vh[:rank].T
        momentum = beta1 * momentum + (1 - beta1) * gradient @ basis
        ratio = momentum.abs() / (rho * hessian + 1e-15)
        clipped += int((ratio > 1).sum()) if step > 5 else 0
        expected = expected * (1 - rate * decay) - rate * (momentum.sign() * ratio.clamp(max=1.0)) @ basis.T
        weight.grad = gradient
        optimizer.step()
        if step % 2 == 0:
            hessian = beta2 * hessian + (1 - beta2) * samples * (sampled @ basis) ** 2
            weight.grad = sampled
            optimizer.update_hessian(samples)
        assert difference([weight], [expected]) <= TOLERANCE
    assert 0 < clipped < (STEPS - 6) * momentum.numel()  # both branches of the minimum were taken


def adaptive_gradients(steps: int) -> Iterator[Tensor]:
    """Yield gradients of one row space for 20 steps, then of a new one at every step."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(RANK, 16, generator=generator)
    for step in range(steps):
        if step >= 20:
            factor = torch.randn(RANK, 16, generator=generator)
        yield torch.randn(64, RANK, generator=generator) @ factor


def test_lazy_refresh() -> None:
    """Q-GaLore's rule: the interval doubles while the last five subspaces stayed and is the given one again after."""
    given, steps = 2, 300
    weight = nn.Parameter(torch.zeros(64, 16))
    optimizer = QGaLoreAdamW([weight], rank=RANK, refresh_interval=given, basis_bits=32)
    seen: list[int] = []
    find = optimizer.refresher.find

    def noting(slots: Any, states: Any, betas: Any) -> None:
        seen.append(states[0]["step"] + 1)
        find(slots, states, betas)

    optimizer.refresher.find = noting
    expected, interval, basis = [], given, None
    overlaps: list[float] = []
    for step, gradient in enumerate(adaptive_gradients(steps)):
        if step % interval == 0:
            expected.append(step + 1)
            found = torch.linalg.svd(gradient, full_matrices=False).Vh[:RANK].T
            if basis is not None:
                overlaps.append(float((basis.T @ found).square().sum()) / RANK)
                if len(overlaps) >= 5:
                    interval = min(2 * interval, 32 * given) if sum(overlaps[-5:]) / 5 >= 0.4 else given
            basis = found
        weight.grad = gradient
        optimizer.step()
    assert seen == expected
    assert seen[:9] == [1, 3, 5, 7, 9, 11, 13, 17, 33]
    assert len([step for step in seen if step > 256]) > 10  # the gap has closed again

"""Two optimizers side by side: on the same random gradients, and on two copies of a tiny Llama."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

SHAPES = {"tall": (24, 10), "wide": (10, 24), "square": (12, 12)}
STEPS = 100
SIDES = {"std": "shorter", "reverse_std": "longer", "left": "left", "right": "right", "full": "both"}
"""The official names of sides, and ours."""

Maker = Callable[[list[nn.Parameter], list[nn.Parameter]], torch.optim.Optimizer]
"""Makes an optimizer of projected parameters and plain ones."""


def oracle(name: str) -> ModuleType:
    """Import an official package, or skip the module's tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except ImportError as error:
            pytest.skip(f"needs the official package {name}: {error}", allow_module_level=True)


def random_gradients(shapes: Iterable[tuple[int, ...]], steps: int = STEPS) -> Iterable[list[Tensor]]:
    """Yield gradients whose norms rise threefold and fall again, so that a limiter of growth has work."""
    generator = torch.Generator().manual_seed(1)
    shapes = list(shapes)
    for step in range(steps):
        yield [torch.randn(shape, generator=generator) * (1 + step % 4) for shape in shapes]


def random_difference(ours: Maker, theirs: Maker, shapes: Iterable[tuple[int, ...]], steps: int = STEPS) -> float:
    """Return the largest difference of weights at any of the steps; a bias goes along as a plain parameter."""
    shapes = [*shapes, (7,)]
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    sets = [[nn.Parameter(value.clone()) for value in start] for _ in range(2)]
    optimizers = [make(weights[:-1], weights[-1:]) for make, weights in zip((ours, theirs), sets, strict=True)]
    largest = 0.0
    for gradients in random_gradients(shapes, steps):
        for weights, optimizer in zip(sets, optimizers, strict=True):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
        largest = max(largest, difference(*sets))
    return largest


def difference(first: Iterable[Tensor], second: Iterable[Tensor]) -> float:
    """Return the largest absolute difference of two lists of tensors."""
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in zip(first, second, strict=True))


def tiny_llama() -> nn.Module:
    """Return a Llama with tall (64 x 32), wide (32 x 64), square (32 x 32) and small (16 x 32) matrices."""
    from subspace.models.tiny import tiny_model

    return tiny_model("llama", seed=3, vocab_size=64, hidden_size=32, num_layers=1)


def batch_loss(model: nn.Module, step: int) -> Tensor:
    """Return the loss of a batch that repeats every eight steps: it can be learnt, so gradients shrink."""
    generator = torch.Generator().manual_seed(step % 8)
    tokens = torch.randint(3, 64, (2, 8), generator=generator)
    loss: Tensor = model(input_ids=tokens, labels=tokens).loss
    return loss


def llama_parts(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices and the rest."""
    weights = list(model.parameters())
    return [w for w in weights if w.ndim == 2], [w for w in weights if w.ndim != 2]


def llama_difference(ours: Maker, theirs: Maker, *, own_gradients: bool, steps: int = STEPS) -> float:
    """Train two copies from the same weights; return the largest difference of weights at any step.

    Args:
        own_gradients: Each copy follows its own gradients; else ours gets those of the official run, so that rounding
            is compared and not what training makes of it.
    """
    models = [tiny_llama(), tiny_llama()]
    first, second = (make(*llama_parts(model)) for make, model in zip((ours, theirs), models, strict=True))
    largest = 0.0
    for step in range(steps):
        second.zero_grad()
        batch_loss(models[1], step).backward()
        if own_gradients:
            first.zero_grad()
            batch_loss(models[0], step).backward()
        else:
            for own, official in zip(models[0].parameters(), models[1].parameters(), strict=True):
                assert official.grad is not None
                own.grad = official.grad.clone()
        first.step()
        second.step()
        largest = max(largest, difference(models[0].parameters(), models[1].parameters()))
    with torch.no_grad():
        assert batch_loss(models[1], 0) < batch_loss(tiny_llama(), 0)  # it trains, or equality says little
    return largest

"""Small sets of weights of every kind, and gradients for them through a real backward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from subspace.optim.adafactor import ProjectedAdafactor
from subspace.optim.channelwise import ChannelScaledAdamW, TensorScaledAdamW
from subspace.optim.curvature import CurvatureClipped
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.projected import PlainAdamW, ProjectedAdamW, QuantizedProjectedAdamW
from subspace.optim.residual import ResidualAdamW
from subspace.optim.sketched import SketchedAdafactor

OPTIMIZERS: dict[str, type[SubspaceOptimizer]] = {
    kind.__name__: kind
    for kind in (
        ProjectedAdamW,
        QuantizedProjectedAdamW,
        PlainAdamW,
        ProjectedAdafactor,
        ResidualAdamW,
        ChannelScaledAdamW,
        TensorScaledAdamW,
        SketchedAdafactor,
        CurvatureClipped,
    )
}
WHOLE = [name for name, kind in OPTIMIZERS.items() if kind.needs_whole_gradient]
"""Those that need the gradient itself and not its projection alone."""
SHAPES: dict[str, tuple[int, ...]] = {
    "tall": (24, 10),
    "wide": (10, 24),
    "square": (12, 12),
    "experts": (3, 10, 12),
    "convolution": (12, 3, 2, 2),
    "bias": (7,),
}


def named_weights(shapes: dict[str, tuple[int, ...]] = SHAPES, seed: int = 0) -> dict[str, nn.Parameter]:
    """Return weights; `wide` is bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: nn.Parameter(
            torch.randn(shape, generator=generator).to(torch.bfloat16 if name == "wide" else torch.float32)
        )
        for name, shape in shapes.items()
    }


def make(kind: str | type[SubspaceOptimizer], weights: dict[str, nn.Parameter], **options: Any) -> SubspaceOptimizer:
    """Return an optimizer of named weights, rank 3, projected where they have two dimensions or more."""
    maker: Any = OPTIMIZERS[kind] if isinstance(kind, str) else kind
    matrices = [(name, weight) for name, weight in weights.items() if weight.ndim >= 2]
    rest = [(name, weight) for name, weight in weights.items() if weight.ndim < 2]
    groups = [{"params": matrices, "rank": options.pop("rank", 3)}, {"params": rest}]
    optimizer: SubspaceOptimizer = maker([group for group in groups if group["params"]], lr=1e-2, **options)
    return optimizer


def gradients(weights: Iterable[Tensor], step: int) -> list[Tensor]:
    """Return gradients of a step."""
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(weight.shape, generator=generator) * (1 + step % 3) for weight in weights]


def backward(weights: Sequence[nn.Parameter], given: Sequence[Tensor]) -> None:
    """Give weights their gradients in one backward pass, so that hooks run."""
    losses = [(weight * gradient.to(weight)).sum() for weight, gradient in zip(weights, given, strict=True)]
    torch.stack([loss.float() for loss in losses]).sum().backward()


def train(optimizer: SubspaceOptimizer, weights: dict[str, nn.Parameter], steps: Iterable[int]) -> None:
    """Do steps; Sophia sees a curvature at every second one."""
    listed = list(weights.values())
    for step in steps:
        optimizer.zero_grad()
        backward(listed, gradients(listed, step))
        optimizer.step()
        if isinstance(optimizer, CurvatureClipped) and step % 2 == 0:
            optimizer.zero_grad()
            backward(listed, gradients(listed, 500 + step))
            optimizer.update_hessian(64)

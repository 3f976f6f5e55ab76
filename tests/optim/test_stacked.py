"""One batched product for a bundle gives what many products give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from subspace.optim import FiraAdamW, GaLoreAdamW, stacked


def trained(kind: type[torch.optim.Optimizer], shape: tuple[int, int], side: str) -> list[Tensor]:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for _ in range(3)]
    optimizer = kind(weights, lr=1e-2, weight_decay=0.1, rank=4, refresh_interval=3, side=side)  # type: ignore[call-arg]
    for _ in range(5):
        for weight in weights:
            weight.grad = torch.randn(shape)
        optimizer.step()
    return weights


# on both sides R starts as a diagonal, and Adam turns the rounding errors beside it into whole steps
@pytest.mark.parametrize("side", ["shorter", "longer"])
@pytest.mark.parametrize("shape", [(24, 10), (10, 24)])
@pytest.mark.parametrize("kind", [GaLoreAdamW, FiraAdamW])
def test_a_stack_steps_as_single_weights_do(
    kind: type[torch.optim.Optimizer], shape: tuple[int, int], side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = trained(kind, shape, side)
    used = []
    monkeypatch.setattr(stacked, "STACKED_DEVICES", {"cpu"})
    monkeypatch.setattr(torch, "stack", lambda *args, _stack=torch.stack, **kw: used.append(1) or _stack(*args, **kw))
    found = trained(kind, shape, side)
    assert used
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)

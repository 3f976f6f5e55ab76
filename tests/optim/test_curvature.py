"""A curvature estimate that is not finite is no estimate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from subspace_runs import backward, gradients, make, named_weights, train

from subspace.optim import SophiaG


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_a_spoilt_estimate_leaves_the_curvature_as_it_is(spoilt: float) -> None:
    weights = named_weights()
    optimizer: Any = make(SophiaG, weights)
    train(optimizer, weights, range(3))
    before = {name: optimizer.state[weight]["hessian"].clone() for name, weight in weights.items()}
    assert all(float(hessian.max()) > 0 for hessian in before.values())
    given = gradients(weights.values(), 7)
    for name, gradient in zip(weights, given, strict=True):
        if name != "square":
            gradient.view(-1)[3] = spoilt
    optimizer.zero_grad()
    backward([*weights.values()], given)
    optimizer.update_hessian(64)
    for name, weight in weights.items():
        assert torch.equal(optimizer.state[weight]["hessian"], before[name]) == (name != "square"), name
    train(optimizer, weights, range(4, 6))
    assert all(torch.isfinite(weight).all() for weight in weights.values())

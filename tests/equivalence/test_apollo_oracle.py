"""Fidelity `reference` repeats apollo-torch in fp32 for 100 steps: by channel and by tensor, random and svd."""

from __future__ import annotations

from typing import Any

import pytest
from equivalence_runs import SHAPES, Maker, llama_difference, oracle, random_difference

from subspace.optim import Apollo

apollo_torch = oracle("apollo_torch")
TOLERANCE = 5e-6
SCALINGS = {"channel": (4, 1.0), "tensor": (1, 128.0)}
"""Rank and scale of APOLLO, and of APOLLO-Mini."""


def pair(scaling: str, basis: str, interval: int, decay: float, rate: float, **flags: bool) -> tuple[Maker, Maker]:
    rank, scale = SCALINGS[scaling]
    official = {"disable_nl": not flags.get("limit_growth", True)}

    def ours(matrices: list[Any], rest: list[Any]) -> Any:
        options = {"rank": rank, "refresh_interval": interval, "scale": scale, "basis": basis}
        groups = [{"params": matrices, **options}, {"params": rest}]
        return Apollo(groups, lr=rate, eps=1e-6, weight_decay=decay, scaling=scaling, fidelity="reference", **flags)

    def theirs(matrices: list[Any], rest: list[Any]) -> Any:
        options = {"rank": rank, "update_proj_gap": interval, "scale": scale, "proj": basis}
        groups = [{"params": matrices, "proj_type": "std", "scale_type": scaling, **options}, {"params": rest}]
        return apollo_torch.APOLLOAdamW(groups, lr=rate, weight_decay=decay, **official)

    return ours, theirs


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("basis", ["random", "svd"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_on_random_gradients(scaling: str, basis: str, decay: float) -> None:
    assert random_difference(*pair(scaling, basis, 3, decay, 1e-2), SHAPES.values()) <= TOLERANCE


def test_without_the_limiter() -> None:
    makers = pair("channel", "random", 3, 0.1, 1e-2, limit_growth=False)
    assert random_difference(*makers, SHAPES.values()) <= TOLERANCE


@pytest.mark.parametrize("basis", ["random", "svd"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_on_a_llama(scaling: str, basis: str) -> None:
    assert llama_difference(*pair(scaling, basis, 20, 0.1, 1e-2), own_gradients=False) <= TOLERANCE


@pytest.mark.parametrize(("scaling", "basis"), [("channel", "random"), ("tensor", "svd")])
def test_trains_a_llama_alike(scaling: str, basis: str) -> None:
    assert llama_difference(*pair(scaling, basis, 20, 0.0, 1e-3), own_gradients=True) <= TOLERANCE

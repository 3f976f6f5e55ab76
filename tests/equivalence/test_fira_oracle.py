"""Fidelity `reference` repeats fira in fp32 for 100 steps, the limiter of growth at work in three of four.

The residual is never formed here: a weight is written twice a step and rounded each time, so that differences are
larger than GaLore's (3.5e-6 where weights are as large as 4); hence 5e-6.
"""

from __future__ import annotations

from typing import Any

import pytest
from equivalence_runs import SHAPES, SIDES, Maker, llama_difference, oracle, random_difference

from subspace.optim import FiraAdamW, groups_from_galore

fira = oracle("fira")
TOLERANCE = 5e-6
_SIDES = [side for side in SIDES if side != "full"]  # the official code fails for both sides


def pair(side: str, interval: int, decay: float, rate: float = 1e-2, alpha: float = 0.25) -> tuple[Maker, Maker]:
    def groups(matrices: list[Any], rest: list[Any]) -> list[dict[str, Any]]:
        options = {"rank": 4, "update_proj_gap": interval, "alpha": alpha, "proj_type": side}
        return [{"params": matrices, **options}, {"params": rest}]

    def ours(matrices: list[Any], rest: list[Any]) -> Any:
        translated = groups_from_galore(groups(matrices, rest))
        return FiraAdamW(translated, lr=rate, eps=1e-6, weight_decay=decay, fidelity="reference")

    def theirs(matrices: list[Any], rest: list[Any]) -> Any:
        return fira.FiraAdamW(groups(matrices, rest), lr=rate, weight_decay=decay, no_deprecation_warning=True)

    return ours, theirs


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("side", _SIDES)
def test_on_random_gradients(side: str, decay: float) -> None:
    assert random_difference(*pair(side, 3, decay), SHAPES.values()) <= TOLERANCE


def test_with_scale_one_and_a_long_interval() -> None:
    assert random_difference(*pair("std", 40, 0.1, alpha=1.0), SHAPES.values()) <= TOLERANCE


@pytest.mark.parametrize("side", _SIDES)
def test_on_a_llama(side: str) -> None:
    assert llama_difference(*pair(side, 20, 0.1), own_gradients=False) <= TOLERANCE


def test_trains_a_llama_alike() -> None:
    assert llama_difference(*pair("std", 20, 0.0, rate=1e-3), own_gradients=True) <= TOLERANCE

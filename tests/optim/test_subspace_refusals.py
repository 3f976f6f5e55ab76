"""The table of refusals is exact: what it names is refused with its reason, all else trains."""

from __future__ import annotations

import itertools
import random
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, make, named_weights, train

from subspace.core.errors import ConfigError
from subspace.optim import lowbit
from subspace.optim.refusals import REFUSALS
from subspace.optim.settings import ProjectionSettings

AXES: dict[str, tuple[Any, ...]] = {
    "side": ("shorter", "longer", "left", "right", "both"),
    "basis": ("svd", "gram", "randomized", "warm", "random"),
    "refresh": ("interval", "staggered", "adaptive"),
    "moments": ("keep", "zero", "transport"),
    "state_bits": (32, 8, 4),
    "basis_bits": (32, 4),
    "fidelity": ("paper", "reference"),
    "update": ("after_backward", "in_backward"),
    "refresh_from": ("step", "micro_batch"),
    "full_accumulator": (False, True),
}


def refused(optimizer: str, combination: dict[str, Any]) -> list[str]:
    """Return the reasons that the table gives against a combination."""
    return [row.reason for row in REFUSALS if row.optimizer == optimizer and combination[row.key] in row.values]


def permitted_axes(optimizer: str) -> dict[str, list[Any]]:
    rows = {(row.key, value) for row in REFUSALS if row.optimizer == optimizer for value in row.values}
    return {key: [value for value in values if (key, value) not in rows] for key, values in AXES.items()}


def covering(axes: dict[str, list[Any]], seed: int) -> list[dict[str, Any]]:
    """Return combinations in which every pair of values of two axes occurs."""
    keys = list(axes)
    missing = {((a, x), (b, y)) for a, b in itertools.combinations(keys, 2) for x in axes[a] for y in axes[b]}
    chooser, chosen = random.Random(seed), []
    while missing:
        tries = [{key: chooser.choice(axes[key]) for key in keys} for _ in range(30)]
        first, second = sorted(missing, key=str)[0]
        tries += [{**one, first[0]: first[1], second[0]: second[1]} for one in tries]
        best = max(tries, key=lambda one: len(missing & set(itertools.combinations(one.items(), 2))))
        missing -= set(itertools.combinations(best.items(), 2))
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_pair_of_permitted_values_trains(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowbit, "MIN_NARROW_ELEMENTS", 16)
    combinations = covering(permitted_axes(optimizer), seed=0)
    assert len(combinations) >= 12
    for combination in combinations:
        weights = named_weights()
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        train(make(optimizer, weights, refresh_interval=2, **combination), weights, range(4))
        for name, weight in weights.items():
            assert torch.isfinite(weight).all(), (name, combination)
            assert not torch.equal(weight, before[name]), (name, combination)


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: f"{row.optimizer}-{row.key}")
def test_every_row_refuses_with_its_reason(row: Any) -> None:
    assert row.reason.endswith(".")
    for value in row.values:
        assert value in AXES[row.key]
        assert getattr(OPTIMIZERS[row.optimizer].built_in, row.key) != value  # a default cannot be refused
        with pytest.raises(ConfigError) as caught:
            make(row.optimizer, named_weights(), **{row.key: value})
        assert caught.value.code == "E-CFG-014"
        assert row.reason.rstrip(".") in str(caught.value)


def test_refusals_hold_in_any_company() -> None:
    chooser, counts = random.Random(1), {True: 0, False: 0}
    for optimizer in OPTIMIZERS:
        for _ in range(60):
            combination = {key: chooser.choice(values) for key, values in AXES.items()}
            expected = bool(refused(optimizer, combination))
            counts[expected] += 1
            with pytest.raises(ConfigError) if expected else nullcontext():
                make(optimizer, named_weights(), **combination)
    assert min(counts.values()) > 50


def test_axes_are_all_settings_with_choices() -> None:
    numbers = {"refresh_interval", "scale", "seed"}
    assert set(AXES) == set(ProjectionSettings.__slots__) - numbers

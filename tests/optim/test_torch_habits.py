"""What people do with any optimizer of torch holds for ours, or is refused in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, backward, gradients, make, named_weights, train
from torch import nn

from subspace.core.errors import ConfigError, SubspaceError
from subspace.optim import GaLoreAdamW, groups_from_galore

KINDS = sorted(OPTIMIZERS)


def two_weights() -> dict[str, nn.Parameter]:
    return named_weights({"one": (24, 10), "two": (24, 10)})


@pytest.mark.parametrize("update", ["after_backward", "in_backward"])
def test_groups_may_change_places(update: str) -> None:
    weights = two_weights()
    groups = [{"params": [(name, weight)], "rank": 3} for name, weight in weights.items()]
    optimizer = GaLoreAdamW(groups, lr=1e-2, update=update)
    optimizer.param_groups.reverse()
    optimizer.param_groups[0]["lr"] = 0.0  # of `two`
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    train(optimizer, weights, range(3))
    assert torch.equal(weights["two"], before["two"])
    assert not torch.equal(weights["one"], before["one"])


def test_a_parameter_put_into_a_group_by_hand_is_not_passed_over() -> None:
    weights = two_weights()
    optimizer = make("ProjectedAdamW", weights)
    optimizer.param_groups[0]["params"][0] = nn.Parameter(weights["one"].detach().clone())
    with pytest.raises(SubspaceError, match=r"E-MTH-001 parameter group 0: .*\(24, 10\)"):
        optimizer.step()


def test_groups_of_a_used_optimizer_keep_their_options() -> None:
    weights = two_weights()
    used = make("ProjectedAdamW", weights, scale=0.5, refresh_interval=7)
    taken = GaLoreAdamW([dict(group) for group in used.param_groups])
    settings = next(iter(taken.slots.values())).settings
    assert (settings.scale, settings.refresh_interval) == (0.5, 7)


@pytest.mark.parametrize("kind", ["ProjectedAdamW", "ResidualAdamW"])
def test_frozen_parameters_may_be_given_and_unfrozen(kind: str) -> None:
    weights = two_weights()
    weights["two"].requires_grad_(False)
    optimizer = make(kind, weights, update="in_backward")
    frozen = weights["two"].detach().clone()
    backward([weights["one"]], gradients([weights["one"]], 0))
    optimizer.step()
    assert torch.equal(weights["two"], frozen)
    weights["two"].requires_grad_(True)
    train(optimizer, weights, range(1, 3))
    assert not torch.equal(weights["two"], frozen)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_gradients_are_refused(kind: str) -> None:
    embedding = nn.Embedding(24, 10, sparse=True)
    (parameter,) = embedding.parameters()
    optimizer = make(kind, {"embedding": parameter})
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(SubspaceError, match="E-MTH-001 parameter embedding: a sparse gradient"):
        optimizer.step()


def test_sparse_gradients_of_plain_parameters_are_refused() -> None:
    embedding = nn.Embedding(24, 10, sparse=True)
    for kind in KINDS:
        optimizer: Any = OPTIMIZERS[kind]([{"params": [("embedding", embedding.weight)]}], lr=1e-2)
        embedding(torch.tensor([1, 2])).sum().backward()
        with pytest.raises(SubspaceError, match="E-MTH-001 parameter embedding: a sparse gradient"):
            optimizer.step()


def test_complex_parameters_are_refused() -> None:
    with pytest.raises(SubspaceError, match=r"E-MTH-001 .*complex64"):
        GaLoreAdamW([nn.Parameter(torch.zeros(24, 10, dtype=torch.complex64))], rank=3)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0},
        {"lr": float("nan")},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"eps": -1e-8},
        {"weight_decay": -0.1},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        GaLoreAdamW([*two_weights().values()], rank=3, **options)
    assert caught.value.code == "E-CFG-009"


@pytest.mark.parametrize("key", ["update_proj_gap", "proj_type", "scale_type"])
def test_keys_of_other_packages_are_not_passed_over(key: str) -> None:
    groups = [{"params": [*two_weights().values()], "rank": 3, key: "std"}]
    with pytest.raises(ConfigError, match="groups_from_galore") as caught:
        GaLoreAdamW(groups)
    assert caught.value.code == "E-CFG-007"
    if key == "proj_type":
        GaLoreAdamW(groups_from_galore(groups))

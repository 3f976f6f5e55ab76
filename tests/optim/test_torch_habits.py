"""What people do with any optimizer of torch holds for ours, or is refused in words."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, backward, gradients, make, named_weights, train
from torch import nn

from subspace.core.errors import CheckpointError, ConfigError, SubspaceError
from subspace.optim import GaLoreAdamW, groups_from_galore
from subspace.optim.refusals import refused
from subspace.optim.settings import ProjectionSettings
from subspace.optim.state_io import pack, unpack

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


def through_torch(old: Any, new: Any) -> None:
    new.load_state_dict(old.state_dict())


def through_safetensors(old: Any, new: Any) -> None:
    unpack(new, *pack(old))


def stepped(kind: str, **options: Any) -> tuple[dict[str, nn.Parameter], Any]:
    weights = named_weights()
    optimizer = make(kind, weights, **options)
    train(optimizer, weights, range(3))
    return weights, optimizer


def through_pickle(both: Any) -> Any:
    return pickle.loads(pickle.dumps(both))


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {}) for kind in KINDS]
    + [("ProjectedAdamW", {"update": "in_backward"}), ("ResidualAdamW", {"update": "in_backward"})],
)
def test_a_copy_goes_on_like_the_original(kind: str, options: dict[str, Any], copied: Callable[[Any], Any]) -> None:
    weights, optimizer = stepped(kind, refresh_interval=2, **options)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)  # wraps step
    others, other = copied((weights, optimizer))
    train(other, others, range(3, 6))
    assert not torch.equal(weights["tall"], others["tall"])
    train(optimizer, weights, range(3, 6))
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name


@pytest.mark.parametrize("kind", ["ProjectedAdamW", "ResidualAdamW"])
def test_an_optimizer_that_is_gone_takes_no_gradients(kind: str) -> None:
    weights, first = stepped(kind, update="in_backward")
    alive = weakref.ref(weights["tall"])
    del first
    before = weights["tall"].detach().clone()
    backward([weights["tall"]], gradients([weights["tall"]], 3))
    assert weights["tall"].grad is not None
    assert torch.equal(weights["tall"], before)
    train(make(kind, weights, update="in_backward"), weights, range(3, 5))
    assert not torch.equal(weights["tall"], before)
    del weights
    assert alive() is None  # at once, not when cycles are collected


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"rank": 2}, "rank 3, here 2"),
        ({"scale": 0.5}, "scale 0.25, here 0.5"),
        ({"side": "longer"}, "side 'shorter', here 'longer'"),
        ({"state_bits": 8}, "state_bits 32, here 8"),
        ({"seed": 1, "refresh_interval": 7}, "refresh_interval 200, here 7; seed 0, here 1"),
    ],
    ids=str,
)
@pytest.mark.parametrize("load", [through_torch, through_safetensors])
def test_state_of_other_options_is_refused(made: dict[str, Any], problem: str, load: Any) -> None:
    _, saved = stepped("ProjectedAdamW")
    weights = named_weights()
    optimizer = make("ProjectedAdamW", weights, **made)
    with pytest.raises(CheckpointError) as caught:
        load(saved, optimizer)
    assert caught.value.code == "E-CKP-005"
    assert problem in str(caught.value)
    assert not optimizer.state


@pytest.mark.parametrize("load", [through_torch, through_safetensors])
def test_state_says_nothing_of_when_updates_run(load: Any) -> None:
    weights, saved = stepped("ProjectedAdamW")
    optimizer = make("ProjectedAdamW", weights, update="in_backward", refresh_from="micro_batch")
    load(saved, optimizer)
    train(optimizer, weights, range(3, 5))


@pytest.mark.parametrize(("kind", "other"), [("ResidualAdamW", "ProjectedAdamW"), ("ProjectedAdamW", "ResidualAdamW")])
def test_state_of_another_kind_is_refused(kind: str, other: str) -> None:
    _, saved = stepped(kind)
    with pytest.raises(CheckpointError, match=r"tall\.limiter_norm missing or of another shape"):
        make(other, named_weights()).load_state_dict(saved.state_dict())


def test_state_of_an_optimizer_of_torch_is_refused() -> None:
    weights = named_weights()
    adamw = torch.optim.AdamW(weights.values())
    backward([*weights.values()], gradients(weights.values(), 0))
    adamw.step()
    optimizer = GaLoreAdamW([{"params": [*weights.values()], "rank": 3}])
    with pytest.raises(CheckpointError, match="state of another kind of optimizer"):
        optimizer.load_state_dict(adamw.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_float64_weights_train(kind: str) -> None:
    weights = {name: nn.Parameter(weight.detach().double()) for name, weight in named_weights().items()}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = make(kind, weights)
    train(optimizer, weights, range(2))
    optimizer.clip_grad_norm_(1.0)
    for name, weight in weights.items():
        assert weight.dtype == torch.float64
        assert torch.isfinite(weight).all()
        assert not torch.equal(weight, before[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_elements_are_no_trouble(kind: str) -> None:
    shapes = {"vector": (0,), "rows": (0, 4), "columns": (4, 0), "no stack": (0, 4, 4), "stack": (2, 0, 3), "one": ()}
    weights = named_weights(shapes)
    train(make(kind, weights), weights, range(2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_of_a_group_is_its_own(kind: str) -> None:
    options: dict[str, Any] = (
        {"basis": "random"} if kind not in ("PlainAdamW", "ProjectedAdafactor") else {"basis": "randomized"}
    )
    ends = []
    wide = refused(kind, ProjectionSettings(fidelity="reference")) is None  # as large as that, paper leaves it plain
    options |= {"fidelity": "reference"} if wide else {}
    rank = 60 if wide else 20
    for seeds in ({"all": 5}, {"group": 5}, {}):
        weights = named_weights({"tall": (90, 70)})
        group = {"params": [*weights.items()], "rank": rank, "state_bits": 8}
        group |= {"seed": seeds["group"]} if "group" in seeds else {}
        optimizer: Any = OPTIMIZERS[kind]([group], lr=1e-2, seed=seeds.get("all", 0), **options)
        train(optimizer, weights, range(3))
        ends.append(weights["tall"].detach())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])

"""The public face of the optimizers: names, signatures and docstrings that a person sees before using one."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, named_weights, train
from torch import nn

import subspace.optim
from subspace.core.errors import ConfigError, MethodError
from subspace.optim import Apollo, ApolloMini, GaLoreAdamW, SophiaG, SubspaceAdamW, described
from subspace.optim.settings import CHOICES, ProjectionSettings

PUBLIC = [name for name in subspace.optim.__all__ if name[0].isupper() and name != "StiefelSteps"]
OPTIONS = {field.name for field in dataclasses.fields(ProjectionSettings)}


def test_every_optimizer_is_public_under_one_name() -> None:
    classes = [getattr(subspace.optim, name) for name in PUBLIC]
    assert set(classes) == set(OPTIMIZERS.values())
    assert [subspace.optim.public_name(kind.__name__) for kind in classes] == PUBLIC
    assert subspace.optim.StiefelSteps.__name__ == "StiefelSteps"


@pytest.mark.parametrize("name", PUBLIC)
def test_the_signature_shows_the_defaults_that_hold(name: str) -> None:
    kind = getattr(subspace.optim, name)
    parameters = inspect.signature(kind).parameters
    assert not [one for one in parameters.values() if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    assert parameters.keys() > OPTIONS | {"params", "lr", "weight_decay", "rank", "preset"}
    weight = nn.Parameter(torch.zeros(24, 10))
    lr = {} if parameters["lr"].default is not None else {"lr": 1e-3}
    optimizer: Any = kind([weight], rank=3, **lr)
    for option in OPTIONS:
        assert getattr(optimizer.settings, option) == parameters[option].default
    for key in optimizer.defaults.keys() & parameters.keys() - lr.keys():
        assert optimizer.defaults[key] == parameters[key].default


@pytest.mark.parametrize("name", PUBLIC)
def test_the_docstring_explains_every_argument(name: str) -> None:
    kind = getattr(subspace.optim, name)
    explained = described.entries(kind.__doc__, "Args")
    assert list(explained) == list(inspect.signature(kind).parameters)
    assert all(text.endswith(".") and len(text) > 8 for text in explained.values()), explained
    assert max(map(len, kind.__doc__.splitlines())) <= 120


def test_the_docstring_lists_the_values_that_a_class_takes() -> None:
    explained = described.entries(SophiaG.__doc__ or "", "Args")
    assert explained["update"].endswith("Only after_backward.")
    assert explained["moments"].endswith("One of keep, zero.")
    assert "root" in described.entries(ApolloMini.__doc__ or "", "Args")["scale"]
    assert set(CHOICES) == OPTIONS - {"refresh_interval", "scale", "full_accumulator", "seed"}


def test_a_class_derived_by_a_user_is_described_and_refuses_what_its_base_refuses() -> None:
    class Mine(Apollo):  # type: ignore[misc]  # lazily imported
        """Mine.

        Args:
            lr: Another rate.
        """

        def __init__(self, params: Any, lr: float = 1e-3, *, unexplained: int = 0, **options: Any) -> None:
            super().__init__(params, lr, **options)

    assert "unexplained" in inspect.signature(Mine).parameters
    assert described.entries(Mine.__doc__ or "", "Args")["lr"] == "Another rate."
    assert inspect.signature(Mine).parameters["scaling"].default is None
    with pytest.raises(ConfigError) as caught:
        Mine([nn.Parameter(torch.zeros(24, 10))], rank=3, side="both")
    assert caught.value.code == "E-CFG-014"
    assert "'both' with Apollo: " in str(caught.value)


@pytest.mark.parametrize("name", PUBLIC)
def test_people_see_the_name_they_wrote(name: str) -> None:
    kind: Any = getattr(subspace.optim, name)
    assert repr(kind([{"params": [nn.Parameter(torch.zeros(24, 10))], "rank": 3}], lr=1e-3)).startswith(f"{name} (")


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_without_a_rank_are_projected_or_refused_or_said_to_be_plain(name: str) -> None:
    kind: Any = getattr(subspace.optim, name)
    weight = nn.Parameter(torch.zeros(24, 10))
    if kind in (SubspaceAdamW, SophiaG):
        assert kind([weight], lr=1e-3).slots[weight].geometry is None
    elif kind is ApolloMini:
        assert kind([weight], lr=1e-3).slots[weight].geometry.rank == 1
    else:
        with pytest.raises(ConfigError) as caught:
            kind([weight], lr=1e-3)
        assert caught.value.code == "E-CFG-011"


def test_apollo_mini_is_apollo_by_tensor() -> None:
    ends = []
    for kind, options in ((ApolloMini, {}), (Apollo, {"scaling": "tensor", "rank": 1, "scale": 128.0})):
        weights = named_weights({"tall": (24, 10)})
        train(kind([*weights.values()], lr=1e-3, **options), weights, range(3))
        ends.append(weights["tall"].detach())
    assert torch.equal(*ends)


def test_updates_in_the_backward_pass_of_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    weight = nn.Parameter(torch.zeros(24, 10))
    GaLoreAdamW([weight], rank=3)
    with pytest.raises(MethodError, match="in several processes"):
        GaLoreAdamW([weight], rank=3, update="in_backward")

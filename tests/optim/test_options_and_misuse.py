"""What is asked for wrongly is refused, presets fit each method, and nothing is projected that saves nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from subspace_runs import OPTIMIZERS, WHOLE
from torch import Tensor, nn

from subspace.core.errors import ConfigError, SubspaceError
from subspace.optim import (
    Apollo,
    ApolloMini,
    FiraAdamW,
    Flora,
    GaLoreAdafactor,
    GaLoreAdamW,
    QGaLoreAdamW,
    SophiaG,
    groups_from_galore,
)

MATRIX = nn.Parameter(torch.zeros(24, 10))


def state_bytes(optimizer: Any) -> int:
    return sum(spec.num_bytes for spec in optimizer.planned_state())


# Updates in the backward pass, by people who use them as they use any optimizer


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 8))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_second_backward_pass_is_no_silent_second_step(kind: str) -> None:
    model = small_net()
    optimizer: Any = OPTIMIZERS[kind](model.parameters(), lr=1e-2, rank=4, update="in_backward")
    for _ in range(2):  # one backward pass a step is what it is for
        model(torch.ones(2, 24)).square().sum().backward()
        optimizer.step()
    model(torch.ones(2, 24)).square().sum().backward()
    before = [value.detach().clone() for value in model.parameters()]
    with pytest.raises(ConfigError, match=r"E-CFG-014 update: .*second gradient.*full_accumulator"):
        model(torch.ones(2, 24)).square().sum().backward()
    assert all(torch.equal(value, old) for value, old in zip(model.parameters(), before, strict=True))
    optimizer.zero_grad()
    model(torch.ones(2, 24)).square().sum().backward()


@pytest.mark.parametrize("kind", sorted(set(OPTIMIZERS) - {"CurvatureClipped"}))
def test_loss_scaling_is_refused_where_gradients_are_used_before_it(kind: str) -> None:
    model = small_net()
    optimizer: Any = OPTIMIZERS[kind](model.parameters(), lr=1e-2, rank=4, update="in_backward")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(model(torch.ones(2, 24)).square().sum()).backward()
    with pytest.raises(ConfigError, match=r"E-CFG-014 update: .*loss scaling.*bfloat16"):
        scaler.step(optimizer)
    optimizer.zero_grad()
    model(torch.ones(2, 24)).square().sum().backward()
    optimizer.step()  # without the scaler it goes on


def test_loss_scaling_works_after_the_backward_pass() -> None:
    models = small_net(), small_net()
    for scale, model in zip((1.0, 1024.0), models, strict=True):
        optimizer = GaLoreAdamW(model.parameters(), lr=1e-2, rank=4)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for _ in range(3):
            scaler.scale(model(torch.ones(2, 24)).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


# Presets


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_small_is_never_larger_and_fast_is_not_either(kind: str) -> None:
    sizes = {}
    for preset in ("paper", "fast", "small"):
        weights = [nn.Parameter(torch.zeros(256, 128)), nn.Parameter(torch.zeros(96, 128))]
        optimizer = OPTIMIZERS[kind]([{"params": weights, "rank": 16}], lr=1e-2, preset=preset)
        sizes[preset] = state_bytes(optimizer)
    assert sizes["small"] <= sizes["fast"] <= sizes["paper"]
    assert sizes["small"] < sizes["paper"] or kind in (
        "QuantizedProjectedAdamW",
        "TensorScaledAdamW",
        "ProjectedAdafactor",
    )


def test_a_preset_leaves_what_makes_the_method() -> None:
    def settings(kind: Any, preset: str) -> Any:
        return kind([MATRIX], lr=1e-2, rank=2, preset=preset).settings

    for kind in (Apollo, ApolloMini, Flora):
        assert settings(kind, "fast") == settings(kind, "paper")
        small = settings(kind, "small")
        assert (small.basis, small.refresh, small.state_bits) == ("random", "interval", 8)
    for preset in ("fast", "small"):
        found = settings(QGaLoreAdamW, preset)
        assert (found.basis, found.refresh, found.state_bits, found.basis_bits) == ("warm", "adaptive", 8, 4)
    found = settings(GaLoreAdamW, "small")
    assert (found.basis, found.refresh, found.state_bits) == ("warm", "staggered", 8)
    assert settings(lambda *args, **more: GaLoreAdamW(*args, state_bits=4, **more), "paper").state_bits == 4


# Where projection saves nothing


@pytest.mark.parametrize(
    ("shape", "rank", "bits", "projected"),
    [
        ((512, 512), 128, 32, True),
        ((512, 512), 128, 8, True),
        ((512, 512), 128, 4, False),
        ((512, 512), 256, 8, False),
        ((896, 896), 384, 32, True),
        ((896, 896), 384, 8, False),
        ((344, 128), 64, 4, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [GaLoreAdamW, FiraAdamW])
def test_projection_has_to_save_bytes(kind: Any, shape: tuple[int, int], rank: int, bits: int, projected: bool) -> None:
    with torch.device("meta"):
        weight = nn.Parameter(torch.zeros(shape))
    optimizer = kind([weight], lr=1e-2, rank=rank, state_bits=bits)
    plain = kind([{"params": [weight]}], lr=1e-2, state_bits=bits)
    assert (optimizer.slots[weight].geometry is not None) == projected
    assert state_bytes(optimizer) < state_bytes(plain) if projected else state_bytes(optimizer) == state_bytes(plain)


def test_bases_of_four_bits_count_as_such() -> None:
    weight = nn.Parameter(torch.zeros(512, 512))
    assert GaLoreAdamW([weight], lr=1e-2, rank=128, state_bits=4, basis_bits=4).slots[weight].geometry is not None


# Words for what is wrong


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rank": 0}, "E-CFG-016 rank: 0; expected an integer of 1 or more"),
        ({"rank": 4.5}, "E-CFG-016 rank: 4.5"),
        ({"rank": "4"}, "E-CFG-016 rank: '4'"),
        ({"rank": True}, "E-CFG-016 rank: True"),
        ({"scale": "x"}, "E-CFG-010 optimizer.scale: 'x'; expected a number"),
        ({"scale": float("nan")}, "E-CFG-009 optimizer.scale: nan"),
        ({"refresh_interval": "a"}, "E-CFG-010 optimizer.refresh_interval: 'a'; expected an integer"),
        ({"refresh_interval": 2.5}, "E-CFG-010 optimizer.refresh_interval: 2.5; expected an integer"),
        ({"refresh_interval": True}, "E-CFG-010 optimizer.refresh_interval: True"),
        ({"seed": "x"}, "E-CFG-010 optimizer.seed: 'x'; expected an integer"),
        ({"full_accumulator": "yes"}, "E-CFG-010 optimizer.full_accumulator: 'yes'; expected True or False"),
        ({"state_bits": True}, "E-CFG-010 optimizer.state_bits: True"),
        ({"lr": "a"}, "E-CFG-010 lr: 'a'; expected a number"),
        ({"betas": 0.9}, "E-CFG-010 betas: 0.9; expected two numbers"),
        ({"betas": (0.9,)}, "E-CFG-010 betas: (0.9,); expected two numbers"),
        ({"eps": "small"}, "E-CFG-010 eps: 'small'; expected a number"),
        ({"weight_decay": "no"}, "E-CFG-010 weight_decay: 'no'; expected a number"),
    ],
    ids=str,
)
def test_values_of_the_wrong_kind(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        GaLoreAdamW([MATRIX], **{"lr": 1e-3, "rank": 4} | given)


def test_one_is_a_number_and_no_flag() -> None:
    optimizer = GaLoreAdamW([MATRIX], lr=torch.tensor(1e-3), rank=1, refresh_interval=1, scale=1, seed=1)  # type: ignore[arg-type]
    assert (optimizer.settings.refresh_interval, optimizer.settings.scale) == (1, 1)


@pytest.mark.parametrize(
    ("key", "close"),
    [("refesh_interval", "refresh_interval"), ("scal", "scale"), ("weight_deacy", "weight_decay"), ("ranks", "rank")],
)
def test_a_misspelt_key_of_a_group(key: str, close: str) -> None:
    with pytest.raises(ConfigError, match=f"E-CFG-007 group.{key}: no such option. Did you mean '{close}'"):
        GaLoreAdamW([{"params": [MATRIX], "rank": 4, key: 5}], lr=1e-3)


@pytest.mark.parametrize(
    "key",
    ["momentum", "beta1", "beta2", "no_weight_decay", "weight_decay_mult", "apply_weight_decay", "fresh", "reset"],
)
def test_keys_of_other_optimizers_are_no_misspelt_ones(key: str) -> None:
    assert GaLoreAdamW([{"params": [MATRIX], "rank": 4, key: 0.5}], lr=1e-3).param_groups[0][key] == 0.5


def test_numbers_of_numpy_are_numbers_and_are_saved_as_ours() -> None:
    options: dict[str, Any] = {
        "lr": np.float32(1e-3),
        "rank": np.int64(4),
        "betas": [np.float32(0.9), np.float64(0.99)],
        "eps": np.float32(1e-8),
        "weight_decay": np.float32(0.1),
        "refresh_interval": np.int64(5),
        "scale": np.float32(0.25),
        "seed": np.int64(3),
    }
    optimizer = GaLoreAdamW([MATRIX], **options)
    group = optimizer.param_groups[0]
    kept = [
        *(group[key] for key in ("lr", "rank", "eps", "weight_decay")),
        *group["betas"],
        *group["settings"].values(),
    ]
    assert {type(value) for value in kept} <= {int, float, str, bool}
    json.dumps({key: value for key, value in group.items() if key != "params"})


def test_other_keys_of_a_group_are_its_owner_s() -> None:
    optimizer = GaLoreAdamW(
        [{"params": [MATRIX], "rank": 4, "initial_lr": 1.0, "name": "all", "lr_scale": 0.5}], lr=1e-3
    )
    assert optimizer.param_groups[0]["name"] == "all"


def test_groups_of_q_galore() -> None:
    theirs = {"rank": 4, "update_proj_gap": 50, "scale": 0.25, "proj_type": "std", "quant": True, "quant_n_bit": 4}
    theirs |= {"quant_group_size": 256, "cos_threshold": 0.4, "gamma_proj": 2, "queue_size": 5}
    (ours,) = groups_from_galore([{"params": [MATRIX], **theirs}])
    QGaLoreAdamW([ours], lr=1e-3)
    assert {key: value for key, value in ours.items() if key != "params"} == {
        "rank": 4, "refresh_interval": 50, "scale": 0.25, "side": "shorter", "basis_bits": 4,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"E-CFG-010 queue_size: 9; expected 5, which is fixed"):
        groups_from_galore([{"params": [MATRIX], **theirs, "queue_size": 9}])
    with pytest.raises(ConfigError, match=r"E-CFG-007 group.update_proj_gp: .*Did you mean 'update_proj_gap'"):
        groups_from_galore([{"params": [MATRIX], "rank": 4, "update_proj_gp": 200}])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Flora([MATRIX], 1e-3, betas=(0.9, 0.999), rank=4), "E-CFG-007 betas: .*beta1"),
        (lambda: GaLoreAdafactor([MATRIX], 1e-3, betas=(0.9, 0.999), rank=4), "E-CFG-007 betas: .*beta1"),
        (lambda: SophiaG([MATRIX], 1e-3, eps=1e-8), "E-CFG-007 eps: .*rho"),
        (lambda: GaLoreAdamW(nn.Linear(4, 4), lr=1e-3, rank=2), "E-MTH-001 params: a model, Linear.*parameters()"),
        (
            lambda: QGaLoreAdamW([MATRIX], lr=1e-3, rank=2, fidelity="reference"),
            "E-CFG-014 fidelity: .*another library",
        ),
        (lambda: SophiaG([MATRIX], lr=1e-3, fidelity="reference"), "E-CFG-014 fidelity: .*generator"),
    ],
)
def test_arguments_that_others_have(make: Any, told: str) -> None:
    with pytest.raises(SubspaceError, match=told):
        make()


def test_positional_arguments_of_others_are_not_taken_for_eps() -> None:
    for kind in (Flora, GaLoreAdafactor):
        with pytest.raises(TypeError, match="positional"):
            kind([MATRIX], 1e-3, (0.9, 0.999), rank=4)  # type: ignore[misc]


def test_state_of_an_adaptive_interval_is_planned_and_carried() -> None:
    weight = nn.Parameter(torch.randn(24, 10))
    optimizer = GaLoreAdamW([weight], lr=1e-2, rank=3, refresh_interval=2, refresh="adaptive")
    for _ in range(6):
        weight.grad = torch.randn(24, 10)
        optimizer.step()
    held = sum(
        value.numel() * value.element_size() for value in optimizer.state[weight].values() if isinstance(value, Tensor)
    )
    assert state_bytes(optimizer) == held
    again = GaLoreAdamW([weight], lr=1e-2, rank=3, refresh_interval=2, refresh="adaptive")
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(again.state[weight]["overlaps"], optimizer.state[weight]["overlaps"])
    assert (again.state[weight]["overlaps"] >= 0).sum() == 2

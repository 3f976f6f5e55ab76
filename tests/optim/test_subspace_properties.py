"""What must hold of subspace optimizers whatever the numbers: rotations, signs, stacks, expectations, fallbacks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from subspace_runs import OPTIMIZERS, gradients, make, train
from torch import Tensor, nn

from subspace.core.errors import ConfigError
from subspace.optim import Apollo, FiraAdamW, GaLoreAdamW, SubspaceAdamW, groups_from_galore, refresher, together
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.limiter import limited
from subspace.optim.refusals import refused
from subspace.optim.settings import ProjectionSettings
from subspace.optim.sketched import SketchedAdafactor

Weights = dict[str, nn.Parameter]


def weights_of(**shapes: tuple[int, ...]) -> Weights:
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator) / 10) for name, shape in shapes.items()}


def difference(first: Tensor, second: Tensor) -> float:
    return float((first.detach() - second.detach()).abs().max())


# Coordinates


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)], ids=str)
def test_at_full_rank_it_is_adamw_in_rotated_coordinates(shape: tuple[int, int]) -> None:
    weights = weights_of(one=shape)
    optimizer = GaLoreAdamW(
        [weights["one"]], lr=1e-2, eps=1e-12, rank=99, scale=1.0, refresh_interval=10**6, fidelity="reference"
    )
    rotated: nn.Parameter | None = None
    adamw: torch.optim.Optimizer | None = None
    start = weights["one"].detach().clone()
    for step in range(20):
        weights["one"].grad = gradient = gradients(weights.values(), step)[0]
        optimizer.step()
        slot = optimizer.slots[weights["one"]]
        projector = optimizer.projector(slot, optimizer.state[weights["one"]])
        if rotated is None or adamw is None:
            rotated = nn.Parameter(projector.project(start))
            adamw = torch.optim.AdamW([rotated], lr=1e-2, eps=1e-12, weight_decay=0.0)
        rotated.grad = projector.project(gradient)
        adamw.step()
        assert difference(projector.lift(rotated.detach()), weights["one"]) < 2e-6


@pytest.mark.parametrize("kind", ["ProjectedAdamW", "ResidualAdamW", "ChannelScaledAdamW", "CurvatureClipped"])
def test_signs_of_a_basis_change_nothing_while_it_is_in_force(kind: str) -> None:
    runs = []
    for flip in (False, True):
        weights = weights_of(tall=(24, 10), wide=(10, 24))
        optimizer = make(kind, weights, refresh_interval=1000, basis="svd")
        train(optimizer, weights, range(1))
        if flip:  # after one step: the moments' coordinates turn with the basis
            for weight in weights.values():
                state, right = optimizer.state[weight], optimizer.slots[weight].geometry.side == "right"  # type: ignore[union-attr]
                state["basis"][:, 1] *= -1
                (state["exp_avg"][:, 1] if right else state["exp_avg"][1]).mul_(-1)
        train(optimizer, weights, range(1, 8))
        runs.append(weights)
    for name in runs[0]:
        assert difference(runs[0][name], runs[1][name]) == 0.0


@pytest.mark.parametrize("side", ["shorter", "both"])
@pytest.mark.parametrize("moments", ["transport", "zero", "keep"])
def test_transported_moments_do_not_see_the_sign_of_a_new_basis(
    moments: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept moments do: with them another library's choice of signs is another run."""
    original, runs = refresher.find_bases, []

    def flipped(*args: Any) -> list[tuple[Tensor, ...]]:
        found = original(*args)
        for bases in found:
            for basis in bases:
                basis[..., ::2] *= -1
        return found

    calls = 0

    def flipped_every_other(*args: Any) -> list[tuple[Tensor, ...]]:
        nonlocal calls
        calls += 1
        return flipped(*args) if calls % 2 else original(*args)

    for find in (original, flipped_every_other):
        monkeypatch.setattr(refresher, "find_bases", find)
        weights = weights_of(tall=(24, 10))
        train(make("ProjectedAdamW", weights, refresh_interval=3, moments=moments, side=side), weights, range(12))
        runs.append(weights["tall"])
    assert calls == 4
    if moments == "keep":
        assert difference(*runs) > 1e-4
    else:
        assert difference(*runs) < 1e-6


# Stacks and convolutions

STACKABLE = [name for name in OPTIMIZERS if name != "SketchedAdafactor"]  # its momentum is whole for a stack


@pytest.mark.parametrize(
    ("kind", "fidelity"),
    [
        (kind, settings.fidelity)
        for kind in STACKABLE
        for settings in (ProjectionSettings(), ProjectionSettings(fidelity="reference"))
        if refused(kind, settings) is None
    ],
)
def test_a_stack_of_experts_is_its_matrices(kind: str, fidelity: str) -> None:
    stack = weights_of(experts=(3, 10, 12))
    single = {str(i): nn.Parameter(matrix.clone()) for i, matrix in enumerate(stack["experts"].detach())}
    options: dict[str, Any] = {"refresh_interval": 3, "basis": "svd", "state_bits": 32, "fidelity": fidelity}
    options |= {"refresh": "interval", "basis_bits": 32, "weight_decay": 0.1}
    optimizers = make(kind, stack, **options), make(kind, single, **options)
    for step in range(8):
        gradient = gradients(stack.values(), step)[0] * torch.tensor([1.0, 30.0, 0.1])[:, None, None]
        stack["experts"].grad = gradient
        for matrix, its in zip(single.values(), gradient, strict=True):
            matrix.grad = its.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(slot.geometry is not None for optimizer in optimizers for slot in optimizer.slots.values())
    assert difference(stack["experts"], torch.stack(list(single.values()))) < 1e-6


@pytest.mark.parametrize("kind", STACKABLE)
def test_a_convolution_is_its_flattened_matrix(kind: str) -> None:
    kernel = weights_of(kernel=(12, 3, 2, 2))
    if kind == "ProjectedAdamW":  # another order in memory is the same weight
        kernel["kernel"] = nn.Parameter(kernel["kernel"].detach().to(memory_format=torch.channels_last))
    flat = {"flat": nn.Parameter(kernel["kernel"].detach().reshape(12, 12).clone())}
    for weights in (kernel, flat):
        optimizer = make(kind, weights, refresh_interval=3)
        assert all(slot.geometry is not None for slot in optimizer.slots.values())
        for step in range(6):
            given = gradients([torch.empty(12, 12)], step)[0]
            for weight in weights.values():
                weight.grad = given.view(weight.shape).clone()
            optimizer.step()
    assert difference(kernel["kernel"].reshape(12, 12), flat["flat"]) < 1e-6


@pytest.mark.parametrize("kind", ["ProjectedAdamW", "ResidualAdamW", "ChannelScaledAdamW", "ProjectedAdafactor"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_batched_products_of_a_bundle_are_the_single_ones(
    kind: str, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other devices than the CPU run a bundle of weights as one product; here the CPU does."""
    runs = []
    for devices in (set(), {"cpu"}):
        monkeypatch.setattr(together, "LAUNCHING_DEVICES", devices)
        weights = weights_of(one=(24, 10), two=(24, 10), three=(24, 10), other=(10, 24))
        train(make(kind, weights, refresh_interval=3, side=side, weight_decay=0.1), weights, range(7))
        runs.append(weights)
    assert max(difference(runs[0][name], runs[1][name]) for name in runs[0]) < 1e-6


# Random projections


def test_floras_projection_is_the_identity_in_the_mean() -> None:
    weight = nn.Parameter(torch.zeros(6, 4))
    optimizer = SketchedAdafactor([weight], lr=1e-2, rank=3)
    slot, given = optimizer.slots[weight], gradients([weight], 0)[0]
    draws = 4000
    total = torch.zeros(6, 4)
    for seed in range(draws):
        projector = optimizer.projector(slot, {"basis_seed": seed})
        total += projector.lift(projector.project(given))
    noise = float(given.norm()) * (4 / 3 / draws) ** 0.5
    assert difference(total / draws, given) < 4 * noise
    assert 4 * noise < 0.5 * float(given.abs().max())


def test_apollos_steps_are_inverse_to_the_size_of_its_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam's direction does not see the size, the norm that divides it does: N(0, 1/r) is a part of the method."""
    changes = []
    for factor in (1.0, 8.0):
        original = Apollo.projector

        def projector(self: Any, slot: Any, state: Any, original: Any = original, factor: float = factor) -> Any:
            found = original(self, slot, state)
            found.right.mul_(factor)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Apollo, "projector", projector)
            weights = weights_of(tall=(24, 10))
            before = weights["tall"].detach().clone()
            train(make("ChannelScaledAdamW", weights, refresh_interval=3), weights, range(8))
        changes.append((weights["tall"].detach() - before) * factor)
    assert difference(*changes) < 1e-5 < float(changes[0].abs().max()) / 1000


# The limiter


@given(st.lists(st.floats(0.0, 1e6, width=32), min_size=2, max_size=20), st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_norm_never_grows_by_more_than_one_percent(norms: list[float], official: bool) -> None:
    state = {"step": 0, "limiter_norm": torch.zeros(())}
    before = None
    for norm in norms:
        factor = limited(state, torch.tensor(norm), official=official)
        state["step"] += 1
        result = float(factor) * norm
        assert 0.0 <= float(factor) <= 1.0 + 1e-6
        if before is not None:
            assert result <= 1.01 * (before + 1e-8) * (1 + 1e-5)
            if norm <= before:
                assert float(factor) == pytest.approx(1.0)
        if official or result > 0:
            before = result
        assert before is None or float(state["limiter_norm"]) == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("kind", ["ResidualAdamW", "ChannelScaledAdamW"])
@pytest.mark.parametrize("fidelity", ["paper", "reference"])
def test_updates_outside_the_subspace_grow_slowly(kind: str, fidelity: str) -> None:
    """Gradients grow tenfold at once; what the limiter lets through does not, correction of early steps aside."""
    weights = weights_of(tall=(24, 10))
    optimizer = make(kind, weights, refresh_interval=1000, fidelity=fidelity, betas=(0.0, 0.0), basis="svd")
    sizes = []
    for step in range(12):
        before = weights["tall"].detach().clone()
        weights["tall"].grad = gradients(weights.values(), 0)[0] * (10.0 if step > 5 else 1.0) * (1 + 0.05 * step)
        slot, state = optimizer.slots[weights["tall"]], optimizer.state[weights["tall"]]
        optimizer.step()
        change = weights["tall"].detach() - before
        if kind == "ResidualAdamW":
            projector = optimizer.projector(slot, state)
            change = change - projector.lift(projector.project(change))
        sizes.append(float(change.norm()))
    ratios = [after / before for before, after in pairwise(sizes)]
    assert max(ratios) <= 1.011


# Fallback and groups


def test_weights_that_projection_would_not_make_smaller_are_plain_adamw() -> None:
    weights = weights_of(key=(16, 32), tall=(64, 32))
    optimizer = SubspaceAdamW([*weights.values()], lr=1e-2, eps=1e-8, weight_decay=0.1, rank=16)
    projected = [slot.name for slot in optimizer.slots.values() if slot.geometry is not None]
    assert projected == ["1"]
    single = {"key": nn.Parameter(weights["key"].detach().clone())}
    adamw = torch.optim.AdamW(single.values(), lr=1e-2, eps=1e-8, weight_decay=0.1)
    for step in range(10):
        for weight, gradient in zip(weights.values(), gradients(weights.values(), step), strict=True):
            weight.grad = gradient
        single["key"].grad = weights["key"].grad
        optimizer.step()
        adamw.step()
    assert difference(weights["key"], single["key"]) < 1e-7
    assert set(optimizer.state[weights["key"]]) == {"step", "exp_avg", "exp_avg_sq"}


def test_official_codes_project_whatever_they_are_told_to() -> None:
    weights = weights_of(key=(16, 32))
    optimizer = GaLoreAdamW([weights["key"]], rank=16, fidelity="reference")
    assert optimizer.slots[weights["key"]].geometry is not None


def test_staggered_weights_take_turns() -> None:
    weights = {str(i): weight for i, weight in enumerate(weights_of(**{f"w{i}": (24, 10) for i in range(4)}).values())}
    optimizer = make("ProjectedAdamW", weights, refresh="staggered", refresh_interval=8)
    turns: dict[int, list[str]] = {}
    find = optimizer.refresher.find

    def noting(slots: Any, states: Any, betas: Any) -> None:
        turns.setdefault(states[0]["step"], []).extend(slot.name for slot in slots)
        find(slots, states, betas)

    optimizer.refresher.find = noting  # type: ignore[method-assign]
    train(optimizer, weights, range(17))
    assert turns == {
        0: ["0", "1", "2", "3"],  # nothing works without a basis
        2: ["1"],
        4: ["2"],
        6: ["3"],
        8: ["0"],
        10: ["1"],
        12: ["2"],
        14: ["3"],
        16: ["0"],
    }


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (
            {"rank": 4, "update_proj_gap": 50, "scale": 0.25, "proj_type": "std"},
            {"rank": 4, "refresh_interval": 50, "scale": 0.25, "side": "shorter"},
        ),
        ({"rank": 4, "proj_type": "reverse_std", "dim": 2}, {"rank": 4, "side": "longer"}),
        (
            {"rank": 4, "proj_type": "full", "alpha": 0.5, "lr": 1e-3},
            {"rank": 4, "side": "both", "scale": 0.5, "lr": 1e-3},
        ),
        ({"rank": 4, "proj_type": "left", "proj": "svd"}, {"rank": 4, "side": "left", "basis": "svd"}),
        ({"weight_decay": 0.1}, {"weight_decay": 0.1}),
    ],
)
def test_groups_of_other_packages(group: dict[str, Any], expected: dict[str, Any]) -> None:
    weight = nn.Parameter(torch.zeros(24, 10))
    original = {"params": [weight], **group}
    translated = groups_from_galore([original])
    assert translated == [{"params": [weight], **expected}]
    assert original == {"params": [weight], **group}
    optimizer = FiraAdamW(translated) if group.get("proj_type") != "full" else GaLoreAdamW(translated)
    slot = optimizer.slots[weight]
    assert (slot.geometry is not None) == ("rank" in group)
    for key in ("refresh_interval", "scale", "side", "basis"):
        if key in expected:
            assert getattr(slot.settings, key) == expected[key]


@pytest.mark.parametrize(
    ("group", "code"),
    [
        ({"proj_type": "diagonal"}, "E-CFG-010"),
        ({"proj": "sparse"}, "E-CFG-010"),
        ({"scale_type": "channel"}, "E-CFG-014"),
    ],
)
def test_groups_that_cannot_be_translated(group: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        groups_from_galore([{"params": [], **group}])
    assert caught.value.code == code


def test_misuse_is_refused_in_words() -> None:
    weight = nn.Parameter(torch.zeros(24, 10))
    for code, options in {
        "E-CFG-007": {"interval": 3},
        "E-CFG-009": {"refresh_interval": 0},
        "E-CFG-010": {"basis": "fourier"},
        "E-CFG-014": {"preset": "fast", "basis": "svd"},
    }.items():
        with pytest.raises(ConfigError) as caught:
            GaLoreAdamW([weight], rank=3, **options)
        assert caught.value.code == code
    with pytest.raises(ConfigError) as caught:
        GaLoreAdamW([{"params": [weight], "rank": 3}], rank=3)
    assert caught.value.code == "E-CFG-014"


def test_a_group_has_its_own_options_rates_and_schedule() -> None:
    weights = weights_of(one=(24, 10), two=(24, 10))
    optimizer: SubspaceOptimizer = GaLoreAdamW(
        [
            {"params": [weights["one"]], "rank": 2, "side": "left", "lr": 0.0},
            {"params": [weights["two"]], "rank": 5, "preset": "small"},
        ],
        lr=1e-2,
    )
    first, second = optimizer.slots.values()
    assert (first.settings.side, first.geometry and first.geometry.rank) == ("left", 2)
    assert (second.settings.basis, second.settings.state_bits, second.geometry and second.geometry.rank) == (
        "warm",
        8,
        5,
    )
    before = [weight.detach().clone() for weight in weights.values()]
    train(optimizer, weights, range(2))
    assert torch.equal(weights["one"], before[0])
    assert not torch.equal(weights["two"], before[1])
    optimizer.param_groups[1]["lr"] = 0.0
    between = weights["two"].detach().clone()
    train(optimizer, weights, range(2, 4))
    assert torch.equal(weights["two"], between)

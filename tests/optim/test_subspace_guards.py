"""Gradients that are zero or not finite: weights stay finite, bases orthonormal, and training goes on afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, SHAPES, WHOLE, gradients, make
from torch import Tensor, nn

from subspace.linalg.decompose import orthonormality_error
from subspace.optim import GaLoreAdamW, guards

NAN, INFINITE = float("nan"), float("inf")
MATRICES = {name: shape for name, shape in SHAPES.items() if len(shape) > 1}
INTERVAL, STEPS = 3, 8


def run(kind: str, faults: dict[int, float], update: str = "after_backward", **options: Any) -> dict[str, nn.Parameter]:
    """Train on gradients that are `value`, wholly or (if it is not finite) in one entry, at the steps of `faults`."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in MATRICES.items()}
    optimizer = make(kind, weights, refresh_interval=INTERVAL, update=update, **options)
    for step in range(STEPS):
        given = gradients(weights.values(), step)
        if step in faults:
            for gradient in given:
                if faults[step] == 0.0:
                    gradient.zero_()
                else:
                    gradient.view(-1)[3] = faults[step]
        losses = [(weight * gradient).sum() for weight, gradient in zip(weights.values(), given, strict=True)]
        torch.stack(losses).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        for name, weight in weights.items():
            if kind == "SketchedAdafactor" and len(MATRICES[name]) != 2:
                continue  # not projected: as with torch's optimizers
            assert torch.isfinite(weight).all(), (name, step)
            for key in ("basis", "basis_right"):
                if key in optimizer.state[weight]:
                    error = float(orthonormality_error(optimizer.state[weight][key]))
                    assert error < 1e-5, (name, step, key)
    return weights


FAULTS = {
    "zero at first": {0: 0.0},
    "zero at first, twice": {0: 0.0, 1: 0.0},
    "zero at a refresh": {3: 0.0},
    "zero between": {4: 0.0},
    "NaN at first": {0: NAN},
    "NaN at a refresh": {3: NAN},
    "NaN between": {4: NAN},
    "infinite at first": {0: INFINITE},
    "infinite at a refresh": {3: INFINITE},
    "always zero": dict.fromkeys(range(STEPS), 0.0),
}


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_weights_and_bases_survive(kind: str, faults: str) -> None:
    weights = run(kind, FAULTS[faults], basis_bits=32)  # of 4 bits they are orthonormal only roughly
    if faults != "always zero":
        assert not torch.equal(weights["tall"], run(kind, {}, basis_bits=32)["tall"])


@pytest.mark.parametrize("update", ["after_backward", "in_backward"])
@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("faults", ["NaN at first", "NaN between", "infinite at a refresh"])
def test_weights_survive_where_the_host_must_not_wait(
    kind: str, faults: str, update: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of other devices, with the same result as that of the CPU."""
    wanted = run(kind, FAULTS[faults], update=update)
    monkeypatch.setattr(guards, "_HOST_READS", set())
    found = run(kind, FAULTS[faults], update=update)
    assert all(torch.equal(found[name].nan_to_num(7.0), weight.nan_to_num(7.0)) for name, weight in wanted.items())


def test_no_value_is_read_where_the_host_must_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device there is none to be read."""
    gradient = torch.empty(24, 10, device="meta")
    assert guards.finite_part(gradient) is gradient
    monkeypatch.setattr(guards, "_HOST_READS", {"meta"})
    with pytest.raises(RuntimeError, match="meta"):
        guards.finite_part(gradient)


@pytest.mark.parametrize("kind", ["ProjectedAdamW", "ResidualAdamW", "ChannelScaledAdamW"])
@pytest.mark.parametrize("faults", ["NaN at first", "NaN at a refresh", "zero between"])
def test_weights_and_bases_survive_in_the_backward_pass(kind: str, faults: str) -> None:
    run(kind, FAULTS[faults], update="in_backward")


@pytest.mark.parametrize("basis", ["svd", "gram", "randomized", "warm", "random"])
@pytest.mark.parametrize("faults", ["zero at first", "NaN at a refresh"])
def test_every_basis_survives(basis: str, faults: str) -> None:
    run("ProjectedAdamW", FAULTS[faults], basis=basis, side="both")


def states_after(kind: str, given: list[Tensor], **options: Any) -> list[dict[str, Any]]:
    """Return copies of the state of one weight after each step."""
    weight = nn.Parameter(torch.zeros(given[0].shape))
    optimizer = make(kind, {"one": weight}, **options)
    states = []
    for gradient in given:
        weight.grad = gradient
        optimizer.step()
        state = optimizer.state[weight]
        states.append(
            {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
            | {"weight": weight.detach().clone()}
        )
    return states


def captured(basis: Tensor, gradient: Tensor) -> float:
    return float((gradient @ basis).norm() / gradient.norm())


@pytest.mark.parametrize("fault", [0.0, NAN])
def test_the_first_basis_waits_for_a_gradient(fault: float) -> None:
    """A factor B of LoRA is zero at first, and with it the gradient of A: its basis comes with the first real one."""
    factors = torch.randn(24, 2), torch.randn(2, 10)
    real = factors[0] @ factors[1]
    states = states_after("ProjectedAdamW", [torch.full((24, 10), fault), real, real], refresh_interval=100)
    assert states[0]["waiting"] == 1
    assert "waiting" not in states[1]
    assert captured(states[1]["basis"], real) > 0.999
    assert torch.equal(states[2]["basis"], states[1]["basis"])
    official = states_after("ProjectedAdamW", [torch.zeros(24, 10), real], fidelity="reference", refresh_interval=100)
    assert captured(official[1]["basis"], real) < 0.999  # official codes keep what they found in zeros


@pytest.mark.parametrize("fault", [0.0, NAN, INFINITE])
def test_a_refresh_without_a_gradient_keeps_the_basis(fault: float) -> None:
    given = gradients([torch.empty(24, 10)] * 3, 0)
    given[1].fill_(fault)
    states = states_after("ProjectedAdamW", given, refresh_interval=1)
    assert torch.equal(states[1]["basis"], states[0]["basis"])
    assert not torch.equal(states[2]["basis"], states[1]["basis"])


def test_one_spoilt_expert_does_not_touch_the_others() -> None:
    def given(spoilt: bool) -> list[Tensor]:
        stacks = gradients([torch.empty(3, 12, 10)] * 4, 0)
        if spoilt:
            stacks[1][0] = 0.0
            stacks[2][0, 0, 0] = NAN
        return stacks

    for kind in ("ProjectedAdamW", "ResidualAdamW"):
        healthy, spoilt = (states_after(kind, given(flag), refresh_interval=2)[-1] for flag in (False, True))
        for key in ("weight", "basis", "exp_avg"):
            torch.testing.assert_close(spoilt[key][1:], healthy[key][1:], atol=1e-6, rtol=0)
        assert torch.isfinite(spoilt["weight"]).all()
        assert not torch.equal(spoilt["weight"][0], healthy["weight"][0])


@pytest.mark.parametrize("kind", ["ResidualAdamW", "ChannelScaledAdamW", "TensorScaledAdamW"])
def test_the_limiter_forgets_zeros(kind: str) -> None:
    """One zero gradient would hold the update down for 2,000 steps, which is what official codes do."""
    given = [gradient / 10 for gradient in gradients([torch.empty(24, 10)] * 6, 0)]
    for place in (0, 3):
        spoilt = [torch.zeros(24, 10) if index == place else gradient for index, gradient in enumerate(given)]
        norms = {
            fidelity: float(states_after(kind, spoilt, basis="svd", fidelity=fidelity)[-1]["limiter_norm"])
            for fidelity in ("paper", "reference")
        }
        healthy = float(states_after(kind, given, basis="svd")[-1]["limiter_norm"])
        assert norms["paper"] > 0.3 * healthy
        assert norms["reference"] < 1e-6


def test_a_basis_that_was_kept_makes_no_interval_longer() -> None:
    """A zero gradient at a refresh keeps the basis; that is no sign of a steady subspace."""
    weight = nn.Parameter(torch.randn(16, 12))
    optimizer = GaLoreAdamW([weight], rank=3, refresh_interval=2, refresh="adaptive")
    for step in range(3):
        weight.grad = torch.zeros(16, 12) if step == 2 else torch.randn(16, 12)
        optimizer.step()
    assert optimizer.state[weight]["interval"] == 2
    assert optimizer.state[weight]["overlaps"].tolist() == [-1.0] * 5


def test_an_unused_expert_does_not_keep_the_interval_of_the_others_short() -> None:
    weight, gradient = nn.Parameter(torch.randn(3, 16, 12)), torch.randn(3, 16, 12)
    optimizer = GaLoreAdamW([weight], rank=3, refresh_interval=2, refresh="adaptive")
    for step in range(14):
        weight.grad = gradient.clone()
        if step:
            weight.grad[2] = 0.0
        optimizer.step()
    assert optimizer.state[weight]["interval"] > 2


def test_state_of_an_older_version_goes_on_without_overlaps() -> None:
    weight, gradient = nn.Parameter(torch.randn(16, 12)), torch.randn(16, 12)
    first, second = (GaLoreAdamW([weight], rank=3, refresh_interval=2, refresh="adaptive") for _ in range(2))
    weight.grad = gradient.clone()
    first.step()
    state = first.state_dict()
    del state["state"][0]["overlaps"]
    second.load_state_dict(state)
    for _ in range(3):
        weight.grad = gradient.clone()
        second.step()
    assert second.state[weight]["overlaps"].tolist()[-1] == pytest.approx(1.0)


def test_a_basis_that_is_found_again_makes_an_interval_longer() -> None:
    """The same gradient at every step: the new basis is the old one to the bit, and that is a sign of steadiness."""
    weight = nn.Parameter(torch.randn(16, 12))
    gradient = torch.randn(16, 12)
    optimizer = GaLoreAdamW([weight], rank=3, refresh_interval=2, refresh="adaptive")
    for _ in range(12):
        weight.grad = gradient.clone()
        optimizer.step()
    assert optimizer.state[weight]["interval"] > 2

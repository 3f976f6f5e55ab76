"""Any optimizer keeps chosen parameters orthonormal; clipping, skipped steps, state and resume stay what they were."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subspace.core.errors import MethodError
from subspace.linalg.stiefel import RETRACTIONS, retract_polar
from subspace.optim.riemannian import StiefelSteps

BOTH = pytest.mark.parametrize("retraction", RETRACTIONS)


class Net(nn.Module):
    """Three factors, two of them of one shape, and a plain vector."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        for name, rows in (("a", 12), ("b", 12), ("c", 7)):
            basis = torch.linalg.qr(torch.randn(rows, 3, generator=source))[0]
            self.register_parameter(name, nn.Parameter(basis.to(dtype)))
        self.s = nn.Parameter(torch.ones(3))

    def factors(self) -> list[Tensor]:
        return [self.a, self.b, self.c]

    def backward(self, seed: int, *names: str) -> None:
        """Put random gradients where a loss would."""
        source = torch.Generator().manual_seed(seed)
        for name, value in self.named_parameters():
            if not names or name in names:
                value.grad = torch.randn(value.shape, generator=source).to(value.dtype)


def values(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def error(factor: Tensor) -> float:
    wide = factor.detach().double()
    return float((wide.T @ wide - torch.eye(wide.shape[1])).abs().max())


@BOTH
def test_orthonormal_after_a_thousand_steps(retraction: Any) -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    StiefelSteps(optimizer, net.factors(), retraction=retraction, gradient_scaling=16.0)
    start, worst = values(net), 0.0
    for step in range(1000):
        net.backward(step)
        optimizer.step()
        worst = max(worst, *map(error, net.factors()))
    assert worst < 1e-5
    assert all(float((value - start[name]).norm()) > 0.1 for name, value in values(net).items())


def test_a_step_is_the_formula() -> None:
    """SGD by hand; clipping sees the Euclidean gradients."""
    net, rate, width = Net(), 0.1, 48.0
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    StiefelSteps(optimizer, net.factors(), gradient_scaling=width)
    net.backward(1)
    before, euclidean = values(net), {name: value.grad.clone() for name, value in net.named_parameters()}  # type: ignore[union-attr]
    norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    assert float(norm) == pytest.approx(math.sqrt(sum(float(value.square().sum()) for value in euclidean.values())))
    optimizer.step()
    for name in ("a", "b", "c"):
        basis, gradient = before[name], euclidean[name] * 0.5 / (norm + 1e-6)
        riemannian = gradient - basis @ gradient.T @ basis
        torch.testing.assert_close(net.get_parameter(name).grad, riemannian, rtol=0, atol=1e-6)
        change = -rate * riemannian * math.sqrt(width / basis.shape[0])
        inner = basis.T @ change
        left, _, right = torch.linalg.svd(basis + change - basis @ (inner + inner.T) / 2, full_matrices=False)
        torch.testing.assert_close(net.get_parameter(name).detach(), left @ right, rtol=0, atol=1e-6)
    torch.testing.assert_close(net.s.detach(), before["s"] - rate * euclidean["s"] * 0.5 / (norm + 1e-6))


def test_a_batch_moves_as_its_members_do() -> None:
    moved = []
    for apart in (False, True):
        net = Net()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        for factors in [[factor] for factor in net.factors()] if apart else [net.factors()]:
            StiefelSteps(optimizer, factors)
        for step in range(3):
            net.backward(step)
            optimizer.step()
        moved.append(values(net))
    for name, value in moved[0].items():
        torch.testing.assert_close(value, moved[1][name], rtol=0, atol=1e-6)


@BOTH
def test_pieces_move_as_the_whole_does(retraction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, batches = [], []
    for elements in (10**6, 4 * 12 * 3):
        monkeypatch.setattr("subspace.optim.riemannian.piece_elements", lambda device, size=elements: size)
        net = Net()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        steps = StiefelSteps(optimizer, net.factors(), retraction=retraction, gradient_scaling=16.0)
        optimizer.register_step_pre_hook(lambda *_, own=steps: batches.append(len(own._moving)))
        for step in range(3):
            net.backward(step)
            optimizer.step()
        moved.append(values(net))
    assert batches == [2, 2, 2, 3, 3, 3]
    for name, value in moved[0].items():
        torch.testing.assert_close(value, moved[1][name], rtol=0, atol=1e-6)


def test_weight_decay_has_no_effect_on_factors() -> None:
    moved = []
    for decay in (0.0, 0.1):
        net = Net()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=decay)
        StiefelSteps(optimizer, net.factors())
        for step in range(10):
            net.backward(step)
            optimizer.step()
        moved.append(values(net))
    for name in ("a", "b", "c"):
        torch.testing.assert_close(moved[0][name], moved[1][name], rtol=0, atol=1e-6)
    assert float((moved[0]["s"] - moved[1]["s"]).abs().max()) > 1e-3


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_step_that_the_scaler_skips_changes_no_bit(fused: bool) -> None:
    """A fused optimizer is called even then, and skips inside its kernel."""
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=fused)
    StiefelSteps(optimizer, net.factors())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step, bad in enumerate((False, True, False)):
        before = values(net)
        scaler.scale(torch.zeros(())).item()
        net.backward(step)
        if bad:
            net.a.grad[0, 0] = math.inf  # type: ignore[index]
        scaler.step(optimizer)
        scaler.update()
        changed = {name for name, value in values(net).items() if not torch.equal(value, before[name])}
        assert changed == (set() if bad else {"a", "b", "c", "s"})
    assert scaler.get_scale() == 4.0
    assert all(error(factor) < 1e-5 for factor in net.factors())


def test_a_step_of_length_zero_changes_no_bit() -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0)
    StiefelSteps(optimizer, net.factors())
    before = values(net)
    net.backward(0)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in values(net).items())
    assert not all(torch.equal(retract_polar(value, 0 * value), value) for name, value in before.items() if name != "s")


def test_a_factor_without_a_gradient_rests() -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    StiefelSteps(optimizer, net.factors())
    before = values(net)
    net.backward(0, "a", "s")
    optimizer.step()
    changed = {name for name, value in values(net).items() if not torch.equal(value, before[name])}
    assert changed == {"a", "s"}


def test_there_is_no_state_of_our_own_and_resume_is_exact() -> None:
    def started(net: Net) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        StiefelSteps(optimizer, net.factors())
        return optimizer

    whole, halted = Net(), Net()
    first, second = started(whole), started(halted)
    for step in range(6):
        if step == 3:
            saved = copy.deepcopy(second.state_dict())
            assert all(state.keys() == {"step", "exp_avg", "exp_avg_sq"} for state in saved["state"].values())
            halted = copy.deepcopy(halted)
            second = started(halted)
            second.load_state_dict(saved)
        for net, optimizer in ((whole, first), (halted, second)):
            net.backward(step)
            optimizer.step()
    assert all(torch.equal(value, values(halted)[name]) for name, value in values(whole).items())


@pytest.fixture
def accelerator() -> Iterator[Any]:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("hooks_first", [True, False])
def test_accelerate_s_wrapper_keeps_the_hooks(accelerator: Any, hooks_first: bool) -> None:
    net = Net()
    optimizer: Any = torch.optim.AdamW(net.parameters(), lr=1e-2)
    if hooks_first:
        StiefelSteps(optimizer, net.factors())
    wrapped = accelerator.prepare_optimizer(optimizer)
    if not hooks_first:
        around = SimpleNamespace(optimizer=wrapped)  # wrappers of wrappers
        assert StiefelSteps(around, net.factors()).optimizer is optimizer  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    before = values(net)
    for step in range(3):
        net.backward(step)
        wrapped.step()
        schedule.step()
    assert all(error(factor) < 1e-5 for factor in net.factors())
    assert float((net.a.detach() - before["a"]).norm()) > 1e-2


def test_eight_bit_moments_do(recwarn: pytest.WarningsRecorder) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    net = Net()
    optimizer = bitsandbytes.optim.AdamW8bit(net.parameters(), lr=1e-2, min_8bit_size=1)
    StiefelSteps(optimizer, net.factors())
    before = values(net)
    for step in range(3):
        net.backward(step)
        optimizer.step()
    assert optimizer.state[net.a]["state1"].dtype == torch.uint8
    assert all(error(factor) < 1e-5 for factor in net.factors())
    assert float((net.a.detach() - before["a"]).norm()) > 1e-2


def test_narrow_factors_are_moved_in_float32_and_rounded() -> None:
    net = Net(torch.bfloat16)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-2)
    StiefelSteps(optimizer, net.factors())
    for step in range(20):
        net.backward(step)
        optimizer.step()
    assert net.a.dtype == torch.bfloat16
    assert all(error(factor) < 2e-2 for factor in net.factors())


def test_removed_hooks_act_no_more() -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    StiefelSteps(optimizer, net.factors()).remove()
    net.backward(0)
    optimizer.step()
    assert error(net.a) > 1e-3


def _foreign(net: Net) -> Any:
    return StiefelSteps(torch.optim.AdamW([net.s]), net.factors())


def _wide(net: Net) -> Any:
    wide = nn.Parameter(torch.eye(3, 5))
    return StiefelSteps(torch.optim.AdamW([wide]), [wide])


def _unknown(net: Net) -> Any:
    return StiefelSteps(torch.optim.AdamW(net.parameters()), net.factors(), retraction="qr")  # type: ignore[arg-type]


def _closure(net: Net) -> Any:
    optimizer = torch.optim.AdamW(net.parameters())
    StiefelSteps(optimizer, net.factors())
    return optimizer.step(lambda: torch.zeros(()))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (_foreign, "factor 0: not a parameter of the optimizer.*FSDP"),
        (_wide, r"factor 0: shape \(3, 5\)"),
        (_unknown, "retraction 'qr'; expected one of polar, exponential"),
        (_closure, "a step with a closure"),
    ],
)
def test_what_cannot_work_is_refused(act: Callable[[Net], Any], told: str) -> None:
    with pytest.raises(MethodError, match=f"E-MTH-001 StiefelSteps.*{told}"):
        act(Net())

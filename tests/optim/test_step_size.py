"""What a step passes through beside gradients and state is what shapes say of it."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from live_bytes import LiveBytes
from subspace_runs import OPTIMIZERS
from torch import nn

from subspace.linalg import decompose
from subspace.models import int8_weights
from subspace.models.int8_weights import Int8Weight, WeightHandle, rounding_bytes
from subspace.optim import curvature, pieces, projecting, slots, step_size, together, weights
from subspace.optim.adamw import WideAdamW
from subspace.optim.settings import OptimizerSettings
from subspace.plan.shapes import TensorSpec
from subspace.projection.basis import find_bases
from subspace.projection.geometry import geometry_of

TALL = (2048, 64)
PIECE, PART = 4096, 8192


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_PIECE_ELEMENTS", {"cpu": PIECE})
    monkeypatch.setattr(weights, "PART_ELEMENTS", PART)
    for module in (step_size, projecting, curvature):
        monkeypatch.setattr(module, "LARGEST_PIECE", PIECE)
        monkeypatch.setattr(module, "PART_ELEMENTS", PART, raising=False)
    monkeypatch.setattr(int8_weights, "_BLOCK_ELEMENTS", {"cpu": PART})
    monkeypatch.setattr(int8_weights, "_OTHER_BLOCK_ELEMENTS", PART)


def weight_of(store: str, shape: tuple[int, int]) -> Any:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if store == "int8":
        return WeightHandle(torch.Size(shape), torch.bfloat16, Int8Weight.nearest(value))
    return nn.Parameter(value.to(getattr(torch, store)))


def passed(optimizer: Any, weight: Any, *, in_hook: bool) -> int:
    """Return the bytes that a step, with the clipping before it, takes beside what is held for it."""
    optimizer.scratch = type(optimizer.scratch)()
    gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).to(weight.dtype)
    held = gradient.untyped_storage().nbytes()
    weight.grad = gradient
    with torch.no_grad(), LiveBytes(gradient) as live:
        del gradient
        slot = optimizer.slots[weight]
        if in_hook:
            optimizer.backward_updates._take(weight)
            held = 0 if slot.low is None else slot.low.untyped_storage().nbytes()
        if not (in_hook and optimizer.needs_whole_gradient):
            optimizer.clip_grad_norm_(torch.inf)
        optimizer.step()
    return live.peak - held


CASES = [
    *[(kind, 16, 32, "float32", "after_backward") for kind in OPTIMIZERS],
    *[(kind, 16, 8, "bfloat16", "after_backward") for kind in OPTIMIZERS],
    *[(kind, None, 8, "bfloat16", "after_backward") for kind in OPTIMIZERS],
    *[(kind, None, 32, "float32", "after_backward") for kind in OPTIMIZERS],
    *[(kind, 16, 8, "int8", "in_backward") for kind in OPTIMIZERS if kind != "CurvatureClipped"],
    *[(kind, 16, 32, "bfloat16", "in_backward") for kind in OPTIMIZERS if kind != "CurvatureClipped"],
]


@pytest.mark.parametrize(("kind", "rank", "bits", "store", "update"), CASES)
def test_a_step_takes_what_shapes_say(kind: str, rank: int | None, bits: int, store: str, update: str) -> None:
    shape = (160, 96) if kind == "SketchedAdafactor" and rank else TALL
    weight = weight_of(store, shape)
    options: dict[str, Any] = {"state_bits": bits, "update": update, "refresh_from": "micro_batch"}
    if kind not in ("ChannelScaledAdamW", "TensorScaledAdamW", "SketchedAdafactor"):
        options["basis"] = "gram"
    if kind == "ProjectedAdafactor":
        options["beta1"] = 0.9
    group = {"params": [weight], **({} if rank is None else {"rank": rank})}
    optimizer: Any = OPTIMIZERS[kind]([group], lr=1e-3, refresh_interval=1, **options)
    in_hook = update == "in_backward" and rank is not None
    passed(optimizer, weight, in_hook=in_hook)  # makes the state
    writing = rounding_bytes(weight.numel()) if store == "int8" else 0
    found, said = passed(optimizer, weight, in_hook=in_hook), optimizer.planned_passing(writing)
    assert found <= said * 1.02 + 8192  # tensors of one number for every row or column
    assert said <= 1.7 * found + 8192


@pytest.mark.parametrize("small", [True, False], ids=["stacked", "large"])
@pytest.mark.parametrize("store", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["ProjectedAdamW", "ResidualAdamW", "ChannelScaledAdamW"])
def test_a_bundle_takes_what_shapes_say(kind: str, store: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "LAUNCHING_DEVICES", {"cpu"})
    monkeypatch.setattr(slots, "_BUNDLE_ELEMENTS", {})  # as many at once as on a device that is launched
    monkeypatch.setattr(slots, "_SMALL_ELEMENTS", 2**20 if small else 0)
    given = [weight_of(store, (512, 128)) for _ in range(6)]
    optimizer: Any = OPTIMIZERS[kind](given, rank=32, lr=1e-3, weight_decay=0.1, refresh_interval=1)
    for _ in range(2):
        gradients = [torch.randn(weight.shape).to(weight.dtype) for weight in given]
        for weight, gradient in zip(given, gradients, strict=True):
            weight.grad = gradient
        optimizer.scratch = type(optimizer.scratch)()
        with torch.no_grad(), LiveBytes(*gradients) as live:
            held = live.before
            del gradient, gradients
            optimizer.clip_grad_norm_(torch.inf)
            optimizer.step()
        found = live.peak - held
    said = optimizer.planned_passing()
    # new bases count as made inside; that they take the place of old ones, which were there before, does not
    found -= sum(state["basis"].nbytes for state in optimizer.state.values() if "basis" in state)
    assert found <= said * 1.02 + 8192
    assert said <= 2.5 * found + 8192


@pytest.mark.parametrize("store", ["float32", "bfloat16"])
def test_plain_parameters_together_take_what_shapes_say(store: str) -> None:
    given = [weight_of(store, (10, 10)) for _ in range(30)]
    optimizer: Any = OPTIMIZERS["ProjectedAdamW"]([{"params": given}], lr=1e-3)
    for _ in range(2):
        for weight in given:
            weight.grad = torch.ones_like(weight)
        with LiveBytes() as live:
            optimizer.step()
    said = optimizer.planned_passing()
    assert live.peak <= said + 1024
    assert said <= 1.7 * live.peak + 1024


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", ["svd", "gram", "randomized", "warm", "random"])
@pytest.mark.parametrize(
    ("shape", "side"),
    [((3000, 128), "shorter"), ((128, 3000), "shorter"), ((500, 500), "shorter"), ((900, 200), "both")],
)
def test_a_refresh_takes_what_shapes_say(shape: tuple[int, int], side: Any, how: Any, dtype: torch.dtype) -> None:
    geometry = geometry_of(shape, 16, side)
    assert geometry is not None
    settings = OPTIMIZERS["ProjectedAdamW"].built_in
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    previous = find_bases([gradient], geometry, "gram", [None], [0])[0] if how == "warm" else None
    with LiveBytes() as live:
        find_bases([gradient], geometry, how, [previous], [0])
    said = step_size.refresh_bytes(geometry, type(settings)(basis=how), dtype.itemsize)
    assert live.peak <= said
    assert said <= 2.5 * live.peak


@pytest.mark.parametrize(("rows", "columns"), [(8, 64), (64, 8)])
def test_a_narrow_gradient_is_never_widened_whole(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompose, "_WIDENED_ELEMENTS", 1024)
    first, second = torch.ones(rows, 4000, dtype=torch.bfloat16), torch.ones(4000, columns, dtype=torch.bfloat16)
    with LiveBytes() as live:
        product = decompose._product(first, second)
    assert torch.equal(product, torch.full((rows, columns), 4000.0))
    assert live.peak <= 4 * (2 * 1024 + 3 * rows * columns)


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("store", ["float32", "bfloat16", "int8"])
def test_without_clipping_a_step_takes_one_low_rank_gradient_and_a_few_pieces(store: str, bits: int) -> None:
    """It was eight low-rank gradients, two of them kept, and on a CPU a float32 copy of the weight."""
    weight = weight_of(store, (8192, 64))
    optimizer: Any = OPTIMIZERS["ProjectedAdamW"]([weight], rank=32, lr=1e-3, basis="random", state_bits=bits)
    for _ in range(2):
        weight.grad = torch.ones(weight.shape, dtype=weight.dtype)
        optimizer.scratch = type(optimizer.scratch)()
        with LiveBytes() as live:
            optimizer.step()
    low = 4 * 8192 * 32
    rounding = rounding_bytes(weight.numel()) if store == "int8" else 0
    assert low < live.peak < low + 8 * 4 * PIECE + 2 * 4 * PART + rounding < 1.7 * low


@pytest.mark.parametrize("store", ["float32", "bfloat16"])
def test_the_baseline_takes_what_shapes_say(store: str) -> None:
    weight = weight_of(store, TALL)
    optimizer = WideAdamW([weight], fused=True)
    spec = TensorSpec("one", TALL, store)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        with LiveBytes() as live:
            optimizer.step()
    said = step_size.adamw_step_bytes((spec,), OptimizerSettings())
    assert live.peak <= said + 100
    assert said == (0 if store == "float32" else 2 * 4 * PIECE)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(step_size).failed == 0

"""An update piece by piece is the update, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, gradients
from torch import Tensor, nn

from subspace.models.int8_weights import Int8Weight, WeightHandle
from subspace.optim import pieces, weights
from subspace.optim.adamw import WideAdamW

SHAPES = {"tall": (300, 48), "odd": (211, 37), "wide": (48, 300), "stack": (2, 60, 48)}
STORES = ("float32", "bfloat16", "int8")


def stored_weights(store: str, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if store == "int8" and len(shape) == 2:
            found[name] = WeightHandle(torch.Size(shape), torch.bfloat16, Int8Weight.nearest(value))
        else:
            found[name] = nn.Parameter(value.to(torch.float32 if store == "float32" else torch.bfloat16))
    return found


def trained(kind: Any, store: str, rank: int | None, **options: Any) -> dict[str, Tensor]:
    """Do three steps; return weights and state by name."""
    given = stored_weights(store)
    groups = [{"params": [*given.items()], **({} if rank is None else {"rank": rank})}]
    optimizer = kind(groups, lr=1e-2, weight_decay=0.1, **options)
    for step in range(3):
        for weight, gradient in zip(given.values(), gradients(given.values(), step), strict=True):
            weight.grad = gradient.to(weight.dtype)
        optimizer.step()
        if step == 1 and hasattr(optimizer, "update_hessian"):
            optimizer.update_hessian(64)
    found: dict[str, Tensor] = {}
    for name, weight in given.items():
        found[name] = weight.stored.codes if hasattr(weight, "stored") else weight.detach()
        found |= {f"{name}.{key}": value for key, value in optimizer.state[weight].items() if torch.is_tensor(value)}
    return found


def in_small_pieces(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pieces, "_PIECE_ELEMENTS", {"cpu": 1024})
    patch.setattr(weights, "PART_ELEMENTS", 4096)


@pytest.mark.parametrize(("bits", "store"), [(32, "bfloat16"), (8, "float32"), (8, "int8"), (4, "bfloat16")])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_pieces_change_no_bit(kind: str, bits: int, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"state_bits": bits, "refresh_interval": 2}
    monkeypatch.setattr("subspace.optim.lowbit.MIN_NARROW_ELEMENTS", 16)
    if kind == "ProjectedAdafactor":
        options["beta1"] = 0.9
    for rank in (8, None):
        wanted = trained(OPTIMIZERS[kind], store, rank, **options)
        with monkeypatch.context() as patch:
            in_small_pieces(patch)
            found = trained(OPTIMIZERS[kind], store, rank, **options)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(found[name], value), (rank, name)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("store", STORES)
def test_pieces_change_no_bit_of_the_baseline(store: str, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = trained(WideAdamW, store, None, fused=fused)
    in_small_pieces(monkeypatch)
    found = trained(WideAdamW, store, None, fused=fused)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())

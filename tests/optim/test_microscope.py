"""The norm of an update of a large weight comes from some of its rows, whose copies stay small."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from live_bytes import LiveBytes
from torch import nn

from subspace.models.int8_weights import Int8Weight, WeightHandle
from subspace.optim import GaLoreAdamW, microscope
from subspace.optim.microscope import Microscope


def update_norm(weight: Any) -> tuple[float, float, int]:
    """Return the norm of one update as logged and as it is, and the bytes that looking at it takes."""
    optimizer = GaLoreAdamW([("w", weight)], lr=1e-2, rank=4, basis="random")
    looking = optimizer.refresher.microscope = Microscope(["w"])
    stored = getattr(weight, "stored", None)
    before = weight.detach().clone() if stored is None else stored.read()
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    optimizer.step()
    event = looking.event()
    assert event is not None
    after = weight.detach() if stored is None else stored.read()
    slot = optimizer.slots[weight]
    looking._figures["w"] = {}
    with LiveBytes() as live, looking.updating([slot]):
        pass
    return event["weights"]["w"]["update_norm"], float((after.float() - before.float()).norm()), live.peak


@pytest.mark.parametrize("store", ["float32", "bfloat16", "int8"])
def test_rows_of_a_large_weight_stand_for_all(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def weight() -> Any:
        values = torch.randn(600, 16, generator=torch.Generator().manual_seed(1))
        if store == "int8":
            return WeightHandle(values.shape, torch.bfloat16, Int8Weight.nearest(values))
        return nn.Parameter(values.to(getattr(torch, store)))

    whole, true, _ = update_norm(weight())
    assert whole == pytest.approx(true, rel=1e-4)
    monkeypatch.setattr(microscope, "_MOST_COPIED", 600 * 16 // 4)
    some, true, num_bytes = update_norm(weight())
    assert some == pytest.approx(true, rel=0.15)
    assert num_bytes < 4 * 600 * 16  # of one float32 copy

"""Like weights are updated together, in bundles that stay small beside the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from subspace.optim import GaLoreAdamW


@pytest.mark.parametrize(("rank", "num_bundles"), [(1, 6), (1024, 12)])
def test_a_bundle_holds_few_gradients_however_small_the_rank(rank: int, num_bundles: int) -> None:
    weights = [nn.Parameter(torch.empty(4096, 4096, device="meta")) for _ in range(24)]
    optimizer = GaLoreAdamW(weights, rank=rank)
    found = optimizer.bundles([*optimizer.slots.values()], optimizer.param_groups[0])
    assert [slot.parameter for bundle in found for slot in bundle.slots] == weights
    assert len(found) == num_bundles  # four gradients of 2^24 numbers, or two moments of 2^22

"""Nothing given but what must be: fidelity `reference` has the defaults of the official packages.

Gradients are small, so that eps counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from equivalence_runs import difference, oracle
from torch import nn

from subspace.optim import Apollo, FiraAdamW, GaLoreAdamW, groups_from_galore

GALORE = {"rank": 4, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
FIRA = {"rank": 4, "update_proj_gap": 200, "alpha": 0.25, "proj_type": "std"}
APOLLO = {"rank": 4, "update_proj_gap": 200, "scale": 1.0, "proj": "random", "proj_type": "std"}


def galore(groups: list[dict[str, Any]]) -> Any:
    return oracle("galore_torch").GaLoreAdamW(groups, lr=1e-2, no_deprecation_warning=True)


def fira(groups: list[dict[str, Any]]) -> Any:
    return oracle("fira").FiraAdamW(groups, lr=1e-2, no_deprecation_warning=True)


def apollo(groups: list[dict[str, Any]]) -> Any:
    scaled = [group | ({"scale_type": "channel"} if "rank" in group else {}) for group in groups]
    return oracle("apollo_torch").APOLLOAdamW(scaled, lr=1e-2, no_deprecation_warning=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [(GaLoreAdamW, galore, GALORE), (FiraAdamW, fira, FIRA), (Apollo, apollo, APOLLO)],
    ids=["galore", "fira", "apollo"],
)
def test_swapping_the_import_is_enough(ours: Any, theirs: Callable[..., Any], options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((24, 10), (7,))]
    sets = [[nn.Parameter(value.clone()) for value in start] for _ in range(2)]
    groups = [[{"params": weights[:1], **options}, {"params": weights[1:]}] for weights in sets]
    optimizers = [ours(groups_from_galore(groups[0]), lr=1e-2, fidelity="reference"), theirs(groups[1])]
    for _ in range(20):
        gradients = [1e-3 * torch.randn(value.shape, generator=generator) for value in start]
        for weights, optimizer in zip(sets, optimizers, strict=True):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
    assert difference(*sets) < 5e-6


def test_the_published_methods_add_what_torch_adds() -> None:
    weight, bias = nn.Parameter(torch.zeros(4, 4)), nn.Parameter(torch.zeros(4))
    groups = [{"params": [weight], "rank": 2, "fidelity": "reference"}, {"params": [bias], "rank": 2}]
    assert [group["eps"] for group in GaLoreAdamW(groups, lr=1e-2).param_groups] == [1e-6, 1e-8]
    assert GaLoreAdamW([weight], lr=1e-2, eps=1e-5, rank=2, fidelity="reference").param_groups[0]["eps"] == 1e-5

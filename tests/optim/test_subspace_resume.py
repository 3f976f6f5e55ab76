"""Three steps, a checkpoint and three steps are six steps, byte for byte, for every optimizer, width and update.

The interval is 2, so that bases are found at steps 1, 3 and 5: on each side of the cut.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from subspace_runs import OPTIMIZERS, SHAPES, WHOLE, make, named_weights, train
from torch import Tensor

from subspace.core.errors import CheckpointError
from subspace.optim import lowbit
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.state_io import pack, unpack

CUT, TOTAL = 3, 6
Weights = dict[str, Any]


@pytest.fixture(autouse=True)
def _narrow_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowbit, "MIN_NARROW_ELEMENTS", 16)


def through_torch(old: SubspaceOptimizer, new: SubspaceOptimizer) -> None:
    file = io.BytesIO()
    torch.save(old.state_dict(), file)
    file.seek(0)
    new.load_state_dict(torch.load(file, weights_only=True))


def through_safetensors(old: SubspaceOptimizer, new: SubspaceOptimizer) -> None:
    tensors, meta = pack(old)
    unpack(new, load(save(tensors)), json.loads(json.dumps(meta)))


ROUTES = {"torch": through_torch, "safetensors": through_safetensors}


def copied(weights: Weights) -> Weights:
    return {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}


def same_bytes(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(
        first.detach().contiguous().reshape(-1).view(torch.uint8),
        second.detach().contiguous().reshape(-1).view(torch.uint8),
    )


def check_resume(kind: str, **options: Any) -> SubspaceOptimizer:
    """Compare a run of six steps with one that is cut, by both ways; return the uncut one's optimizer."""
    options = {"refresh_interval": 2, **options}
    whole = named_weights()
    uncut = make(kind, whole, **options)
    train(uncut, whole, range(CUT))
    at_cut = copied(whole)
    resumed: dict[str, tuple[Weights, SubspaceOptimizer]] = {}
    for route, carry in ROUTES.items():
        weights = copied(at_cut)
        optimizer = make(kind, weights, **options)
        carry(uncut, optimizer)
        resumed[route] = weights, optimizer
    train(uncut, whole, range(CUT, TOTAL))
    for route, (weights, optimizer) in resumed.items():
        train(optimizer, weights, range(CUT, TOTAL))
        for name, weight in whole.items():
            assert same_bytes(weights[name], weight), (route, name)
            expected, found = uncut.state[weight], optimizer.state[weights[name]]
            assert list(expected) == list(found) or set(expected) == set(found), (route, name)
            for key, value in expected.items():
                same = same_bytes(value, found[key]) if isinstance(value, Tensor) else value == found[key]
                assert same, (route, name, key)
    assert not same_bytes(whole["tall"], at_cut["tall"])
    return uncut


RUNS = [
    (kind, update)
    for kind in OPTIMIZERS
    for update in ("after_backward", "in_backward")
    if (kind, update) != ("CurvatureClipped", "in_backward")  # refused
]


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize(("kind", "update"), RUNS)
def test_three_and_three_are_six(kind: str, update: str, bits: int) -> None:
    options = {"beta1": 0.9} if kind == "ProjectedAdafactor" else {}  # or it has nothing to be coded
    optimizer = check_resume(kind, state_bits=bits, update=update, **options)
    states = [optimizer.state[slot.parameter] for slot in optimizer.slots.values()]
    types = {value.dtype for state in states for value in state.values() if isinstance(value, Tensor)}
    codes = bits < 32 or kind == "QuantizedProjectedAdamW"
    assert types == ({torch.float32, torch.uint8} if codes else {torch.float32})  # bfloat16 weights, too
    assert {type(value) for state in states for value in state.values()} <= {int, Tensor}


@pytest.mark.parametrize(
    "options",
    [
        {"refresh": "adaptive", "basis_bits": 4},
        {"refresh": "staggered", "basis": "warm", "moments": "transport"},
        {"refresh": "staggered", "basis": "random", "moments": "zero", "state_bits": 8},
        {"basis": "randomized", "fidelity": "reference", "side": "both"},
        {"basis": "gram", "side": "longer", "update": "in_backward", "refresh_from": "micro_batch"},
    ],
    ids=str,
)
def test_other_bases_and_refreshes(options: dict[str, Any]) -> None:
    check_resume("ProjectedAdamW", **options)


@pytest.mark.parametrize("kind", ["ChannelScaledAdamW", "TensorScaledAdamW"])
@pytest.mark.parametrize("options", [{"fidelity": "reference"}, {"basis": "svd"}, {"moments": "zero"}], ids=str)
def test_seeds_and_bases_of_scaled_gradients(kind: str, options: dict[str, Any]) -> None:
    check_resume(kind, **options)


@pytest.mark.parametrize("kind", WHOLE)
def test_in_backward_with_a_full_accumulator(kind: str) -> None:
    check_resume(kind, update="in_backward", full_accumulator=True)


def test_a_gradient_that_is_still_waited_for() -> None:
    """No gradient before the cut has said anything of a basis."""
    runs = []
    for cut in (False, True):
        weights = {"tall": torch.nn.Parameter(torch.ones(24, 10))}
        optimizer = make("ResidualAdamW", weights, refresh_interval=100)
        weights["tall"].grad = torch.zeros(24, 10)
        optimizer.step()
        if cut:
            old, optimizer = optimizer, make("ResidualAdamW", weights, refresh_interval=100)
            through_safetensors(old, optimizer)
        train(optimizer, weights, range(3))
        runs.append(weights["tall"])
    assert same_bytes(*runs)


def test_state_of_another_rank_or_optimizer_is_refused() -> None:
    weights = named_weights()
    old = make("ProjectedAdamW", weights)
    train(old, weights, range(1))
    tensors, meta = pack(old)
    for kind, rank in (("ProjectedAdamW", 4), ("ResidualAdamW", 3)):
        new = make(kind, named_weights(), rank=rank)
        with pytest.raises(CheckpointError) as caught:
            unpack(new, tensors, meta)
        assert caught.value.code == "E-CKP-005"
        assert not new.state


def test_every_weight_is_projected_or_known_not_to_be() -> None:
    """The resume tests mean something only where states have bases, codes and limiters."""
    projected = {"tall", "wide", "square", "experts", "convolution"}
    for kind in OPTIMIZERS:
        optimizer = make(kind, named_weights())
        found = {slot.name for slot in optimizer.slots.values() if slot.geometry is not None}
        assert found == (projected - {"experts", "convolution"} if kind == "SketchedAdafactor" else projected)
    assert set(SHAPES) == projected | {"bias"}

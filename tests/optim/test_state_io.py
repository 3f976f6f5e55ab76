"""Optimizer state goes to tensors and JSON and comes back so that the next steps are the same to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from optim_nets import NAMES, Net
from safetensors.torch import load_file, save_file
from subspace_runs import OPTIMIZERS, named_weights, train

from subspace.core.errors import CheckpointError
from subspace.optim import pack_state, unpack_state
from subspace.optim.adamw import build_adamw
from subspace.optim.settings import OptimizerSettings
from subspace.optim.state_io import pack, unpack

pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")


def steps(model: Net, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for seed in range(first, last):
        model.backward(seed)
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_three_and_three_are_six(name: str, dtype: torch.dtype) -> None:
    settings = OptimizerSettings(name=name, learning_rate=1e-2, weight_decay=0.1)
    whole, halted, resumed = Net(dtype), Net(dtype), Net(dtype)
    steps(whole, build_adamw(whole, settings), 0, 6)
    optimizer = build_adamw(halted, settings)
    steps(halted, optimizer, 0, 3)
    tensors, meta = pack(optimizer)
    resumed.load_state_dict(halted.state_dict())
    second = build_adamw(resumed, OptimizerSettings(name=name, weight_decay=0.2))
    unpack(second, {key: value.clone() for key, value in tensors.items()}, json.loads(json.dumps(meta)))
    steps(resumed, second, 3, 6)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert second.param_groups[0]["betas"] == (0.9, 0.999)


def test_state_keeps_its_types() -> None:
    model = Net(torch.bfloat16)
    optimizer = build_adamw(model, OptimizerSettings(name="adamw_8bit"))
    steps(model, optimizer, 0, 2)
    tensors, meta = pack(optimizer)
    assert {str(value.dtype) for value in tensors.values()} == {"torch.uint8", "torch.float32"}
    fresh = build_adamw(Net(torch.bfloat16), OptimizerSettings(name="adamw_8bit"))
    unpack(fresh, tensors, meta)
    again, _ = pack(fresh)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], value) and again[key].dtype == value.dtype for key, value in tensors.items())


def test_shared_tables_are_kept_once() -> None:
    model = Net()
    model.small = torch.nn.Parameter(torch.randn(80, 66))
    optimizer = build_adamw(model, OptimizerSettings(name="adamw_8bit"))
    steps(model, optimizer, 0, 1)
    tensors, meta = pack(optimizer)
    assert meta["shared"] == {"small.qmap1": "big.qmap1", "small.qmap2": "big.qmap2"}
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)
    unpack(optimizer, tensors, meta)
    assert optimizer.state[model.small]["qmap1"] is optimizer.state[model.big]["qmap1"]


def test_foreign_state_is_refused() -> None:
    model = Net()
    optimizer = build_adamw(model, OptimizerSettings())
    steps(model, optimizer, 0, 1)
    tensors, meta = pack(optimizer)
    with pytest.raises(CheckpointError, match=r"E-CKP-005 .*state of AdamW for WideAdamW"):
        unpack(build_adamw(Net(torch.bfloat16), OptimizerSettings()), tensors, meta)
    before = pack(optimizer)[0]["big.exp_avg"].clone()
    with pytest.raises(CheckpointError, match="1 tensors of another shape"):
        unpack(optimizer, {**tensors, "big.exp_avg": torch.zeros(2, 2)}, meta)
    with pytest.raises(CheckpointError, match="unknown parameters"):
        unpack(optimizer, {**tensors, "other.exp_avg": torch.zeros(2, 2)}, meta)
    assert torch.equal(pack(optimizer)[0]["big.exp_avg"], before)


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
@pytest.mark.parametrize("bits", [32, 4])
@pytest.mark.parametrize("named", [True, False])
def test_safetensors_carry_the_state(kind: str, bits: int, named: bool, tmp_path: Path) -> None:
    """Three steps, a file, three more in another process's place: as six."""

    def made() -> tuple[dict[str, torch.nn.Parameter], Any]:
        weights = named_weights({"one": (96, 70), "two": (10, 24), "bias": (7,)})
        given: Any = weights.items() if named else weights.values()
        groups = [{"params": [*given][:2], "rank": 3}, {"params": [*given][2:]}]
        return weights, OPTIMIZERS[kind](groups, lr=1e-2, refresh_interval=2, state_bits=bits)

    whole, first = made()
    train(first, whole, range(6))
    halted, second = made()
    train(second, halted, range(3))
    tensors, meta = pack_state(second)
    save_file(tensors, tmp_path / "state.safetensors", metadata={"state": json.dumps(meta)})
    _, third = made()
    unpack_state(third, load_file(tmp_path / "state.safetensors"), json.loads(json.dumps(meta)))
    resumed = [value for group in third.param_groups for value in group["params"]]
    with torch.no_grad():
        for value, old in zip(resumed, halted.values(), strict=True):
            value.copy_(old)
    train(third, dict(zip(halted, resumed, strict=True)), range(3, 6))
    assert all(torch.equal(value, wanted) for value, wanted in zip(resumed, whole.values(), strict=True))
    assert ("param_names" in third.param_groups[0]) == named

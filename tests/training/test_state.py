"""What a checkpoint says of a run comes back whole, or is refused."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import nn

from subspace.core.errors import CheckpointError
from subspace.training.state import Progress, load_trained, split_tensors, trained_tensors


def test_every_field_of_the_progress_comes_back() -> None:
    values = {item.name: True if item.type == "bool" else 3 + number for number, item in enumerate(fields(Progress))}
    progress = Progress.from_json(values)
    assert progress.to_json() == values
    assert Progress.from_json(progress.to_json()) == progress != Progress()


def test_the_progress_of_another_version_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"E-CKP-007 .*fields \['step'\] differ"):
        Progress.from_json({name: value for name, value in Progress().to_json().items() if name != "step"})


def test_trained_values_go_in_whole_or_not_at_all() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[1].weight.requires_grad_(False)
    found = {name: value + 1 for name, value in trained_tensors(model).items()}
    assert found.keys() == {"0.weight", "0.bias", "1.bias"}
    for wrong, told in (
        ({name: value for name, value in found.items() if name != "1.bias"}, r"1 missing \(1.bias\)"),
        ({**found, "1.weight": torch.ones(1, 3)}, r"1 unexpected \(1.weight\)"),
        ({**found, "1.bias": torch.ones(2)}, r"1 of another shape \(1.bias\)"),
    ):
        before = {name: value.clone() for name, value in trained_tensors(model).items()}
        with pytest.raises(CheckpointError, match=rf"E-CKP-005 here: {told}"):
            load_trained(model, wrong, "here")
        assert all(torch.equal(value, before[name]) for name, value in trained_tensors(model).items())
    load_trained(model, found, "here")
    assert all(torch.equal(value, found[name]) for name, value in trained_tensors(model).items())


def test_tensors_and_values_part() -> None:
    tensors, values = split_tensors({"a": torch.ones(2), "b": [1, 2], "c": None})
    assert list(tensors) == ["a"]
    assert values == {"b": [1, 2], "c": None}

"""Norms of narrow numbers, summed in float32 slice by slice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from subspace.linalg import norms
from subspace.linalg.norms import wide_norm, wide_norms


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((40, 6), None), ((40, 6), -1), ((40, 6), 0), ((40, 6), (-2, -1)), ((5, 8, 6), (-2, -1)), ((240,), None)],
)
def test_slices_have_the_norm_of_the_whole(
    shape: tuple[int, ...], dim: Any, keepdim: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    wanted = torch.linalg.vector_norm(values.double(), dim=dim, keepdim=keepdim).float()
    monkeypatch.setattr(norms, "_WIDENED_ELEMENTS", 50)
    found = wide_norm(values, dim, keepdim=keepdim)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)


def test_a_slice_that_is_not_finite_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "_WIDENED_ELEMENTS", 50)
    values = torch.ones(40, 6, dtype=torch.bfloat16)
    values[33, 2] = torch.nan
    assert torch.isnan(wide_norm(values, (-2, -1)))
    assert torch.isfinite(wide_norm(values, -1)).sum() == 39


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_of_many_are_those_of_each(dtype: torch.dtype) -> None:
    values = [torch.randn(size).to(dtype) for size in (3, 40, 1)]
    each = [wide_norm(value) for value in values]
    assert all(map(torch.equal, wide_norms(values), each))
    batched = torch._foreach_norm(values, 2, dtype=torch.float32)  # what other devices are asked for
    torch.testing.assert_close(list(batched), each)

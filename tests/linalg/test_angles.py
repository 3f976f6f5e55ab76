"""Angles: known ones come out, signs and rotations do not count, ranks and energies as the formulas say."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subspace.linalg import angles
from subspace.linalg.angles import captured_energy, effective_rank, overlap, principal_cosines


def basis_of(rows: int, rank: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(rows, rank, generator=torch.Generator().manual_seed(seed))).Q


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(angles).failed == 0


def test_known_angles() -> None:
    """Two planes that share one axis and meet at 60 degrees in the other."""
    first = torch.eye(5)[:, :2]
    second = torch.zeros(5, 2)
    second[0, 0], second[1, 1], second[3, 1] = 1.0, math.cos(math.pi / 3), math.sin(math.pi / 3)
    torch.testing.assert_close(principal_cosines(first, second), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(overlap(first, second), torch.tensor(0.625))
    assert overlap(first, torch.eye(5)[:, 3:]) == 0
    assert overlap(first, second).shape == ()


@given(rows=st.integers(3, 24), rank=st.integers(1, 3), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_signs_and_rotations_do_not_count(rows: int, rank: int, seed: int) -> None:
    first, second, turn = basis_of(rows, rank, seed), basis_of(rows, rank, seed + 1), basis_of(rank, rank, seed + 2)
    cosines = principal_cosines(first, second)
    assert torch.all(cosines.diff() <= 0)
    assert 0 <= cosines[-1] <= cosines[0] <= 1
    torch.testing.assert_close(overlap(first, second), cosines.square().mean(), atol=1e-5, rtol=0)
    torch.testing.assert_close(principal_cosines(first @ turn, -second), cosines, atol=1e-5, rtol=0)
    torch.testing.assert_close(overlap(second, first @ turn), overlap(first, second), atol=1e-5, rtol=0)
    torch.testing.assert_close(overlap(first, first @ turn), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_random_subspaces_overlap_by_rank_over_dimensions() -> None:
    firsts = torch.stack([basis_of(64, 8, seed) for seed in range(50)])
    seconds = torch.stack([basis_of(64, 8, seed) for seed in range(50, 100)])
    found = overlap(firsts, seconds)
    assert found.shape == (50,)
    assert abs(found.mean().item() - 8 / 64) < 0.01


def test_a_smaller_subspace_inside_a_larger_one_overlaps_wholly() -> None:
    large = basis_of(20, 6, 0)
    torch.testing.assert_close(overlap(large[:, 2:4], large), torch.tensor(1.0))
    assert principal_cosines(large[:, 2:4], large).shape == (2,)


def test_effective_rank() -> None:
    torch.testing.assert_close(effective_rank(torch.full((7,), 0.3)), torch.tensor(7.0))
    torch.testing.assert_close(effective_rank(torch.tensor([5.0, 0.0, 0.0])), torch.tensor(1.0))
    assert effective_rank(torch.zeros(4)) == 0
    values = torch.tensor([2.0, 1.0])
    wanted = math.exp(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))
    torch.testing.assert_close(effective_rank(torch.stack((values, 10 * values))), torch.full((2,), wanted))


@pytest.mark.parametrize("side", ["left", "right"])
def test_captured_energy_is_that_of_the_kept_singular_values(side: str) -> None:
    left, values, right = basis_of(12, 5, 0), torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5]), basis_of(9, 5, 1)
    matrix, basis = left * values @ right.mT, left if side == "left" else right
    wanted = values[:2].square().sum() / values.square().sum()
    torch.testing.assert_close(captured_energy(matrix, basis[:, :2], side), wanted)
    assert captured_energy(matrix, basis, side) <= 1
    assert captured_energy(torch.zeros(12, 9), basis, side) == 1
    assert captured_energy(torch.stack((matrix, matrix)), basis, side).shape == (2,)


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(ValueError, match="side 'longer'"):
        captured_energy(torch.ones(2, 2), torch.ones(2, 1), "longer")

"""When bases are found anew, how they are found for many weights at once, and what becomes of the moments."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subspace.linalg.decompose import orthonormality_error, orthonormalize
from subspace.projection.basis import BASES, find_bases
from subspace.projection.geometry import geometry_of
from subspace.projection.projector import Projector
from subspace.projection.refresh import due, next_interval, phase_of, transport


@given(st.integers(1, 50), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_staggered_phases_cover_the_interval(count: int, interval: int) -> None:
    phases = [phase_of(index, count, interval) for index in range(count)]
    assert all(0 <= phase < interval for phase in phases)
    assert max(Counter(phases).values()) <= -(-count // interval)  # as level as can be
    if count >= interval:
        assert set(phases) == set(range(interval))
    else:  # no stretch without a refresh is longer than it must be
        gaps = [b - a for a, b in zip(phases, [*phases[1:], phases[0] + interval], strict=True)]
        assert max(gaps) <= -(-interval // count)


@given(st.integers(1, 60), st.integers(0, 59))
@settings(max_examples=100, deadline=None)
def test_every_weight_has_its_turn_once_an_interval(interval: int, phase: int) -> None:
    phase %= interval
    turns = [done for done in range(1 + 5 * interval) if due(done, interval, phase)]
    assert turns[0] == 0  # there is no step without a basis
    later = [turn for turn in turns if turn > 0]
    assert all(b - a == interval for a, b in pairwise(later))
    assert later[0] == (phase or interval)


def test_an_adaptive_interval_doubles_up_to_a_limit_and_falls_back() -> None:
    interval, seen, overlaps = 10, [], []
    for overlap in (0.4, 0.4, 0.4, 0.4, 0.4, 0.3, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0):
        overlaps = [*overlaps, overlap][-5:]
        interval = next_interval(interval, 10, overlaps)
        seen.append(interval)
    # the mean of the first five is 0.4, that of the next five 0.38
    assert seen == [10, 10, 10, 10, 20, 10, 20, 40, 80, 160, 320, 320]


def gradients(shape: tuple[int, ...], count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (3, 12, 20)], ids=str)
@pytest.mark.parametrize("how", BASES)
def test_bases_of_many_are_those_of_each(how: str, shape: tuple[int, ...], side: str) -> None:
    geometry = geometry_of(shape, 4, side)  # type: ignore[arg-type]  # of a parameter
    assert geometry is not None
    given_gradients, none = gradients(shape, 3), [None] * 3
    first = find_bases(given_gradients, geometry, how, none, [7] * 3)  # type: ignore[arg-type]
    later = [gradient + 0.1 * other for gradient, other in zip(given_gradients, gradients(shape, 3, 1), strict=True)]
    second = find_bases(later, geometry, how, first, [8] * 3)  # type: ignore[arg-type]
    for index, bases in enumerate(second):
        assert [tuple(basis.shape) for basis in bases] == list(geometry.basis_shapes.values())
        alone = find_bases([later[index]], geometry, how, [first[index]], [8])[0]  # type: ignore[arg-type]
        for basis, single, before in zip(bases, alone, first[index], strict=True):
            assert basis.is_contiguous()
            assert basis.untyped_storage().nbytes() == basis.numel() * 4  # no view that keeps a whole factor alive
            assert float(orthonormality_error(basis)) < 1e-5
            torch.testing.assert_close(basis, single, atol=1e-4, rtol=0)
            if how in ("gram", "randomized", "warm"):
                assert bool(((basis * before).sum(dim=-2) >= 0).all())  # signs follow


def test_transport_into_the_same_basis_changes_nothing() -> None:
    geometry = geometry_of((6, 9), 3, "left")
    assert geometry is not None
    basis = (orthonormalize(gradients((6, 3), 1)[0]),)
    first, second = gradients((3, 9), 2)
    second = second.square() + first.square()
    kept = first.clone(), second.clone()
    transport((first, second), geometry, basis, basis, age=5, betas=(0.9, 0.999))
    torch.testing.assert_close(first, kept[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(second, kept[1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_transport_carries_the_lifted_mean_and_ldadams_variance(side: str) -> None:
    geometry = geometry_of((6, 9), 3, side)  # type: ignore[arg-type]  # of a parameter
    assert geometry is not None
    old, new = (
        [orthonormalize(gradients(shape, 1, seed)[0]) for shape in geometry.basis_shapes.values()] for seed in (0, 1)
    )
    first, second = gradients(geometry.low_shape, 2)
    second = second.square()
    age, betas = 4, (0.9, 0.99)
    one, two = 1 - betas[0] ** age, 1 - betas[1] ** age
    mean, variance = first / one, second / two - (first / one) ** 2
    expected = Projector.of(geometry.side, *new).project(Projector.of(geometry.side, *old).lift(first))
    squares = [(after.T @ before) ** 2 for before, after in zip(old, new, strict=True)]
    spread = {
        "left": lambda: squares[0] @ variance,
        "right": lambda: variance @ squares[0].T,
        "both": lambda: squares[0] @ variance @ squares[1].T,
    }[side]()
    assert mean.shape == geometry.low_shape
    transport((first, second), geometry, old, new, age=age, betas=betas)
    torch.testing.assert_close(first, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(second, (spread + (expected / one) ** 2).abs() * two, atol=1e-4, rtol=1e-4)
    assert bool((second >= 0).all())


def test_moments_without_age_are_not_transported() -> None:
    geometry = geometry_of((6, 9), 3, "left")
    assert geometry is not None
    first, second = torch.ones(3, 9), torch.ones(3, 9)
    old, new = ((orthonormalize(gradients((6, 3), 1, seed)[0]),) for seed in (0, 1))
    transport((first, second), geometry, old, new, age=0, betas=(0.9, 0.99))
    assert torch.equal(first, torch.ones(3, 9))
    assert torch.equal(second, torch.ones(3, 9))

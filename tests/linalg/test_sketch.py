"""Sketches: normal, independent across seeds and positions, a function of the seed alone, as the hash says."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subspace.linalg import sketch
from subspace.linalg.sketch import gaussian, gaussians, mix_seed, uniform, uniform_part

COUNT = 200_000
SEEDS = [0, 1, 2**31, 2**63 - 1, -5]


def kolmogorov(ordered_probabilities: Tensor) -> float:
    """The distance of a sample from its distribution, times sqrt(N): above 1.95 once in a thousand samples."""
    count = ordered_probabilities.numel()
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    above, below = steps[1:] - ordered_probabilities, ordered_probabilities - steps[:-1]
    return torch.maximum(above, below).max().item() * math.sqrt(count)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(sketch).failed == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_normal(seed: int) -> None:
    values = gaussian(seed, (COUNT,)).double()
    ordered = values.sort().values
    assert kolmogorov(0.5 * (1.0 + torch.erf(ordered / math.sqrt(2.0)))) < 1.95
    for moment, mean, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((values**moment).mean().item() - mean) < 4 * math.sqrt(spread / COUNT)
    assert 4.0 < values.abs().max() < 6.8


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_numbers_are_uniform(seed: int) -> None:
    values = uniform(seed, (COUNT,))
    assert values.min() >= 0
    assert values.max() < 1
    assert kolmogorov(values.double().sort().values) < 1.95
    assert torch.equal((values * 2**24).round() / 2**24, values)


def test_seeds_and_positions_are_independent() -> None:
    """Neighbours, the two numbers of a hash, rows, and whole streams of near seeds: no correlation, nor of squares."""
    values = gaussian(7, (COUNT,)).double()
    half = COUNT // 2
    pairs = [(values[:-gap], values[gap:]) for gap in (1, 2, 64, 100, 128, half)]
    for other in (8, 6, 7 + 2**32, -7, 2**40):
        pairs.append((values, gaussian(other, (COUNT,)).double()))
    for first, second in pairs:
        limit = 4.5 / math.sqrt(first.numel())
        assert abs((first * second).mean().item()) < limit
        assert abs(((first**2 - 1) * (second**2 - 1)).mean().item()) < 2 * limit


def test_streams_of_two_seeds_are_no_shifts_of_one_another() -> None:
    seen: set[float] = set()
    for seed in range(20):
        fresh = set(uniform(seed, (2000,)).tolist())
        assert len(seen & fresh) < 25  # by chance: 2000 * 40000 / 2^24 = 5
        seen |= fresh


def test_hash_is_the_one_of_the_module() -> None:
    """Held against integers of Python, so that no device or version may change a sketch unnoticed."""
    found = sketch._hashes((42,), 5, torch.device("cpu"))[0].tolist()

    def mixed(value: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = (value ^ (value >> shift)) * factor % 2**64
        return value ^ (value >> 31)

    key = mixed(42 + 0x9E3779B97F4A7C15)
    step = mixed((key + 0x9E3779B97F4A7C15) % 2**64) | 1
    assert [value % 2**64 for value in found] == [mixed((key + position * step) % 2**64) for position in range(1, 6)]
    golden = torch.tensor([1.263032, -0.064864, 0.040038, 0.138182])
    torch.testing.assert_close(gaussian(42, (4,)), golden, rtol=0, atol=2e-6)


def test_torch_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    gaussian(1, (10,))
    uniform(1, (10,))
    assert torch.equal(torch.get_rng_state(), before)


@given(seed=st.integers(-(2**63), 2**64), shape=st.lists(st.integers(0, 7), max_size=3))
@settings(max_examples=50, deadline=None)
def test_shapes_types_and_repetition(seed: int, shape: list[int]) -> None:
    values = gaussian(seed, tuple(shape))
    assert tuple(values.shape) == tuple(shape)
    assert values.is_contiguous()
    assert torch.equal(values, gaussian(seed, tuple(shape)))
    assert torch.all(torch.isfinite(values))
    assert torch.equal(gaussian(seed, tuple(shape), dtype=torch.bfloat16), values.bfloat16())
    assert tuple(uniform(seed, tuple(shape)).shape) == tuple(shape)


@given(seed=st.integers(0, 2**63), labels=st.lists(st.integers(0, 10**6), max_size=3), extra=st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_mixed_seeds_differ(seed: int, labels: list[int], extra: int) -> None:
    mixed = mix_seed(seed, *labels)
    assert 0 <= mixed < 2**63
    assert mixed not in (mix_seed(seed + 1, *labels), mix_seed(seed, *labels, extra), seed)
    assert mix_seed(seed, extra) != mix_seed(extra, seed) or seed == extra
    if len(set(labels)) > 1:
        assert mixed != mix_seed(seed, *labels[1:], labels[0])


@pytest.mark.parametrize("bits", [0, -1, -(2**63), 2**32 - 1])
def test_the_rarest_hashes_give_finite_numbers(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(
        sketch, "_hashes", lambda seeds, count, device: torch.full((len(seeds), count), bits, dtype=torch.int64)
    )
    values = gaussian(0, (2,))
    assert torch.all(torch.isfinite(values))
    assert values.abs().max() < 7
    assert uniform(0, (2,)).tolist() == [(bits >> 40) % 2**24 / 2**24, bits % 2**24 / 2**24]


@pytest.mark.parametrize("num_elements", [1, 10, 11])
def test_a_part_of_uniform_numbers_is_a_part_of_the_whole(num_elements: int) -> None:
    whole = uniform(3, (num_elements,))
    for start in range(num_elements):
        for stop in range(start + 1, num_elements + 1):
            assert torch.equal(uniform_part(3, num_elements, slice(start, stop)), whole[start:stop])


@pytest.mark.parametrize("shape", [(3, 5), (8,), (1, 1)])
def test_many_seeds_at_once_give_what_each_gives(shape: tuple[int, ...]) -> None:
    seeds = [5, 2**63 - 1, 0]
    found = gaussians(seeds, shape)
    assert found.shape == (3, *shape)
    assert all(torch.equal(found[place], gaussian(seed, shape)) for place, seed in enumerate(seeds))

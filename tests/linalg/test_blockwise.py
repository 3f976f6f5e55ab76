"""Block-wise codes: errors bounded by the curve, zero excluded, exact at every level, of the promised size."""

from __future__ import annotations

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subspace.linalg import blockwise
from subspace.linalg.blockwise import block_size, code_sizes, decode, decode_part, encode, encode_part

KINDS = [(8, True), (8, False), (4, True), (4, False)]
CURVE = {(8, True): (127, 2), (8, False): (255, 4), (4, True): (7, 3), (4, False): (15, 8)}


def numbers(num_elements: int, signed: bool, seed: int = 0) -> Tensor:
    """Normal numbers times a log-normal spread, as moments have it."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(num_elements, generator=generator) * torch.randn(num_elements, generator=generator).exp()
    return values if signed else values.square()


def there_and_back(values: Tensor, bits: int, signed: bool, **options: Tensor) -> Tensor:
    codes, scales = encode(values, bits, signed=signed, **options)
    return decode(codes, scales, values.shape, bits, signed=signed)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(blockwise).failed == 0


@pytest.mark.parametrize(("bits", "signed"), KINDS)
def test_values_are_the_curve_of_the_module(bits: int, signed: bool) -> None:
    """Every level of the formula is a fixed point; nothing else can be stored."""
    levels, power = CURVE[bits, signed]
    steps = torch.arange(-levels if signed else 0, levels + 1, dtype=torch.float64) / levels
    ladder = (3.0 * steps.sign() * steps.abs() ** power).float()
    codes, scales = encode(ladder, bits, signed=signed)
    assert torch.unique(codes).numel() > 1
    assert scales[0] == 3.0
    for first in range(0, ladder.numel(), block_size(bits)):  # every block with its largest value in it
        part = torch.cat((ladder[first : first + block_size(bits) - 1], ladder[-1:]))
        torch.testing.assert_close(there_and_back(part, bits, signed), part, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("bits", "signed"), KINDS)
def test_error_is_at_most_half_a_step_of_the_curve(bits: int, signed: bool) -> None:
    levels, power = CURVE[bits, signed]
    values = numbers(10 * block_size(bits), signed)
    blocks, found = values.view(10, -1).double(), there_and_back(values, bits, signed).view(10, -1).double()
    scale = blocks.abs().amax(dim=1, keepdim=True)
    before, after = ((part.abs() / scale) ** (1 / power) * levels for part in (blocks, found))
    lost = (before - after).abs()
    lifted = (before < 0.5) & (not signed)  # to code 1, since 0 is excluded
    assert lost[~lifted].max() <= 0.5 + 1e-4
    assert torch.all(blocks.sign() * found.sign() >= 0)


@pytest.mark.parametrize(
    ("bits", "signed", "limit"), [(8, True, 0.01), (8, False, 0.01), (4, True, 0.17), (4, False, 0.17)]
)
def test_relative_error_of_a_whole_moment(bits: int, signed: bool, limit: float) -> None:
    values = torch.randn(64, 300, generator=torch.Generator().manual_seed(1))
    values = values if signed else values.square()
    error = (there_and_back(values, bits, signed) - values).norm() / values.norm()
    assert limit / 3 < error < limit


@given(
    shape=st.lists(st.integers(1, 19), min_size=0, max_size=3),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
    exponent=st.integers(-42, 30),
)
@settings(max_examples=80, deadline=None)
def test_any_shape_and_size(shape: list[int], kind: tuple[int, bool], seed: int, exponent: int) -> None:
    """Sizes as promised; encoding what was decoded gives the same codes; signs, zeros and order survive."""
    bits, signed = kind
    values = (numbers(max(torch.Size(shape).numel(), 1), signed, seed) * 10.0**exponent).view(shape)
    codes, scales = encode(values, bits, signed=signed)
    assert (codes.numel(), scales.numel()) == code_sizes(values.numel(), bits)
    assert (codes.dtype, scales.dtype) == (torch.uint8, torch.float32)
    found = decode(codes, scales, values.shape, bits, signed=signed)
    assert found.shape == values.shape
    assert torch.all(torch.isfinite(found))
    assert torch.all(found * values.sign() >= 0)
    assert signed or torch.equal(found > 0, values > 0)
    again, same_scales = encode(found, bits, signed=signed)
    assert torch.equal(again, codes)
    assert exponent < -20 or torch.equal(same_scales, scales)


@pytest.mark.parametrize(("bits", "signed"), KINDS)
def test_order_survives_within_a_block(bits: int, signed: bool) -> None:
    values = numbers(block_size(bits), signed).sort().values
    found = there_and_back(values, bits, signed)
    assert torch.all(found.diff() >= 0)
    assert found[0] < found[-1]


@pytest.mark.parametrize("bits", [8, 4])
def test_zero_is_excluded_and_stays_itself(bits: int) -> None:
    """However small beside its block, a positive second moment stays positive; a zero stays exactly zero."""
    values = torch.tensor([1e30, 1.0, 1e-44, 0.0] * block_size(bits))
    found = there_and_back(values, bits, False)
    assert torch.equal(found > 0, values > 0)
    smallest = torch.full((5,), 1e-44)
    assert there_and_back(smallest, bits, False).min() >= torch.finfo(torch.float32).tiny
    for signed in (True, False):
        assert torch.equal(there_and_back(torch.zeros(1000), bits, signed), torch.zeros(1000))
        nothing = decode(torch.zeros(500, dtype=torch.uint8), torch.zeros(2), (500,), 8, signed=signed)
        assert torch.equal(nothing, torch.zeros(500))  # fresh state


@pytest.mark.parametrize(("bits", "signed"), KINDS)
def test_blocks_do_not_see_each_other(bits: int, signed: bool) -> None:
    size = block_size(bits)
    values = numbers(3 * size + 5, signed)
    changed = values.clone()
    changed[size : 2 * size] *= 1e6
    before, after = there_and_back(values, bits, signed), there_and_back(changed, bits, signed)
    outside = torch.ones_like(values, dtype=torch.bool)
    outside[size : 2 * size] = False
    assert torch.equal(before[outside], after[outside])
    assert not torch.equal(before[~outside], after[~outside])


@pytest.mark.parametrize(("bits", "signed"), KINDS)
def test_noise_makes_the_mean_right(bits: int, signed: bool) -> None:
    """A value between two levels comes back right on average, where the nearest level would always be the same."""
    values = torch.full((40_000,), 0.61)
    values[:: block_size(bits)] = 1.0
    noise = torch.rand(values.numel(), generator=torch.Generator().manual_seed(2))
    found = there_and_back(values, bits, signed, noise=noise)[values != 1.0]
    assert torch.unique(found).numel() == 2
    spread = found.std().item() / found.numel() ** 0.5
    assert abs(found.mean().item() - 0.61) < 4 * spread
    assert torch.equal(there_and_back(values, bits, signed, noise=noise)[values == 1.0], values[values == 1.0])


def test_a_slow_average_moves_only_with_noise() -> None:
    """v = 0.999 v + 0.001 g: under half a step of 4 bits, so that the nearest code stands still for ever."""
    generator = torch.Generator().manual_seed(3)
    start, goal = torch.full((1280,), 0.5), torch.full((1280,), 0.25)
    start[::32] = goal[::32] = 1.0  # the largest of every block
    still, moving = start.clone(), start.clone()
    for _ in range(300):
        still = there_and_back(0.999 * still + 0.001 * goal, 4, False)
        noise = torch.rand(1280, generator=generator)
        moving = there_and_back(0.999 * moving + 0.001 * goal, 4, False, noise=noise)
    wanted = 0.25 + 0.25 * 0.999**300
    assert abs(moving[start < 1].mean() - wanted) < 0.03
    assert torch.equal(still, there_and_back(start, 4, False))


def test_a_fault_stays_visible() -> None:
    values = torch.ones(600)
    values[300] = float("nan")
    found = there_and_back(values, 8, True)
    assert torch.equal(found.isnan(), torch.arange(600) // 256 == 1)


def test_decode_writes_into_a_buffer() -> None:
    values = numbers(700, True).view(7, 100)
    codes, scales = encode(values, 8, signed=True)
    buffer = torch.empty(7, 100)
    assert decode(codes, scales, (7, 100), 8, signed=True, out=buffer).data_ptr() == buffer.data_ptr()
    assert torch.equal(buffer, there_and_back(values, 8, True))


def test_bfloat16_and_strided_values() -> None:
    values = numbers(600, True).view(20, 30)
    assert torch.equal(there_and_back(values.t(), 4, True), there_and_back(values.t().contiguous(), 4, True))
    narrow = values.bfloat16()
    assert torch.equal(there_and_back(narrow, 8, True), there_and_back(narrow.float(), 8, True))


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="codes of 5 bits"):
        encode(torch.ones(3), 5, signed=True)
    codes, scales = encode(torch.ones(600), 8, signed=True)
    with pytest.raises(ValueError, match="600 codes and 3 scales"):
        decode(codes, scales, (601,), 8, signed=True)


@pytest.mark.parametrize("num_elements", [2048, 2049, 2999])
@pytest.mark.parametrize(("bits", "signed"), KINDS)
def test_parts_are_the_whole(bits: int, signed: bool, num_elements: int) -> None:
    """Piece by piece, in any order, the same codes, scales and values; a piece lies over the middle of the bytes."""
    values, noise = numbers(num_elements, signed), torch.rand(num_elements)
    wanted = encode(values, bits, signed=signed, noise=noise)
    codes, scales = (torch.zeros_like(part) for part in wanted)
    found = torch.empty(num_elements)
    for start in (1536, 0, 768, 2304):
        part = slice(start, min(start + 768, num_elements))
        if part.start < part.stop:
            told = {"signed": signed, "noise": noise[part]}
            encode_part(values[part], codes, scales, part, num_elements, bits, **told)  # type: ignore[arg-type]
            decode_part(codes, scales, part, num_elements, bits, signed=signed, out=found[part])
    assert torch.equal(codes, wanted[0])
    assert torch.equal(scales, wanted[1])
    assert torch.equal(found, decode(*wanted, (num_elements,), bits, signed=signed))

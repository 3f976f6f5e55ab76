"""Bases: equal to the SVD where exact, near it where estimated, orthonormal always, whatever the matrix."""

from __future__ import annotations

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subspace.linalg import decompose
from subspace.linalg.angles import captured_energy, overlap
from subspace.linalg.decompose import HOW, align_signs, leading_basis, orthonormality_error, orthonormalize

ESTIMATES = ("gram", "randomized", "warm")
SHAPES = [(40, 96), (96, 40), (64, 64)]


def gradient(
    rows: int, columns: int, *, decay: float = 1.0, noise: float = 0.0, seed: int = 0, draw: int = 0
) -> Tensor:
    """A matrix whose singular values fall like k^-decay; `draw` changes the noise and not the signal."""
    fixed, fresh = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + draw)
    rank = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, rank, generator=fixed)).Q
    right = torch.linalg.qr(torch.randn(columns, rank, generator=fixed)).Q
    signal = left * torch.arange(1, rank + 1) ** -decay @ right.mT
    disturbance = torch.randn(rows, columns, generator=fresh)
    return signal + noise * signal.norm() / disturbance.norm() * disturbance


def reference(matrix: Tensor, rank: int, side: str) -> Tensor:
    left, _, right = torch.linalg.svd(matrix.float(), full_matrices=False)
    return left[:, :rank] if side == "left" else right[:rank].mT


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(decompose).failed == 0


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
def test_svd_is_torch_svd_bit_for_bit(shape: tuple[int, int], side: str) -> None:
    matrix = gradient(*shape, noise=0.5)
    found = leading_basis(matrix, 7, how="svd", side=side)
    assert torch.equal(found, reference(matrix, 7, side))


@pytest.mark.parametrize("rank", [1, 6])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("how", HOW)
def test_a_basis_owns_its_storage(how: str, side: str, rank: int) -> None:
    """A view would keep the whole factor alive, and a checkpoint would write it."""
    found = leading_basis(gradient(6, 9), rank, how=how, side=side)
    assert found.untyped_storage().nbytes() == found.numel() * 4


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("fault", [0.0, float("nan"), float("inf"), -float("inf")])
def test_a_matrix_of_faults_gives_an_orthonormal_basis(how: str, fault: float) -> None:
    matrix = torch.full((7, 5), fault)
    found = leading_basis(matrix, 3, how=how, previous=torch.eye(7)[:, :3])
    assert orthonormality_error(found) < 1e-6
    matrix[2] = 1.0
    assert orthonormality_error(leading_basis(matrix, 3, how=how, previous=found)) < 1e-6


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ESTIMATES)
def test_estimates_find_singular_vectors_in_order(how: str, shape: tuple[int, int], side: str) -> None:
    """With a steep spectrum every column, not the span alone, is the singular vector of its place, up to sign."""
    matrix = gradient(*shape, decay=4.0)
    wanted = reference(matrix, 4, side)
    found = leading_basis(matrix, 4, how=how, side=side)
    torch.testing.assert_close((found * wanted).sum(dim=0).abs(), torch.ones(4), atol=2e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", [(160, 700), (700, 160), (200, 200), (250, 520)])
@pytest.mark.parametrize(("how", "least"), [("gram", 0.99999), ("randomized", 0.98), ("warm", 0.95)])
def test_captured_energy_on_a_noisy_gradient(how: str, least: float, shape: tuple[int, int], side: str) -> None:
    """Against the SVD of the same matrix; the basis before is that of another draw of the noise."""
    before, matrix = (gradient(*shape, decay=0.6, noise=0.5, draw=draw) for draw in (0, 1))
    old = leading_basis(before, 24, how="svd", side=side)
    best = captured_energy(matrix, leading_basis(matrix, 24, how="svd", side=side), side)
    found = leading_basis(matrix, 24, how=how, side=side, previous=old, seed=5)
    assert captured_energy(matrix, found, side) >= least * best
    assert captured_energy(matrix, found, side) > captured_energy(matrix, old, side) + 0.005


def test_a_wide_sketch_needs_one_pass_and_a_narrow_one_two() -> None:
    """Of a flat spectrum, which the second pass sharpens: with it a basis captures more than one pass could find."""
    matrix = gradient(200, 300, decay=0.3, noise=0.5)
    shares = []
    for rank in (49, 50):
        best = captured_energy(matrix, leading_basis(matrix, rank, how="svd"), "left")
        shares.append(captured_energy(matrix, leading_basis(matrix, rank, how="randomized", seed=2), "left") / best)
    assert shares[0] > shares[1] + 0.01


@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    rank=st.integers(1, 8),
    how=st.sampled_from(HOW),
    side=st.sampled_from(("left", "right")),
    kind=st.sampled_from(("noise", "zero", "rank one", "tiny", "huge", "steep", "repeated", "nan", "inf")),
    batch=st.sampled_from(((), (2,), (2, 1))),
    dtype=st.sampled_from((torch.float32, torch.bfloat16, torch.float64)),
    seed=st.integers(0, 100),
)
@settings(max_examples=120, deadline=None)
def test_always_orthonormal(
    rows: int,
    columns: int,
    rank: int,
    how: str,
    side: str,
    kind: str,
    batch: tuple[int, ...],
    dtype: torch.dtype,
    seed: int,
) -> None:
    matrix = torch.randn(*batch, rows, columns, generator=torch.Generator().manual_seed(seed))
    if kind == "zero":
        matrix.zero_()
    elif kind == "rank one":
        matrix = matrix[..., :1] * matrix[..., :1, :]
    elif kind in ("tiny", "huge"):
        matrix *= 1e-25 if kind == "tiny" else 1e25
    elif kind == "steep":
        matrix *= torch.logspace(0, -12, columns)
    elif kind == "repeated":
        matrix = matrix[..., :1, :].expand_as(matrix)
    elif kind in ("nan", "inf"):
        matrix[..., 0, 0] = float(kind)
    matrix = matrix.to(dtype)
    before = matrix.clone()
    previous = None
    for _ in range(2):
        previous = leading_basis(matrix, rank, how=how, side=side, previous=previous, seed=seed)
        length = rows if side == "left" else columns
        assert tuple(previous.shape) == (*batch, length, min(rank, rows, columns))
        assert previous.dtype == torch.float32
        assert previous.is_contiguous()
        assert orthonormality_error(previous) < 1e-5
    assert torch.equal(matrix.nan_to_num(7.0), before.nan_to_num(7.0))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("how", ["gram", "randomized", "warm"])
def test_a_spoilt_entry_takes_no_more_than_its_row_and_column(how: str, side: str) -> None:
    matrix = gradient(30, 50, decay=2.0)
    clean = matrix.clone()
    matrix[3, 4] = float("nan")
    clean[3], clean[:, 4] = 0.0, 0.0
    found = leading_basis(matrix, 3, how=how, side=side)
    assert overlap(found, leading_basis(clean, 3, how="svd", side=side)) > 0.9


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_its_matrices(how: str, side: str) -> None:
    stack = torch.stack([gradient(24, 36, decay=3.0, seed=seed) for seed in range(3)])
    found = leading_basis(stack, 3, how=how, side=side, seed=9)
    if how == "random":  # one draw for all would tie experts together
        assert overlap(found[0], found[1]) < 0.9
        return
    again = leading_basis(stack, 3, how=how, side=side, seed=10, previous=found)
    for index in range(3):
        alone = leading_basis(stack[index], 3, how=how, side=side, seed=9)
        torch.testing.assert_close(align_signs(found[index], alone), alone, atol=1e-4, rtol=0)
        torch.testing.assert_close(align_signs(again[index], alone), alone, atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(50, 70), (70, 50)])
@pytest.mark.parametrize("how", ["gram", "randomized", "warm"])
def test_narrow_types_are_widened_in_slices(monkeypatch: pytest.MonkeyPatch, how: str, shape: tuple[int, int]) -> None:
    matrix = gradient(*shape, decay=2.0).bfloat16()
    wanted = leading_basis(matrix.float(), 3, how=how)
    monkeypatch.setattr(decompose, "_WIDENED_ELEMENTS", 300)
    torch.testing.assert_close(align_signs(leading_basis(matrix, 3, how=how), wanted), wanted, atol=1e-4, rtol=0)


def test_warm_turns_to_a_gradient_it_has_never_seen() -> None:
    """The last basis is orthogonal to everything: the few random columns find the way, without a fault."""
    matrix = torch.zeros(60, 80)
    matrix[40:] = gradient(20, 80, decay=0.1)
    old = torch.eye(60)[:, 30:40].contiguous()
    found = leading_basis(matrix, 10, how="warm", previous=old)
    assert captured_energy(matrix, old) == 0
    assert captured_energy(matrix, found) > 0.25
    assert captured_energy(matrix, leading_basis(matrix, 10, how="warm", previous=found)) > 0.45


def test_warm_without_a_basis_is_randomized() -> None:
    matrix = gradient(30, 40, noise=1.0)
    assert torch.equal(leading_basis(matrix, 5, how="warm", seed=3), leading_basis(matrix, 5, how="randomized", seed=3))


def test_seeds_count_where_a_sketch_is_drawn() -> None:
    matrix = gradient(30, 40, noise=1.0)
    for how in ("randomized", "random"):
        first = leading_basis(matrix, 5, how=how, seed=1)
        assert torch.equal(first, leading_basis(matrix, 5, how=how, seed=1))
        assert not torch.allclose(first, leading_basis(matrix, 5, how=how, seed=2), atol=1e-5)
    other = gradient(30, 40, noise=1.0, seed=8)
    assert torch.equal(leading_basis(other, 5, how="random", seed=1), leading_basis(matrix, 5, how="random", seed=1))


def test_align_signs() -> None:
    previous = orthonormalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)))
    flips = torch.tensor([1.0, -1.0, -1.0, 1.0])
    assert torch.equal(align_signs(previous * flips, previous), previous)
    orthogonal = orthonormalize(torch.eye(9)[:, 5:])
    assert torch.equal(align_signs(orthogonal, torch.eye(9)[:, :4]), orthogonal)


@given(rows=st.integers(1, 12), rank=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_orthonormalize_is_the_qr_with_a_positive_diagonal(rows: int, rank: int, seed: int) -> None:
    rank = min(rows, rank)
    matrix = torch.randn(rows, rank, generator=torch.Generator().manual_seed(seed))
    basis = orthonormalize(matrix)
    upper = basis.mT @ matrix
    assert torch.all(upper.diagonal() >= 0)
    torch.testing.assert_close(upper.tril(-1), torch.zeros(rank, rank), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis @ upper, matrix, atol=1e-5, rtol=0)
    assert orthonormality_error(basis) < 1e-5
    assert basis.is_contiguous()


def test_orthonormality_error_is_the_largest_entry() -> None:
    basis = torch.eye(5)[:, :2].contiguous()
    basis[1, 0] = 0.25
    assert orthonormality_error(basis) == 0.25


def test_full_precision_is_kept_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = torch.backends.cuda.matmul
    for setting in ("tf32", switches.fp32_precision):
        before = switches.fp32_precision
        switches.fp32_precision = setting
        with decompose._full_precision(torch.device("cuda")):
            assert switches.fp32_precision == "ieee"
        assert switches.fp32_precision == setting
        switches.fp32_precision = before


def test_misuse_is_refused() -> None:
    matrix = torch.ones(4, 6)
    with pytest.raises(ValueError, match="basis 'qr' of side 'left'"):
        leading_basis(matrix, 2, how="qr")
    with pytest.raises(ValueError, match="side 'shorter'"):
        leading_basis(matrix, 2, how="svd", side="shorter")
    with pytest.raises(ValueError, match=r"previous basis of shape \(4, 3\); the new one has \(4, 2\)"):
        leading_basis(matrix, 2, how="warm", previous=torch.eye(4)[:, :3])

"""Moving on the Stiefel manifold: what is tangent, what comes back, and how near, in float64 over random matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subspace.linalg.stiefel import RETRACTIONS, canonical_gradient, retract_exponential, retract_polar, tangent

Retract = Callable[[Tensor, Tensor], Tensor]
BOTH = pytest.mark.parametrize("retract", RETRACTIONS.values(), ids=RETRACTIONS)


@st.composite
def points(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Return orthonormal Y and any matrix of its shape, one or a batch; square and d < 2 r occur."""
    rank = draw(st.integers(1, 5))
    rows = rank + draw(st.integers(0, 9))
    batch = draw(st.sampled_from([(), (3,), (2, 2)]))
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    start, other = (torch.randn(*batch, rows, rank, dtype=torch.float64, generator=source) for _ in range(2))
    return torch.linalg.qr(start)[0], other


def far(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max())


def off_manifold(basis: Tensor) -> float:
    return far(basis.mT @ basis, torch.eye(basis.shape[-1], dtype=basis.dtype))


def symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


@settings(deadline=None, max_examples=40)
@given(points())
def test_the_canonical_gradient_is_tangent_and_descends(point: tuple[Tensor, Tensor]) -> None:
    basis, gradient = point
    found = canonical_gradient(basis, gradient)
    assert far(found, gradient - basis @ gradient.mT @ basis) < 1e-12
    assert far(symmetric(basis.mT @ found), torch.zeros(())) < 1e-12
    assert float((found * gradient).sum()) > -1e-12


@settings(deadline=None, max_examples=40)
@given(points())
def test_tangent_is_the_orthogonal_projection(point: tuple[Tensor, Tensor]) -> None:
    basis, change = point
    found = tangent(basis, change)
    assert far(symmetric(basis.mT @ found), torch.zeros(())) < 1e-12
    assert far(tangent(basis, found), found) < 1e-12
    rest = change - found
    assert far(rest, basis @ symmetric(basis.mT @ change)) < 1e-12
    assert abs(float((rest * found).sum())) < 1e-10


@BOTH
@settings(deadline=None, max_examples=40)
@given(point=points(), length=st.floats(0.0, 2.0))
def test_retraction_ends_on_the_manifold(retract: Retract, point: tuple[Tensor, Tensor], length: float) -> None:
    basis, other = point
    step = length * tangent(basis, other)
    step = step / max(1.0, float(step.abs().max()))
    assert off_manifold(retract(basis, step)) < 1e-11


@BOTH
@settings(deadline=None, max_examples=20)
@given(points())
def test_retraction_is_first_order(retract: Retract, point: tuple[Tensor, Tensor]) -> None:
    """||Retr(Y, t D) - (Y + t D)|| = O(t^2): a tenth of the step is a hundredth of the error."""
    basis, other = point
    step = tangent(basis, other)
    step = step / max(1.0, float(step.norm()))
    near, nearer = (far(retract(basis, t * step), basis + t * step) for t in (1e-2, 1e-3))
    assert near < 1e-4
    assert nearer < 0.0105 * near + 1e-13
    assert far(retract(basis, 0 * step), basis) < 1e-14


@settings(deadline=None, max_examples=20)
@given(points())
def test_polar_and_exponential_differ_in_second_order(point: tuple[Tensor, Tensor]) -> None:
    """By O(t^2); across the basis (Y^T D = 0) both are of second order, so only O(t^3) is left."""
    basis, other = point
    step = tangent(basis, other)
    across = other - basis @ (basis.mT @ other)
    for direction, order in ((step, 2), (across, 3)):
        unit = direction / max(1.0, float(direction.norm()))
        near, nearer = (far(retract_polar(basis, t * unit), retract_exponential(basis, t * unit)) for t in (1e-1, 1e-2))
        assert near < 10.0 ** -(order - 0.5)
        assert nearer < 1.2 * 10.0**-order * near + 1e-13


@settings(deadline=None, max_examples=20)
@given(points())
def test_polar_is_the_nearest_orthonormal_matrix(point: tuple[Tensor, Tensor]) -> None:
    basis, other = point
    step = tangent(basis, other)
    left, _, right = torch.linalg.svd(basis + step, full_matrices=False)
    assert far(retract_polar(basis, step), left @ right) < 1e-11


@settings(deadline=None, max_examples=20)
@given(points())
def test_exponential_is_the_textbook_geodesic(point: tuple[Tensor, Tensor]) -> None:
    basis, other = point
    rows, rank = basis.shape[-2:]
    if rows < 2 * rank:  # there Q of the textbook's QR is not orthogonal to Y
        return
    step = tangent(basis, other) / 3
    inner = basis.mT @ step
    across, core = torch.linalg.qr(step - basis @ inner)
    top, bottom = torch.cat((inner, -core.mT), -1), torch.cat((core, torch.zeros_like(core)), -1)
    flow = torch.linalg.matrix_exp(torch.cat((top, bottom), -2))[..., :rank]
    assert far(retract_exponential(basis, step), torch.cat((basis, across), -1) @ flow) < 1e-11


@BOTH
@settings(deadline=None, max_examples=20)
@given(points())
def test_a_turned_basis_moves_alike(retract: Retract, point: tuple[Tensor, Tensor]) -> None:
    basis, other = point
    step = tangent(basis, other) / 3
    turn = torch.linalg.qr(torch.randn(basis.shape[-1], basis.shape[-1], dtype=torch.float64))[0]
    assert far(retract(basis @ turn, step @ turn), retract(basis, step) @ turn) < 1e-11


@BOTH
def test_half_types_are_computed_in_float32(retract: Retract) -> None:
    basis = torch.linalg.qr(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)))[0]
    step = tangent(basis, 0.01 * torch.ones(40, 4).bfloat16())
    assert step.dtype == torch.float32
    moved = retract(basis, step.bfloat16())
    assert moved.dtype == torch.float32
    assert off_manifold(moved) < 2e-4  # a rounded step is not quite tangent; the polar factor does not mind
    assert canonical_gradient(basis.bfloat16(), step.bfloat16()).dtype == torch.float32

"""Into a subspace and back: shapes, the identity of project after lift, linearity, and when projection pays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subspace.core.errors import ConfigError
from subspace.linalg.decompose import leading_basis
from subspace.projection.geometry import SIDES, Geometry, geometry_of, resolve_side
from subspace.projection.projector import Projector

sizes = st.integers(1, 9)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    shape = (draw(sizes), draw(sizes))
    if draw(st.booleans()):
        shape = (draw(st.integers(2, 4)), *shape)
    found = geometry_of(shape, draw(st.integers(1, 10)), draw(st.sampled_from(SIDES)))
    assert found is not None
    return found


def random_projector(geometry: Geometry, seed: int = 0) -> Projector:
    generator = torch.Generator().manual_seed(seed)
    bases = [
        leading_basis(torch.randn(*shape[:-1], shape[-1], generator=generator), shape[-1], how="svd")
        for shape in geometry.basis_shapes.values()
    ]
    return Projector.of(geometry.side, *bases)


def random_gradient(geometry: Geometry, seed: int) -> torch.Tensor:
    return torch.randn(geometry.matrix_shape, generator=torch.Generator().manual_seed(seed))


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_project_after_lift_is_the_identity(geometry: Geometry) -> None:
    projector = random_projector(geometry)
    low = torch.randn(geometry.low_shape, generator=torch.Generator().manual_seed(1))
    lifted = projector.lift(low)
    assert lifted.shape == geometry.matrix_shape
    torch.testing.assert_close(projector.project(lifted), low, atol=1e-5, rtol=0)


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_the_sum_of_projections_is_the_projection_of_the_sum(geometry: Geometry) -> None:
    projector, parts = random_projector(geometry), [random_gradient(geometry, seed) for seed in range(8)]
    expected = projector.project(torch.stack(parts).sum(dim=0))
    found = torch.stack([projector.project(part) for part in parts]).sum(dim=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    out = torch.empty(geometry.low_shape)
    assert projector.project(parts[0], out=out) is out
    torch.testing.assert_close(out, projector.project(parts[0]))


@given(geometries(), st.floats(-2, 2), st.floats(-2, 2))
@settings(max_examples=60, deadline=None)
def test_add_lifted_is_a_sum(geometry: Geometry, beta: float, alpha: float) -> None:
    projector, weight = random_projector(geometry), random_gradient(geometry, 3)
    low = torch.randn(geometry.low_shape, generator=torch.Generator().manual_seed(1))
    expected = beta * weight + alpha * projector.lift(low)
    assert projector.add_lifted(weight, low, beta=beta, alpha=alpha) is weight
    torch.testing.assert_close(weight, expected, atol=1e-4, rtol=0)


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_a_stack_is_its_matrices(geometry: Geometry) -> None:
    projector, gradient = random_projector(geometry), random_gradient(geometry, 2)
    low = projector.project(gradient)
    for place in range(geometry.num_matrices):
        bases = (b if b is None or b.ndim == 2 else b[place] for b in (projector.left, projector.right))
        single = Projector(geometry.side, *bases)
        one, its_low = (gradient, low) if gradient.ndim == 2 else (gradient[place], low[place])
        torch.testing.assert_close(single.project(one), its_low, atol=1e-5, rtol=0)


def test_sides_of_tall_wide_and_square() -> None:
    names = {side: [resolve_side(side, m, n) for m, n in ((8, 4), (4, 8), (6, 6))] for side in SIDES}
    assert names == {
        "shorter": ["right", "left", "right"],
        "longer": ["left", "right", "left"],
        "left": ["left"] * 3,
        "right": ["right"] * 3,
        "both": ["both"] * 3,
    }


def test_shapes_that_are_projected() -> None:
    assert geometry_of((7,), 2, "shorter") is None
    assert geometry_of((), 2, "shorter") is None
    assert geometry_of((0, 4), 2, "shorter") is None
    convolution = geometry_of((16, 3, 2, 2), 2, "shorter")
    assert convolution is not None
    assert convolution.matrix_shape == (16, 12)
    experts = geometry_of((4, 8, 6), 20, "both")
    assert experts is not None
    assert (experts.rank, experts.low_shape) == (6, (4, 6, 6))
    assert experts.basis_shapes == {"basis": (4, 8, 6), "basis_right": (4, 6, 6)}
    with pytest.raises(ConfigError) as caught:
        geometry_of((8, 4), 0, "shorter")
    assert caught.value.code == "E-CFG-016"

"""Moving on the Stiefel manifold, the matrices with orthonormal columns.

    St(d, r) = { Y (d, r) : Y^T Y = I }          tangent at Y: { D : Y^T D + D^T Y = 0 }

A step of any optimizer leaves the manifold. `tangent` takes from it what leads straight out, and a retraction brings
the rest back. All functions take one matrix or a batch, compute in float32 (float64 stays), and return that type.

d rows, r columns (rank), d >= r; leading dimensions are a batch.

References: Edelman, Arias, Smith 1998, arXiv physics/9806030, sections 2.2-2.4 (tangents, canonical metric,
geodesics); Absil, Mahony, Sepulchre 2008, "Optimization Algorithms on Matrix Manifolds", section 4.1 (retractions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

__all__ = ["RETRACTIONS", "Retraction", "canonical_gradient", "retract_exponential", "retract_polar", "tangent"]

Retraction = Literal["polar", "exponential"]


def canonical_gradient(basis: Tensor, gradient: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return the Riemannian gradient under the canonical metric: R = G - Y G^T Y, a tangent at Y.

    Args:
        basis: Y (..., d, r), orthonormal columns.
        gradient: G (..., d, r), the Euclidean gradient dL/dY.
        out: Where to write a batch (k, d, r); may be `gradient` itself.

    >>> flat = canonical_gradient(torch.eye(3, 2), torch.ones(3, 2))
    >>> flat.tolist()
    [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    """
    basis, gradient = _wide(basis), _wide(gradient)
    return _plus_product(gradient, basis, gradient.mT @ basis, -1.0, out)


def tangent(basis: Tensor, change: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return the part of `change` that is tangent at Y: D - Y sym(Y^T D), sym(X) = (X + X^T) / 2.

    Args:
        basis: Y (..., d, r), orthonormal columns.
        change: D (..., d, r).
        out: Where to write a batch (k, d, r); may be `change` itself.
    """
    basis, change = _wide(basis), _wide(change)
    inner = basis.mT @ change
    return _plus_product(change, basis, inner + inner.mT, -0.5, out)


def retract_polar(basis: Tensor, change: Tensor) -> Tensor:
    """Return the orthonormal matrix nearest to Y + D: its polar factor.

        M = Y + D ;  M^T M = Q diag(w) Q^T ;  M Q diag(w^-1/2) Q^T

    For a tangent D, M^T M = I + D^T D, so w >= 1 and the eigenproblem is r x r and well conditioned.

    Args:
        basis: Y (..., d, r), orthonormal columns.
        change: D (..., d, r), tangent at Y.
    """
    moved = _wide(basis) + _wide(change)
    values, vectors = torch.linalg.eigh(moved.mT @ moved)
    nearest: Tensor = moved @ ((vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT)
    return nearest


def retract_exponential(basis: Tensor, change: Tensor) -> Tensor:
    """Follow the geodesic of the canonical metric from Y in direction D for unit time.

        A = Y^T D ;  X = D - Y A ;  [Y X] expm([[A, -X^T X], [I, 0]])[:, :r]

    This equals the textbook form [Y Q] expm([[A, -R^T], [R, 0]])[:, :r] with X = Q R, and needs no QR: it holds for X
    of any rank, also where d < 2 r. A last Newton-Schulz step takes off the rounding that would add up over steps.

    Args:
        basis: Y (..., d, r), orthonormal columns.
        change: D (..., d, r), tangent at Y.
    """
    basis, change = _wide(basis), _wide(change)
    rank = basis.shape[-1]
    along = basis.mT @ change
    across = _plus_product(change, basis, along, -1.0, None)
    generator = basis.new_zeros(*basis.shape[:-2], 2 * rank, 2 * rank)
    generator[..., :rank, :rank] = along
    generator[..., :rank, rank:] = -(across.mT @ across)
    generator[..., rank:, :rank] = torch.eye(rank, dtype=basis.dtype, device=basis.device)
    flow = torch.linalg.matrix_exp(generator)[..., :rank]
    moved = basis @ flow[..., :rank, :] + across @ flow[..., rank:, :]
    nearest: Tensor = 1.5 * moved - 0.5 * moved @ (moved.mT @ moved)
    return nearest


RETRACTIONS: dict[Retraction, Callable[[Tensor, Tensor], Tensor]] = {
    "polar": retract_polar,
    "exponential": retract_exponential,
}
"""By name: (basis, tangent change) -> basis."""


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.dtype == torch.float64 else matrix.float()


def _plus_product(start: Tensor, left: Tensor, right: Tensor, factor: float, out: Tensor | None) -> Tensor:
    """Return start + factor * left @ right, in one pass over a batch."""
    if start.ndim == 3:
        return torch.baddbmm(start, left, right, alpha=factor, out=out)
    return start + factor * (left @ right)

"""How two subspaces lie to each other, and how much of a matrix one of them holds.

    cosines of principal angles = singular values of P1^T P2,      overlap = ||P1^T P2||_F^2 / r

All of them are the same for flipped and for rotated bases. Leading dimensions are a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["captured_energy", "effective_rank", "overlap", "principal_cosines"]


def principal_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines of the principal angles between two subspaces, descending, in [0, 1].

    Args:
        first: Orthonormal columns, (..., d, r1).
        second: Orthonormal columns, (..., d, r2).

    Returns:
        (..., min(r1, r2)).

    References: Bjorck, Golub 1973, Numerical methods for computing angles between linear subspaces.
    """
    cosines: Tensor = torch.linalg.svdvals(first.float().mT @ second.float())
    return cosines.clamp(0.0, 1.0)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared cosine of the principal angles: 1 for the same subspace, 0 for orthogonal ones.

    Two random subspaces of rank r in d dimensions have r / d. With different ranks the smaller one counts.

    Args:
        first: Orthonormal columns, (..., d, r1).
        second: Orthonormal columns, (..., d, r2).

    Returns:
        0-dim, or of the batch's shape.

    References: Knyazev, Argentati 2002, Principal angles between subspaces in an A-based scalar product.

    >>> corner = torch.eye(4)
    >>> overlap(corner[:, :2], corner[:, 1:3]).item()
    0.5
    """
    products = first.float().mT @ second.float()
    return products.square().sum(dim=(-2, -1)) / min(products.shape[-2:])


def effective_rank(singular_values: Tensor) -> Tensor:
    """Return exp(entropy) of the shares of energy, p_i = s_i^2 / sum s^2: between 1 and their number, 0 for zeros.

    Args:
        singular_values: (..., k), in any order.

    References: Roy, Vetterli 2007, The effective rank (EUSIPCO). Differs from the paper: its shares are s_i / sum s.

    >>> effective_rank(torch.tensor([3.0, 3.0, 0.0])).item()
    2.0
    """
    energies = singular_values.float().square()
    total = energies.sum(dim=-1, keepdim=True)
    shares = energies / torch.where(total > 0, total, 1.0)
    return torch.exp(-torch.xlogy(shares, shares).sum(dim=-1)) * (total.squeeze(-1) > 0)


def captured_energy(matrix: Tensor, basis: Tensor, side: str = "left") -> Tensor:
    """Return the share of a matrix's energy inside a subspace: ||P^T G||_F^2 / ||G||_F^2, 1 where G is zero.

    Args:
        matrix: G, (..., m, n).
        basis: Orthonormal columns, (..., m, r) for side "left", (..., n, r) for side "right" (||G P||_F^2).
        side: "left" or "right".

    Raises:
        ValueError: If `side` is neither.
    """
    if side not in ("left", "right"):
        raise ValueError(f"side {side!r}; known are left and right")
    wide, narrow = matrix.float(), basis.float()
    inside = torch.linalg.vector_norm(narrow.mT @ wide if side == "left" else wide @ narrow, dim=(-2, -1))
    total = torch.linalg.vector_norm(wide, dim=(-2, -1))
    share = (inside / torch.where(total > 0, total, 1.0)).square()
    return torch.where(total > 0, share, 1.0).clamp_max(1.0)

"""Orthonormal bases of the leading singular vectors of a matrix, exact or estimated, in float32.

    how         work (G is m x n, k = min(m, n), q = r + oversampling)             energy it captures
    svd         full thin SVD, by far the slowest                                  all that r columns can
    gram        k x k eigenproblem of G G^T or G^T G                               the same; the condition is squared
    randomized  G G^T applied once or twice to q random columns, q x q eigenproblem nearly the same
    warm        G G^T applied once to the last basis and a few random columns      follows a slow change
    random      nothing of G                                                       r / k of noise

The wanted side is the left one; the right one is the left one of G^T. Estimates end in a Rayleigh-Ritz rotation, so
that columns are singular-vector estimates in descending order: Adam is not invariant to rotations inside a basis.

What is not finite counts as zero: an entry in "svd", else the entries of the products that it spoils (its row, its
column), which needs no cleaned copy of G. A zero matrix gives an orthonormal basis too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from subspace.linalg.sketch import gaussian

__all__ = ["HOW", "align_signs", "leading_basis", "orthonormality_error", "orthonormalize"]

HOW = ("svd", "gram", "randomized", "warm", "random")
_WIDE = 0.25
"""Share of all directions from which a random sketch finds 0.98 of a real gradient's leading energy in one pass."""
_SHIFT = 1e-6
"""Of the trace; a third of it still carried every Cholesky factorisation of dependent columns that was tried."""
_WIDENED_ELEMENTS = 2**24
"""Matrices narrower than float32 are widened in slices of about this many numbers, never whole."""


def leading_basis(
    matrix: Tensor, rank: int, *, how: str, previous: Tensor | None = None, seed: int = 0, side: str = "left"
) -> Tensor:
    """Return orthonormal columns that span the leading `rank` singular directions of a matrix.

    Args:
        matrix: (..., m, n), any float type; leading dimensions are a batch.
        rank: Number of columns; capped at min(m, n).
        how: One of `HOW`, see above. "svd" calls `torch.linalg.svd` as GaLore does, so that signs agree too.
        previous: The last basis, of the result's shape, for "warm"; without it "warm" means "randomized".
        seed: Of the sketch, which is the same for every matrix of a batch ("random": another one for each).
        side: "left" for (..., m, r), "right" for (..., n, r).

    Returns:
        float32, contiguous, of its own storage; columns by descending singular value, except "random".

    Raises:
        ValueError: If `how` or `side` is unknown, or `previous` has another shape.

    References: Halko, Martinsson, Tropp 2011, arXiv 0909.4061 (sketch and power iteration); Tropp et al. 2017, arXiv
    1706.05736 (Nystroem form of the last product, with a shift).

    >>> leading_basis(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2, how="gram").abs().tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    if how not in HOW or side not in ("left", "right"):
        raise ValueError(f"basis {how!r} of side {side!r}; known are {', '.join(HOW)} and left, right")
    source: Tensor = matrix.detach() if side == "left" else matrix.detach().mT
    wanted = min(rank, source.shape[-2], source.shape[-1])
    shape = (*source.shape[:-1], wanted)
    if previous is not None and how == "warm" and previous.shape != shape:
        raise ValueError(f"previous basis of shape {tuple(previous.shape)}; the new one has {shape}")
    with torch.no_grad(), _full_precision(matrix.device):
        if how == "svd":
            basis = _exact(matrix.detach(), wanted, side)
        elif how == "gram":
            basis = _from_gram(source, wanted)
        elif how == "random":
            basis = orthonormalize(gaussian(seed, shape, device=source.device))
        elif how == "warm" and previous is not None:
            basis = _warm(source, previous.detach(), seed)
        else:
            basis = _randomized(source, wanted, seed)
        return basis.contiguous()


def align_signs(basis: Tensor, previous: Tensor) -> Tensor:
    """Return `basis` with columns flipped so that none points away from its column of `previous` (both (..., d, r))."""
    return basis * _signs((basis * previous).sum(dim=-2, keepdim=True))


def orthonormalize(matrix: Tensor) -> Tensor:
    """Return Q of QR with the signs that make the diagonal of R positive: float32, orthonormal whatever the rank.

    Shapes: (..., d, r) with r <= d, before and after.
    """
    basis, upper = torch.linalg.qr(matrix.float())
    signed: Tensor = basis * _signs(upper.diagonal(dim1=-2, dim2=-1)).unsqueeze(-2)
    return signed.contiguous()


def orthonormality_error(basis: Tensor) -> Tensor:
    """Return the largest entry of |Y^T Y - I|, 0-dim."""
    gram = basis.mT @ basis
    return (gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)).abs().amax()


def _exact(matrix: Tensor, rank: int, side: str) -> Tensor:
    left, _, right = torch.linalg.svd(matrix.float().nan_to_num(0.0, 0.0, 0.0), full_matrices=False)
    basis: Tensor = left[..., :rank] if side == "left" else right[..., :rank, :].mT
    return basis.clone(memory_format=torch.contiguous_format)  # a view would keep the whole factor alive


def _from_gram(source: Tensor, rank: int) -> Tensor:
    if source.shape[-2] <= source.shape[-1]:
        return _leading_eigenvectors(_gram(source), rank)
    # G V = U S: orthogonal already, of lengths S; QR takes the lengths away and fills up where they are zero
    return orthonormalize(_product(source, _leading_eigenvectors(_gram(source.mT), rank)))


def _randomized(source: Tensor, rank: int, seed: int) -> Tensor:
    sketch = gaussian(seed, (source.shape[-2], _width(source, rank)), device=source.device)
    if rank < _WIDE * min(source.shape[-2:]):
        sketch = orthonormalize(_product(source, _product(source.mT, sketch)))
    return _advanced(source, sketch, rank)


def _warm(source: Tensor, previous: Tensor, seed: int) -> Tensor:
    rows, rank = previous.shape[-2:]
    sketch = previous.float()
    extra = _width(source, rank) - rank
    if extra:  # fresh directions beside the old ones, or what enters the gradient anew is found late
        fresh = gaussian(seed, (rows, extra), device=source.device).mul_(rows**-0.5)
        sketch = torch.cat((sketch, fresh.expand(*sketch.shape[:-1], extra)), dim=-1)
    return _advanced(source, sketch, rank)


def _width(source: Tensor, rank: int) -> int:
    """Return the columns of a sketch: oversampling makes up for what a random start misses."""
    return min(rank + max(8, rank // 8), source.shape[-2], source.shape[-1])


def _advanced(source: Tensor, sketch: Tensor, rank: int) -> Tensor:
    """Return leading left singular vectors from A X, A = G G^T, of a block of columns X."""
    images = _product(source, _product(source.mT, sketch))
    return _rotated(images, sketch.mT @ images, rank)


def _rotated(images: Tensor, gram: Tensor, rank: int) -> Tensor:
    """Return leading eigenvectors of A from Y = A X and X^T A X.

    A is estimated as Y (X^T A X)^-1 Y^T = F F^T, half a step better than A inside the span of X. The rotation that
    diagonalises F^T F turns F into its left singular vectors times singular values; QR takes those away.
    """
    factor = _divided(images, gram)
    return orthonormalize(factor @ _leading_eigenvectors(factor.mT @ factor, rank))


def _divided(columns: Tensor, gram: Tensor) -> Tensor:
    """Return Y L^-T with L L^T = gram + shift; overwrites `gram`.

    The shift keeps the factorisation alive where directions are lost in rounding: they come out shorter, never longer.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(diagonal.sum(dim=-1, keepdim=True) * _SHIFT)
    lower = torch.linalg.cholesky_ex(gram).L  # the one that reports no failure waits for no device
    return _zeros_for_faults(torch.linalg.solve_triangular(lower.mT, columns, upper=True, left=False))


def _leading_eigenvectors(symmetric: Tensor, rank: int) -> Tensor:
    """Return eigenvectors of the largest eigenvalues, descending; reads the lower triangle only."""
    vectors: Tensor = torch.linalg.eigh(symmetric).eigenvectors
    return vectors[..., -rank:].flip(-1)


def _gram(source: Tensor) -> Tensor:
    """Return G G^T, of which the lower triangle alone is right: in strips, which saves a third of the product."""
    rows = source.shape[-2]
    gram = source.new_zeros((*source.shape[:-1], rows), dtype=torch.float32)
    strips = max(1, min(8, rows // 128))
    for start, end in _slices(rows, -(-rows // strips)):
        gram[..., start:end, :end] = _product(source[..., start:end, :], source[..., :end, :].mT)
    return gram


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Return first @ second in float32, what is not finite as 0; factors of other types are widened slice by slice."""
    if first.dtype == second.dtype == torch.float32:
        return _zeros_for_faults(first @ second)
    rows, inner = first.shape[-2:]
    step = max(1, _WIDENED_ELEMENTS * max(rows, inner) // max(1, first.numel()))
    if rows >= inner:
        second = second.float()
        strips = [first[..., start:end, :].float() @ second for start, end in _slices(rows, step)]
        return _zeros_for_faults(torch.cat(strips, dim=-2))
    total = first.new_zeros((), dtype=torch.float32)
    step = max(1, min(step, _WIDENED_ELEMENTS * inner // max(1, second.numel())))  # the second factor may be the larger
    for start, end in _slices(inner, step):
        total = total + first[..., start:end].float() @ second[..., start:end, :].float()
    return _zeros_for_faults(total)


def _slices(length: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, length)) for start in range(0, length, step))


def _zeros_for_faults(values: Tensor) -> Tensor:
    """Put 0 for what is not finite, in place."""
    return values.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _signs(values: Tensor) -> Tensor:
    """Return 1 where a value is not negative and -1 where it is."""
    return torch.where(values < 0, -1.0, 1.0)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep TF32 out: a Gram matrix squares the condition, ten bits would leave three digits of it."""
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before

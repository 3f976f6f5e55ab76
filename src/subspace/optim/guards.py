"""What an optimizer does with a gradient that is not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from subspace.linalg.norms import wide_norm

__all__ = ["finite_part"]


def finite_part(gradient: Tensor, size: Tensor | None = None) -> Tensor:
    """Return a gradient with zeros in place of every matrix that is not finite throughout; the same tensor if none is.

    On a CPU alone: elsewhere the host would have to wait, or every gradient be written once more, so that there such a
    gradient reaches the weight, as it does with torch's optimizers.

    Args:
        gradient: (.., m, n).
        size: A number for every matrix of the stack that is not finite where the matrix is not; its norm if not given.
    """
    if gradient.device.type != "cpu":
        return gradient
    if size is None:
        size = wide_norm(gradient, (-2, -1))
    finite = torch.isfinite(size)
    return gradient if bool(finite.all()) else torch.where(finite[..., None, None], gradient, 0.0)

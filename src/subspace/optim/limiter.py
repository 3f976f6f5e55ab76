"""The norm-growth limiter of Fira and APOLLO: a norm may grow by 1 % a step, and shrink freely.

    c = max(s / (s_prev + 1e-8), 1.01) / 1.01 ;  factor = 1 / c ;  s_prev <- s / c          (the first step: factor = 1)

A norm of zero, or one that is not finite, says nothing of the next one and is not kept: growth from zero would take
2,000 steps. Official codes keep a zero, and so does fidelity `reference`.

References: Chen et al. 2024, arXiv 2410.01623, section 4.3; Zhu et al. 2024, arXiv 2412.05270.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["limited", "stacked_limits"]

_GROWTH = 1.01


def limited(state: dict[str, Any], norm: Tensor, *, official: bool) -> Tensor:
    """Return the factor on an update of that norm, a 0-dim tensor, and keep the norm that results in `limiter_norm`.

    A norm that is not a number has the factor 0. No value is read back from the device.

    Args:
        official: Keep a norm of zero, too.
    """
    before: Tensor = state["limiter_norm"]
    if official and int(state["step"]) == 0:
        before.copy_(norm)
        return torch.ones_like(norm)
    factor: Tensor = _GROWTH / (norm / (before + 1e-8)).clamp_(min=_GROWTH)
    if official:
        before.copy_(norm * factor)
        return factor
    factor = torch.where(before > 0, factor, 1.0).nan_to_num_(nan=0.0)
    result = norm * factor
    before.copy_(torch.where((result > 0) & (result < math.inf), result, before))
    return factor


@contextmanager
def stacked_limits(states: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the states of k weights as one for `limited` (not `official`), (k, ...), and take back what became of it."""
    kept = [state["limiter_norm"] for state in states]
    whole = torch.stack(kept)
    yield {"limiter_norm": whole}
    torch._foreach_copy_(kept, list(whole.unbind(0)))

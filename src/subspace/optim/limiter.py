"""The norm-growth limiter of Fira and APOLLO: a norm may grow by 1 % a step, and shrink freely.

    c = max(s / (s_prev + 1e-8), 1.01) / 1.01 ;  factor = 1 / c ;  s_prev <- s / c          (the first step: factor = 1)

References: Chen et al. 2024, arXiv 2410.01623, section 4.3; Zhu et al. 2024, arXiv 2412.05270.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["limited"]

_GROWTH = 1.01


def limited(state: dict[str, Any], norm: Tensor) -> Tensor:
    """Return the factor on an update of that norm, a 0-dim tensor, and keep the norm that results in `limiter_norm`.

    No value is read back from the device.
    """
    if int(state["step"]) == 0:
        state["limiter_norm"].copy_(norm)
        return torch.ones_like(norm)
    factor: Tensor = _GROWTH / (norm / (state["limiter_norm"] + 1e-8)).clamp(min=_GROWTH)
    state["limiter_norm"].copy_(norm * factor)
    return factor

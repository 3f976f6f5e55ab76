"""Adam's direction for a list of tensors, by torch's fused kernel where there is one.

    m = b1 m + (1 - b1) g ;  v = b2 v + (1 - b2) g^2 ;  direction = (m / c1) / (sqrt(v / c2) + eps)

with c1 = 1 - b1^t and c2 = 1 - b2^t. Older code adds eps before the bias correction: sqrt(v) + eps; that is the same
formula with eps / sqrt(c2).

References: Kingma and Ba 2014, arXiv 1412.6980; Loshchilov and Hutter 2017, arXiv 1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["FUSED_DEVICES", "adamw_", "adamw_direction", "uncorrected_eps"]

FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})


def uncorrected_eps(eps: float, beta2: float, step: int) -> float:
    """Return the eps that, added after bias correction, equals `eps` added before it."""
    return eps / math.sqrt(1 - beta2**step)


def adamw_direction(
    out: Sequence[Tensor],
    gradients: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    step: int,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Update the moments with `gradients` and write the directions into `out`; everything float32 and of like shapes.

    Args:
        step: Number of this update, t, counted from 1.
    """
    torch._foreach_zero_(list(out))
    # the kernel subtracts lr * direction from its parameter, here zeros
    adamw_(out, gradients, exp_avgs, exp_avg_sqs, step=step, lr=-1.0, betas=betas, eps=eps, weight_decay=0.0)


def adamw_(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    step: int | Tensor | Sequence[Tensor],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    fused: bool | None = None,
) -> None:
    """Do one AdamW update (decay before the update) of float32 parameters in place.

    Args:
        step: Number of this update, t, counted from 1; a 0-dim tensor, or one for each parameter, is not read by the
            host.
        fused: Use torch's fused kernel; None: where there is one.
    """
    device = parameters[0].device
    none: list[Tensor] = []
    tensors = (list(parameters), list(gradients), list(exp_avgs), list(exp_avg_sqs), none)
    numbers: dict[str, Any] = {"lr": lr, "beta1": betas[0], "beta2": betas[1], "weight_decay": weight_decay, "eps": eps}
    # a counter for each tensor, which may be the same
    counter = torch.full((), float(step), device=device) if isinstance(step, int) else step
    counters = [counter] * len(parameters) if isinstance(counter, Tensor) else list(counter)
    if device.type in FUSED_DEVICES if fused is None else fused:
        # torch's function around the kernel sorts tensors by device and type, which takes longer than the kernel
        torch._fused_adamw_(*tensors, counters, amsgrad=False, maximize=False, **numbers)
    else:
        counters = list(torch._foreach_sub(counters, 1.0))  # which it advances
        adamw(*tensors, counters, foreach=False, amsgrad=False, maximize=False, **numbers)

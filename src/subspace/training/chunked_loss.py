"""Cross-entropy whose logits never exist whole: a few positions at a time, each with its gradient at once.

    p_i = softmax(z_i),  z_i = head(h_i)
    loss = - sum_i log p_i[y_i],  dloss/dz_i = p_i - onehot(y_i)

For every chunk of positions the head makes logits, these become the gradient in place, and the gradient goes on to the
hidden states and to the head's weights, which are kept until the backward pass scales them. Nothing of size (b t, v)
is made, no product is done twice, and a chunk of c positions takes c v numbers two or three times for a moment.

The gradient of a head held in bfloat16 is summed over chunks in bfloat16; in float32 the loss and all gradients are
those of the whole logits up to the order of summation. A second backward pass through the same loss is refused.

b rows, t positions, d hidden size, v vocabulary, c positions of a chunk, n targets.

References: Wijmans et al. 2024, arXiv 2411.09009, and Hsu et al. 2024, arXiv 2410.10989 (the same aim, in kernels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from subspace.models.int8_modules import Int8Linear, unpacked_weight
from subspace.models.split_head import SplitHead, Targets

__all__ = ["chunked_cross_entropy"]

_NUM_BLOCKS = 8
"""Pieces of a head's gradient that has to be cast before it is added."""


def chunked_cross_entropy(head: SplitHead, hidden: Tensor, targets: Targets, chunk_tokens: int) -> Tensor:
    """Return the cross-entropy summed over the targets, float32, differentiable once.

    Args:
        head: Has just made `hidden`.
        hidden: Last hidden states, (b, t, d).
        targets: Where they predict what.
        chunk_tokens: Positions whose logits exist at one moment, c.
    """
    if not torch.is_grad_enabled():
        return sum(
            (_losses(head.logits(rows), labels)[0].sum() for rows, labels, _ in _chunks(hidden, targets, chunk_tokens)),
            start=torch.zeros((), device=hidden.device),
        )
    apply: Callable[..., Tensor] = _ChunkedCrossEntropy.apply
    return apply(hidden, head, targets, chunk_tokens, *head.trained())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss forward; what the forward pass has kept, times the gradient of the loss, backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: SplitHead, targets: Targets, chunk_tokens: int, *trained: nn.Parameter
    ) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        wanted = any(ctx.needs_input_grad)
        gradient = torch.zeros_like(hidden, memory_format=torch.contiguous_format) if ctx.needs_input_grad[0] else None
        sums: dict[int, Tensor] = {}
        with _plain_casts(hidden.device.type), _own_product(head.output, sums):
            for rows, labels, places in _chunks(hidden, targets, chunk_tokens):
                rows.requires_grad_(wanted)
                with torch.enable_grad():
                    logits = head.logits(rows)
                losses, slope = _losses(logits, labels, differentiate=logits.requires_grad)
                loss += losses.sum()
                if slope is None:
                    continue
                found = _gradients(logits, slope, rows, trained)
                if gradient is not None and found[0] is not None:
                    gradient.view(-1, gradient.shape[-1]).index_copy_(0, places, found[0])
                _add(sums, trained, found[1:])
        ctx.save_for_backward(gradient, *(sums.get(id(parameter)) for parameter in trained))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        # in place: a second pass over the same graph finds a changed tensor and is refused by autograd
        gradient, *sums = (None if each is None else each.mul_(slope) for each in ctx.saved_tensors)
        return gradient, None, None, None, *sums


def _chunks(hidden: Tensor, targets: Targets, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield hidden states (c, d) of their own, labels (c,) and places (c,)."""
    flat = hidden.detach().reshape(-1, hidden.shape[-1])
    for start in range(0, targets.places.shape[0], size):
        places = targets.places[start : start + size]
        yield flat.index_select(0, places), targets.labels[start : start + size], places


def _losses(logits: Tensor, labels: Tensor, *, differentiate: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return the losses (c, 1), float32, and their gradient with respect to the logits (c, v), in the logits' type."""
    shares = logits.detach().to(torch.float32, copy=True)
    shares -= shares.amax(dim=1, keepdim=True)
    chosen = shares.gather(1, labels[:, None])
    total = shares.exp_().sum(dim=1, keepdim=True)
    losses = total.log() - chosen
    if not differentiate:
        return losses, None
    shares /= total
    shares.scatter_add_(1, labels[:, None], torch.full_like(chosen, -1.0))
    return losses, shares.to(logits.dtype)


def _gradients(
    logits: Tensor, slope: Tensor, rows: Tensor, trained: tuple[nn.Parameter, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of rows and trained parameters; None where there is none, or `_own_product` has added it."""
    inputs = [value for value in (rows, *trained) if value.requires_grad]
    with torch.autocast(rows.device.type, enabled=False):  # as in any backward pass
        found = iter(torch.autograd.grad(logits, inputs, slope, allow_unused=True))
    return tuple(next(found) if value.requires_grad else None for value in (rows, *trained))


def _add(sums: dict[int, Tensor], parameters: tuple[nn.Parameter, ...], gradients: tuple[Tensor | None, ...]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if id(parameter) in sums:
            sums[id(parameter)] += gradient
        else:
            sums[id(parameter)] = gradient.clone()  # autograd may have given out a tensor that it uses elsewhere


@contextmanager
def _plain_casts(device: str) -> Iterator[None]:
    """Let autocast keep no cast weights: their graph ends with a chunk."""
    if not torch.is_autocast_enabled(device):
        yield
        return
    with torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=False):
        yield


@contextmanager
def _own_product(output: nn.Module | None, sums: dict[int, Tensor]) -> Iterator[None]:
    """Let a plain linear head cast or unpack its weight once and add its gradient to one buffer, chunk after chunk.

    Autograd would make the gradient of every chunk anew, (v, d) numbers, before it is added.
    """
    if not isinstance(output, nn.Linear) or type(output) not in (nn.Linear, Int8Linear):
        yield
        return
    if "forward" in vars(output) or output._forward_hooks or output._forward_pre_hooks:
        yield
        return
    device = output.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else output.weight.dtype
    weight = unpacked_weight(output, dtype)
    bias = None if output.bias is None else output.bias.detach().to(dtype)

    apply: Callable[..., Tensor] = _HeadProduct.apply
    vars(output)["forward"] = lambda rows: apply(rows.to(dtype), weight, bias, output, sums)
    try:
        yield
    finally:
        del vars(output)["forward"]


class _HeadProduct(torch.autograd.Function):
    """z = h W^T + b; backward adds dW = dz^T h and db = sum dz to the sums of the head's own parameters."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, output: nn.Linear, sums: dict[int, Tensor]
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.output, ctx.sums = output, sums
        return functional.linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        given, weight = ctx.saved_tensors
        slope, rows = slope.reshape(-1, slope.shape[-1]), given.reshape(-1, given.shape[-1])
        if ctx.output.weight.requires_grad:
            _add_product(_sum_of(ctx.sums, ctx.output.weight), slope, rows)
        if ctx.output.bias is not None and ctx.output.bias.requires_grad:
            _sum_of(ctx.sums, ctx.output.bias).add_(slope.sum(dim=0))
        return (slope @ weight).view_as(given), None, None, None, None


def _sum_of(sums: dict[int, Tensor], parameter: nn.Parameter) -> Tensor:
    if id(parameter) not in sums:
        sums[id(parameter)] = torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    return sums[id(parameter)]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right to total, (v, d), in place."""
    if total.dtype == left.dtype:
        torch.addmm(total, left.T, right, out=total)
        return
    for block, part in zip(total.chunk(_NUM_BLOCKS), left.chunk(_NUM_BLOCKS, dim=1), strict=True):
        block += part.T @ right

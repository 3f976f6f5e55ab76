"""Adam on moments in an optimizer's state, piece by piece where it would pass through much memory.

A moment of 8 or 4 bits is widened and coded again one piece at a time; so is a weight of another type than float32.
Pieces change no bit: everything is elementwise but for blocks of codes, of which a piece holds whole ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from subspace.optim.direction import adamw_, adamw_direction
from subspace.optim.lowbit import narrow, read_part, write_part
from subspace.optim.pieces import piece_elements, pieces
from subspace.optim.slots import Bundle, Scratch
from subspace.optim.weights import wide_pieces

__all__ = ["adamw_update_", "adamw_updates_", "directions"]


def directions(
    bundle: Bundle, lows: Sequence[Tensor], seeds: Iterable[int], scratch: Scratch, *, keep: bool
) -> Sequence[Tensor]:
    """Return Adam's bias-corrected directions of low-rank gradients and move the moments.

    Args:
        bundle: Whose states hold `exp_avg` and `exp_avg_sq`.
        lows: Contiguous gradients of the low-rank shape, float32.
        seeds: Of rounding, one for each weight.
        scratch: Buffers.
        keep: Leave `lows` as they are; else large directions are written over them.
    """
    shape, bits = bundle.geometry.low_shape, bundle.settings.state_bits
    size, device = math.prod(shape), lows[0].device
    numbers: dict[str, Any] = {"step": bundle.age, "betas": bundle.group["betas"], "eps": bundle.eps}
    wide = not narrow(size, bits)
    over = not keep and len(lows) * size > piece_elements(device) and not (wide and len(lows) > 1)
    out = lows if over else scratch.take("direction", (len(lows), *shape), device).unbind(0)
    if wide and not over:
        firsts, seconds = ([state[key] for state in bundle.states] for key in ("exp_avg", "exp_avg_sq"))
        adamw_direction(out, lows, firsts, seconds, **numbers)
        return out
    for low, direction, state, seed in zip(lows, out, bundle.states, seeds, strict=True):
        for part in pieces(size, device):
            target = direction.view(-1)[part]
            fresh = scratch.take("piece", tuple(target.shape), device) if over else target
            first = read_part(state, "exp_avg", part, size, bits, signed=True)
            second = read_part(state, "exp_avg_sq", part, size, bits, signed=False)
            adamw_direction([fresh], [low.view(-1)[part]], [first], [second], **numbers)
            write_part(state, "exp_avg", first, part, size, bits, seed=seed + 1)
            write_part(state, "exp_avg_sq", second, part, size, bits, seed=seed + 2)
            if over:
                target.copy_(fresh)
    return out


def adamw_update_(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Any],
    *,
    bits: int,
    seed: int,
    moment_seed: int = 0,
    decay_after: float = 0.0,
    **numbers: Any,
) -> None:
    """Do one AdamW update of a whole weight, however it is stored, in float32; move its moments.

    Args:
        parameter: The weight.
        gradient: Of its shape.
        state: With `exp_avg` and `exp_avg_sq`.
        bits: Of the moments.
        seed: Of rounding the weight.
        moment_seed: Of rounding the moments, with the next one.
        decay_after: Share of the weight that it loses after the update.
        numbers: Those of `direction.adamw_`.
    """
    size, flat = parameter.numel(), gradient.reshape(-1)
    for part, weight in wide_pieces(parameter, seed):
        first = read_part(state, "exp_avg", part, size, bits, signed=True)
        second = read_part(state, "exp_avg_sq", part, size, bits, signed=False)
        adamw_([weight], [flat[part].float()], [first], [second], **numbers)
        if decay_after:
            weight.add_(weight, alpha=-decay_after)
        write_part(state, "exp_avg", first, part, size, bits, seed=moment_seed)
        write_part(state, "exp_avg_sq", second, part, size, bits, seed=moment_seed + 1)


def adamw_updates_(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    *,
    step: int | Sequence[Tensor],
    **numbers: Any,
) -> None:
    """Do what `adamw_update_` does for several weights, in fewer calls and to the same bits.

    Args:
        parameters: Contiguous float weights of one device and type.
        gradients: Of their shapes, of one type.
        states: With float32 `exp_avg` and `exp_avg_sq`.
        step: Number of this update, counted from 1; or a 0-dim tensor for each weight.
        numbers: The others of `direction.adamw_`.
    """
    if parameters[0].dtype == gradients[0].dtype == torch.float32:
        firsts, seconds = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
        adamw_(parameters, [gradient.contiguous() for gradient in gradients], firsts, seconds, step=step, **numbers)
        return
    for places in _chunks([parameter.numel() for parameter in parameters], piece_elements(parameters[0].device)):
        steps = step if isinstance(step, int) else [step[place] for place in places]
        chosen, of_chosen = ([values[place] for place in places] for values in (parameters, gradients))
        _update_chunk(chosen, of_chosen, [states[place] for place in places], steps, numbers)


def _chunks(sizes: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yield places in turn whose sizes together keep to a limit; a larger one comes alone."""
    chunk, total = [0], sizes[0]
    for place, size in enumerate(sizes[1:], start=1):
        if total + size > limit:
            yield chunk
            chunk, total = [], 0
        chunk.append(place)
        total += size
    yield chunk


def _update_chunk(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[dict[str, Any]],
    step: int | Sequence[Tensor],
    numbers: dict[str, Any],
) -> None:
    """Update weights through one float32 copy of them all."""
    if len(parameters) == 1:  # perhaps a large one
        number = step if isinstance(step, int) else step[0]
        adamw_update_(parameters[0], gradients[0], states[0], bits=32, seed=0, step=number, **numbers)
        return
    flat = [parameter.detach().view(-1) for parameter in parameters]
    sizes = [weight.numel() for weight in flat]
    whole, whole_gradient = (torch.empty(sum(sizes), device=flat[0].device) for _ in range(2))
    torch.cat(flat, out=whole)
    torch.cat([gradient.reshape(-1) for gradient in gradients], out=whole_gradient)
    weights, wide = torch.split(whole, sizes), torch.split(whole_gradient, sizes)
    firsts, seconds = ([state[key].view(-1) for state in states] for key in ("exp_avg", "exp_avg_sq"))
    adamw_(weights, wide, firsts, seconds, step=step, **numbers)
    torch._foreach_copy_(flat, list(weights))

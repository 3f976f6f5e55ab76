"""Sophia-G: the sign of the momentum, damped where an estimate of the curvature is large.

    M <- b1 M + (1 - b1) G ;  H <- b2 H + (1 - b2) B g*g  every few steps
    W <- (1 - lr wd) W ;  W <- W - lr sign(M) min(|M| / (rho H + 1e-15), 1)

g is the gradient of the mean loss over B samples whose labels are drawn from the model's own output (Gauss-Newton-
Bartlett). No bias correction. State is as large as Adam's; on a projected weight M, H, G and g are low-rank and the
update is lifted.

References: Liu et al. 2023, arXiv 2305.14342, algorithm 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.linalg.norms import wide_norm
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.groups import refuse_arguments
from subspace.optim.lowbit import add_moments, read_part, write_part
from subspace.optim.pieces import LARGEST_PIECE, pieces
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Bundle, Group, Plain, decay_rate
from subspace.optim.weights import wide_pieces
from subspace.projection.geometry import Geometry

__all__ = ["CurvatureClipped", "measure_curvature"]

_MOMENTS = ("exp_avg", "hessian")
_CLIP = 1.0
"""Norm to which the gradients of an estimate are scaled down, as in the official code."""


class CurvatureClipped(SubspaceOptimizer):
    """Clipped sign momentum; known as SophiaG. Nothing is projected unless a rank is given.

    State beside that of `SubspaceOptimizer`: `exp_avg` and `hessian`.

    Args:
        rho: Curvature at which half of the entries are clipped, roughly; larger is bolder.
    """

    default_rank: ClassVar[int | None] = 0

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        weight_decay: float = 0.1,
        **options: Any,
    ) -> None:
        refuse_arguments(options, eps="Its floor of 1e-15 is part of the rule; rho says how bold it is.")
        self.rho = rho
        super().__init__(params, lr, betas, 1e-15, weight_decay, **options)

    def new_state(self, geometry: Geometry, settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
        state: dict[str, Any] = {}
        add_moments(state, _MOMENTS, geometry.low_shape, settings.state_bits, device)
        return state

    def new_plain_state(
        self, shape: tuple[int, ...], settings: ProjectionSettings, device: torch.device
    ) -> dict[str, Any]:
        state: dict[str, Any] = {"step": 0}
        add_moments(state, _MOMENTS, shape, settings.state_bits, device)
        return state

    @torch.no_grad()
    def update_hessian(self, num_samples: int) -> None:
        """Take the present gradients, of the mean loss over `num_samples` sampled labels, as g.

        Weights without state yet, before the first step, are left out, and so is a gradient that is not finite.
        """
        for slot in self.slots.values():
            state = self.state.get(slot.parameter)
            if not state or not slot.ready:
                continue
            if slot.geometry is None:
                assert slot.parameter.grad is not None
                gradient = slot.parameter.grad
            else:
                gradient = torch.empty(slot.geometry.low_shape, device=slot.parameter.device)
                self.project_into(gradient, slot, state)
            beta2, bits = self.param_groups[slot.group_index]["betas"][1], slot.settings.state_bits
            # a curvature that is not a number would stay so for good; decided on the device, so that nothing waits
            finite = torch.isfinite(wide_norm(gradient))
            seed = slot.rounding_seed(state["step"]) + 2
            size, flat = gradient.numel(), gradient.reshape(-1)
            for part in pieces(size, flat.device):
                before = read_part(state, "hessian", part, size, bits, signed=False)
                wide = flat[part].float()
                hessian = (before * beta2).addcmul_(wide, wide, value=(1.0 - beta2) * num_samples)
                hessian = torch.where(finite, hessian, before)
                write_part(state, "hessian", hessian, part, size, bits, seed=seed)

    def update_bundle(self, bundle: Bundle) -> None:
        kept, alpha = 1.0 - decay_rate(bundle.group), -bundle.group["lr"] * bundle.settings.scale
        for slot, state, low in zip(bundle.slots, bundle.states, self.low_gradients(bundle), strict=True):
            seed, flat = slot.rounding_seed(bundle.step), low.view(-1)
            for part in pieces(flat.numel(), flat.device):
                direction = self._direction(state, flat[part], bundle.group, part, flat.numel(), bundle.settings, seed)
                flat[part].copy_(direction)
            for _ in self.lifted_parts(bundle, slot, state, low, beta=kept, alpha=alpha):
                pass

    def _direction(
        self,
        state: dict[str, Any],
        gradient: Tensor,
        group: Group,
        part: slice,
        size: int,
        settings: ProjectionSettings,
        seed: int,
    ) -> Tensor:
        """Return sign(M) min(|M| / (rho H + 1e-15), 1) of a part of `size` numbers, and move M there."""
        beta1, bits = group["betas"][0], settings.state_bits
        momentum = read_part(state, "exp_avg", part, size, bits, signed=True)
        momentum.mul_(beta1).add_(gradient, alpha=1.0 - beta1)
        write_part(state, "exp_avg", momentum, part, size, bits, seed=seed + 1)
        hessian = read_part(state, "hessian", part, size, bits, signed=False)
        return (momentum / (hessian * self.rho).add_(1e-15)).clamp_(-1.0, 1.0)

    def update_plains(self, plains: Sequence[Plain]) -> None:
        for plain in plains:
            group, flat = plain.group, plain.gradient.reshape(-1)
            for part, weight in wide_pieces(plain.parameter, plain.seed):
                wide = flat[part].float()
                direction = self._direction(plain.state, wide, group, part, flat.numel(), plain.settings, plain.seed)
                weight.mul_(1.0 - decay_rate(group)).add_(direction, alpha=-group["lr"])

    def plain_bytes(self, shape: tuple[int, ...], settings: ProjectionSettings, itemsize: int) -> int:
        return super().plain_bytes(shape, settings, itemsize) + 3 * 4 * min(math.prod(shape), LARGEST_PIECE)


def measure_curvature(model: nn.Module, optimizer: CurvatureClipped, batch: Mapping[str, Tensor]) -> None:
    """Give an optimizer the gradient on targets that the model itself draws; gradients are used up.

    Args:
        model: A transformers model.
        optimizer: Over its weights.
        batch: With `labels`, which say what positions count.
    """
    optimizer.zero_grad()
    num_targets = _sampled_backward(model, batch)
    optimizer.clip_grad_norm_(_CLIP)
    optimizer.update_hessian(num_targets)
    optimizer.zero_grad()


def _sampled_backward(model: nn.Module, batch: Mapping[str, Tensor]) -> int:
    """Differentiate the mean loss on targets drawn from the model's output; return their number."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    seq2seq = bool(getattr(model.config, "is_encoder_decoder", False))
    logits: Tensor = model(**inputs, **({"labels": labels} if seq2seq else {})).logits
    if labels.ndim == 2:
        logits = logits[:, -labels.shape[1] :]
        if not seq2seq:
            logits, labels = logits[:, :-1], labels[:, 1:]
    kept = labels.reshape(-1) != -100
    chosen = logits.reshape(-1, logits.shape[-1])[kept].float()
    with torch.no_grad():
        drawn = torch.multinomial(chosen.softmax(dim=-1), 1).squeeze(1)
    functional.cross_entropy(chosen, drawn).backward()  # type: ignore[no-untyped-call]
    return int(kept.sum())

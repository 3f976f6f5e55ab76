"""Fira: GaLore plus what the projection leaves out, scaled as Adam scaled the projection.

    R = P^T G ;  N = adam(R) ;  phi_j = |N_j| / (|R_j| + 1e-8)  for every column j of R (right: every row)
    S = (I - P P^T) G diag(phi), limited in the growth of its norm
    W <- (1 - lr wd) W - lr scale (P N + S)

fidelity `reference`: S = (G - scale P R) diag(phi), limited, and W <- W - lr (scale P N + S); equal for scale 1.

S is never formed. P N + S = P (N - R diag(phi)) + G diag(phi), and for orthonormal P
|S|^2 = sum_j phi_j^2 (|G_j|^2 - |R_j|^2), so that a step reads the gradient three times and writes the weight twice.

References: Chen et al. 2024, arXiv 2410.01623, algorithm 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from subspace.linalg.norms import wide_norm
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.guards import finite_part
from subspace.optim.limiter import limited, stacked_limits
from subspace.optim.lowbit import add_moments
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Bundle, Slot
from subspace.optim.together import Together, as_stack, can_go_together
from subspace.optim.weights import add_scaled, rows_of
from subspace.projection.geometry import Geometry

__all__ = ["ResidualAdamW", "channel_axis", "channel_norms"]


_ROWS_AT_ONCE = 64


class ResidualAdamW(SubspaceOptimizer):
    """AdamW in a subspace plus the scaled residual; known as Fira.

    State of a projected weight: that of `ProjectedAdamW`, and `limiter_norm`, one number per matrix of a stack.

    Args:
        scale: Factor on the update; fidelity reference puts it on the part inside the subspace alone.
    """

    needs_whole_gradient: ClassVar[bool] = True
    keeps_projections: ClassVar[bool] = True
    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(scale=0.25)

    def new_state(self, geometry: Geometry, settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
        state: dict[str, Any] = {"limiter_norm": torch.zeros(geometry.stack, device=device)}
        add_moments(state, ("exp_avg", "exp_avg_sq"), geometry.low_shape, settings.state_bits, device)
        return state

    def update_bundle(self, bundle: Bundle) -> None:
        if can_go_together(bundle) and bundle.settings.fidelity == "paper":
            self._update_together(bundle)
            return
        lows = self.low_gradients(bundle)
        directions = self.directions(bundle, lows)
        for slot, state, low, direction in zip(bundle.slots, bundle.states, lows, directions, strict=True):
            self._update_one(bundle, slot, state, low, direction)

    def _update_one(self, bundle: Bundle, slot: Slot, state: dict[str, Any], low: Tensor, direction: Tensor) -> None:
        scale, rate, axis = bundle.settings.scale, bundle.group["lr"], channel_axis(bundle.geometry)
        phi, norm = _scaling(bundle, low, direction, channel_norms(slot.gradient, axis), state)
        gradient = finite_part(slot.gradient, norm)
        inside = direction.sub_(low.mul_(phi))
        outer = -rate * (scale if bundle.settings.fidelity == "paper" else 1.0)
        for rows, weight in self.lifted_parts(bundle, slot, state, inside, beta=bundle.kept, alpha=-rate * scale):
            add_scaled(weight, gradient[..., rows, :], rows_of(phi, rows), alpha=outer)
            bundle.decay_after(weight)

    def _update_together(self, bundle: Bundle) -> None:
        """Do what `_update_one` does for every weight of a bundle, with few launches for each."""
        together, axis = Together(bundle, self.projectors(bundle)), channel_axis(bundle.geometry)
        lows = self.low_gradients(bundle, together)
        direction, low = as_stack(self.directions(bundle, lows)), as_stack(lows)
        with stacked_limits(bundle.states) as limits:
            sizes = together.norms(lambda gradient: channel_norms(gradient, axis))
            phi, norm = _scaling(bundle, low, direction, sizes, limits)
        alpha = -bundle.group["lr"] * bundle.settings.scale
        together.add_lifted(direction.sub_(low.mul_(phi)), beta=bundle.kept, alpha=alpha)
        together.add_scaled(phi, norm, alpha=alpha)
        together.write()


def _scaling(
    bundle: Bundle, low: Tensor, direction: Tensor, sizes: Tensor, state: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Return phi, limited and bias-corrected as `direction` is, and |S|, which is not finite where G is not.

    Args:
        low: (.., low-rank shape).
        direction: Of that shape.
        sizes: Channel norms of the gradients.
        state: Holds `limiter_norm` (..), which is moved, and the step.
    """
    published, scale, axis = bundle.settings.fidelity == "paper", bundle.settings.scale, channel_axis(bundle.geometry)
    low_norms = channel_norms(low, axis)
    # the limiter compares norms without bias correction
    phi = channel_norms(direction, axis) / bundle.correction / (low_norms + 1e-8)
    removed = 1.0 if published else scale * (2.0 - scale)
    outside = (sizes.square() - removed * low_norms.square()).clamp_(min=0.0)
    norm = (phi.square() * outside).sum(dim=(-2, -1)).sqrt()
    return phi * limited(state, norm, official=not published)[..., None, None] * bundle.correction, norm


def channel_axis(geometry: Geometry) -> int:
    """Return the dimension over which a channel's norm is taken: rows for a left basis, columns for a right one."""
    return -2 if geometry.side == "left" else -1


def channel_norms(matrix: Tensor, axis: int) -> Tensor:
    """Return float32 norms along `axis`, which stays as a dimension of size 1."""
    if axis == -2 and matrix.device.type == "cpu":
        # torch walks down columns one by one; squares of a few rows at a time stay in the cache
        blocks = torch.split(matrix, _ROWS_AT_ONCE, dim=-2)
        squares = (part.float().square().sum(dim=-2, keepdim=True) for part in blocks)
        total: Tensor = torch.stack(list(squares)).sum(dim=0)
        return total.sqrt_()
    return wide_norm(matrix, axis, keepdim=True)

"""GaLore: Adam on the gradient's projection, lifted back into the weight.

    R = P^T G ;  N = adam(R) ;  W <- (1 - lr wd) W - lr scale P N          (left; right: R = G Q, N Q^T)

P holds the leading r singular vectors of G and is found anew every `refresh_interval` steps; the moments keep their
coordinates then.

References: Zhao et al. 2024, arXiv 2403.03507, algorithms 1 and 2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.lowbit import add_moments
from subspace.optim.settings import ProjectionSettings
from subspace.optim.slots import Bundle
from subspace.optim.together import Together, as_stack, can_go_together
from subspace.projection.geometry import Geometry

__all__ = ["ProjectedAdamW"]


class ProjectedAdamW(SubspaceOptimizer):
    """AdamW in the subspace of a projector; known as GaLore.

    State of a projected weight beside that of `SubspaceOptimizer`: `exp_avg` and `exp_avg_sq` of the low-rank
    gradient's shape, float32 or codes.
    """

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(scale=0.25)

    def new_state(self, geometry: Geometry, settings: ProjectionSettings, device: torch.device) -> dict[str, Any]:
        state: dict[str, Any] = {}
        add_moments(state, ("exp_avg", "exp_avg_sq"), geometry.low_shape, settings.state_bits, device)
        return state

    def update_bundle(self, bundle: Bundle) -> None:
        alpha = -bundle.group["lr"] * bundle.settings.scale
        if can_go_together(bundle) and bundle.settings.fidelity == "paper":
            together = Together(bundle, self.projectors(bundle))
            directions = self.directions(bundle, self.low_gradients(bundle, together))
            together.add_lifted(as_stack(directions), beta=bundle.kept, alpha=alpha)
            together.write()
            return
        directions = self.directions(bundle, self.low_gradients(bundle))
        for slot, state, direction in zip(bundle.slots, bundle.states, directions, strict=True):
            for _, weight in self.lifted_parts(bundle, slot, state, direction, beta=bundle.kept, alpha=alpha):
                bundle.decay_after(weight)


class QuantizedProjectedAdamW(ProjectedAdamW):
    """GaLore with moments of 8 bits, bases of 4 bits, and refreshes that grow rare where a basis hardly moves.

    Known as Q-GaLore, whose other half, int8 weights with stochastic rounding, is how the weights are stored
    (`model.trained_weights: int8`) and not a matter of the optimizer.

    References: Zhang et al. 2024, arXiv 2407.08296.
    """

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(
        scale=0.25, state_bits=8, basis_bits=4, refresh="adaptive"
    )


class PlainAdamW(ProjectedAdamW):
    """AdamW with moments of 32, 8 or 4 bits: the baseline; nothing is projected unless a rank is given."""

    default_rank: ClassVar[int | None] = 0

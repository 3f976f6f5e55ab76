"""Updates in the backward pass: a gradient is used and freed as soon as it exists.

Where an update needs only the projection R = P^T G, which is linear in G, the projections of all micro-batches are
added up and the step comes after the backward pass: accumulation, clipping and the schedule are those of a step after
the backward pass. Where it needs G itself, the parameter is updated at once.

A weight whose basis is due keeps its whole gradient until the step (`refresh_from: step`), or takes its basis from the
step's first micro-batch, keeping nothing (`refresh_from: micro_batch`).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from subspace.core.errors import ConfigError, MethodError
from subspace.linalg.norms import wide_norm, wide_norms
from subspace.optim.slots import Slot
from subspace.optim.together import can_go_together

if TYPE_CHECKING:
    from subspace.optim.engine import SubspaceOptimizer

__all__ = ["BackwardUpdates"]


class BackwardUpdates:
    """The hooks of one optimizer, and the norm of what its next step consumes.

    Hooks die with their optimizer: they would take the gradients of the next one over the same model.
    """

    def __init__(self, optimizer: SubspaceOptimizer) -> None:
        self._owner = weakref.ref(optimizer)
        self._squares: list[Tensor] = []
        self._refreshed: set[Slot] = set()
        self._updated: set[Slot] = set()

    def watch(self, slot: Slot) -> None:
        """Take every gradient of a slot from now on; what is frozen gets none, and is no place for a hook.

        Raises:
            MethodError: E-MTH-001 with several processes.
        """
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise MethodError(
                "E-MTH-001",
                where="update",
                found="'in_backward' in several processes: gradients would be used before they are reduced",
                action="Use update='after_backward'.",
            )
        if not slot.parameter.requires_grad:
            return
        # torch has no types for it; the hook gets the parameter, and must not hold what would keep that alive
        handle = slot.parameter.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]
        weakref.finalize(self._optimizer, handle.remove).atexit = False

    def forget(self) -> None:
        """Begin a new step."""
        self._squares.clear()
        self._refreshed.clear()
        self._updated.clear()

    @property
    def _optimizer(self) -> SubspaceOptimizer:
        optimizer = self._owner()
        assert optimizer is not None
        return optimizer

    @torch.no_grad()
    def _take(self, parameter: nn.Parameter) -> None:
        slot = self._optimizer.slots[parameter]
        if self._optimizer.needs_whole_gradient:
            if not slot.settings.full_accumulator:
                self._update(slot)
        elif slot.geometry is not None:
            self._accumulate(slot)

    def refuse_scaling(self) -> None:
        """Refuse a step that torch's loss scaler asks for: what was projected or used up it could not unscale.

        Raises:
            ConfigError: E-CFG-014.
        """
        optimizer: Any = self._optimizer
        if hasattr(optimizer, "found_inf"):
            del optimizer.found_inf, optimizer.grad_scale  # which the scaler would do after a step
            raise ConfigError(
                "E-CFG-014",
                where="update",
                found="'in_backward' with loss scaling: gradients are used before they are unscaled",
                action="Train in bfloat16, or use update='after_backward'.",
            )

    def _update(self, slot: Slot) -> None:
        """Update a parameter at once.

        Raises:
            ConfigError: E-CFG-014 if it has been updated since the last step: its gradients are not accumulated.
        """
        gradient = slot.parameter.grad
        assert gradient is not None
        if slot in self._updated:
            raise ConfigError(
                "E-CFG-014",
                where="update",
                found=f"'in_backward' and a second gradient of {slot.name} before step(): it would be a second update",
                action="Call step() after every backward pass, or give full_accumulator=True to accumulate.",
            )
        self._updated.add(slot)
        self._squares.append(wide_norm(gradient).square())
        self._optimizer.step_slots([slot], slot.group_index)
        slot.parameter.grad = None

    def _accumulate(self, slot: Slot) -> None:
        """Add the projection of a gradient to what there is, and free it."""
        assert slot.geometry is not None
        optimizer = self._optimizer
        state = optimizer.state_of(slot)
        if optimizer.refresher.is_due(slot, state):
            if slot.settings.refresh_from == "step":
                return
            if slot not in self._refreshed:
                betas = optimizer.param_groups[slot.group_index]["betas"]
                optimizer.refresher.find([slot], [state], betas)
                self._refreshed.add(slot)
        low = torch.empty(slot.geometry.low_shape, device=slot.parameter.device)
        optimizer.project_into(low, slot, state)
        slot.low, slot.parameter.grad = low, None

    @torch.no_grad()
    def clip(self, max_norm: float) -> Tensor:
        """See `SubspaceOptimizer.clip_grad_norm_`."""
        if self._squares:
            if math.isfinite(max_norm):
                raise ConfigError(
                    "E-CFG-014",
                    where="training.max_grad_norm",
                    found="clipping of gradients that the backward pass has used up",
                    action="Set it to 0, or method.full_accumulator to true.",
                )
            return torch.stack(self._squares).sum().sqrt()
        consumed = list(self._consumed())
        if not consumed:
            return torch.zeros(())
        device = consumed[0].device
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for value in consumed:
            kinds.setdefault((value.device, value.dtype), []).append(value)
        norms = [norm.to(device) for values in kinds.values() for norm in wide_norms(values)]
        norm = wide_norm(torch.stack(norms))
        if math.isfinite(max_norm):
            factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            for (place, _), values in kinds.items():
                torch._foreach_mul_(values, factor.to(place))
        return norm

    def _consumed(self) -> Iterator[Tensor]:
        """Yield what the next step reads; gradients of which only the projection counts are projected and freed."""
        optimizer = self._optimizer
        whole = optimizer.needs_whole_gradient
        for slot in optimizer.slots.values():
            if slot.parameter.grad is not None and (whole or slot.geometry is None):
                yield slot.parameter.grad
        if whole:
            return
        for index, group in enumerate(optimizer.param_groups):
            ready = [slot for slot in optimizer.members(index) if slot.geometry is not None and slot.ready]
            for bundle in optimizer.bundles(ready, group):
                optimizer.refresher.refresh(bundle)
                if can_go_together(bundle) and bundle.slots[0].low is None:
                    yield optimizer.project_together(bundle)
                    continue
                for slot, state in zip(bundle.slots, bundle.states, strict=True):
                    if slot.parameter.grad is not None:
                        low = torch.empty(bundle.geometry.low_shape, device=slot.parameter.device)
                        optimizer.project_into(low, slot, state)
                        slot.low, slot.parameter.grad = low, None
                    assert slot.low is not None
                    yield slot.low

"""The second backward pass of Sophia-G inside a transformers Trainer, and so inside TRL's SFTTrainer.

    y ~ softmax(model(x)) at every position that counts in the loss;  g = gradient of the mean of -log p(y)
    H <- b2 H + (1 - b2) B g*g          (B sampled labels; `optim.curvature`)

References: Liu et al. 2023, arXiv 2305.14342, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import TrainerCallback

from subspace.core.errors import ConfigError, MethodError
from subspace.core.seeding import derive_seed
from subspace.optim.curvature import CurvatureClipped, measure_curvature
from subspace.optim.riemannian import innermost

__all__ = ["CurvatureCallback", "require_curvature"]

_FOR_THE_LOSS = frozenset({"num_items_in_batch", "fused_lm_head"})
"""What Trainers give a model beside the batch."""
_guards: WeakKeyDictionary[torch.optim.Optimizer, Any] = WeakKeyDictionary()


def require_curvature(optimizer: torch.optim.Optimizer) -> None:
    """Let every step fail until a `CurvatureCallback` takes charge: without curvature, Sophia is sign descent."""

    def fail(*_: Any) -> None:
        raise MethodError(
            "E-MTH-001",
            where="sophia",
            found="a Trainer that measures no curvature",
            action="Add callbacks=[CurvatureCallback()] to it.",
        )

    _guards[optimizer] = optimizer.register_step_pre_hook(fail)


class CurvatureCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Measures the curvature after step 1 and every `interval` steps from there, on the last micro-batch.

    What is random in it depends on the step alone, so that a resumed run draws the same.

    Args:
        interval: Steps between estimates.

    Raises:
        ConfigError: E-CFG-009 for an interval below 1.
        MethodError: E-MTH-001 when training begins with another optimizer, several processes or fp16; at the first
            estimate if the Trainer computes the loss itself, so that the model sees no labels.
    """

    def __init__(self, interval: int = 10) -> None:
        if interval < 1:
            raise ConfigError("E-CFG-009", where="interval", found=str(interval), expected="1 or more")
        self._interval = interval
        self._batch: dict[str, Any] | None = None
        self._handle: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer = innermost(kwargs["optimizer"])
        problems = {
            f"the optimizer {type(optimizer).__name__}": not isinstance(optimizer, CurvatureClipped),
            "several processes, whose curvatures would differ": args.world_size > 1 or args.n_gpu > 1,
            "fp16, in which gradients of an unscaled loss underflow": args.fp16,
        }
        for found, is_so in problems.items():
            if is_so:
                expected = "SophiaG in one process, in fp32 or bf16"
                raise MethodError("E-MTH-001", where="CurvatureCallback", found=found, expected=expected)
        if optimizer in _guards:
            _guards.pop(optimizer).remove()
        self._detach()  # a training that failed has not ended
        self._handle = kwargs["model"].register_forward_pre_hook(self._keep, with_kwargs=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if (state.global_step - 1) % self._interval:
            return
        batch, self._batch = self._batch, None
        if batch is None:
            raise MethodError(
                "E-MTH-001",
                where="CurvatureCallback",
                found="a batch without labels, so that nobody knows which positions count",
                action="Leave out label smoothing and a loss function of your own.",
            )
        seed = derive_seed(args.seed, "curvature", state.global_step)
        _measure(kwargs["model"], innermost(kwargs["optimizer"]), batch, seed)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._detach()

    def _keep(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if model.training and "labels" in kwargs:
            self._batch = dict(kwargs)

    def _detach(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._batch = None


def _measure(model: nn.Module, optimizer: Any, batch: Mapping[str, Any], seed: int) -> None:
    """Measure with labels drawn from a seed; torch's random state stays as it was."""
    device = next(model.parameters()).device
    inputs = {key: value for key, value in batch.items() if key not in _FOR_THE_LOSS}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        measure_curvature(model, optimizer, inputs)

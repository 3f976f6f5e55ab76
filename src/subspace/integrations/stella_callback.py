"""StelLA inside a transformers Trainer, and so inside TRL's SFTTrainer.

    model = add_stella(model, ["q_proj", "v_proj"], rank=8)
    trainer = SFTTrainer(model, args, train_dataset=rows, callbacks=[StellaCallback()])
    trainer.train()
    export_stella(model, folder)                                    # a plain PEFT LoRA

The optimizer is the Trainer's own, or any other; it saves all the state there is. A checkpoint holds the whole model,
and a Trainer resumes from it after `add_stella` with the same arguments.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from subspace.adapters.stella import hidden_size, stella_layers, stiefel_factors
from subspace.core.errors import MethodError
from subspace.linalg.stiefel import Retraction
from subspace.optim.riemannian import StiefelSteps

__all__ = ["StellaCallback"]


class StellaCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Keeps StelLA's bases orthonormal around every step of the Trainer's optimizer, while it trains.

    Args:
        retraction: `polar` or `exponential`.
        gradient_scaling: Scale steps of a basis with d rows by sqrt(c / d): True: c is the model's hidden size; a
            number: c; False: not at all.

    Raises:
        MethodError: E-MTH-001 when training begins on a model without StelLA, or with an optimizer that does not hold
            its factors whole (FSDP, DeepSpeed).
    """

    def __init__(self, *, retraction: Retraction = "polar", gradient_scaling: bool | float = True) -> None:
        self._retraction, self._gradient_scaling = retraction, gradient_scaling
        self._steps: StiefelSteps | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        if not stella_layers(model):
            raise MethodError(
                "E-MTH-001",
                where=type(model).__name__,
                found="a model without StelLA",
                action="Call add_stella(model, ...) before you make the Trainer.",
            )
        self._detach()  # a training that failed has not ended
        wanted = self._gradient_scaling
        width = float(hidden_size(model)) if wanted is True else wanted or None
        self._steps = StiefelSteps(
            kwargs["optimizer"], stiefel_factors(model), retraction=self._retraction, gradient_scaling=width
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._detach()

    def _detach(self) -> None:
        if self._steps is not None:
            self._steps.remove()
        self._steps = None

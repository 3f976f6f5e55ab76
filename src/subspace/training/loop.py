"""The loop.

    for each optimizer step s:
        seed everything from (seed, s)                      # randomness has no other state
        set the learning rate                               # an update may run inside the backward pass
        for each micro-batch:  loss = summed cross-entropy / targets of the whole step;  backward
        penalty backward, once
        clip to max_grad_norm; not finite -> skip the step, count it
        hooks.before_step; optimizer; hooks.after_step; clear gradients
        log, evaluate, save where they are due
        a signal: drop what is accumulated, save the last whole step, stop

Every target of a step weighs the same whatever micro-batch it came in. A checkpoint holds whole steps only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from subspace.core.errors import NumericsError
from subspace.core.seeding import derive_seed, seed_everything
from subspace.methods.base import Hook, Method
from subspace.runs.log import RunLog
from subspace.training.config import TrainingConfig
from subspace.training.hooks import Listener
from subspace.training.loss import count_targets, count_tokens, summed_loss
from subspace.training.monitors import MachineMonitor
from subspace.training.schedule import Schedule
from subspace.training.signals import StopFlag
from subspace.training.state import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Loop", "LoopResult"]


@dataclass
class LoopResult:
    """How a loop ended: `finished`, or `stopped` with the exit status of the signal."""

    finished: bool
    exit_status: int = 0


@dataclass
class Loop:
    """One run's training.

    Attributes:
        batch: Gives the micro-batch (epoch, index), on the CPU.
        num_batches: Micro-batches in an epoch.
        evaluate: Returns the validation loss and its record's fields, or None where there are no validation rows.
        save: Makes a checkpoint of the current state durable.
        keep_best: Keeps the current trained values as the best ones.
    """

    model: nn.Module
    method: Method
    optimizer: Any
    schedule: Schedule
    accelerator: Accelerator
    config: TrainingConfig
    task: str
    total_steps: int
    num_batches: int
    batch: Callable[[int, int], Mapping[str, Tensor]]
    log: RunLog
    monitor: MachineMonitor
    save: Callable[[Progress], None]
    keep_best: Callable[[Progress], None] | None = None
    evaluate: Callable[[], dict[str, float]] | None = None
    listeners: Sequence[Listener] = ()
    after_step: Callable[[int], None] | None = None
    progress: Progress = field(default_factory=Progress)

    def run(self, stop: StopFlag) -> LoopResult:
        """Train from `progress` to the end, or until a signal.

        Raises:
            NumericsError: E-NUM-001 after more bad steps in a row than `max_bad_steps`.
        """
        parameters = [value for value in self.model.parameters() if value.requires_grad]
        hooks = self.method.hooks()
        self._tell("on_start", self.total_steps, self.progress.step)
        self.monitor.restart_clock()
        self.model.train()
        while self.progress.step < self.total_steps and not self.progress.stopped_early:
            loss = self._step(parameters, hooks, stop)
            if loss is None:
                self.save(self.progress)
                return LoopResult(finished=False, exit_status=stop.exit_status)
            self._after(loss)
            if stop.received and self.progress.step < self.total_steps:
                self.save(self.progress)
                return LoopResult(finished=False, exit_status=stop.exit_status)
        return LoopResult(finished=True)

    def _step(self, parameters: list[nn.Parameter], hooks: Sequence[Hook], stop: StopFlag) -> dict[str, Any] | None:
        """Do one optimizer step; None if a signal came before all its micro-batches were through."""
        progress = self.progress
        number = progress.step + 1
        seed_everything(derive_seed(self.config.seed, "step", number) % 2**63)
        epoch, cursor, batches = self._next_batches()
        targets = sum(count_targets(batch, self.task) for batch in batches)
        rate = self.schedule.apply(number)  # before the passes: an update may run inside them
        losses = []
        for batch in batches:
            moved = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
            with self.accelerator.autocast():
                loss = summed_loss(self.model, moved, self.task, self.config.loss_chunk_tokens) / max(targets, 1)
            self.accelerator.backward(loss)
            losses.append(loss.detach())
            if stop.received:
                self.optimizer.zero_grad()
                return None
        penalty = self.method.penalty(self.model)
        if penalty is not None:
            self.accelerator.backward(penalty)
        record = self._update(parameters, hooks, number, torch.stack(losses).sum(), penalty, rate)
        progress.step, progress.epoch, progress.batch = number, epoch, cursor
        num_tokens = sum(count_tokens(batch) for batch in batches)
        progress.num_tokens += num_tokens
        progress.num_targets += targets
        self.monitor.add_tokens(num_tokens)
        return record

    def _update(
        self,
        parameters: list[nn.Parameter],
        hooks: Sequence[Hook],
        number: int,
        loss: Tensor,
        penalty: Tensor | None,
        rate: float,
    ) -> dict[str, Any]:
        """Clip, check, step; return the fields of the step's record."""
        if self.accelerator.scaler is not None:
            self.accelerator.unscale_gradients(self.optimizer)
        norm = self._clip(parameters)
        record: dict[str, Any] = {"loss": float(loss), "grad_norm": float(norm), "learning_rate": rate}
        if penalty is not None:
            record["penalty"] = float(penalty.detach())
        if math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"]):
            self.progress.num_bad = 0
            for hook in hooks:
                hook.before_step(self.model, number)
            self.optimizer.step()
            for hook in hooks:
                event = hook.after_step(self.model, number)
                if event is not None:
                    self._write("method", {"step": number, **event})
        elif self.accelerator.scaler is not None:
            self.optimizer.step()  # the scaler skips it and lowers its scale
            self._count_bad(number, record)
        else:
            self._count_bad(number, record)
        self.optimizer.zero_grad()
        return record

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Scale what the optimizer will consume to `max_grad_norm`; return its norm before."""
        limit = self.config.max_grad_norm or math.inf
        own = getattr(getattr(self.optimizer, "optimizer", self.optimizer), "clip_grad_norm_", None)
        norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, limit) if own is None else own(limit)
        return norm

    def _count_bad(self, number: int, record: dict[str, Any]) -> None:
        progress = self.progress
        progress.num_bad += 1
        progress.num_skipped += 1
        self._write("skip", {"step": number, "loss": record["loss"], "grad_norm": record["grad_norm"]})
        if progress.num_bad > self.config.max_bad_steps:
            values = f"loss {record['loss']}, gradient norm {record['grad_norm']}"
            raise NumericsError(
                "E-NUM-001",
                where=f"step {number}",
                found=f"{values}: {progress.num_bad} bad steps in a row",
                expected=f"at most {self.config.max_bad_steps} (training.max_bad_steps)",
                action="Lower learning_rate, or use bf16 instead of fp16. The last checkpoint is whole.",
            )

    def _after(self, record: dict[str, Any]) -> None:
        """Log, evaluate and save where the step count says so."""
        progress, config = self.progress, self.config
        last = progress.step == self.total_steps
        to_evaluate, to_save = (last or self._is_due(every) for every in (config.eval_steps, config.save_steps))
        if math.isfinite(record["loss"]):
            progress.window_loss += record["loss"]
            progress.window_steps += 1
        if progress.step % config.logging_steps == 0 or last:
            record["loss"] = progress.window_loss / progress.window_steps if progress.window_steps else record["loss"]
            progress.window_loss, progress.window_steps = 0.0, 0
            self._write_step(record)
        self._tell("on_step", progress.step, record["loss"])
        if self.evaluate is not None and config.eval_steps and to_evaluate:
            self._evaluate()
        if to_save or progress.stopped_early:
            self._write("checkpoint", {"step": progress.step})
            self.save(progress)
        if self.after_step is not None:
            self.after_step(progress.step)

    def _is_due(self, every: int | Literal["epoch"] | None) -> bool:
        """Return whether the step that was done is one of every so many, or the last of its epoch."""
        if every == "epoch":
            return self.progress.batch == 0
        return every is not None and self.progress.step % every == 0

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        progress, begun = self.progress, self.monitor.elapsed_seconds
        fields = self.evaluate()
        machine = self.monitor.moment() | {"seconds": round(self.monitor.elapsed_seconds - begun, 3)}
        self.model.train()
        if progress.best_loss is None or fields["loss"] < progress.best_loss:
            progress.best_loss, progress.best_step, progress.num_worse = fields["loss"], progress.step, 0
            if self.keep_best is not None:
                self.keep_best(progress)
        else:
            progress.num_worse += 1
        patience = self.config.early_stopping_patience
        progress.stopped_early = patience is not None and progress.num_worse >= patience
        where = {"step": progress.step, "epoch": self._epoch, "split": "validation"}
        self._write("eval", {**where, **fields, "machine": machine})

    def _next_batches(self) -> tuple[int, int, list[Mapping[str, Tensor]]]:
        """Return the cursor after the next step, as (epoch, batch), and the step's micro-batches.

        A step does not reach over the end of an epoch.
        """
        epoch, first = self.progress.epoch, self.progress.batch
        last = min(first + self.config.gradient_accumulation_steps, self.num_batches)
        batches = [self.batch(epoch, index) for index in range(first, last)]
        return (epoch + 1, 0, batches) if last == self.num_batches else (epoch, last, batches)

    def _write_step(self, record: dict[str, Any]) -> None:
        progress = self.progress
        fields = {
            "step": progress.step,
            "epoch": self._epoch,
            **record,
            "num_tokens": progress.num_tokens,
            "num_targets": progress.num_targets,
            "machine": self.monitor.snapshot(),
        }
        self._write("step", fields)

    @property
    def _epoch(self) -> float:
        """Passes over the training rows."""
        return round(self.progress.epoch + self.progress.batch / self.num_batches, 6)

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        self.log.write(event, **fields)
        self._tell("on_record", {"event": event, **fields})

    def _tell(self, name: str, *values: Any) -> None:
        for listener in self.listeners:
            getattr(listener, name)(*values)

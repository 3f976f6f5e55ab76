"""Our log from a transformers Trainer, and so from TRL's SFTTrainer.

    trainer = SFTTrainer(..., callbacks=[UnifiedLogCallback("outputs/theirs")])

The folder then holds `unified_log.jsonl` in the format of docs/log-schema.md, `config.yaml` with what the Trainer tells
of model, method and training, and, once something was evaluated, `metrics.json`: `subspace compare` shows the run
beside others, and judges it if they were scored alike. Imports transformers, and nothing heavier than it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from subspace.integrations.trainer_records import (
    is_score,
    stated_recipe,
    trained_parameters,
    write_recipe,
    write_scores,
)
from subspace.runs.layout import RunLayout
from subspace.runs.log import RunLog
from subspace.training.monitors import MachineMonitor

__all__ = ["UnifiedLogCallback"]

_STEP_FIELDS = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate", "epoch": "epoch"}


class UnifiedLogCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Writes every record that the Trainer logs into a unified log.

    Args:
        folder: Made if absent; an earlier log in it is gone on with, as a resumed Trainer would.
        method: Name of the method, for the comparison; empty: what a PEFT adapter says of itself.
        data: Name of the training data, for the comparison: only runs of the same data and model are judged together.
    """

    def __init__(self, folder: str | Path, method: str = "", data: str = "") -> None:
        self._layout = RunLayout(Path(folder))
        self._method = method
        self._data = data
        self._log: RunLog | None = None
        self._monitor: MachineMonitor | None = None
        self._tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        self._layout.folder.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(self._layout.log)
        self._monitor = MachineMonitor(str(args.device).partition(":")[0])
        recipe = stated_recipe(kwargs.get("model"), args, self._method, self._data)
        write_recipe(self._layout, recipe)
        self._log.write(
            "run_start",
            step=state.global_step,
            total_steps=state.max_steps,
            method=recipe["method"]["name"],
            model=recipe["model"]["model_name_or_path"],
            seed=args.seed,
            **trained_parameters(kwargs.get("model")),
            machine=self._monitor.snapshot(),
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self._log is None or self._monitor is None or not logs:
            return
        values = {key: _number(value) for key, value in logs.items()}
        tokens = values.get("num_tokens")
        if tokens is not None:
            self._monitor.add_tokens(int(tokens) - self._tokens)
            self._tokens = int(tokens)
        machine = self._monitor.snapshot()
        if "eval_loss" in values:
            fields = {key.removeprefix("eval_"): value for key, value in values.items() if _is_score(key)}
            self._log.write("eval", step=state.global_step, split="validation", **fields, machine=machine)
        elif "loss" in values:
            fields = {ours: values[theirs] for theirs, ours in _STEP_FIELDS.items() if theirs in values}
            if tokens is not None:
                fields["num_tokens"] = int(tokens)
            self._log.write("step", step=state.global_step, **fields, machine=machine)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and metrics:
            # A Trainer that only evaluates what another one trained has made no step either; its log tells.
            trained = state.global_step > 0 or (self._log is None and self._layout.log.is_file())
            write_scores(self._layout, metrics, trained=trained)

    def on_predict(
        self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.on_evaluate(args, state, control, metrics)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._log is not None:
            self._log.write("checkpoint", step=state.global_step)
            self._log.sync()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._log is None or self._monitor is None:
            return
        self._log.write("run_end", step=state.global_step, outcome="finished", machine=self._monitor.snapshot())
        self._log.close()
        self._log = None


def _is_score(key: str) -> bool:
    return key.startswith("eval_") and is_score(key)


def _number(value: Any) -> float | None:
    """Return a logged value as a number; recent versions log strings."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else math.nan

"""A worker whose runs are real run folders without a model, so that a bench of many jobs takes seconds.

A step is a short sleep and a file that stands for its checkpoint. Each job writes a line into `executed` when it
begins to do steps and when it ends, beside the journal that the bench writes itself.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import subspace.experiments.worker as worker
from subspace.core.errors import DataError, NumericsError, StoppedError
from subspace.pipeline.run_config import RunConfig
from subspace.runs.folder_state import run_state
from subspace.runs.manifest import file_digest
from subspace.runs.store import RunFolder
from subspace.training.signals import StopFlag

STEP_SECONDS = float(os.environ.get("STUB_STEP_SECONDS", "0.01"))
KILLED_ONCE, ALWAYS_KILLED, DIVERGES, FAILS, ENDS_ANYWAY = 0.1, 0.2, 0.3, 0.4, 0.5
"""Weight decays that ask for trouble."""


def loss_of(config: RunConfig) -> float:
    """Return a loss with its best learning rate at 1e-2, that falls with the steps."""
    training = config.training
    return abs(training.learning_rate - 1e-2) + 1 / (training.max_steps or 1) + training.seed * 1e-6


def told_seconds(config: RunConfig) -> float:
    """Return what a run says that its steps took: of lora twice as much."""
    return STEP_SECONDS * (2 if config.method.name == "lora" else 1)


def files_of(config: RunConfig) -> list[dict[str, Any]]:
    """Return the file of rows as a manifest names it, if the source is one."""
    path = Path(config.data.source)
    return [{"path": str(path), "sha256": file_digest(path)}] if path.is_file() else []


def fake_train(config: RunConfig, teller: Any) -> None:
    folder, training = Path(config.training.output_dir), config.training
    trouble = training.weight_decay
    if trouble == ALWAYS_KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == FAILS:
        raise DataError("E-DAT-001", where="data", found="nothing")
    facts = {"digests": {"recipe": config.digest()}, "data": [{"files": files_of(config)}]}
    if run_state(folder) == "unfinished":
        run = RunFolder.resume(folder)
    else:
        run = RunFolder.create(folder, config_yaml=config.to_yaml(), plan={}, facts=facts)
    with run, StopFlag() as stop:
        checkpoints = run.layout.checkpoints
        checkpoints.mkdir(exist_ok=True)
        total = training.max_steps or 1
        done = max((int(path.name) for path in checkpoints.iterdir()), default=0)
        log(folder, "begin", done)
        teller.on_start(total, done)
        for step in range(done + 1, total + 1):
            time.sleep(STEP_SECONDS)
            (checkpoints / str(step)).touch()
            teller.on_step(step, 1.0)
            if trouble == KILLED_ONCE and step == 2 and done == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if trouble == DIVERGES and training.learning_rate > 1e-2:
                raise NumericsError("E-NUM-001", where="step 1", found="loss nan")
            if stop.received and trouble != ENDS_ANYWAY:
                raise StoppedError("E-RUN-075", where=str(folder), found="stopped")
        metrics = {"loss": loss_of(config)}
        run.write_metrics({"validation": metrics})
        run.finish({"metrics": metrics, "seconds": 0.1, "seconds_per_step": told_seconds(config), "steps": total})
    log(folder, "end", total)


def log(folder: Path, event: str, step: int) -> None:
    out = next(parent for parent in folder.parents if (parent / "bench.json").exists())
    descriptor = os.open(out / "executed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, (json.dumps([str(folder.relative_to(out)), event, step]) + "\n").encode())
    os.close(descriptor)


if __name__ == "__main__":
    worker._import_everything = lambda: None
    worker._train = fake_train
    worker._probed = told_seconds
    worker.main()

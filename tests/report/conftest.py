"""Run folders written by the real run room, with made-up numbers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from subspace.runs.store import RunFolder

MakeRun = Callable[..., Path]

RECIPE = """\
model:
  model_name_or_path: {model}
data:
  source: {data}
method:
  name: {method}
  rank: {rank}
{fidelity}training:
  learning_rate: 0.0005
  output_dir: {folder}
  seed: {seed}
"""


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a maker of run folders; see `write_run`."""

    def make(name: str = "lora", **settings: Any) -> Path:
        return write_run(tmp_path / "outputs" / name, **settings)

    return make


def write_run(
    folder: Path,
    *,
    method: str = "lora",
    model: str = "builtin/tiny-llama",
    data: str = "builtin/word-problems",
    rank: int = 8,
    fidelity: str | None = None,
    seed: int = 42,
    steps: int = 40,
    start: float = 2.0,
    end: float = 0.4,
    eval_every: int = 10,
    metrics: Mapping[str, Any] | None = None,
    finished: bool = True,
    planned: int = 380_000_000,
    measured: int = 391_000_000,
    parameters: int = 123_456,
    seconds: float = 21.5,
    loaded: int | None = None,
) -> Path:
    """Write a run whose loss falls from `start` to `end`, in epochs of 20 steps."""
    stream = random.Random(seed)
    recipe = RECIPE.format(
        model=model, data=data, method=method, rank=rank, folder=json.dumps(str(folder)), seed=seed,
        fidelity=f"  fidelity: {fidelity}\n" if fidelity else "",
    )  # fmt: skip
    facts = {"seed": seed, "device": "cpu"}
    plan = {"trained_parameters": parameters, "peak_bytes": planned}
    with RunFolder.create(folder, config_yaml=recipe, plan=plan, facts=facts) as run:
        run.log.write("run_start", step=0, method=method, model=model, task="causal_lm", total_steps=steps)
        for step in range(1, steps + 1):
            loss = end + (start - end) * math.exp(-5 * step / steps)
            machine = {"elapsed_seconds": seconds * step / steps, "rss_bytes": 600_000_000 + step, "time": "now"}
            noisy = loss * (1 + 0.12 * stream.gauss(0, 1))
            run.log.write(
                "step", step=step, epoch=step / 20, loss=noisy, learning_rate=5e-4, grad_norm=1.0, machine=machine
            )
            if eval_every and step % eval_every == 0:
                run.log.write(
                    "eval",
                    step=step,
                    split="validation",
                    loss=loss * 1.08,
                    num_targets=900,
                    machine=machine | {"seconds": 0.0},
                )
        run.log.write("run_end", step=steps, outcome="finished" if finished else "stopped")
        found = {"validation": {"exact_match": 0.7, "loss": end}} if metrics is None else metrics
        if finished:
            run.write_metrics(found)
            run.write_predictions("validation", [{"index": 0, "correct": True}])
            run.finish(
                {
                    "steps": steps,
                    "trained_parameters": parameters,
                    "planned_peak_bytes": planned,
                    "measured_peak_bytes": measured,
                    "loaded_bytes": loaded,
                    "seconds": seconds,
                    "metrics": found.get("validation", {}),
                }
            )
    return folder

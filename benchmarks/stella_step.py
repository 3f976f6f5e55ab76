"""What a StelLA step costs over a LoRA step: same targets, same rank, same batches, one process, taken in turn.

The answer (issue line B8): the median over paired steps of StelLA's seconds over LoRA's, forward, backward, clipping
and update together, is at most 1.15. The share of a StelLA step that its hooks take is given beside it. On the CPU the
seconds are those of the process (one thread), which do not grow when the machine has other work; on a GPU of the clock.

    OMP_NUM_THREADS=1 python benchmarks/stella_step.py --rank 8 --rank 32
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subspace.methods.base import AttachContext
from subspace.methods.registry import REGISTRY
from subspace.models.tiny import tiny_model
from subspace.optim.riemannian import StiefelSteps
from subspace.optim.settings import OptimizerSettings
from subspace.plan.inventory import take_inventory


class HookClock:
    """The seconds that the hooks around optimizer steps take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in ("_before_step", "_after_step"):
            setattr(StiefelSteps, name, self._timed(getattr(StiefelSteps, name)))

    def _timed(self, act: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: Any) -> None:
            begun = now()
            act(*arguments)
            self.seconds += now() - begun

        return timed


class Side:
    """One method on its own copy of the model."""

    def __init__(self, name: str, base: Any, rank: int, device: str, options: dict[str, Any]) -> None:
        method_class = REGISTRY.load(name)
        method = method_class(
            method_class.config_class(name=name, rank=rank, alpha=2.0 * rank, target_modules="all-linear", **options)
        )
        placements = method.place(take_inventory(base, task="causal_lm"))
        self.model: nn.Module = method.attach(base.to(device), placements, AttachContext(seed=1)).train()
        self.trained = [value for value in self.model.parameters() if value.requires_grad]
        self.optimizer = method.optimizer(self.model, OptimizerSettings(learning_rate=5e-4))

    def step(self, ids: Tensor) -> float:
        """Return the seconds of one step."""
        begun = now()
        self.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return now() - begun


def now() -> float:
    """Return seconds, when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def measure(rank: int, arguments: argparse.Namespace, clock: HookClock, **options: Any) -> dict[str, Any]:
    sizes = {"hidden_size": arguments.width, "num_layers": arguments.layers}
    sides = [
        Side(name, tiny_model("llama", "causal_lm", **sizes), rank, arguments.device, own)
        for name, own in (("lora", {}), ("stella", options))
    ]
    generator = torch.Generator().manual_seed(0)
    seconds: tuple[list[float], list[float]] = ([], [])
    hooks = []
    for step in range(arguments.steps + 3):
        ids = torch.randint(3, 300, (arguments.rows, arguments.length), generator=generator).to(arguments.device)
        clock.seconds = 0.0
        # each goes first in every other step
        taken = {index: sides[index].step(ids) for index in ((0, 1) if step % 2 else (1, 0))}
        if step >= 3:
            seconds[0].append(taken[0])
            seconds[1].append(taken[1])
            hooks.append(clock.seconds)
    ratios = [stella / lora for lora, stella in zip(*seconds, strict=True)]
    return {
        "rank": rank,
        **options,
        "num_parameters": sum(value.numel() for value in sides[0].model.parameters()),
        "trained": [sum(value.numel() for value in side.trained) for side in sides],
        "lora_seconds": round(statistics.median(seconds[0]), 5),
        "stella_seconds": round(statistics.median(seconds[1]), 5),
        "ratio_median": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(value, 4) for value in statistics.quantiles(ratios, n=4)],
        "hook_share": round(statistics.median(hooks) / statistics.median(seconds[1]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, action="append", help="may be given several times; 8 if absent")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="timed steps; three before them are left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clock = HookClock()
    variants: tuple[dict[str, Any], ...] = ({}, {"diagonal": False}, {"retraction": "exponential"})
    result = {
        "date": date.today().isoformat(),
        "batch": [arguments.rows, arguments.length],
        "width": arguments.width,
        "measured": [measure(rank, arguments, clock, **own) for rank in arguments.rank or [8] for own in variants],
        "machine": f"{platform.processor() or platform.machine()}, {arguments.device}, 1 thread",
        "versions": {package: version(package) for package in ("torch", "transformers", "peft")},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Which GPUs there are, without asking torch: a worker sees one of them, so that runs do not crowd on the first."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_workers", "num_cores", "visible_gpus"]


def visible_gpus() -> tuple[str, ...]:
    """Return the ids of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or every /dev/nvidia<n>."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(part.strip() for part in chosen.split(",") if part.strip() not in ("", "-1"))
    found = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return tuple(sorted(found, key=int))


def num_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: str) -> int:
    """Return how many workers a bench has unless it is told: one for each GPU, or for each core where none is used.

    Args:
        device: `training.device` of the recipe.
    """
    gpus = len(visible_gpus())
    return num_cores() if device == "cpu" or not gpus else gpus if device in ("auto", "cuda") else 1

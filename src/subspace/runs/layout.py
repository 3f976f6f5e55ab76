"""The names of everything in a run folder; no other room spells them.

Modes follow the umask: people compare runs across accounts, the umask is where they and their clusters already say
who may read, and nothing secret is written (`redaction`). Under `umask 077` all is private to the owner.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunLayout", "is_split_name", "step_name", "step_of", "temporary_name", "temporary_owner"]

_STEP = re.compile(r"step-(\d{8,})")
_TEMPORARY = re.compile(r"\.tmp-.+-(\d+)-[0-9a-f]{8}", re.DOTALL)


@dataclass(frozen=True)
class RunLayout:
    """Where a run keeps what.

    >>> RunLayout(Path("outputs/a")).predictions("validation").as_posix()
    'outputs/a/predictions/validation.jsonl'
    """

    folder: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.folder / "config.yaml"

    @property
    def plan(self) -> Path:
        """What was to be trained, and its predicted cost."""
        return self.folder / "plan.json"

    @property
    def manifest(self) -> Path:
        """Who ran what, with which versions, how it ended; its presence makes the folder a run."""
        return self.folder / "manifest.json"

    @property
    def log(self) -> Path:
        """One JSON record a line; docs/log-schema.md."""
        return self.folder / "unified_log.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder per saved step."""
        return self.folder / "checkpoints"

    @property
    def best_checkpoints(self) -> Path:
        """Saved steps with the lowest validation loss."""
        return self.checkpoints / "best"

    @property
    def trackers(self) -> Path:
        """What local trackers write."""
        return self.folder / "trackers"

    @property
    def profile(self) -> Path:
        """Traces of torch.profiler."""
        return self.folder / "profile"

    @property
    def adapter(self) -> Path:
        """The result as a PEFT adapter."""
        return self.folder / "adapter"

    @property
    def model(self) -> Path:
        """The result as a model folder."""
        return self.folder / "model"

    @property
    def metrics(self) -> Path:
        """Scores by split."""
        return self.folder / "metrics.json"

    @property
    def tasks(self) -> Path:
        """What the tasks are that some splits are named after: version, shots, source, digest."""
        return self.folder / "tasks.json"

    @property
    def loss_plot(self) -> Path:
        """The loss over the steps."""
        return self.folder / "loss.png"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.folder / "README.md"

    @property
    def lock(self) -> Path:
        """Held by the process that writes here."""
        return self.folder / ".lock"

    def predictions(self, split: str) -> Path:
        """Return the file of per-item predictions on `split`.

        Raises:
            ValueError: If `split` is not a plain name.
        """
        if not is_split_name(split):
            raise ValueError(f"split {split!r} is not a plain name")
        return self.folder / "predictions" / f"{split}.jsonl"


def is_split_name(text: str) -> bool:
    """Return whether a text can name a split's scores and predictions.

    >>> is_split_name("test-2"), is_split_name("../test")
    (True, False)
    """
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", text) is not None


def step_name(step: int) -> str:
    """Return the folder name of a checkpoint.

    >>> step_name(12)
    'step-00000012'
    """
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """Return the step that a folder name stands for, or None if it is not one of ours."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match and name == step_name(int(match[1])) else None


def temporary_name(label: str) -> str:
    """Return a fresh name, beside the target, for what is not whole yet."""
    # os.urandom and not `random`: the run's random state must not move.
    return f".tmp-{label}-{os.getpid()}-{os.urandom(4).hex()}"


def temporary_owner(name: str) -> int | None:
    """Return the process id in a temporary name of ours, or None."""
    match = _TEMPORARY.fullmatch(name)
    return int(match[1]) if match else None

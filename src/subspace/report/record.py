"""What is known of one run: the parts of its folder as they were read, and the facts that pictures ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from subspace.report.epochs import Epoch, read_epochs
from subspace.report.refreshes import Refresh, read_refreshes
from subspace.report.values import dig, number

__all__ = ["RunRecord"]


@dataclass(frozen=True)
class RunRecord:
    """One run, as far as it could be read; every part may be empty.

    Attributes:
        folder: Where it lies.
        name: How it is called beside other runs: the end of its path that tells it apart.
        config: The resolved recipe.
        plan: The plan.
        manifest: The manifest.
        log: Records of the log in order; a step that was logged twice stands once, as it was logged last.
        metrics: Split to metric to value. The split `before` holds the scores of the untuned model.
        predictions: Split to file.
        answers: Split to a function that returns its items in order, for results that keep no file of ours (`foreign`).
        tasks: Split to what the task is that it is named after: version, shots, source, digest.
        notes: What is missing or was ignored.
    """

    folder: Path
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    predictions: Mapping[str, Path] = field(default_factory=dict)
    answers: Mapping[str, Callable[[], Sequence[Mapping[str, Any]]]] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        return _text(dig(self.config, "method", "name"), self._start.get("method"))

    @property
    def fidelity(self) -> str | None:
        """`paper`, the published method, or `reference`, the official code; None where its method knows but one."""
        return _text(dig(self.config, "method", "fidelity")) or None

    @property
    def model(self) -> str:
        return _text(dig(self.config, "model", "model_name_or_path"), self._start.get("model"))

    @property
    def data(self) -> str:
        return _text(dig(self.config, "data", "source"))

    @property
    def seed(self) -> int | None:
        return _whole(dig(self.manifest, "facts", "seed"), dig(self.config, "training", "seed"))

    @property
    def outcome(self) -> str:
        """`finished`, `running`, `stopped`, `failed`, `died`, or `unfinished` where nothing more is known."""
        found = self.manifest.get("outcome")
        if found == "finished":
            return "finished"
        attempts = self.manifest.get("attempts")
        last = attempts[-1] if isinstance(attempts, list) and attempts else {}
        ended = dig(last, "outcome") if isinstance(last, dict) else None
        if found is None:
            ended = next((r.get("outcome") for r in reversed(self.log) if r.get("event") == "run_end"), None)
        return _text(ended) or "unfinished"

    @cached_property
    def last_step(self) -> int:
        return max((int(step) for record in self.log if (step := number(record.get("step"))) is not None), default=0)

    @property
    def total_steps(self) -> int | None:
        return _whole(self._start.get("total_steps"), self._summary.get("planned_steps"))

    @property
    def trained_parameters(self) -> int | None:
        return _whole(
            self._summary.get("trained_parameters"),
            self.plan.get("trained_parameters"),
            self._start.get("num_trained_parameters"),
        )

    @property
    def planned_peak_bytes(self) -> int | None:
        return _whole(self._summary.get("planned_peak_bytes"), self.plan.get("peak_bytes"))

    @property
    def measured_peak_bytes(self) -> int | None:
        return _whole(self._summary.get("measured_peak_bytes"))

    @property
    def loaded_bytes(self) -> int | None:
        """What the loaded model with its adapters held before the first step."""
        return _whole(self._summary.get("loaded_bytes"))

    @property
    def num_tokens(self) -> int | None:
        """Input tokens that were trained on."""
        logged = (number(record.get("num_tokens")) for record in reversed(self.log) if record.get("event") == "step")
        return _whole(self._summary.get("num_tokens"), next((tokens for tokens in logged if tokens is not None), None))

    @property
    def run_flops(self) -> int | None:
        """Floating-point operations of the whole run, as planned for rows of full length."""
        return _whole(self.plan.get("run_flops"))

    @property
    def seconds(self) -> float | None:
        """Seconds of training, as far as an unfinished run has come."""
        clocks = (number(dig(record, "machine", "elapsed_seconds")) for record in reversed(self.log))
        sealed = number(self._summary.get("seconds"))
        return sealed if sealed is not None else next((clock for clock in clocks if clock is not None), None)

    @property
    def devices(self) -> frozenset[str]:
        """Kinds of devices (cpu, cuda, mps) that its attempts ran on, as far as they tell."""
        attempts = self.manifest.get("attempts")
        told = [attempt.get("device") for attempt in attempts] if isinstance(attempts, list) else []
        known = told or [dig(self.manifest, "facts", "device")]
        return frozenset(device.partition(":")[0] for device in known if isinstance(device, str))

    @property
    def split(self) -> str | None:
        """The split whose scores speak for the run: `test`, else `validation`, else the first."""
        named = [name for name in self.metrics if name != "before"]
        return next((name for name in ("test", "validation") if name in named), named[0] if named else None)

    @property
    def scores(self) -> Mapping[str, float]:
        """Scores after training."""
        return self.metrics[self.split] if self.split else {}

    @property
    def scores_before(self) -> Mapping[str, float]:
        """Scores of the untuned model on the same rows, if they were taken."""
        return self.metrics.get("before", {})

    def series(self, event: str, key: str, split: str | None = None) -> tuple[list[int], list[float]]:
        """Return the steps and values of one quantity over the run, finite ones only, in order of steps."""
        asked = event, key, split
        if asked not in self._series:
            self._series[asked] = self._read_series(event, key, split)
        return self._series[asked]

    def _read_series(self, event: str, key: str, split: str | None) -> tuple[list[int], list[float]]:
        points = []
        for record in self._by_event.get(event, ()):
            if split is not None and record.get("split") != split:
                continue
            step, value = number(record.get("step")), number(record.get(key))
            if step is not None and value is not None:
                points.append((int(step), value))
        points.sort(key=lambda point: point[0])
        return [step for step, _ in points], [value for _, value in points]

    @cached_property
    def _series(self) -> dict[tuple[str, str, str | None], tuple[list[int], list[float]]]:
        return {}

    @cached_property
    def _by_event(self) -> Mapping[Any, Sequence[Mapping[str, Any]]]:
        found: dict[Any, list[Mapping[str, Any]]] = {}
        for record in self.log:
            event = record.get("event")
            if isinstance(event, str):
                found.setdefault(event, []).append(record)
        return found

    @cached_property
    def epochs(self) -> tuple[Epoch, ...]:
        """The epochs after which the validation loss was taken."""
        return tuple(read_epochs(self.log))

    @cached_property
    def refreshes(self) -> tuple[Refresh, ...]:
        """New bases, in order of steps."""
        return tuple(read_refreshes(self.log))

    @cached_property
    def _start(self) -> Mapping[str, Any]:
        return next((record for record in self.log if record.get("event") == "run_start"), {})

    @property
    def _summary(self) -> Mapping[str, Any]:
        found = self.manifest.get("summary")
        return found if isinstance(found, dict) else {}


def _text(*candidates: Any) -> str:
    return next((found for found in candidates if isinstance(found, str)), "")


def _whole(*candidates: Any) -> int | None:
    values = (number(found) for found in candidates)
    return next((int(value) for value in values if value is not None), None)

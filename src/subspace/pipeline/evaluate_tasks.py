"""Many models on many tasks: what is done is passed over, what fails is told at the end, nothing is lost in between."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from subspace.core.errors import DataError, LockError, SubspaceError
from subspace.evaluation.sandbox.program import Execution, Program
from subspace.pipeline.targets import Target, find_targets
from subspace.pipeline.task_jobs import Job, OwnJob, Request, jobs_of, parse_sources
from subspace.pipeline.task_results import TaskResults

if TYPE_CHECKING:
    from subspace.evaluation.task_scores import Subject

__all__ = ["Outcome", "Request", "TaskListener", "evaluate_tasks", "parse_sources"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task on one model.

    Attributes:
        model: The model, as it was given or found.
        split: Name under which the scores are kept.
        state: done, kept (it had been done before) or failed.
        metrics: The scores; {} if it failed.
        error: Why it failed.
    """

    model: str
    split: str
    state: str
    metrics: Mapping[str, float]
    error: str | None = None


class TaskListener(Protocol):
    """Hears how an evaluation goes."""

    def on_note(self, text: str) -> None:
        """A model is passed over, or something else to know."""

    def on_task(self, model: str, split: str) -> None:
        """A task begins."""

    def on_progress(self, done: int, total: int) -> None:
        """So many steps of the present task are done."""


def evaluate_tasks(request: Request, listener: TaskListener) -> list[Outcome]:
    """Evaluate every model on every task and return what became of each, in order.

    Scores are kept as soon as a task is done: in the run's folder under the task's name, and in the harness's format
    under `out`. A task that a model has been evaluated on - same version, shots, limit and documents - is passed over.
    A model that cannot be loaded or asked fails alone.

    Raises:
        ConfigError: E-EVL-001 for an unknown task; E-CFG-020 for one of the harness that is not installed.
        UsageError: E-CLI-001 without a task; E-CLI-004 for a source of no task that is asked for.
        DataError: E-DAT-001 if there is no model or no document; what reading a source raises.
        SecurityError: E-SEC-008, E-SEC-009 if a task runs programs and that is not allowed or cannot be made safe.
    """
    jobs = jobs_of(request)
    run_program = request.code.runner([job.task for job in jobs if isinstance(job, OwnJob)])
    targets, passed = find_targets(request.paths)
    for note in passed:
        listener.on_note(f"passed over {note}")
    if not targets:
        raise DataError(
            "E-DAT-001", where=", ".join(request.paths), found="no finished run", action="Finish one first."
        )
    load = functools.partial(_load, request=request, listener=listener, run_program=run_program)
    return [outcome for target in targets for outcome in _evaluate(target, jobs, request, listener, load)]


def _evaluate(
    target: Target,
    jobs: Sequence[Job],
    request: Request,
    listener: TaskListener,
    load: Callable[[Target], Subject],
) -> Iterable[Outcome]:
    results = TaskResults(target, request.out)
    settings = {"device": request.device, "batch_size": request.batch_size}
    subject: Subject | None = None
    weights = broken = None
    found: list[Outcome] = []
    for job in jobs:
        try:
            if broken is not None:
                found.append(Outcome(target.given, job.split, "failed", {}, broken))
                continue
            weights = weights or _fingerprint(target)
            kept, own = results.kept(job.split, job.record["digest"], weights), None
            if kept is None:
                listener.on_task(target.given, job.split)
                subject = subject or load(target)
                own = _score(job, subject, results, weights)
            results.collect(job.split, settings, own)
            results.summarise()
            state, metrics = ("done", results.metrics(job.split)) if kept is None else ("kept", kept)
            found.append(Outcome(target.given, job.split, state, metrics))
        except Exception as error:  # one model, one task: the others go on
            told = str(error) if isinstance(error, SubspaceError) else f"{type(error).__name__}: {error}"
            broken = told if subject is None and not isinstance(error, LockError) else None
            found.append(Outcome(target.given, job.split, "failed", {}, told))
    return found


def _fingerprint(target: Target) -> str:
    """Return a hash of the weights of a model that is no run; a finished run is sealed and is its own."""
    from subspace.config.load import document_from, parse_section
    from subspace.models.config import ModelConfig
    from subspace.models.sources import fingerprint, resolve

    if target.run is not None:
        return "sealed"
    config, _ = parse_section(document_from({"model_name_or_path": target.given}), None, ModelConfig)
    return fingerprint(resolve(config))


def _score(job: Job, subject: Subject, results: TaskResults, weights: str) -> Mapping[str, Any] | None:
    begun = time.monotonic()
    scores, record, own = job.score(subject)
    seconds = round(time.monotonic() - begun, 3)
    record = record | {"weights": weights, "evaluated": _moment(), "seconds": seconds}
    results.keep(job.split, record, scores.metrics, scores.items)
    return own


def _moment() -> str:
    """Return the time with microseconds: it names files, and two tasks may be done within one second."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _load(
    target: Target, request: Request, listener: TaskListener, run_program: Callable[[Program], Execution] | None
) -> Subject:
    from subspace.evaluation.task_scores import Subject
    from subspace.pipeline.loaded import load_result

    loaded = load_result(target.given, device=request.device)
    config: Any = loaded.model.config
    labels = loaded.labels
    if labels is None and loaded.model_config.task == "classification":
        labels = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    return Subject(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        task=loaded.model_config.task,
        labels=labels or (),
        batch_size=request.batch_size,
        run_program=run_program,
        progress=listener.on_progress,
    )

"""Many models on many tasks: what is done is passed over, what fails is told at the end, nothing is lost in between."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from subspace.core.errors import DataError, LockError, SubspaceError, UsageError
from subspace.core.registry import nearest
from subspace.evaluation.sandbox.program import Execution, Program
from subspace.evaluation.tasks.base import Task
from subspace.evaluation.tasks.documents import Documents, SourceOverride, override_for, read_documents
from subspace.evaluation.tasks.record import record_digest, split_name, task_record
from subspace.evaluation.tasks.registry import find_task
from subspace.pipeline.code_execution import CodeExecution
from subspace.pipeline.targets import Target, find_targets
from subspace.pipeline.task_results import TaskResults

if TYPE_CHECKING:
    from subspace.evaluation.score import Scores
    from subspace.evaluation.task_scores import Subject

__all__ = ["Outcome", "Request", "TaskListener", "evaluate_tasks", "parse_sources"]

HARNESS = "harness"


@dataclass(frozen=True)
class Request:
    """What is to be evaluated, and how.

    Attributes:
        paths: Runs, folders of runs, model folders, hub ids.
        tasks: Names of tasks; `harness:NAME` for one of lm-evaluation-harness.
        sources: Task to local places; `harness`: a folder of task files.
        num_fewshot: Shots; None: as each task says.
        limit: The first so many documents of every task.
        out: Where results are collected.
        device: Torch device.
        batch_size: Inputs at once.
        code: Whether programs that models write may be run, and how many.
    """

    paths: tuple[str, ...]
    tasks: tuple[str, ...]
    sources: Mapping[str, SourceOverride]
    num_fewshot: int | None = None
    limit: int | None = None
    out: Path = Path("eval_results")
    device: str = "cpu"
    batch_size: int = 32
    code: CodeExecution = field(default_factory=CodeExecution)


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


@dataclass(frozen=True)
class _OwnJob:
    task: Task
    documents: Documents
    split: str
    record: dict[str, Any]

    def score(self, subject: Subject) -> tuple[Scores, dict[str, Any], Mapping[str, Any] | None]:
        from subspace.evaluation.likelihood import longest_input
        from subspace.evaluation.task_scores import answer_length, score_task

        record = self.record
        if record["max_new_tokens"] is not None:
            room = answer_length(self.task, longest_input(subject.model, subject.tokenizer))
            record = record | {"answer_tokens": room}
        return score_task(subject, self.task, self.documents), record, None


@dataclass(frozen=True)
class _HarnessJob:
    name: str
    request: Request
    split: str
    record: dict[str, Any]

    def score(self, subject: Subject) -> tuple[Scores, dict[str, Any], Mapping[str, Any] | None]:
        from subspace.evaluation.harness import run_harness

        place = self.request.sources.get(HARNESS)
        found = run_harness(
            subject,
            self.name,
            num_fewshot=self.request.num_fewshot,
            limit=self.request.limit,
            include=place.path if place else None,
        )
        record = self.record | {
            "version": found.version,
            "num_fewshot": found.num_fewshot,
            "num_items": len(found.scores.items),
            "metrics": list(found.metrics),
            "metric": found.metrics[0] if found.metrics else None,
            "higher_is_better": found.higher_is_better,
        }
        return found.scores, record, {"results": found.results, "samples": found.samples}


_Job = _OwnJob | _HarnessJob


def evaluate_tasks(request: Request, listener: TaskListener) -> list[Outcome]:
    """Evaluate every model on every task and return what became of each, in order.

    Scores are kept as soon as a task is done: in the run's folder under the task's name, and in the harness's format
    under `out`. A task that a model has been evaluated on - same version, shots, limit and documents - is passed over.
    A model that cannot be loaded or asked fails alone.

    Raises:
        ConfigError: E-EVL-001 for an unknown task.
        UsageError: E-CLI-004 for a source of no task that is asked for.
        DataError: E-DAT-001 if there is no model or no document; what reading a source raises.
        SecurityError: E-SEC-008, E-SEC-009 if a task runs programs and that is not allowed or cannot be made safe.
    """
    jobs = _jobs(request)
    run_program = request.code.runner([job.task for job in jobs if isinstance(job, _OwnJob)])
    targets, passed = find_targets(request.paths)
    for note in passed:
        listener.on_note(f"passed over {note}")
    if not targets:
        raise DataError(
            "E-DAT-001", where=", ".join(request.paths), found="no finished run", action="Finish one first."
        )
    load = functools.partial(_load, request=request, listener=listener, run_program=run_program)
    return [outcome for target in targets for outcome in _evaluate(target, jobs, request, listener, load)]


def _jobs(request: Request) -> list[_Job]:
    families = {name.partition("/")[0] for name in request.tasks} | set(request.tasks) | {HARNESS}
    for name in request.sources:
        if name not in families:
            close = nearest(name, families)
            raise UsageError(
                "E-CLI-004",
                where="--source",
                found=f"{name!r} is none of the tasks that are evaluated",
                expected=f"one of {', '.join(request.tasks)}",
                action=f"Did you mean {close!r}?" if close else "",
            )
    own = {name: request.code.sampled(find_task(name)) for name in request.tasks if not name.startswith(f"{HARNESS}:")}
    return [
        _own_job(own[name], request) if name in own else _harness_job(name, request)
        for name in dict.fromkeys(request.tasks)
    ]


def _own_job(task: Task, request: Request) -> _OwnJob:
    source = override_for(task.name, request.sources)
    documents = read_documents(task, source, num_fewshot=request.num_fewshot, limit=request.limit)
    shots = request.num_fewshot if request.num_fewshot != task.num_fewshot else None
    split = split_name(task.name, num_fewshot=shots, limit=request.limit, sampling=_sampling(task))
    return _OwnJob(task, documents, split, task_record(task, documents, request.limit))


def _sampling(task: Task) -> str | None:
    return f"{task.num_samples}samples-t{task.temperature:g}" if task.temperature > 0 else None


def _harness_job(name: str, request: Request) -> _HarnessJob:
    from importlib.metadata import PackageNotFoundError, version

    try:
        package = version("lm_eval")
    except PackageNotFoundError:
        package = "absent"  # running it tells what to install
    place = request.sources.get(HARNESS)
    record: dict[str, Any] = {
        "name": name,
        "version": None,
        "kind": HARNESS,
        "num_fewshot": request.num_fewshot,
        "limit": request.limit,
        "source": place.path if place else f"lm_eval {package}",
        "harness": package,
    }
    record["digest"] = record_digest(record)
    split = split_name(name, num_fewshot=request.num_fewshot, limit=request.limit)
    return _HarnessJob(name.partition(":")[2], request, split, record)


def _evaluate(
    target: Target,
    jobs: Sequence[_Job],
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


def _score(job: _Job, subject: Subject, results: TaskResults, weights: str) -> Mapping[str, Any] | None:
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


def parse_sources(given: Sequence[str]) -> dict[str, SourceOverride]:
    """Return what `task=PATH` and `task:fewshot=PATH` say.

    Raises:
        UsageError: E-CLI-001 for another form.
    """
    found: dict[str, SourceOverride] = {}
    for text in given:
        name, equals, path = text.partition("=")
        task, colon, role = name.partition(":")
        if not (equals and task and path) or (colon and role != "fewshot"):
            raise UsageError(
                "E-CLI-001",
                where="--source",
                found=repr(text),
                expected="task=PATH, or task:fewshot=PATH for the shots",
            )
        before = found.get(task, SourceOverride())
        found[task] = SourceOverride(before.path, path) if colon else SourceOverride(path, before.fewshot)
    return found

"""What is to be evaluated: a request, and the jobs that it comes to - one for each task, for any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.core.errors import ConfigError, UsageError
from subspace.core.registry import nearest
from subspace.evaluation.tasks.base import Task
from subspace.evaluation.tasks.documents import Documents, SourceOverride, override_for, read_documents
from subspace.evaluation.tasks.record import record_digest, split_name, task_record
from subspace.evaluation.tasks.registry import find_task
from subspace.pipeline.code_execution import CodeExecution

if TYPE_CHECKING:
    from subspace.evaluation.score import Scores
    from subspace.evaluation.task_scores import Subject

__all__ = ["HARNESS", "HarnessJob", "Job", "OwnJob", "Request", "jobs_of", "parse_sources"]

HARNESS = "harness"
"""Family of the tasks that lm-evaluation-harness asks."""


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


@dataclass(frozen=True)
class OwnJob:
    """A task of ours.

    Attributes:
        task: The task.
        documents: Its documents.
        split: Name under which scores are kept.
        record: What is kept beside them.
    """

    task: Task
    documents: Documents
    split: str
    record: dict[str, Any]

    def score(self, subject: Subject) -> tuple[Scores, dict[str, Any], Mapping[str, Any] | None]:
        """Return scores, the whole record, and the harness's own results if it was the one who evaluated."""
        from subspace.evaluation.likelihood import longest_input
        from subspace.evaluation.task_scores import answer_length, score_task

        record = self.record
        if record["max_new_tokens"] is not None:
            room = answer_length(self.task, longest_input(subject.model, subject.tokenizer))
            record = record | {"answer_tokens": room}
        return score_task(subject, self.task, self.documents), record, None


@dataclass(frozen=True)
class HarnessJob:
    """A task of lm-evaluation-harness.

    Attributes:
        name: Its name there.
        request: Shots, limit and folder of task files.
        split: Name under which scores are kept.
        record: What is kept beside them, as far as it is known before.
    """

    name: str
    request: Request
    split: str
    record: dict[str, Any]

    def score(self, subject: Subject) -> tuple[Scores, dict[str, Any], Mapping[str, Any] | None]:
        """Return scores, the whole record, and the harness's own results if it was the one who evaluated."""
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


Job = OwnJob | HarnessJob


def jobs_of(request: Request) -> list[Job]:
    """Return a job for every task of a request, its documents read.

    Raises:
        ConfigError: E-EVL-001 for an unknown task; E-CFG-020 for one of the harness that is not installed.
        UsageError: E-CLI-001 without a task; E-CLI-004 for a source of no task that is asked for.
        DataError: What reading a source raises.
    """
    if not request.tasks:
        raise UsageError("E-CLI-001", where="--tasks", found="no task", expected="names with commas between")
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


def _own_job(task: Task, request: Request) -> OwnJob:
    source = override_for(task.name, request.sources)
    documents = read_documents(task, source, num_fewshot=request.num_fewshot, limit=request.limit)
    shots = request.num_fewshot if request.num_fewshot != task.num_fewshot else None
    split = split_name(task.name, num_fewshot=shots, limit=request.limit, sampling=_sampling(task))
    return OwnJob(task, documents, split, task_record(task, documents, request.limit))


def _sampling(task: Task) -> str | None:
    return f"{task.num_samples}samples-t{task.temperature:g}" if task.temperature > 0 else None


def _harness_job(name: str, request: Request) -> HarnessJob:
    from importlib.metadata import PackageNotFoundError, version

    try:
        package = version("lm_eval")
    except PackageNotFoundError:
        raise ConfigError(
            "E-CFG-020",
            where=f"task {name}",
            found="lm_eval is not installed",
            action="pip install 'subspace-ft[harness]'",
        ) from None
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
    return HarnessJob(name.partition(":")[2], request, split, record)


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

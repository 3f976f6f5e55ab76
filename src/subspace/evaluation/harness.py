"""A bridge to lm-evaluation-harness (package lm_eval, extra `harness`): any of its tasks on a loaded model.

The harness asks and judges; what comes back are its own results and, for the run folder, one item per document with the
metrics of every filter, under the names of our own tasks (`exact_match`, `exact_match_flexible`).

References:
    Gao et al., The Language Model Evaluation Harness, doi:10.5281/zenodo.10256836.
"""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subspace.core.errors import ConfigError, DataError
from subspace.core.registry import nearest
from subspace.evaluation.inference import device_of, looking_at
from subspace.evaluation.likelihood import longest_input
from subspace.evaluation.score import Item, Scores
from subspace.evaluation.task_scores import Subject

__all__ = ["PREFIX", "HarnessOutcome", "run_harness"]

PREFIX = "harness:"
"""What stands before a task of the harness on our command line."""
_SUFFIXES = {"none": "", "strict-match": "", "custom-extract": "", "flexible-extract": "_flexible"}
"""What a filter of the harness adds to the name of a metric; any other adds its own name."""
_UNREACHABLE = ("ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "DatasetNotFoundError")


@dataclass(frozen=True)
class HarnessOutcome:
    """What one task, or one group of tasks, of the harness came to.

    Attributes:
        results: The harness's own results, as its `results_*.json` holds them.
        samples: Task of the group to the harness's own samples, as its `samples_*.jsonl` hold them.
        scores: The same as ours.
        version: Of the task; of a group, all versions.
        num_fewshot: Shots that were shown.
        metrics: Names of the metrics, the first one deciding `correct`.
        higher_is_better: Of the first metric.
    """

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    scores: Scores
    version: str
    num_fewshot: int
    metrics: tuple[str, ...]
    higher_is_better: bool


def run_harness(
    subject: Subject,
    name: str,
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    include: str | None = None,
    generation: Mapping[str, Any] | None = None,
) -> HarnessOutcome:
    """Run a task of the harness.

    Args:
        subject: The model; a language model.
        name: Task, group or tag of the harness.
        num_fewshot: Shots; None: as the task says.
        limit: The first so many documents of every task.
        include: Folder with YAML files of tasks; the built-in ones are known beside them.
        generation: Overrides of the task's `generation_kwargs`, such as `max_gen_toks`.

    Raises:
        ConfigError: E-CFG-020 if lm_eval is not installed; E-EVL-001 for an unknown task, a model with a classification
            head, or a task that runs programs.
        DataError: E-DAT-017 if the task's data cannot be reached.
    """
    lm_eval, models = _modules()
    if subject.task == "classification":
        raise ConfigError(
            "E-EVL-001",
            where=f"task {PREFIX}{name}",
            found="a model with a classification head",
            expected="a language model",
        )
    manager = _manager_of(name, include)
    with looking_at(subject.model):  # it seeds every generator
        model = models.HFLM(
            pretrained=subject.model,
            backend="seq2seq" if subject.task == "seq2seq" else "causal",
            tokenizer=subject.tokenizer,
            batch_size=subject.batch_size,
            device=str(device_of(subject.model)),
            max_length=longest_input(subject.model, subject.tokenizer),
        )
        results = _evaluate(lm_eval, model, manager, name, num_fewshot, limit, generation)
    samples: dict[str, list[dict[str, Any]]] = results.pop("samples")
    return _outcome(name, results, samples)


def _modules() -> tuple[Any, Any]:
    try:
        import lm_eval
        from lm_eval.models import huggingface
    except ImportError as error:
        raise ConfigError(
            "E-CFG-020",
            where="lm-evaluation-harness",
            found=f"lm_eval is not installed ({error.name or error} is missing)",
            action="pip install 'subspace-ft[harness]'",
        ) from error
    return lm_eval, huggingface


@functools.cache
def _manager(include: str | None) -> Any:
    """Return the harness's index of tasks; made once, because reading its thousands of files takes ten seconds."""
    from lm_eval.tasks import TaskManager

    if include is None:
        return TaskManager()
    own = TaskManager(include_path=include, include_defaults=False)
    return own if own.all_tasks else TaskManager(include_path=include)


def _manager_of(name: str, include: str | None) -> Any:
    manager = _manager(include)
    if name not in manager.all_tasks:
        close = nearest(name, manager.all_tasks)
        raise ConfigError(
            "E-EVL-001",
            where="--tasks",
            found=f"the harness knows no task {name!r}",
            action=f"Did you mean {PREFIX}{close}?" if close else "Give a folder of tasks with --source harness=PATH.",
        )
    return manager


def _evaluate(
    lm_eval: Any,
    model: Any,
    manager: Any,
    name: str,
    num_fewshot: int | None,
    limit: int | None,
    generation: Mapping[str, Any] | None,
) -> dict[str, Any]:
    try:
        found: dict[str, Any] = lm_eval.simple_evaluate(
            model=model,
            tasks=[name],
            task_manager=manager,
            num_fewshot=num_fewshot,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            gen_kwargs=dict(generation) if generation else None,
        )
    except Exception as error:  # of the harness, of datasets, of the hub library: each has its own kinds
        raise _explained(error, name) from error
    return found


def _explained(error: Exception, name: str) -> Exception:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    kinds = {type(each).__name__ for each in (error, error.__cause__, error.__context__) if each is not None}
    if kinds & set(_UNREACHABLE) or "Couldn't reach" in text or "Offline" in text:
        return DataError(
            "E-DAT-017",
            where=f"task {PREFIX}{name}",
            found=f"its data cannot be reached ({text})",
            expected="a network, or a task file that names local data",
            action="Give a folder with the task's YAML file with --source harness=PATH.",
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}, {last.line}"
    said = text if str(error).strip() else place
    return ConfigError("E-EVL-001", where=f"task {PREFIX}{name}", found=f"the harness says: {said}")


def _outcome(name: str, results: dict[str, Any], samples: dict[str, list[dict[str, Any]]]) -> HarnessOutcome:
    items: list[Item] = []
    names: list[str] = []
    for task, rows in samples.items():
        for doc_id, same in _by_document(rows).items():
            item: Item = {"index": len(items), "id": f"{task}/{doc_id}", **_texts(same[0])}
            for row in same:
                for metric in row["metrics"]:
                    value = row[metric]
                    if isinstance(value, int | float) or type(value).__module__ == "numpy":
                        key = _metric_name(metric, row["filter"])
                        item[key] = float(value)
                        names += [key] if key not in names else []
            items.append(item)
    for item in items:
        if names and item.get(names[0]) in (0.0, 1.0):
            item["correct"] = item[names[0]] == 1.0
    version = ", ".join(sorted({str(each) for each in results["versions"].values()}))
    shots = max((int(count) for count in results["n-shot"].values()), default=0)
    metrics = _metrics(name, results)
    # Metrics of single documents come first, then those that only many have, such as F1 or a perplexity.
    known = tuple([key for key in names if key in metrics] + [key for key in metrics if key not in names])
    return HarnessOutcome(results, samples, Scores(metrics, items), version, shots, known, _rises(results, known))


def _rises(results: Mapping[str, Any], metrics: Sequence[str]) -> bool:
    told = {metric: up for row in results["higher_is_better"].values() for metric, up in row.items()}
    return told.get(metrics[0], True) is not False if metrics else True


def _by_document(rows: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(int(row["doc_id"]), []).append(row)
    return dict(sorted(found.items()))


def _texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return prompt, reference and what was said: a text, or the log-likelihoods of the choices."""
    asked = [list(arguments) for arguments in row["arguments"]]
    found: dict[str, Any] = {"prompt": str(asked[0][0]), "reference": str(row["target"])}
    said = [response[0] for response in row["resps"]]
    if all(isinstance(each, list | tuple) for each in said):
        found["choices"] = [str(arguments[-1]) for arguments in asked]
        found["log_likelihoods"] = [float(each[0]) for each in said]
    elif isinstance(said[0], str):
        found["output"] = said[0]
    return found


def _metrics(name: str, results: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of the group, where it has some, else of the task.

    A group without metrics of its own has the means over its tasks, by size; one whose tasks have no metric in common
    has all of them, as `task.metric`.
    """
    found = _plain(results.get("groups", {}).get(name) or results["results"].get(name) or {})
    if found:
        return found
    sizes = results["n-samples"]
    parts = {task: _plain(row) for task, row in results["results"].items() if task in sizes}
    shared = set.intersection(*map(set, parts.values())) if parts else set()
    if not shared:
        return {f"{task}.{key}": value for task, row in parts.items() for key, value in row.items()}
    counts = {task: sizes[task]["effective"] for task in parts}
    total = sum(counts.values())
    return {key: math.fsum(row[key] * counts[task] for task, row in parts.items()) / total for key in sorted(shared)}


def _plain(table: Mapping[str, Any]) -> dict[str, float]:
    """Return `acc` for `acc,none` and `exact_match_flexible` for `exact_match,flexible-extract`; no standard errors."""
    found = {}
    for key, value in table.items():
        metric, comma, chosen = key.partition(",")
        if comma and not metric.endswith("_stderr") and not isinstance(value, str):
            found[_metric_name(metric, chosen)] = float(value)
    return found


def _metric_name(metric: str, chosen: str) -> str:
    """Return our name for a metric of the harness and the filter it was measured after."""
    return metric + _SUFFIXES.get(chosen, f"_{chosen}")

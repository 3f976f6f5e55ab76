"""Scores as lm-evaluation-harness writes them: `results_<time>.json` and `samples_<task>_<time>.jsonl`.

Made from what a run folder keeps, so that they can be made again at any time. Imports no torch and no lm_eval.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from subspace.runs.durable import replace_file

__all__ = ["file_stamp", "results_of", "samples_of", "write_harness_files"]

_FILTERS = {
    ("exact_match", "exact_match"): ("exact_match", "strict-match"),
    ("exact_match", "exact_match_flexible"): ("exact_match", "flexible-extract"),
}
"""First metric of a task and metric to the harness's metric and filter, where it has several readings of one answer."""
_OUTPUT_TYPES = {
    "multiple_choice": "multiple_choice",
    "classification": "multiple_choice",
    "perplexity": "loglikelihood_rolling",
}


def file_stamp(moment: str) -> str:
    """Return a moment as the harness has it in names of files.

    >>> file_stamp("2026-01-02T03:04:05Z")
    '2026-01-02T03-04-05'
    """
    return moment.replace(":", "-").removesuffix("Z").partition("+")[0]


def results_of(
    record: Mapping[str, Any],
    metrics: Mapping[str, float],
    items: Sequence[Mapping[str, Any]],
    *,
    model: str,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `results_*.json` holds for one task.

    Args:
        record: Of the task.
        metrics: Its metrics.
        items: Its items; standard errors are of their values.
        model: Name of the model.
        settings: Device, batch size and the like.
    """
    name = _harness_name(record["name"])
    row: dict[str, Any] = {"name": name, "alias": name, "sample_len": len(items)}
    for metric, value in metrics.items():
        theirs, chosen = _names(record, metric)
        row[f"{theirs},{chosen}"] = value
        row[f"{theirs}_stderr,{chosen}"] = _standard_error([item.get(metric) for item in items])
    shots = int(record["num_fewshot"])
    config = {
        "task": name,
        "dataset_path": record["source"],
        "output_type": _OUTPUT_TYPES.get(record["kind"], "generate_until"),
        "num_fewshot": shots,
        "metadata": {"version": record["version"], "written_by": "subspace"},
    }
    size = {"original": len(items) if record["limit"] is None else None, "effective": len(items)}
    return {
        "results": {name: row},
        "group_subtasks": {name: []},
        "configs": {name: config},
        "versions": {name: record["version"]},
        "n-shot": {name: shots},
        "higher_is_better": {name: {_names(record, metric)[0]: bool(record["higher_is_better"]) for metric in metrics}},
        "n-samples": {name: size},
        "config": {"model": "subspace", "model_args": f"pretrained={model}", "limit": record["limit"], **settings},
        "git_hash": None,
        "date": datetime.fromisoformat(record["evaluated"]).timestamp(),
        "model_source": "subspace",
        "model_name": model,
        "model_name_sanitized": model.replace("/", "__"),
        "task_hashes": {name: record["digest"]},
        "total_evaluation_time_seconds": str(record.get("seconds", "")),
    }


def samples_of(record: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the lines of `samples_*.jsonl`, one for every document and filter."""
    names = [(metric, *_names(record, metric)) for metric in record["metrics"]]
    for chosen in dict.fromkeys(filtered for _, _, filtered in names):
        for item in items:
            known = {theirs: item[metric] for metric, theirs, each in names if each == chosen and metric in item}
            yield _sample(record, item, chosen, known)


def _sample(
    record: Mapping[str, Any], item: Mapping[str, Any], chosen: str, known: Mapping[str, float]
) -> dict[str, Any]:
    prompt, reference = str(item.get("prompt", "")), str(item.get("reference", ""))
    if "log_likelihoods" in item:
        choices = [str(choice) for choice in item["choices"]]
        greedy = item.get("is_greedy", [False] * len(choices))
        arguments = {f"gen_args_{at}": {"arg_0": prompt, "arg_1": f" {text}"} for at, text in enumerate(choices)}
        pairs = [[str(value), str(is_greedy)] for value, is_greedy in zip(item["log_likelihoods"], greedy, strict=True)]
        responses: Any = [[pair] for pair in pairs]
        filtered: Any = pairs
    else:
        arguments = {"gen_args_0": {"arg_0": prompt}}
        responses, filtered = [[str(item.get("output", ""))]], [str(item.get("answer", item.get("output", "")))]
    return {
        "doc_id": item["index"],
        "doc": {"id": item.get("id"), "prompt": prompt, "reference": reference},
        "target": reference,
        "arguments": arguments,
        "resps": responses,
        "filtered_resps": filtered,
        "filter": chosen,
        "metrics": list(known),
        "doc_hash": _hash(f"{item.get('id')}{prompt}{reference}"),
        "prompt_hash": _hash(prompt),
        "target_hash": _hash(reference),
        **known,
    }


def write_harness_files(
    folder: Path,
    moment: str,
    results: Mapping[str, Any],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Path:
    """Write the files of one evaluation into `folder`; the results come last and say that all is there.

    Args:
        folder: Of one model; made if need be.
        moment: When it was evaluated, in ISO form.
        results: What `results_*.json` holds.
        samples: Task to lines of `samples_*.jsonl`.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = file_stamp(moment)
    for task, rows in samples.items():
        lines = (json.dumps(row, default=_plain, ensure_ascii=True).encode() + b"\n" for row in rows)
        replace_file(folder / f"samples_{_harness_name(task)}_{stamp}.jsonl", lines)
    path = folder / f"results_{stamp}.json"
    replace_file(path, [json.dumps(results, indent=2, default=_plain, ensure_ascii=True).encode() + b"\n"])
    return path


def _harness_name(name: str) -> str:
    """Return the harness's spelling of a task's name.

    >>> _harness_name("mmlu/anatomy"), _harness_name("glue/mrpc"), _harness_name("harness:arc_easy")
    ('mmlu_anatomy', 'mrpc', 'arc_easy')
    """
    plain = name.removeprefix("harness:").removeprefix("glue/")
    return plain.replace("/", "_")


def _names(record: Mapping[str, Any], metric: str) -> tuple[str, str]:
    first = record["metrics"][0] if "exact_match_flexible" in record["metrics"] else ""
    return _FILTERS.get((first, metric), (metric, "none"))


def _standard_error(values: Sequence[Any]) -> float | str:
    """Return the standard error of a mean, "N/A" where items have no such value, as the harness writes it."""
    if len(values) < 2 or not all(isinstance(value, int | float) for value in values):
        return "N/A"
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return what JSON has no word for: NumPy's numbers as numbers, the rest as text."""
    return value.item() if hasattr(value, "item") and type(value).__module__ == "numpy" else str(value)

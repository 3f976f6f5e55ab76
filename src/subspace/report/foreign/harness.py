"""Results of lm-evaluation-harness: results_<time>.json of one model, and samples_<task>_<time>.jsonl beside it.

A folder counts as one run: every task as it was evaluated last. A task is a split, its metrics have the names of our
own tasks: the filters `none`, `strict-match` and `custom-extract` add nothing, `flexible-extract` adds `_flexible`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from subspace.report.foreign.assemble import Found
from subspace.report.foreign.files import as_number, begins_with, mapping, read_lines, read_object
from subspace.report.record import RunRecord

__all__ = ["read", "recognises"]

_RESULTS = re.compile(r"results(_.+)?\.json")
_SUFFIXES = {"none": "", "strict-match": "", "custom-extract": "", "flexible-extract": "_flexible"}
_SEARCHED = 2**22
_DECIDES = ("acc", "exact_match", "pass@1", "pass_at_1")
"""Metrics that make an item right or wrong."""


def recognises(path: Path) -> bool:
    """Return whether a file is a result of the harness, or a folder holds one."""
    if path.is_file():
        return _is_result(path)
    try:
        return path.is_dir() and any(_is_result(child) for child in path.iterdir())
    except OSError:
        return False


def read(path: Path, name: str) -> RunRecord:
    """Return what was evaluated in a folder or a single file, as far as it can be read."""
    found = Found("lm-evaluation-harness", outcome="finished")
    files = [path] if path.is_file() else sorted(child for child in path.iterdir() if _is_result(child))
    models = set()
    for file in files:
        tree = read_object(file, found.notes)
        if not tree:
            continue
        models.add(_model(tree))
        _scores(file, tree, found)
        _circumstances(tree, found)
    if len(models) > 1:
        found.notes.append(f"results of {len(models)} models in one folder: {', '.join(sorted(models))}")
    if not found.metrics:
        found.outcome = "unfinished"
        found.notes.append("no scores")
    return found.record(path, name.removesuffix(".json"))


def _is_result(path: Path) -> bool:
    if _RESULTS.fullmatch(path.name) is None or not begins_with(path, "results"):
        return False
    # The bare name is anybody's: there the versions of the tasks must stand, too.
    return path.name != "results.json" or begins_with(path, "versions", _SEARCHED)


def _model(tree: Mapping[str, Any]) -> str:
    given = tree.get("model_name") or mapping(tree.get("config")).get("model")
    return given if isinstance(given, str) else ""


def _scores(file: Path, tree: Mapping[str, Any], found: Found) -> None:
    for task, told in mapping(tree.get("results")).items():
        named = {_metric(str(key)): as_number(value) for key, value in mapping(told).items() if "_stderr" not in key}
        scores = {key: value for key, value in named.items() if key and value is not None}
        if not scores:
            continue
        found.metrics[str(task)] = scores
        found.answers.pop(str(task), None)
        samples = file.with_name(f"samples_{task}{file.name.removeprefix('results').removesuffix('.json')}.jsonl")
        if samples.is_file():
            found.answers[str(task)] = partial(_items, samples)


def _metric(key: str) -> str:
    """Return our name of a metric of the harness; "" for what is none, such as the number of samples.

    >>> _metric("acc,none"), _metric("exact_match,flexible-extract"), _metric("alias"), _metric("acc")
    ('acc', 'exact_match_flexible', '', 'acc')
    """
    name, _, chosen = key.partition(",")
    if name in ("alias", "sample_len", "sample_count", "name"):
        return ""
    return name + _SUFFIXES.get(chosen or "none", f"_{chosen}")


def _circumstances(tree: Mapping[str, Any], found: Found) -> None:
    given = mapping(tree.get("config"))
    arguments = given.get("model_args")
    settings = dict(arguments) if isinstance(arguments, dict) else _settings(arguments)
    adapter = settings.get("peft")
    found.config = {
        "model": {"model_name_or_path": settings.get("pretrained") or _model(tree), "adapter": adapter},
        "method": {"name": ""},
    }
    seconds = as_number(tree.get("total_evaluation_time_seconds"))
    versions = {"transformers": tree.get("transformers_version"), "lm_eval": tree.get("lm_eval_version")}
    found.attempt = {
        "versions": {key: value for key, value in versions.items() if isinstance(value, str)},
        "device": given.get("device"),
        "commit": tree.get("git_hash"),
    }
    found.facts["tasks"] = {
        task: {"version": version, "num_fewshot": mapping(tree.get("n-shot")).get(task)}
        for task, version in mapping(tree.get("versions")).items()
    }
    found.summary = {"num_parameters": as_number(given.get("model_num_parameters")), "evaluation_seconds": seconds}


def _settings(text: Any) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",")) if isinstance(text, str) else ()
    return {key.strip(): value for key, _, value in pairs if value}


def _items(path: Path) -> Sequence[Mapping[str, Any]]:
    """Return the items of a file of samples: one a document, whatever filters its answer went through."""
    items: dict[int, dict[str, Any]] = {}
    for row in read_lines(path, []):
        index = row.get("doc_id")
        if not isinstance(index, int):
            continue
        item = items.setdefault(index, {"index": index, "id": str(index)})
        item.setdefault("prompt", _first(mapping(row.get("arguments")).get("gen_args_0")))
        item.setdefault("reference", row.get("target"))
        item.setdefault("output", _answer(row.get("filtered_resps")))
        chosen = row.get("filter", "none")
        for name in row["metrics"] if isinstance(row.get("metrics"), list) else ():
            value = as_number(row.get(name))
            if value is None and isinstance(row.get(name), bool):
                value = float(row[name])
            if value is not None:
                item[_metric(f"{name},{chosen}")] = value
        decided = next((item[name] for name in _DECIDES if name in item), None)
        if decided is not None:
            item["correct"] = decided == 1.0
    return [items[index] for index in sorted(items)]


def _first(arguments: Any) -> Any:
    if isinstance(arguments, list):
        return arguments[0] if arguments else None
    return mapping(arguments).get("arg_0")


def _answer(found: Any) -> str:
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, str) else ""

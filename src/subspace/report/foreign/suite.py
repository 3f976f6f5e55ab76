"""Results of the PEFT comparison suite: one JSON file per run with `run_info`, `train_info` and `meta_info`.

Read are all generations since 2025: memory under `cuda_memory_*` or `accelerator_memory_*`, with and without numbers of
parameters, forgetting and drift. A file that `report/peft_suite.py` wrote has a further key, `subspace`, with what the
suite has no place for; where both tell a figure, the suite's counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from subspace.report.foreign.assemble import Found, method_name, method_settings
from subspace.report.foreign.files import as_number, begins_with, mapping, numbers, read_object, rows
from subspace.report.record import RunRecord

__all__ = ["EXTRA_KEY", "OUTCOMES", "read", "recognises"]

EXTRA_KEY = "subspace"
"""Key of what the suite has no place for."""
OUTCOMES = {"success": "finished", "canceled": "stopped", "failed": "failed"}
"""The suite's status to our outcome."""

_STEP = {"train loss": "loss", "train total tokens": "num_tokens", "train samples": "num_samples"}
_CLOCK = {
    "elapsed time": "elapsed_seconds",
    "tokens / sec": "tokens_per_second",
    "mem allocated avg": "allocated_bytes",
    "mem reserved avg": "reserved_bytes",
}
_FINAL_SCORES = ("forgetting", "drift")
"""Scores of the finished model that do not begin with "test "."""


def recognises(path: Path) -> bool:
    """Return whether a file looks like a result of the suite, whole or not."""
    return path.suffix == ".json" and path.is_file() and begins_with(path, "run_info")


def read(path: Path, name: str) -> RunRecord:
    """Return the run in a file of the suite, as far as it can be read."""
    found = Found("PEFT comparison suite")
    name = name.removesuffix(".json")
    tree = read_object(path, found.notes)
    if not tree:
        return found.record(path, name)
    run, trained, meta = (_section(tree, key, found) for key in ("run_info", "train_info", "meta_info"))
    if not trained and "generation_info" in tree:
        found.notes = ["the suite's inference benchmark; nothing was trained"]
        _inference(run, mapping(tree["generation_info"]), meta, found)
        return found.record(path, name)
    _recipe(run, meta, found)
    _measured(run, trained, found)
    _circumstances(run, meta, found)
    _steps(trained, found)
    if isinstance(tree.get(EXTRA_KEY), dict):
        _further(tree[EXTRA_KEY], found)
    return found.record(path, name)


def _section(tree: Mapping[str, Any], key: str, found: Found) -> Mapping[str, Any]:
    section = mapping(tree.get(key))
    if not section:
        found.notes.append(f"{key} is missing")
    return section


def _recipe(run: Mapping[str, Any], meta: Mapping[str, Any], found: Found) -> None:
    given, adapter = mapping(run.get("train_config")), mapping(run.get("peft_config"))
    whole = "peft_config" in run and run["peft_config"] is None
    optimizer = mapping(given.get("optimizer_kwargs"))
    data = [str(key) for key, value in mapping(meta.get("dataset_info")).items() if isinstance(value, dict)]
    found.config = {
        "model": {"model_name_or_path": given.get("model_id"), "dtype": given.get("dtype")},
        "data": {
            "source": given.get("dataset_id") or ", ".join(data),
            "max_length": given.get("max_seq_length"),
            "prompt_template": given.get("query_template"),
        },
        "method": {"name": "full" if whole else method_name(adapter), **method_settings(adapter)},
        "training": {
            "max_steps": given.get("max_steps"),
            "per_device_train_batch_size": given.get("batch_size"),
            "learning_rate": optimizer.get("lr"),
            "optimizer": given.get("optimizer_type"),
            "optimizer_settings": {key: value for key, value in optimizer.items() if key != "lr"},
            "lr_scheduler_type": given.get("lr_scheduler") or "constant",
            "max_grad_norm": given.get("grad_norm_clip"),
            "gradient_checkpointing": given.get("use_gc") or None,
            "eval_steps": given.get("eval_steps"),
            "seed": given.get("seed"),
        },
    }
    found.facts["seed"] = given.get("seed")
    found.facts["experiment"] = run.get("experiment_name")
    found.summary["planned_steps"] = as_number(given.get("max_steps"))


def _measured(run: Mapping[str, Any], trained: Mapping[str, Any], found: Found) -> None:
    status = trained.get("status")
    found.outcome = OUTCOMES.get(str(status), "unfinished")
    if trained and str(status) not in OUTCOMES:
        found.notes.append(f"status {status!r} is not known")
    if run.get("error_msg"):
        found.notes.append(f"its error: {str(run['error_msg']).splitlines()[0]}")

    def memory(what: str) -> float | None:
        values = (as_number(trained.get(f"{where}_memory_{what}")) for where in ("accelerator", "cuda"))
        return next((value for value in values if value is not None), None)

    found.summary |= {
        "trained_parameters": as_number(trained.get("num_trainable_params")),
        "num_parameters": as_number(trained.get("num_total_params")),
        "measured_peak_bytes": memory("max"),
        "reserved_99th_bytes": memory("reserved_99th"),
        "reserved_mean_bytes": memory("reserved_avg"),
        "file_bytes": as_number(trained.get("file_size")),
        "seconds": as_number(trained.get("train_time")),
        "total_seconds": as_number(run.get("total_time")),
    }


def _circumstances(run: Mapping[str, Any], meta: Mapping[str, Any], found: Found) -> None:
    packages, system = mapping(meta.get("package_info")), mapping(meta.get("system_info"))
    device = next((system[key] for key in ("accelerator", "gpu") if isinstance(system.get(key), str)), None)
    found.attempt = {
        "start": run.get("created_at"),
        "platform": " ".join(str(system[key]) for key in ("system", "release", "machine") if system.get(key)),
        "device": device,
        "versions": {key[:-8]: value for key, value in packages.items() if key.endswith("-version") and value},
        "commits": {key[:-12]: value for key, value in packages.items() if key.endswith("-commit-hash") and value},
    }
    found.facts["device"] = device
    found.facts["model_revision"] = mapping(meta.get("model_info")).get("sha")
    revisions = {key: mapping(value).get("sha") for key, value in mapping(meta.get("dataset_info")).items()}
    found.facts["data_revisions"] = {key: value for key, value in revisions.items() if value} or None


def _steps(trained: Mapping[str, Any], found: Found) -> None:
    """Read `metrics`: an entry an evaluation, and a last one with the test scores of the finished model."""
    entries, logged, bad = list(rows(trained.get("metrics"))), set[int](), list[str]()
    if trained and not entries:
        found.notes.append("no metrics")
    for entry in entries:
        step = as_number(entry.get("step"))
        if step is None:
            continue
        clock, taken = numbers(entry, _CLOCK, bad), numbers(entry, _STEP, bad)
        # The entry of the test repeats the mean loss of the last evaluation's steps: not twice.
        if "loss" in taken and step not in logged:
            logged.add(int(step))
            found.log.append({"event": "step", "step": int(step), **taken, "machine": clock})
        if valid := _scores(entry, "valid "):
            found.log.append({"event": "eval", "step": int(step), "split": "validation", **valid, "machine": clock})
            found.metrics["validation"] = valid
        if final := _scores(entry, "test ") | _known(entry, _FINAL_SCORES):
            found.metrics["test"] = final
        found.summary["num_tokens"] = taken.get("num_tokens")
    if bad:
        found.notes.append(f"not finite in {len(bad)} places: {', '.join(sorted(set(bad)))}")


def _known(entry: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    return {name: value for name in names if (value := as_number(entry.get(name))) is not None}


def _scores(entry: Mapping[str, Any], prefix: str) -> dict[str, float]:
    found = {str(key).removeprefix(prefix): as_number(value) for key, value in entry.items() if key.startswith(prefix)}
    return {key: value for key, value in found.items() if value is not None}


def _inference(run: Mapping[str, Any], told: Mapping[str, Any], meta: Mapping[str, Any], found: Found) -> None:
    adapter = mapping(run.get("peft_config"))
    found.config = {
        "model": {"model_name_or_path": meta.get("model_id")},
        "method": {"name": method_name(adapter), **method_settings(adapter)},
    }
    peak = as_number(mapping(told.get("memory")).get("peak_accelerator_memory_mb"))
    found.summary = {
        "trained_parameters": as_number(mapping(meta.get("parameters")).get("trainable_params")),
        "measured_peak_bytes": None if peak is None else int(peak * 2**20),
    }
    found.metrics = {"inference": _scores(mapping(told.get("overall")), "")}
    found.outcome = OUTCOMES.get(str(run.get("status")), "unfinished")


def _further(extra: Mapping[str, Any], found: Found) -> None:
    """Read what our own export added: recipe, whole log, further scores, answers."""
    if mapping(extra.get("recipe")):
        found.config = dict(extra["recipe"])
    if log := [dict(record) for record in rows(extra.get("log"))]:
        found.log = log
    speaks = mapping(extra.get("main"))
    score = found.metrics.get("test", {}).get("accuracy")
    found.metrics = {
        str(split): _scores(mapping(scores), "") for split, scores in mapping(extra.get("metrics")).items()
    }
    if score is not None and speaks.get("split") and speaks.get("metric"):
        found.metrics.setdefault(str(speaks["split"]), {})[str(speaks["metric"])] = score
    found.summary["planned_peak_bytes"] = as_number(extra.get("planned_peak_bytes"))
    unknown = extra.get("unknown")
    found.summary |= dict.fromkeys(map(str, unknown if isinstance(unknown, list) else ()))
    for split, items in mapping(extra.get("items")).items():
        found.answers[str(split)] = partial(list, list(rows(items)))

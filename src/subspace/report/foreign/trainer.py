"""Runs of the transformers Trainer and of LLaMA-Factory, by the files that they leave in an output folder.

    trainer_state.json      in the folder or in its checkpoint-N folders, the furthest counts: curves, scores, steps
    trainer_log.jsonl       LLaMA-Factory: the clock and memory; the curves where there is no state
    all_results.json        times, scores of evaluate and predict
    adapter_config.json     method and base model of PEFT; config.json where whole weights were saved
    README.md               the model card's seed and learning rate
    *.yaml                  a LLaMA-Factory recipe, if one lies there

training_args.bin is a pickle, which could run anything, and stays closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subspace.report.foreign.assemble import Found
from subspace.report.foreign.files import as_number, numbers, read_lines, read_object, rows
from subspace.report.foreign.trainer_recipe import read_recipe
from subspace.report.record import RunRecord

__all__ = ["read", "recognises"]

_STATE, _LOG = "trainer_state.json", "trainer_log.jsonl"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_STEP = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "epoch": "epoch",
    "num_tokens": "num_tokens",
    "num_input_tokens_seen": "num_tokens",
    "total_tokens": "num_tokens",
    "reward": "reward",
    "mean_token_accuracy": "mean_token_accuracy",
}
_NOT_SCORES = ("_runtime", "_per_second", "_num_tokens", "_compilation_time", "_time", "_samples")
_GIB = 2**30


def recognises(path: Path) -> bool:
    """Return whether a folder, or a file named alone, is a run of the Trainer or of LLaMA-Factory."""
    if path.is_file():
        return path.name in (_STATE, _LOG)
    return path.is_dir() and (any((path / name).is_file() for name in (_STATE, _LOG)) or bool(_states(path)))


def read(path: Path, name: str) -> RunRecord:
    """Return the run in an output folder or checkpoint, as far as it can be read."""
    folder = path if path.is_dir() else path.parent
    state_file, log_file = _state_file(path), folder / _LOG
    with_log = log_file.is_file() and path.name != _STATE
    kinds = [
        *([f"{_STATE} of transformers"] if state_file else []),
        *([f"{_LOG} of LLaMA-Factory"] if with_log else []),
    ]
    found = Found(" and ".join(kinds))
    bad: list[str] = []
    state = read_object(state_file, found.notes) if state_file else {}
    logged = read_lines(log_file, found.notes) if with_log else []
    _history(state, found, bad)
    _log(logged, found, bad)
    if bad:
        found.notes.append(f"not finite in {len(bad)} places: {', '.join(sorted(set(bad)))}")
    if not found.log:
        found.notes.append("no loss and no evaluation was logged")
    _results(folder, found)
    _start(state, logged, found)
    read_recipe(folder, state_file.parent if state_file else folder, found)
    return found.record(path, name)


def _states(folder: Path) -> list[Path]:
    """Return the states in a folder's checkpoints, by their step."""
    try:
        found = [(int(match[1]), child) for child in folder.iterdir() if (match := _CHECKPOINT.fullmatch(child.name))]
    except OSError:
        return []
    return [child / _STATE for _, child in sorted(found) if (child / _STATE).is_file()]


def _state_file(path: Path) -> Path | None:
    """Return the state that reaches furthest: the folder's own is written last of all, if training ended."""
    if path.is_file():
        return path if path.name == _STATE else None
    own = path / _STATE
    return own if own.is_file() else next(reversed(_states(path)), None)


def _history(state: Mapping[str, Any], found: Found, bad: list[str]) -> None:
    for entry in rows(state.get("log_history")):
        step = as_number(entry.get("step"))
        if step is None:
            continue
        if "train_runtime" in entry:
            found.summary["seconds"] = as_number(entry["train_runtime"])
        elif "loss" in entry:
            found.log.append({"event": "step", "step": int(step), **numbers(entry, _STEP, bad)})
        elif scores := _scores(entry, "eval_"):
            epoch = numbers(entry, {"epoch": "epoch"}, bad)
            found.log.append({"event": "eval", "step": int(step), "split": "validation", **scores, **epoch})
            found.metrics["validation"] = found.metrics.get("validation", {}) | scores
    found.summary |= {
        "planned_steps": as_number(state.get("max_steps")),
        "total_flos": as_number(state.get("total_flos")) or None,
        "num_tokens": as_number(state.get("num_input_tokens_seen")) or None,
    }
    done, planned = as_number(state.get("global_step")), found.summary["planned_steps"]
    # A callback may end training early: then only the time of the whole training tells that it did end.
    if found.summary.get("seconds") is not None or (done is not None and planned and done >= planned):
        found.outcome = "finished"


def _log(logged: list[dict[str, Any]], found: Found, bad: list[str]) -> None:
    """Read LLaMA-Factory's log: as the curves, or only for what the Trainer's state does not tell."""
    alone = not found.log
    clocks: dict[int, dict[str, Any]] = {}
    for entry in logged:
        step = as_number(entry.get("current_steps"))
        if step is None:
            continue
        machine = _machine(entry)
        if "loss" in entry and entry["loss"] is not None:
            clocks[int(step)] = machine
        if not alone:
            continue
        if entry.get("eval_loss") is not None:
            scores = numbers(entry, {"eval_loss": "loss", "epoch": "epoch"}, bad)
            found.log.append({"event": "eval", "step": int(step), "split": "validation", **scores, "machine": machine})
            if (loss := scores.get("loss")) is not None:
                found.metrics["validation"] = {"loss": loss}
        elif entry.get("loss") is not None:
            found.log.append({"event": "step", "step": int(step), **numbers(entry, _STEP, bad), "machine": machine})
    for record in found.log:
        if record["event"] == "step" and "machine" not in record:
            record["machine"] = clocks.get(record["step"], {})
    _end(logged, found)


def _end(logged: list[dict[str, Any]], found: Found) -> None:
    peaks = [value for entry in logged if (value := as_number(entry.get("vram_allocated"))) is not None]
    if peaks:
        found.summary["measured_peak_bytes"] = int(max(peaks) * _GIB)
    done = max((value for entry in logged if (value := as_number(entry.get("current_steps"))) is not None), default=0.0)
    planned = as_number(logged[-1].get("total_steps")) if logged else None
    if planned and found.summary.get("planned_steps") is None:
        found.summary["planned_steps"] = planned
    if planned and done >= planned:
        found.outcome = "finished"


def _machine(entry: Mapping[str, Any]) -> dict[str, Any]:
    machine = {
        "elapsed_seconds": _seconds(entry.get("elapsed_time")),
        # A throughput of 0 says that tokens were not counted.
        "tokens_per_second": as_number(entry.get("throughput")) or None,
    }
    for theirs, ours in (("vram_allocated", "peak_allocated_bytes"), ("vram_reserved", "reserved_bytes")):
        value = as_number(entry.get(theirs))
        machine[ours] = None if value is None else value * _GIB
    return {key: value for key, value in machine.items() if value is not None}


def _seconds(text: Any) -> float | None:
    """Return what Python's timedelta wrote in seconds.

    >>> _seconds("0:00:32"), _seconds("1 day, 2:03:04"), _seconds("soon")
    (32.0, 93784.0, None)
    """
    match = re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)", text) if isinstance(text, str) else None
    if match is None:
        return None
    days, hours, minutes, seconds = match.groups(default="0")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)


def _results(folder: Path, found: Found) -> None:
    """Read the scores of evaluate and predict after training, and the time that training took."""
    path = folder / "all_results.json"
    if not path.is_file():
        return
    told = read_object(path, found.notes)
    for split, prefix in (("validation", "eval_"), ("test", "predict_"), ("test", "test_")):
        if scores := _scores(told, prefix):
            found.metrics[split] = found.metrics.get(split, {}) | scores
    if (perplexity := as_number(told.get("perplexity"))) is not None:
        found.metrics.setdefault("validation", {})["perplexity"] = perplexity
    seconds = as_number(told.get("train_runtime"))
    if seconds is not None:
        found.summary["seconds"], found.outcome = seconds, "finished"


def _start(state: Mapping[str, Any], logged: list[dict[str, Any]], found: Found) -> None:
    total = found.summary.get("planned_steps")
    if total is not None:
        found.log.insert(0, {"event": "run_start", "step": 0, "total_steps": int(total)})
    clocks = [value for entry in logged if (value := _seconds(entry.get("elapsed_time"))) is not None]
    if found.summary.get("seconds") is None and clocks:
        found.summary["seconds"] = clocks[-1]
    batch, epochs = as_number(state.get("train_batch_size")), as_number(state.get("num_train_epochs"))
    found.config["training"] = {"per_device_train_batch_size": batch, "num_train_epochs": epochs}


def _scores(entry: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return the scores among a Trainer's keys: times, rates and counts of an evaluation are none."""
    named = {key[len(prefix) :]: as_number(value) for key, value in entry.items() if _is_score(key, prefix)}
    return {key: value for key, value in named.items() if value is not None}


def _is_score(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and not key.endswith(_NOT_SCORES)

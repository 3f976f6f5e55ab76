"""Runs as results of the PEFT comparison suite: files that its `processing.py` and its app read.

One JSON file per run, with `run_info`, `train_info` and `meta_info` as the suite writes them, and a key of our own,
`subspace`, that its reader ignores: the recipe, the whole log, scores on every split, the answer to every item, and
which of the suite's whole numbers stand as 0 because they are unknown. `report/foreign/suite.py` reads both.

Memory is what was measured: on CUDA peak and reserved bytes, on a CPU the resident set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from subspace.report.foreign.files import mapping, read_lines, read_object
from subspace.report.foreign.suite import EXTRA_KEY, OUTCOMES
from subspace.report.load import read_runs
from subspace.report.record import RunRecord
from subspace.report.suite_steps import batch_of, suite_metrics
from subspace.report.values import dig, number
from subspace.runs.durable import disk_errors, replace_file
from subspace.runs.layout import RunLayout
from subspace.runs.plain_json import canonical, finite_tree

__all__ = ["export_peft_suite", "suite_result"]

_SHARES = ("accuracy", "exact_match", "acc")
"""Metrics that the suite's `test accuracy` stands for, by preference."""
_STATUS = {ours: theirs for theirs, ours in OUTCOMES.items()} | {"died": "failed"}
_KEPT_EVENTS = frozenset({"run_start", "step", "eval", "skip", "run_end"})
_PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
_WHOLE = {
    "accelerator_memory_max": "measured_peak_bytes",
    "accelerator_memory_reserved_99th": "reserved_99th_bytes",
    "accelerator_memory_reserved_avg": "reserved_mean_bytes",
    "file_size": "file_bytes",
    "num_trainable_params": "trained_parameters",
    "train_time": "seconds",
}
"""Figures that the suite's reader needs, and their names here."""


def export_peft_suite(paths: Iterable[Path], out: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Write every run in or below `paths` as a result of the suite; return the files, and notes run by run.

    Args:
        paths: Run folders, folders that hold some, or results of other tools.
        out: Made if absent; an earlier export in it is replaced file by file, other files stay.

    Raises:
        DataError: E-DAT-001 if a path holds no run.
        ResourceError: E-RES-002 if `out` cannot be written.
    """
    records = read_runs(paths)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    notes = []
    for record in records:
        tree = suite_result(record)
        stem = tree["run_info"]["experiment_name"].replace("/", "--")
        path = out / f"{stem}.json"
        for number_ in range(2, len(records) + 2):
            if path not in written:
                break
            path = out / f"{stem}-{number_}.json"
        replace_file(path, [canonical(finite_tree(tree)[0])])
        written.append(path)
        notes += [f"{record.name}: {note}" for note in record.notes]
        if unknown := tree[EXTRA_KEY]["unknown"]:
            notes.append(f"{record.name}: unknown, written as 0: {', '.join(unknown)}")
    return written, tuple(notes)


def suite_result(record: RunRecord) -> dict[str, Any]:
    """Return one run as the suite's JSON."""
    split, metric = _main(record)
    score = None if metric is None or split is None else record.metrics[split][metric]
    figures, unknown = _figures(record)
    attempt = _last_attempt(record)
    status = _STATUS.get(record.outcome, "canceled")
    return {
        "run_info": {
            "created_at": record.manifest.get("created") or attempt.get("start"),
            "total_time": _total_seconds(record) or figures["train_time"],
            "experiment_name": _experiment(record),
            "peft_branch": "main",
            "train_config": _train_config(record),
            "peft_config": _peft_config(record),
            "error_msg": str(attempt.get("error") or ""),
        },
        "train_info": {
            **figures,
            "num_total_params": dig(record.manifest, "summary", "num_parameters") or record.plan.get("num_parameters"),
            "status": status,
            "metrics": suite_metrics(record, score),
        },
        "meta_info": _meta(record, attempt),
        EXTRA_KEY: {
            "schema": 1,
            "recipe": record.config,
            "main": {"split": split, "metric": metric},
            "metrics": record.metrics,
            "planned_peak_bytes": record.planned_peak_bytes,
            "memory": "reserved on the accelerator" if _reserved(record, "reserved_bytes") else "resident set",
            "unknown": unknown,
            "log": [entry for entry in record.log if entry.get("event") in _KEPT_EVENTS],
            "items": {split: _items(record, split) for split in {**record.predictions, **record.answers}},
        },
    }


def _main(record: RunRecord) -> tuple[str | None, str | None]:
    """Return the split and the metric that the suite's accuracy stands for; None where no score is a share."""
    metric = next((name for name in _SHARES if name in record.scores), None)
    return (record.split, metric) if metric else (None, None)


def _figures(record: RunRecord) -> tuple[dict[str, int | float], list[str]]:
    """Return the figures that the suite's reader cannot miss, and the names of those that are unknown."""
    held = _reserved(record, "reserved_bytes") or _reserved(record, "rss_bytes")
    known: dict[str, float | None] = {
        "measured_peak_bytes": record.measured_peak_bytes,
        "reserved_mean_bytes": number(_stored(record, "reserved_mean_bytes"))
        or (sum(held) / len(held) if held else None),
        "reserved_99th_bytes": number(_stored(record, "reserved_99th_bytes")) or _percentile(held, 0.99),
        "file_bytes": number(_stored(record, "file_bytes")) or _result_bytes(record),
        "trained_parameters": record.trained_parameters,
        "seconds": record.seconds,
    }
    figures: dict[str, int | float] = {}
    unknown = []
    for theirs, ours in _WHOLE.items():
        value = known[ours]
        if value is None:
            unknown.append(ours)
        figures[theirs] = float(value or 0) if theirs == "train_time" else round(value or 0)
    return figures, sorted(unknown)


def _stored(record: RunRecord, key: str) -> Any:
    return dig(record.manifest, "summary", key)


def _reserved(record: RunRecord, key: str) -> list[float]:
    found = (number(dig(entry, "machine", key)) for entry in record.log if entry.get("event") == "step")
    return [value for value in found if value]


def _percentile(values: Sequence[float], share: float) -> float | None:
    """Return the percentile with linear interpolation, as numpy's."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def _result_bytes(record: RunRecord) -> float | None:
    """Return the size of what was learned, as it lies in the run folder."""
    layout = RunLayout(record.folder)
    for folder in (layout.adapter, layout.model):
        if sizes := [path.stat().st_size for path in folder.glob("*.safetensors")]:
            return float(sum(sizes))
    return None


def _total_seconds(record: RunRecord) -> float | None:
    return number(_stored(record, "total_seconds"))


def _experiment(record: RunRecord) -> str:
    """Return `method/name`, as the suite names its folders of experiments; its own results keep theirs."""
    own = dig(record.manifest, "facts", "experiment")
    if isinstance(own, str) and re.fullmatch(r"[A-Za-z0-9_.+=-]+/[A-Za-z0-9_.+=-]+", own):
        return own
    name = re.sub(r"[^A-Za-z0-9_.+=-]+", "-", record.name).strip("-.") or "run"
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', record.method) or 'unknown'}/{name}"


def _eval_steps(record: RunRecord) -> int | None:
    """Return the steps between evaluations, those of an epoch where each epoch has one."""
    every = dig(record.config, "training", "eval_steps")
    if every == "epoch":
        return record.epochs[0].step if record.epochs else None
    return every if isinstance(every, int) else None


def _train_config(record: RunRecord) -> dict[str, Any]:
    config = record.config
    training = mapping(config.get("training"))
    return {
        "model_id": record.model,
        "dtype": dig(config, "model", "dtype"),
        "max_seq_length": dig(config, "data", "max_length"),
        "batch_size": batch_of(record),
        "batch_size_eval": training.get("per_device_eval_batch_size"),
        "max_steps": record.total_steps or record.last_step,
        "eval_steps": _eval_steps(record),
        "compile": False,
        "use_gc": bool(training.get("gradient_checkpointing", False)),
        "query_template": dig(config, "data", "prompt_template"),
        "seed": record.seed,
        "grad_norm_clip": training.get("max_grad_norm"),
        "optimizer_type": training.get("optimizer") or training.get("optim"),
        "optimizer_kwargs": {"lr": training.get("learning_rate"), "weight_decay": training.get("weight_decay")},
        "lr_scheduler": training.get("lr_scheduler_type"),
        "use_amp": training.get("mixed_precision", "no") != "no",
        "autocast_adapter_dtype": True,
        "generation_kwargs": {},
        "attn_implementation": dig(config, "model", "attn_implementation"),
        "init_kv_cache_prefix": None,
    }


def _peft_config(record: RunRecord) -> dict[str, Any] | None:
    """Return the adapter's own config under our method's name; None for full fine-tuning, as in the suite."""
    if record.method == "full":
        return None
    path = RunLayout(record.folder).adapter / "adapter_config.json"
    adapter = read_object(path, []) if path.is_file() else {}
    settings = {key: value for key, value in mapping(record.config.get("method")).items() if key != "name"}
    return {**settings, **adapter, "peft_type": (record.method or "unknown").upper()}


def _meta(record: RunRecord, attempt: Mapping[str, Any]) -> dict[str, Any]:
    versions = mapping(attempt.get("versions"))
    packages: dict[str, Any] = {}
    for name in _PACKAGES:
        packages |= {f"{name}-version": versions.get(name), f"{name}-commit-hash": None}
    packages |= {"subspace-version": versions.get("subspace"), "subspace-commit-hash": attempt.get("commit")}
    system, _, release = str(attempt.get("platform") or "").partition("-")
    revisions = mapping(dig(record.manifest, "facts", "data_revisions")) or {record.data or "data": None}
    return {
        "model_info": {"sha": dig(record.manifest, "facts", "model_revision"), "created_at": None},
        "dataset_info": {name: {"sha": sha, "created_at": None} for name, sha in revisions.items()},
        "package_info": packages,
        "system_info": {
            "system": system,
            "release": release,
            "version": "",
            "machine": "",
            "processor": "",
            "accelerator": attempt.get("device") or dig(record.manifest, "facts", "device"),
        },
        "pytorch_info": "",
    }


def _last_attempt(record: RunRecord) -> Mapping[str, Any]:
    attempts = record.manifest.get("attempts")
    return mapping(attempts[-1]) if isinstance(attempts, list) and attempts else {}


def _items(record: RunRecord, split: str) -> list[Mapping[str, Any]]:
    if split in record.answers:
        return list(record.answers[split]())
    return list(read_lines(record.predictions[split], []))

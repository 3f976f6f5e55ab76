"""A record out of what foreign results tell, shaped as a run folder of ours is: the same keys at the same places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from subspace.report.foreign.stated import read_stated
from subspace.report.record import RunRecord
from subspace.report.values import dig, number
from subspace.runs.log import LOG_SCHEMA

__all__ = ["Found", "method_name", "method_settings"]

_METHODS = {
    "PREFIX_TUNING": "prefix",
    "PROMPT_TUNING": "prompt",
    "P_TUNING": "ptuning",
}
"""PEFT's types whose lower-case name is not ours."""
_STARTS = ("pissa", "olora", "eva")
"""Ways of PEFT to initialise LoRA that are methods of their own here."""
_RENAMED = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout"}
_INCIDENTAL = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "megatron_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "task_type",
    }
)
"""Fields of a PEFT config that say nothing about the method."""


@dataclass
class Found:
    """What a reader has found; anything may be missing.

    Attributes:
        origin: What the results are, e.g. "trainer_state.json of transformers".
        config: Sections as in a recipe: model, data, method, training.
        log: Records as in docs/log-schema.md, without `schema`.
        metrics: Split to metric to value.
        summary: Planned and measured figures under the names of a manifest.
        attempt: Versions, machine and times, as an attempt in a manifest.
        facts: Further facts, as in a manifest; the seed under `seed`.
        outcome: finished, stopped, failed or unfinished.
        answers: Split to a function that returns its items.
        notes: What is missing or was ignored.
    """

    origin: str
    config: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    attempt: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    outcome: str = "unfinished"
    answers: dict[str, Callable[[], Sequence[Mapping[str, Any]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def record(self, path: Path, name: str) -> RunRecord:
        """Return it as a record: values that are None left out, a step logged twice standing once."""
        notes = list(self.notes)
        stated = read_stated(path if path.is_dir() else path.parent, notes)
        config = _without_none(_merged(self.config, stated))
        facts = dict(self.facts)
        if (seed := dig(config, "training", "seed")) is not None:
            facts["seed"] = seed
        summary = {key: value for key, value in self.summary.items() if value is not None}
        manifest = {
            "origin": self.origin,
            "outcome": self.outcome,
            "facts": {key: value for key, value in facts.items() if value is not None},
            "attempts": [{**self.attempt, "outcome": self.outcome}],
            "summary": summary,
        }
        log = _once([{"schema": LOG_SCHEMA, **record} for record in self.log])
        found = RunRecord(
            folder=path,
            name=name,
            config=config,
            plan={"run_flops": summary["total_flos"]} if "total_flos" in summary else {},
            manifest=manifest,
            log=log,
            metrics={split: scores for split, scores in self.metrics.items() if scores},
            answers=self.answers,
        )
        if len(log) < len(self.log):
            notes.append(f"{len(self.log) - len(log)} records logged twice; the last of each is shown")
        if self.outcome != "finished":
            notes.append(f"the run is not finished ({self.outcome}, step {found.last_step})")
        if found.seed is None:
            notes.append("seed unknown")
        return replace(found, notes=tuple(notes))


def method_name(peft_config: Mapping[str, Any]) -> str:
    """Return our name of the method that a PEFT config describes; "" if it names none.

    >>> method_name({"peft_type": "LORA", "use_dora": True}), method_name({"peft_type": "LOHA"})
    ('dora', 'loha')
    """
    kind = peft_config.get("peft_type")
    if not isinstance(kind, str):
        return ""
    if kind != "LORA":
        return _METHODS.get(kind, kind.lower())
    if peft_config.get("use_dora") is True:
        return "dora"
    start = str(peft_config.get("init_lora_weights")).lower()
    return next((name for name in _STARTS if start.startswith(name)), "lora")


def method_settings(peft_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a PEFT config states under our names; what is off or empty is left out."""
    return {
        _RENAMED.get(key, key): value
        for key, value in peft_config.items()
        if key not in _INCIDENTAL and value is not None and value is not False and value not in ({}, [], "")
    }


def _once(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    last: dict[Any, int] = {}
    for place, record in enumerate(log):
        step = number(record.get("step"))
        once = record.get("event") in ("step", "eval") and step is not None
        last[(record.get("event"), record.get("split"), step) if once else place] = place
    return [log[place] for place in sorted(last.values())]


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _without_none(tree: Mapping[str, Any]) -> dict[str, Any]:
    clean = {key: _without_none(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in clean.items() if value is not None and value != {} and value != ""}

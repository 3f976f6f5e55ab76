"""A recipe, whole and checked across its sections. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field, SerializeAsAny

from subspace.config.base import Section
from subspace.config.load import Document, dump_yaml, parse_section, unknown_sections
from subspace.core.errors import ConfigError, SubspaceError
from subspace.core.problems import Problems
from subspace.data.config import DataConfig
from subspace.data.tasks import require_task
from subspace.evaluation.config import EvaluationConfig, chosen_metrics
from subspace.methods.base import Method, MethodConfig
from subspace.methods.registry import REGISTRY
from subspace.models.config import ModelConfig
from subspace.models.sources import resolve
from subspace.optim.settings import OptimizerSettings
from subspace.training.config import TrainingConfig

__all__ = ["RunConfig", "as_written", "parse_run_config"]

_SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}


class RunConfig(Section):
    """A recipe: five sections, each owned by the room that reads it."""

    model: ModelConfig
    data: DataConfig
    method: SerializeAsAny[MethodConfig]
    training: TrainingConfig
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)

    def new_method(self) -> Method:
        """Return a fresh method object of this recipe."""
        method: Method = REGISTRY.load(self.method.name)(self.method)
        return method

    def optimizer_settings(self) -> OptimizerSettings:
        """Return what the training section says of the optimizer."""
        training = self.training
        return OptimizerSettings(
            name=training.optim,
            learning_rate=training.learning_rate,
            beta1=training.adam_beta1,
            beta2=training.adam_beta2,
            epsilon=training.adam_epsilon,
            weight_decay=training.weight_decay,
        )

    def to_tree(self) -> dict[str, Any]:
        """Return plain values, every default filled in."""
        tree: dict[str, Any] = self.model_dump(mode="json")
        return tree

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML; reading it gives an equal RunConfig."""
        return dump_yaml(self.to_tree())

    def digest(self) -> str:
        """Return the sha256 of all that decides the result: everything but where it is kept and shown."""
        return hashlib.sha256(json.dumps(self._deciding(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: RunConfig) -> tuple[str, ...]:
        """Return a line for each key that decides the result and differs, with both values."""
        ours, theirs = dict(_leaves(self._deciding())), dict(_leaves(other._deciding()))
        return tuple(
            f"{key} is {ours.get(key, 'absent')}, not {theirs.get(key, 'absent')}"
            for key in {**ours, **theirs}
            if ours.get(key, _leaves) != theirs.get(key, _leaves)
        )

    def _deciding(self) -> dict[str, Any]:
        tree = self.to_tree()
        for key in ("output_dir", "report_to", "save_total_limit"):
            del tree["training"][key]
        return tree


def parse_run_config(document: Document) -> tuple[RunConfig, tuple[str, ...]]:
    """Check a document as a recipe; return it with the notes on translated names.

    Raises:
        ConfigError: With file, line and key of the first thing that is wrong; what else is wrong is in its `others`.
    """
    notes: list[str] = []
    sections: dict[str, Section] = {}
    problems = Problems()
    with problems.heard():
        unknown_sections(document, ("model", "data", "method", "training", "evaluation"))
    for key, section in _SECTIONS.items():
        with problems.heard():
            sections[key], found = parse_section(document, key, section)
            notes += found
    with problems.heard():
        method_class = REGISTRY.load(_method_name(document), where=document.place(("method", "name")))
        with _of_other_methods(method_class.config_class):
            sections["method"], found = parse_section(document, "method", method_class.config_class)
        notes += found
    problems.tell()
    config = RunConfig(**sections)  # type: ignore[arg-type]  # one key per field, each of its class
    _check(config, document)
    _check_names(config, document)
    return config, (*notes, *_unread(config, document))


def _has_key(method: str, key: str) -> bool:
    try:
        kind = REGISTRY.load(method).config_class
    except Exception:  # somebody's plug-in, which nobody asked for
        return False
    return key in kind.model_fields or key in kind.synonyms


@contextlib.contextmanager
def _of_other_methods(config_class: type[MethodConfig]) -> Iterator[None]:
    """Tell of a key that the method has not whose key it is."""
    try:
        yield
    except SubspaceError as error:
        for each in (error, *error.others):
            key = each.where.rpartition(".")[2]
            if each.code == "E-CFG-007" and not each.action:
                owners = [name for name in REGISTRY.names() if _has_key(name, key)]
                if owners:
                    each.action = f"It is a key of {', '.join(owners[:4])}; leave it out."
                    each.args = (f"{each.args[0]} {each.action}",)
        raise


def _check_names(config: RunConfig, document: Document) -> None:
    """Refuse a built-in model or data set that there is not; other names need the disk or a network.

    Raises:
        CheckpointError: E-CKP-010.
        DataError: E-DAT-017.
    """
    for section, key, given, check in (
        ("model", "model_name_or_path", config.model.model_name_or_path, lambda: resolve(config.model)),
        ("data", "source", config.data.source, lambda: require_task(config.data.source)),
    ):
        if not given.startswith("builtin/"):
            continue
        try:
            check()
        except SubspaceError as error:
            where = document.place(as_written(document, f"{section}.{key}"))
            raise type(error)(
                error.code, where=where, found=error.found, expected=error.expected, action=error.action
            ) from None


def _unread(config: RunConfig, document: Document) -> Iterator[str]:
    """Yield a note for each training key that differs from its default and is not read by the method."""
    for key in config.method.unread_training():
        if getattr(config.training, key) != TrainingConfig.model_fields[key].default:
            place = document.place(as_written(document, f"training.{key}"))
            yield f"{place} is not read with method {config.method.name}"


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    else:
        yield key, tree


def _method_name(document: Document) -> str:
    method = document.tree.get("method")
    name = method.get("name") if isinstance(method, dict) else method
    if not isinstance(name, str):
        raise ConfigError(
            "E-CFG-011",
            where=document.place(("method",)),
            found="no method is named",
            expected=f"method.name, one of {', '.join(REGISTRY.names())}",
            action="Add `method: {name: lora}`.",
        )
    return name


def _check(config: RunConfig, document: Document) -> None:
    problems = Problems()
    for key, found, action in _conflicts(config):
        code = "E-CFG-015" if key in ("training.max_steps", "training.warmup_steps") else "E-CFG-014"
        section, name = as_written(document, key)
        if name not in (document.tree.get(section) or {}) and not found.startswith("neither"):
            found = f"{found} ({name} is not in the recipe: that is its default)"
        where = document.place((section, name))
        problems.found.append(ConfigError(code, where=where, found=found, action=action))
    problems.tell()
    try:
        chosen_metrics(config.evaluation, config.model.task)
    except ConfigError as error:
        where = document.place(("evaluation", "metrics"))
        raise ConfigError(
            error.code, where=where, found=error.found, expected=error.expected, action=error.action
        ) from None


def as_written(document: Document, key: str) -> tuple[str, str]:
    """Return the place of a key of ours, under the name that the user gave it."""
    section, _, name = key.partition(".")
    owner = REGISTRY.load(_method_name(document)).config_class if section == "method" else _SECTIONS.get(section)
    synonyms = owner.synonyms if owner else {}
    given = document.tree.get(section)
    given = given if isinstance(given, dict) else {}  # of `method: lora` there is nothing to find
    return section, next((other for other in given if other in synonyms and synonyms[other].key == name), name)


def _conflicts(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Yield (key, what is found, what to do) for sections that contradict each other."""
    model, data, training = config.model, config.data, config.training
    if training.max_steps is None and training.num_train_epochs is None:
        yield "training.max_steps", "neither max_steps nor num_train_epochs is given", "Set one of them."
    if training.warmup_steps and training.max_steps and training.warmup_steps > training.max_steps:
        found = f"warmup_steps {training.warmup_steps} exceeds max_steps {training.max_steps}"
        yield "training.warmup_steps", found, "Lower warmup_steps."
    if data.packing and model.task != "causal_lm":
        yield "data.packing", f"packing with model.task {model.task}", "Packing is for causal_lm; switch it off."
    if training.loss_chunk_tokens is not None and model.task == "classification":
        yield "training.loss_chunk_tokens", "loss_chunk_tokens with classes, which are few", "Leave it out."
    if training.mixed_precision == "fp16" and training.device == "cpu":
        yield "training.mixed_precision", "fp16 on the CPU", "Use bf16 or no."
    if training.load_best_at_end and training.eval_steps is None:
        yield "training.load_best_at_end", "load_best_at_end without eval_steps", "Set training.eval_steps."
    if training.early_stopping_patience and training.eval_steps is None:
        yield "training.early_stopping_patience", "early stopping without eval_steps", "Set training.eval_steps."
    trains_base = not config.new_method().leaves_adapter()
    if training.mixed_precision == "fp16" and model.dtype == "float16" and trains_base:
        found = f"method {config.method.name} with float16 weights, which fp16 loss scaling cannot train"
        yield "model.dtype", found, "Use model.dtype float32 or bf16."
    yield from _int8_conflicts(config)
    tree = config.to_tree()
    for refusal in REGISTRY.load(config.method.name).card.refuses:
        if refusal.applies(tree):
            section, _, name = refusal.key.partition(".")
            values = ((key, tree[key.partition(".")[0]][key.partition(".")[2]]) for key, _ in refusal.when)
            conditions = "".join(f" and {key} {value}" for key, value in values if value is not None)
            asked = f"{name} {tree[section][name]!r} with method {config.method.name}{conditions}"
            found = f"{asked}: {refusal.reason.rstrip('.')}"
            yield refusal.key, found, "Change one of the two."


def _int8_conflicts(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Yield what trained weights that are int8 codes cannot be combined with."""
    key = "model.trained_weights"
    if config.model.trained_weights == "as_stored":
        return
    method = config.method.name
    if config.new_method().leaves_adapter():
        found = f"int8 trained weights with method {method}, which trains no weight of the base"
        yield key, found, "Leave it out; model.quantization holds frozen weights in codes."
    if config.model.quantization != "none":
        found = f"int8 trained weights with model.quantization {config.model.quantization}, which freezes them"
        yield key, found, "Keep one of the two."
    if config.training.optim != "adamw":
        found = f"{config.training.optim} with int8 trained weights: its kernels write into plain weights only"
        yield "training.optim", found, "Use training.optim: adamw, or a method that brings its own optimizer."

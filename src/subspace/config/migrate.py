"""A LLaMA-Factory training file to a recipe of ours, with a list of everything that did not come along.

Values that LLaMA-Factory fills in and subspace would fill in otherwise (a learning rate of 5e-5, three epochs, rows of
2,048 tokens ...) are written out, so that the recipe trains what the file trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subspace.config.guard import is_secret_key, is_secret_text, refuse_secrets
from subspace.config.llamafactory import (
    CARRIED,
    DEFAULTS,
    METHODS,
    ONLY_FOR,
    OWN_OPTIM,
    UnfitError,
    is_on,
    reason_for,
)
from subspace.config.yaml_text import compose_text, dotted, read_text
from subspace.core.errors import ConfigError

__all__ = ["Migration", "migrate_llamafactory"]

_SIGNS = {"stage", "finetuning_type", "do_train", "dataset", "template", "cutoff_len", "lora_rank", "lora_target"}
_SECTIONS = ("model", "data", "method", "training", "evaluation")


@dataclass(frozen=True)
class Migration:
    """What became of a LLaMA-Factory file.

    Attributes:
        recipe: Sections of a recipe, plain values, ready for `dump_yaml`.
        carried: `their key -> our key`, one for each key and each default that was written out.
        not_carried: `their key: reason`; values are never repeated.
    """

    recipe: dict[str, Any]
    carried: tuple[str, ...]
    not_carried: tuple[str, ...]


def migrate_llamafactory(path: str | Path) -> Migration:
    """Translate a LLaMA-Factory YAML file for supervised fine-tuning.

    Raises:
        ConfigError: E-CFG-022 if it is no such file, another stage, or a finetuning_type other than lora and full;
            E-CFG-001 to E-CFG-013 if it cannot be read as YAML.
        SecurityError: E-SEC-001 tag; E-SEC-002 if a value that would be carried holds a secret.
    """
    tree, _ = compose_text(read_text(Path(path)), str(path))
    given = _checked(tree, str(path))
    work = _Work(given)
    work.method()
    work.data_set()
    for key, value in work.defaults().items():
        work.carry(key, value, f" (default {value})")
    for key, value in work.rest():
        work.carry(key, value)
    work.without_evaluation()
    recipe = {name: work.recipe[name] for name in _SECTIONS if name in work.recipe}
    refuse_secrets(recipe, lambda loc: f"{path}: value of {dotted(loc)}")
    return Migration(recipe, tuple(work.carried.values()), tuple(work.dropped.values()))


def _checked(tree: Any, path: str) -> dict[str, Any]:
    """Return the keys of a file that can be migrated; raise E-CFG-022 for any other."""

    def refusal(found: str, action: str = "") -> ConfigError:
        expected = "a LLaMA-Factory training file for stage sft"
        return ConfigError("E-CFG-022", where=path, found=found, expected=expected, action=action)

    if not isinstance(tree, dict) or "model_name_or_path" not in tree or not _SIGNS & set(tree):
        ours = isinstance(tree, dict) and isinstance(tree.get("data"), dict)
        raise refusal("not a LLaMA-Factory file", "It looks like a recipe already." if ours else "")
    stage, kind = tree.get("stage", "sft"), tree.get("finetuning_type", "lora")
    if stage != "sft":
        raise refusal(f"stage {str(stage)[:40]!r}", "Other stages than sft are not part of subspace.")
    if kind not in ("lora", "full"):
        raise refusal(f"finetuning_type {str(kind)[:40]!r}", "Only lora and full have a counterpart.")
    if not tree.get("dataset"):
        raise refusal("no dataset")
    return tree


@dataclass
class _Work:
    """A migration under way; every key of the file ends in `carried` or in `dropped`."""

    given: Mapping[str, Any]
    recipe: dict[str, dict[str, Any]] = field(default_factory=dict)
    carried: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    def put(self, key: str, target: str, value: Any, note: str = "") -> None:
        section, _, name = target.partition(".")
        self.recipe.setdefault(section, {})[name] = value
        self.carried[key] = f"{key}{note} -> {target}"

    def drop(self, key: str, reason: str) -> None:
        self.dropped[key] = f"{key}: {reason}"

    def method(self) -> None:
        """Settle the method's name from the keys that decide it in LLaMA-Factory."""
        given = self.given
        for key in ("stage", "do_train"):
            if key in given:
                self.carried[key] = f"{key} -> `subspace train`"
        kind = given.get("finetuning_type", "lora")
        variants = [key for key, (_, beside) in METHODS.items() if is_on(given.get(key)) and beside == kind]
        name = METHODS[variants[0]][0] if variants else kind
        if name == "apollo" and given.get("apollo_scale_type") == "tensor":
            name = "apollo_mini"
        self.put("finetuning_type", "method.name", name, "" if "finetuning_type" in given else " (default lora)")
        for key, (_, beside) in METHODS.items():
            if key in variants[:1]:
                self.carried[key] = f"{key} -> method.name"
            elif key in variants:
                self.drop(key, "a run has one method")
            elif key in given:
                self.drop(key, f"finetuning_type {beside} alone has it" if is_on(given[key]) else "it is off")
        if name in OWN_OPTIM:
            self._projected(variants[0])

    def _projected(self, switch: str) -> None:
        """Ask for the steps of the official code, as LLaMA-Factory does; an update by layer cannot clip or skip."""
        method = self.recipe["method"]
        method["fidelity"] = "reference"
        self.carried[switch] += ", method.fidelity"
        if switch != "use_apollo":
            return
        if self.given.get("apollo_scale_type", "channel") in ("channel", "tensor"):
            if "apollo_scale_type" in self.given:
                self.carried["apollo_scale_type"] = "apollo_scale_type -> method.name"
        else:
            self.drop("apollo_scale_type", "subspace has channel and tensor")
        if is_on(self.given.get("apollo_layerwise")):
            method["update"] = "in_backward"
            self.recipe["training"] = {"max_grad_norm": 0.0, "max_bad_steps": 0}
            targets = "method.update, training.max_grad_norm, training.max_bad_steps"
            self.carried["apollo_layerwise"] = f"apollo_layerwise -> {targets}"

    def data_set(self) -> None:
        """Carry the first data set; LLaMA-Factory would mix all that are named."""
        named = self.given["dataset"]
        names = [str(name).strip() for name in (named.split(",") if isinstance(named, str) else _listed(named))]
        self.put("dataset", "data.source", names[0])
        for name in names[1:]:
            label = "not shown" if is_secret_text(name) else repr(name)
            self.drop(f"dataset {label}", "a recipe has one data set; join the files to train on all")

    def defaults(self) -> dict[str, Any]:
        """Return what LLaMA-Factory adds to the file and subspace would not."""
        given = {key: value for key, value in self.given.items() if value is not None}
        found = dict(DEFAULTS)
        if isinstance(given.get("max_steps"), int) and given["max_steps"] > 0:
            del found["num_train_epochs"]
        if isinstance(rank := given.get("lora_rank", DEFAULTS["lora_rank"]), int):
            found["lora_alpha"] = 2 * rank
        return {key: found[key] for key in found if key not in given and self._suits_method(key)}

    def _suits_method(self, key: str) -> bool:
        name = self.recipe["method"]["name"]
        return key not in ONLY_FOR or name in ONLY_FOR[key]

    def rest(self) -> list[tuple[str, Any]]:
        """Return what is in the file and not settled yet."""
        return [item for item in self.given.items() if item[0] not in (*self.carried, *self.dropped)]

    def carry(self, key: str, value: Any, note: str = "") -> None:
        """Put one key where it belongs, or note why it has no place."""
        reason = self._obstacle(key, value)
        target, convert = CARRIED.get(key, ("", None))
        if key == "warmup_steps" and isinstance(value, float) and 0 < value < 1:
            target, convert = CARRIED["warmup_ratio"]
        own = OWN_OPTIM.get(self.recipe["method"]["name"], {}) if key == "optim" else {}
        if str(value).lower() in own:
            target, ours = own[str(value).lower()]
            reason = reason or self._contradiction(target, ours)
        elif reason is None and convert is not None:
            try:
                ours = convert(value)
            except UnfitError as unfit:
                reason = str(unfit)
            else:
                reason = self._contradiction(target, ours)
        if reason is None:
            self.put(key, target, ours, note)
        else:
            self.drop(key, reason)

    def _contradiction(self, target: str, value: Any) -> str | None:
        section, _, name = target.partition(".")
        other = self.recipe.get(section, {}).get(name, value)
        return None if other == value else f"another key of the file already sets {target} differently"

    def _obstacle(self, key: str, value: Any) -> str | None:
        """Return why a key is not carried whatever its value, or None."""
        given = self.given
        if is_secret_key(key):
            return "secrets stay in the environment"
        if value is None:
            return "it is empty"
        if key not in CARRIED:
            return "it is off" if value is False else reason_for(key)
        if not self._suits_method(key):
            return f"the method {self.recipe['method']['name']} has no place for it"
        backend = str(given.get("quantization_method", "bnb")).lower()
        if key == "quantization_bit" and backend not in ("bnb", "bitsandbytes"):
            return "subspace quantizes with bitsandbytes only"
        if key == "quantization_bit" and str(given.get("quantization_type", "nf4")).lower() != "nf4":
            return "4-bit weights are nf4 here"
        name = self.recipe["method"]["name"]
        if key == "optim" and name in OWN_OPTIM and not str(value).startswith(("adamw_torch", "adamw_hf")):
            return None if str(value).lower() in OWN_OPTIM[name] else f"the method {name} brings its own optimizer"
        strategy = given.get("eval_strategy", given.get("evaluation_strategy", "no"))
        if key == "eval_steps" and strategy != "steps":
            return "eval_strategy is not 'steps'; set training.eval_steps to evaluate during training"
        if key == "save_steps" and given.get("save_strategy", "steps") != "steps":
            return "save_strategy is not 'steps'; set training.save_steps to save during training"
        return None

    def without_evaluation(self) -> None:
        """Take back what needs held-out rows or evaluations where none were carried."""
        training = self.recipe.get("training", {})
        if not self.recipe["data"].get("validation_fraction"):
            for key in ("eval_steps", "eval_strategy", "evaluation_strategy"):
                self._take_back(key, "no validation rows were carried; set data.validation")
        if "eval_steps" not in training:
            for key in ("load_best_model_at_end", "early_stopping_steps"):
                self._take_back(key, "training.eval_steps was not carried")

    def _take_back(self, key: str, reason: str) -> None:
        if key in self.carried:
            section, _, name = CARRIED[key][0].partition(".")
            self.recipe[section].pop(name, None)
            del self.carried[key]
            self.drop(key, reason)


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)

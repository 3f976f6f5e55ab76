"""What the keys of a LLaMA-Factory training file mean here: a table, and the reasons for what has no place in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from subspace.config.foreign import SIDES
from subspace.config.yaml_text import resolve_scalar

__all__ = ["CARRIED", "DEFAULTS", "METHODS", "ONLY_FOR", "OWN_OPTIM", "REASONS", "UnfitError", "is_on", "reason_for"]


class UnfitError(Exception):
    """A value that has no counterpart here; the message is the reason."""


Convert = Callable[[Any], Any]


def _text(value: Any) -> Any:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise UnfitError("it is not text")
    return str(value)


def _single(value: Any) -> Any:
    if "," in (text := _text(value)):
        raise UnfitError("it names several adapters; subspace continues from one")
    return text


def _number(value: Any) -> Any:
    value = resolve_scalar(value) if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError("it is not a number")
    return value


def _whole(value: Any) -> Any:
    number = _number(value)
    if number != number or abs(number) == float("inf") or int(number) != number:
        raise UnfitError("subspace counts in whole numbers here")
    return int(number)


def _positive(value: Any) -> Any:
    if _number(value) <= 0:
        raise UnfitError("zero or less means 'not set'")
    return _whole(value)


def _kept(value: Any) -> Any:
    if (number := _positive(value)) < 2:
        raise UnfitError("subspace keeps at least two checkpoints")
    return number


def is_on(value: Any) -> bool:
    """Return whether a flag is set, in the words of YAML 1.1 that LLaMA-Factory reads."""
    return str(value).lower() in ("true", "yes", "on")


def _flag(value: Any) -> bool:
    if not is_on(value) and str(value).lower() not in ("false", "no", "off"):
        raise UnfitError("it is neither true nor false")
    return is_on(value)


def _switch(on: Any) -> Convert:
    """Return a conversion for a flag that matters only when it is set."""

    def convert(value: Any) -> Any:
        if not _flag(value):
            raise UnfitError("it is off, as it is here by default")
        return on

    return convert


def _choice(choices: Mapping[Any, Any], reason: str) -> Convert:
    def convert(value: Any) -> Any:
        for theirs, ours in choices.items():
            if str(theirs).lower() == str(value).lower():
                return ours
        raise UnfitError(reason)

    return convert


def _names(value: Any) -> Any:
    items = tuple(value.split(",")) if isinstance(value, str) else value
    if not isinstance(items, tuple) or not all(isinstance(item, str) for item in items):
        raise UnfitError("it is not a list of names")
    return tuple(item.strip() for item in items if item.strip())


def _targets(value: Any) -> Any:
    names = _names(value)
    return "all-linear" if names == ("all",) else names


def _parts(value: Any) -> Any:
    """Return targets that may be any part of a module's name; `_proj` stands at its end."""
    names = _targets(value)
    if names == "all-linear":
        return names
    return tuple(name if name.endswith("_proj") else f"re:.*{re.escape(name)}.*" for name in names)


def _share(value: Any) -> Any:
    number = _number(value)
    if number >= 1:
        raise UnfitError("it is a count of rows; set data.validation_fraction, a share")
    return float(number)


def _dataset_info(value: Any) -> Any:
    folder = _text(value)
    if folder == "ONLINE" or folder.startswith("REMOTE:"):
        raise UnfitError("data.source is looked up on the hub")
    return f"{folder.rstrip('/')}/dataset_info.json"


def _trackers(value: Any) -> Any:
    names = tuple(name for name in _names(value) if name != "none")
    if not set(names) <= {"tensorboard", "wandb", "trackio"}:
        raise UnfitError("it names a tracker other than tensorboard, wandb and trackio")
    return names


_EVERY_EPOCH = {"epoch": "epoch"}
_MISSPELT = 0.85
"""Likeness to a key from which on an unknown one is taken for it."""
_SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "polynomial", "inverse_sqrt")
_OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf"), "adamw"),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit"), "adamw_8bit"),
    "paged_adamw_8bit": "paged_adamw_8bit",
}
_ATTENTION = {"auto": "sdpa", "sdpa": "sdpa", "disabled": "eager", "fa2": "flash_attention_2"}
_TEMPLATES = {
    **{name: name for name in ("alpaca", "chatml", "gemma", "llama3", "mistral", "qwen3")},
    "qwen": "qwen2",
    "qwen3_nothink": "qwen3",
    "gemma2": "gemma",
}


def _projection(prefix: str) -> dict[str, tuple[str, Convert]]:
    """Return the keys that GaLore and APOLLO have in common."""
    return {
        f"{prefix}_target": ("method.target_modules", _parts),
        f"{prefix}_rank": ("method.rank", _whole),
        f"{prefix}_update_interval": ("method.refresh_interval", _whole),
        f"{prefix}_scale": ("method.scale", _number),
        f"{prefix}_proj_type": ("method.side", _choice(SIDES, f"the sides are {', '.join(SIDES)}")),
        f"{prefix}_layerwise": ("method.update", _switch("in_backward")),
    }


CARRIED: dict[str, tuple[str, Convert]] = {
    "model_name_or_path": ("model.model_name_or_path", _text),
    "model_revision": ("model.revision", _text),
    "adapter_name_or_path": ("model.adapter_name_or_path", _single),
    "flash_attn": ("model.attn_implementation", _choice(_ATTENTION, "subspace has sdpa, eager and flash_attention_2")),
    "quantization_bit": (
        "model.quantization",
        _choice({4: "nf4", 8: "int8"}, "subspace quantizes to 4 (nf4) or 8 bits"),
    ),
    "double_quantization": ("model.double_quantization", _flag),
    "pure_bf16": ("model.dtype", _switch("bfloat16")),
    "template": ("model.chat_template", _choice(_TEMPLATES, "the tokenizer's own chat template is used")),
    "dataset_dir": ("data.dataset_info", _dataset_info),
    "cutoff_len": ("data.max_length", _whole),
    "max_samples": ("data.max_train_samples", _positive),
    "val_size": ("data.validation_fraction", _share),
    "train_on_prompt": ("data.loss_on", _switch("all")),
    "packing": ("data.packing", _switch(True)),
    "neat_packing": ("data.packing", _switch(True)),
    "lora_rank": ("method.rank", _whole),
    "lora_alpha": ("method.alpha", _number),
    "lora_dropout": ("method.dropout", _number),
    "lora_target": ("method.target_modules", _targets),
    "use_rslora": ("method.rslora", _switch(True)),
    "loraplus_lr_ratio": ("method.lora_plus_ratio", _number),
    "pissa_iter": ("method.niter", _positive),
    **_projection("galore"),
    **_projection("apollo"),
    "apollo_proj": ("method.basis", _choice({"random": "random", "svd": "svd"}, "subspace has random and svd")),
    "per_device_train_batch_size": ("training.per_device_train_batch_size", _whole),
    "per_device_eval_batch_size": ("training.per_device_eval_batch_size", _whole),
    "gradient_accumulation_steps": ("training.gradient_accumulation_steps", _whole),
    "learning_rate": ("training.learning_rate", _number),
    "num_train_epochs": ("training.num_train_epochs", _whole),
    "max_steps": ("training.max_steps", _positive),
    "lr_scheduler_type": (
        "training.lr_scheduler_type",
        _choice({name: name for name in _SCHEDULES}, f"subspace has the schedules {', '.join(_SCHEDULES)}"),
    ),
    "warmup_ratio": ("training.warmup_ratio", _number),
    "warmup_steps": ("training.warmup_steps", _whole),
    "weight_decay": ("training.weight_decay", _number),
    "adam_beta1": ("training.adam_beta1", _number),
    "adam_beta2": ("training.adam_beta2", _number),
    "adam_epsilon": ("training.adam_epsilon", _number),
    "max_grad_norm": ("training.max_grad_norm", _number),
    "optim": ("training.optim", _choice(_OPTIMIZERS, "subspace has AdamW, its 8-bit form and its paged 8-bit form")),
    "seed": ("training.seed", _whole),
    "bf16": ("training.mixed_precision", _switch("bf16")),
    "fp16": ("training.mixed_precision", _switch("fp16")),
    "disable_gradient_checkpointing": ("training.gradient_checkpointing", lambda value: not _flag(value)),
    "eval_steps": ("training.eval_steps", _positive),
    "eval_strategy": ("training.eval_steps", _choice(_EVERY_EPOCH, "eval_steps alone says when to evaluate")),
    "evaluation_strategy": ("training.eval_steps", _choice(_EVERY_EPOCH, "eval_steps alone says when to evaluate")),
    "save_steps": ("training.save_steps", _positive),
    "save_strategy": ("training.save_steps", _choice(_EVERY_EPOCH, "save_steps alone says when to save")),
    "save_total_limit": ("training.save_total_limit", _kept),
    "logging_steps": ("training.logging_steps", _positive),
    "load_best_model_at_end": ("training.load_best_at_end", _switch(True)),
    "early_stopping_steps": ("training.early_stopping_patience", _positive),
    "output_dir": ("training.output_dir", _text),
    "report_to": ("training.report_to", _trackers),
    "max_new_tokens": ("evaluation.max_new_tokens", _positive),
}
"""LLaMA-Factory's key to ours, dotted, and the conversion of its value."""

DEFAULTS: dict[str, Any] = {
    "dataset_dir": "data",
    "cutoff_len": 2048,
    "lora_rank": 8,
    "lora_target": "all",
    "pissa_iter": 16,
    "galore_rank": 16,
    "galore_scale": 2.0,
    "apollo_rank": 16,
    "apollo_scale": 32.0,
    "learning_rate": 5e-5,
    "num_train_epochs": 3,
    "lr_scheduler_type": "linear",
    "disable_gradient_checkpointing": False,
}
"""What LLaMA-Factory does where a file says nothing and subspace would do something else."""

_LATER = "no method of this version; the recipe trains without it"
_OTHER_STAGE = "it belongs to another stage than sft"
_MEDIA = "subspace trains on text only"
_GENERATION = "evaluation answers greedily"
_DISTRIBUTED = "this version trains on one device"
_LOSS = "the loss is plain cross-entropy"

METHODS = {
    "use_dora": ("dora", "lora"),
    "pissa_init": ("pissa", "lora"),
    "use_galore": ("galore", "full"),
    "use_apollo": ("apollo", "full"),
}
"""Switches that stand for a method, and the finetuning_type that has them."""

_LORAS = ("lora", "dora", "pissa")
_OF_GALORE = tuple(key for key in CARRIED if key.startswith("galore_"))
_OF_APOLLO = tuple(key for key in CARRIED if key.startswith("apollo_"))
ONLY_FOR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lora_rank", "lora_alpha", "lora_dropout", "lora_target"), _LORAS),
    **dict.fromkeys(("use_rslora", "loraplus_lr_ratio"), ("lora",)),
    "pissa_iter": ("pissa",),
    **dict.fromkeys(_OF_GALORE, ("galore",)),
    **dict.fromkeys(_OF_APOLLO, ("apollo", "apollo_mini")),
}
"""The methods that have a place for a key of `method`."""

_NARROW = dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit"), ("method.state_bits", 8))
OWN_OPTIM: dict[str, dict[str, tuple[str, Any]]] = {
    "galore": {**_NARROW, "adafactor": ("method.rule", "adafactor")},
    "apollo": {},
    "apollo_mini": {},
}
"""Methods that bring their own optimizer, and what other values of `optim` than AdamW mean beside them."""

REASONS: dict[str, str] = {
    "do_eval": "`subspace evaluate` does that",
    "do_predict": "`subspace predict` does that",
    "predict_with_generate": "evaluation generates when its metrics need answers",
    "overwrite_output_dir": "a run folder is never overwritten; give each run its own",
    "overwrite_cache": "there is no cache of rows to go stale",
    "resume_from_checkpoint": "`subspace resume` continues a run exactly",
    "plot_loss": "every run draws its loss curve",
    "save_only_model": "checkpoints always hold all that an exact resume needs",
    "trust_remote_code": "no code of a model repository is ever run",
    "eval_dataset": "name a file or a split of data.source under data.validation",
    "logging_strategy": "logging_steps alone says when to log",
    "quantization_method": "bitsandbytes is used",
    "quantization_type": "4-bit weights are nf4",
    "gradient_checkpointing": "LLaMA-Factory decides this by disable_gradient_checkpointing",
    "use_reentrant_gc": "gradient checkpointing is non-reentrant",
    "pissa_convert": "pissa is always exported as a plain LoRA",
    "additional_target": "only the adapter is trained",
    "create_new_adapter": "without model.adapter_name_or_path the adapter is new",
    "mask_history": "every answer of a conversation counts in the loss",
    "streaming": "rows are read whole, so that a run can be repeated and resumed exactly",
    "tokenized_path": "rows are tokenized at the start of each run",
    "preprocessing_num_workers": "rows are tokenized in one process",
    "preprocessing_batch_size": "rows are tokenized in one process",
    "dataloader_num_workers": "batches need no worker processes",
    "ddp_timeout": _DISTRIBUTED,
    "deepspeed": _DISTRIBUTED,
    "apollo_scale_front": "nothing reads it in LLaMA-Factory either",
    "use_badam": f"BAdam is {_LATER}",
    "use_adam_mini": f"Adam-mini is {_LATER}",
    "use_muon": f"Muon is {_LATER}",
    "use_llama_pro": f"LLaMA Pro is {_LATER}",
    "loraplus_lr_embedding": "embeddings get no adapter",
    "use_swanlab": "trackers are tensorboard, wandb and trackio",
    "run_name": "a run is named by its folder",
    "data_seed": "the order of the data comes from training.seed",
    "num_beams": _GENERATION,
    "do_sample": _GENERATION,
    "temperature": _GENERATION,
    "top_p": _GENERATION,
    "top_k": _GENERATION,
    "compute_accuracy": "name it under evaluation.metrics",
    "cache_dir": "set HF_HOME in the environment",
    "use_fast_tokenizer": "the fast tokenizer is used",
    "remove_unused_columns": "columns that no format names are never read",
}
_PREFIXES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("badam_",), f"BAdam is {_LATER}"),
    (("oft_", "module_dropout"), f"OFT is {_LATER}"),
    (("freeze_trainable_", "freeze_extra_"), "it belongs to finetuning_type freeze"),
    (("pref_", "dpo_", "kto_", "ppo_", "simpo_", "ref_model", "reward_model", "ld_alpha"), _OTHER_STAGE),
    (("image_", "video_", "audio_", "media_dir", "freeze_vision", "freeze_multi_modal", "crop_to_"), _MEDIA),
    (("fsdp", "ddp_", "ray_", "use_mca", "tensor_model_", "pipeline_model_", "expert_model_"), _DISTRIBUTED),
    (("context_parallel", "sequence_parallel", "overlap_", "use_distributed_"), _DISTRIBUTED),
    (("use_dft", "use_eaft", "eaft_", "use_asft", "asft_"), _LOSS),
    (("fp8",), "mixed precision is bf16 or fp16"),
    (("use_kt", "kt_"), "KTransformers is not used"),
    (("swanlab_",), "trackers are tensorboard, wandb and trackio"),
    (("export_",), "`subspace export` takes it on the command line"),
    (("vllm_", "sglang_", "infer_"), "subspace does not serve models"),
    (("push_to_hub", "hub_"), "subspace uploads nothing"),
)


def reason_for(key: str) -> str:
    """Return why a key that is not in `CARRIED` has no place in a recipe."""
    if key in REASONS:
        return REASONS[key]
    known = next((reason for prefixes, reason in _PREFIXES if key.startswith(prefixes)), None)
    close = difflib.get_close_matches(key, CARRIED, n=1, cutoff=_MISSPELT)
    return known or ("subspace has no such setting" + (f"; did you mean {close[0]!r}?" if close else ""))

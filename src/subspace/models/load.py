"""From the `model` section of a recipe to config, tokenizer and model, with every file checked on the way.

Only data is read: the config reaches transformers as a cleaned mapping, weights are safetensors whose headers were
checked, and no option that would run code from a model folder is ever set. Torch and transformers are imported inside
the functions. What a reader should know but need not act on is appended to `notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from subspace.models.architecture import (
    attention_kernel,
    build_meta,
    config_from_folder,
    held_dtype,
    load_config,
    meta_model,
    model_class,
    set_labels,
)
from subspace.models.config import ModelConfig
from subspace.models.quiet import quiet
from subspace.models.sources import ModelSource, fetch, fingerprint, localize, resolve
from subspace.models.tokenizer import load_tokenizer
from subspace.models.verify import weight_files
from subspace.models.weights import check_finite, check_loaded, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel
    from transformers.configuration_utils import PreTrainedConfig

__all__ = [
    "ModelSource",
    "fetch",
    "fingerprint",
    "load_config",
    "load_model",
    "load_tokenizer",
    "localize",
    "meta_model",
    "resolve",
]


def load_model(
    config: ModelConfig,
    *,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | None = None,
    device: str = "cpu",
    notes: list[str] | None = None,
) -> PreTrainedModel:
    """Return the base model with verified weights, in evaluation mode, on `device`.

    Args:
        config: The `model` section.
        num_labels: Classes of a classification model; its head is new unless the weights hold one, and then depends on
            torch's random state, which the caller has seeded.
        id2label: Names of the classes.
        device: A torch device.
        notes: Receives what was left out or made new.

    Raises:
        CheckpointError: E-CKP-002 unreadable file, E-CKP-004 values that are not finite, E-CKP-005 tensors missing,
            unexpected or of another shape, E-CKP-010 missing.
        SecurityError: E-SEC-003, E-SEC-004, E-SEC-006.
        ConfigError: E-CFG-014 if the model has no such task; E-CFG-020 if a package is missing.
        MethodError: E-MTH-001 if the device cannot hold quantized weights.
    """
    from subspace.models import quantized

    folder = fetch(resolve(config))
    model_config = config_from_folder(folder, config, notes)
    auto_class = model_class(config, model_config)
    files = weight_files(folder)
    for path in files:
        read_header(path)
    set_labels(model_config, num_labels, id2label)
    options = _loading_options(config, auto_class, model_config, files, device, notes)
    model, info = _read(auto_class, folder, model_config, options)
    found = check_loaded(model, info, new_head=config.task == "classification", where=str(folder))
    if config.quantization != "none":
        quantized.steady(model)
    check_finite((*model.named_parameters(), *model.named_buffers()), str(folder))
    if config.trained_weights == "int8":
        found = (*found, *_held_as_int8(model, device))
    if notes is not None:
        notes.extend(found)
    if config.task == "classification" and model.config.pad_token_id is None:
        model.config.pad_token_id = load_tokenizer(config).pad_token_id
    # The run and its adapter keep the name that the recipe gives, wherever the weights were read.
    model.name_or_path = model.config.name_or_path = config.model_name_or_path
    loaded: PreTrainedModel = model
    return loaded


def _read(auto_class: Any, folder: Path, model_config: PreTrainedConfig, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the model and what transformers says of its tensors; safetensors alone, and no code of the folder."""
    with quiet():
        model, info = auto_class.from_pretrained(
            str(folder),
            config=model_config,
            dtype=held_dtype(model_config),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    return model, info


def _held_as_int8(model: Any, device: str) -> tuple[str, ...]:
    """Turn trained weights into codes before they go to the device, which then never holds the plain ones."""
    from subspace.models.int8_modules import int8_notes, store_int8

    notes = int8_notes(model, store_int8(model))
    model.to(device)
    return notes


def _loading_options(
    config: ModelConfig,
    auto_class: Any,
    model_config: PreTrainedConfig,
    files: Sequence[Path],
    device: str,
    notes: list[str] | None,
) -> dict[str, Any]:
    """Return what `from_pretrained` is told of kernel, storage and device."""
    from subspace.models import quantized

    options: dict[str, Any] = {"attn_implementation": attention_kernel(config, auto_class, model_config, notes)}
    if config.quantization != "none":
        quantized.require_backend(config.quantization, device)
        quantized.check_finite_files(files)
        skipped = quantized.left_alone(build_meta(config, model_config))
        settings = quantized.bitsandbytes_settings(config, skipped, held_dtype(model_config))
        options["quantization_config"] = settings
    if config.quantization != "none" or (device != "cpu" and config.trained_weights == "as_stored"):
        options["device_map"] = {"": device}
    return options

"""The one way to PEFT: attach, save, load and fold an adapter.

What PEFT leaves open is decided here: modules are named in full, the backward pass stops below the lowest adapter, the
same adapter gives the same bytes, and nothing is looked up on the network.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from subspace.adapters.specs import ADAPTER, head_modules
from subspace.core.errors import CheckpointError, MethodError, NotMergeableError, SecurityError
from subspace.plan.shapes import Placement

__all__ = [
    "adapter_layers",
    "adapter_tensors",
    "attach",
    "continue_adapter",
    "export_adapter",
    "is_quantized",
    "keep_int8_scales",
    "load_adapter",
    "merge_adapter",
    "read_matching_adapter",
    "task_type",
    "write_adapter",
]

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_DECIDING = ("peft_type", "use_dora", "use_rslora", "lora_alpha", "alpha_pattern")
"""Keys of an adapter's config that change its function without changing a tensor's shape."""


def attach(
    model: nn.Module, kind: str | type, options: Mapping[str, Any], placements: Iterable[Placement] = ()
) -> nn.Module:
    """Wrap `model` with a PEFT adapter and return the PeftModel; only what is trained requires gradients.

    Args:
        model: A transformers model.
        kind: Name of a PEFT config class, e.g. `LoraConfig`, or a class, whose options then say the ranks.
        options: Its arguments, without task and targets.
        placements: Modules to adapt, by full name; empty for prompt methods.

    Raises:
        MethodError: E-MTH-001 if PEFT did not adapt exactly the placed modules with their ranks.
    """
    import peft

    placements = tuple(placements)
    arguments = {**options, "task_type": task_type(model), **_targets(model, kind, placements)}
    if arguments["task_type"] == "SEQ_CLS":
        arguments["modules_to_save"] = list(head_modules(name for name, _ in model.named_parameters()))
    config = (getattr(peft, kind) if isinstance(kind, str) else kind)(**arguments)
    # Under checkpointing transformers and PEFT each make the embeddings' output require gradients, which sends the
    # backward pass to the bottom of the model; non-reentrant checkpointing does not need it. PEFT's hook hides the
    # first one, hence twice.
    base: Any = model
    base.disable_input_require_grads()
    keep_int8_scales(model)
    with torch.random.fork_rng(devices=_cuda_devices(model)), _quiet():
        attached: nn.Module = peft.get_peft_model(model, config)
    base.disable_input_require_grads()
    _check_placed(attached, placements, ranks=isinstance(kind, str))
    return attached


def adapter_layers(model: nn.Module) -> dict[str, Any]:
    """Return PEFT's layers by the name that the adapted module has in the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)
    }


def task_type(model: nn.Module) -> str:
    """Return PEFT's name of what the model does."""
    config: Any = model.config
    if type(model).__name__.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"


def is_quantized(model: nn.Module) -> bool:
    """Return whether the frozen linear weights are stored in 8 or 4 bits."""
    return any(getattr(model, key, False) for key in ("is_quantized", "is_loaded_in_8bit", "is_loaded_in_4bit"))


def load_adapter(base: nn.Module, folder: Path) -> nn.Module:
    """Put a trained adapter on its base for answering; nothing of it is trained.

    Raises:
        CheckpointError: E-CKP-005 if it does not fit `base`, E-CKP-010 if there is none.
        SecurityError: E-SEC-006 if its weights are a pickle.
    """
    from peft import PeftModel

    tensors = _read_tensors(folder)
    try:
        with _quiet():
            loaded: nn.Module = PeftModel.from_pretrained(base, str(folder))
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            "E-CKP-005",
            where=str(folder),
            found=f"an adapter that does not fit {type(base).__name__} ({str(error).splitlines()[0][:200]})",
            expected="an adapter of this model",
        ) from error
    _refuse_differing(adapter_tensors(loaded), tensors, folder)
    return loaded


def merge_adapter(model: nn.Module) -> nn.Module:
    """Put the adapter into the weights of its base and return the plain base model.

    Raises:
        NotMergeableError: E-CKP-008 if there is no adapter (any more), the adapter changes no weights, or the base is
            quantized.
    """
    from peft import PeftModel

    where, action = type(model).__name__, "Keep the adapter, or fold it onto the unquantized base."
    if not isinstance(model, PeftModel):
        raise NotMergeableError("E-CKP-008", where=where, found="no adapter, or it is folded already")
    if model.active_peft_config.is_prompt_learning:
        raise NotMergeableError("E-CKP-008", where=where, found="virtual tokens, which change no weight", action=action)
    if is_quantized(model.get_base_model()):
        found = "a quantized base, whose weights cannot hold the adapter exactly"
        raise NotMergeableError("E-CKP-008", where=where, found=found, action=action)
    folded: nn.Module = model.merge_and_unload(progressbar=False)
    return folded


def export_adapter(model: nn.Module, folder: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Write the adapter as the folder that `PeftModel.from_pretrained` reads.

    Args:
        model: What `attach` returned.
        folder: An existing folder.
        changes: Keys of PEFT's config that the written one has otherwise than the live one.
    """
    live: Any = model
    write_adapter(folder, adapter_tensors(model), live.peft_config[ADAPTER].to_dict() | dict(changes or {}))


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what an adapter's file holds, under the names it has there."""
    from peft import get_peft_model_state_dict

    live: Any = model
    config = live.peft_config[ADAPTER]
    pattern = getattr(config, "rank_pattern", None)
    # a state dict that is handed over is not looked up on the hub and may hold AdaLoRA's modules of rank 0
    every = live.state_dict()
    tensors: dict[str, Tensor] = get_peft_model_state_dict(live, state_dict=every, save_embedding_layers=False)
    config.rank_pattern = pattern  # PEFT renames its keys meanwhile
    return tensors


def write_adapter(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write tensors and config of an adapter; the same adapter gives the same bytes."""
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in sorted(tensors.items())}
    save_file(plain, folder / _WEIGHTS, metadata={"format": "pt"})
    listed: dict[str, Any] = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    listed["inference_mode"] = True
    if float(listed.get("lora_alpha") or 0.5).is_integer():
        listed["lora_alpha"] = int(listed["lora_alpha"])  # other readers of adapters want it whole
    (folder / _CONFIG).write_text(json.dumps(listed, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")


def continue_adapter(model: nn.Module, folder: Path) -> None:
    """Copy a trained adapter into the adapter of the same kind that `model` has just got, to go on training it.

    Raises:
        CheckpointError: E-CKP-005 if names or shapes differ, E-CKP-006 if it is of another kind, E-CKP-010 if absent.
        SecurityError: E-SEC-006 if the weights are a pickle.
    """
    from peft import set_peft_model_state_dict

    live: Any = model
    tensors = read_matching_adapter(folder, live.peft_config[ADAPTER].to_dict(), adapter_tensors(model))
    set_peft_model_state_dict(live, tensors)


def read_matching_adapter(folder: Path, config: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a trained adapter of the kind of `config`, with the names and shapes of `wanted`.

    Raises:
        CheckpointError: E-CKP-005 if names or shapes differ, E-CKP-006 if it is of another kind, E-CKP-010 if absent.
        SecurityError: E-SEC-006 if the weights are a pickle.
    """
    tensors, saved = _read_tensors(folder), json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    own = json.loads(json.dumps(config, default=sorted))
    differing = [key for key in _DECIDING if (saved.get(key) or None) != (own.get(key) or None)]
    if differing:
        raise CheckpointError(
            "E-CKP-006",
            where=str(folder / _CONFIG),
            found=", ".join(f"{key} {saved.get(key)!r}" for key in differing),
            expected=", ".join(f"{key} {own.get(key)!r}" for key in differing),
            action="Set method to what the adapter was trained with.",
        )
    _refuse_differing(wanted, tensors, folder)
    return tensors


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back PEFT's warnings of its own calls, of patterns that it does use, and of what is an error here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "lora with eva initialization used", UserWarning)
        warnings.filterwarnings("ignore", "The following rank_pattern keys did not match", RuntimeWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        yield


def keep_int8_scales(model: Any) -> None:
    """Let int8 layers move their scales into their state now, and only once.

    PEFT's DoRA reads the weight before the first forward pass and, on a CPU, puts a copy without scales in its place at
    every pass; bitsandbytes would then overwrite the state's scales with nothing.
    """
    for module in model.modules():
        if hasattr(module, "init_8bit_state"):
            module.init_8bit_state = MethodType(_move_scales, module)
            module.init_8bit_state()


def _move_scales(module: Any) -> None:
    if module.weight.SCB is None:
        module.weight.CB = None
    else:
        type(module).init_8bit_state(module)


def _targets(model: nn.Module, kind: str | type, placements: tuple[Placement, ...]) -> dict[str, Any]:
    """Return the arguments that say which module gets which rank."""
    if not placements:
        return {}
    targets: dict[str, Any] = {"target_modules": [placement.module for placement in placements]}
    if not all(isinstance(model.get_submodule(placement.module), nn.Linear) for placement in placements):
        targets["fan_in_fan_out"] = True  # transformers' Conv1D
    ((usual, _),) = Counter(placement.rank for placement in placements).most_common(1)
    if kind == "LoraConfig":
        others = {placement.module: placement.rank for placement in placements if placement.rank != usual}
        targets |= {"r": usual, "rank_pattern": others}
    elif kind == "AdaLoraConfig":
        targets["init_r"] = usual
    return targets


def _check_placed(model: nn.Module, placements: tuple[Placement, ...], *, ranks: bool) -> None:
    wanted = {placement.module: placement.rank if ranks else 0 for placement in placements}
    layers = adapter_layers(model)
    found = {name: getattr(layer, "r", {}).get(ADAPTER, 0) if ranks else 0 for name, layer in layers.items()}
    if found != wanted:
        differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise MethodError(
            "E-MTH-001",
            where=f"PEFT at {differing[0]}",
            found=f"rank {found.get(differing[0], 'none')} and {len(differing) - 1} more differences",
            expected=f"rank {wanted.get(differing[0], 'none')} as planned",
        )


def _cuda_devices(model: nn.Module) -> list[int]:
    devices = {parameter.device for parameter in model.parameters()}
    return sorted(device.index or 0 for device in devices if device.type == "cuda")


def _refuse_differing(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path) -> None:
    wrong = sorted(wanted.keys() ^ tensors.keys()) + sorted(
        name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape
    )
    if wrong:
        raise CheckpointError(
            "E-CKP-005",
            where=str(folder),
            found=f"{len(wrong)} tensors missing, unexpected or of another shape ({', '.join(wrong[:5])})",
            expected="exactly the tensors of the adapter's config and of this model",
            action="Set method.rank and method.target_modules to what the adapter was trained with.",
        )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if (folder / _WEIGHTS).is_file() and (folder / _CONFIG).is_file():
        tensors: dict[str, Tensor] = load_file(folder / _WEIGHTS)
        return tensors
    if (folder / "adapter_model.bin").exists():
        raise SecurityError(
            "E-SEC-006",
            where=str(folder / "adapter_model.bin"),
            found="adapter weights in a format that can carry code",
            expected=_WEIGHTS,
            action="Convert it to safetensors where you trust it.",
        )
    raise CheckpointError("E-CKP-010", where=str(folder), found="no PEFT adapter", expected=f"{_CONFIG} and {_WEIGHTS}")

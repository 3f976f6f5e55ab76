"""Frozen linear weights in 8 or 4 bits through bitsandbytes, counted to the byte before and after they exist.

int8 keeps a row-wise scale (LLM.int8()); nf4 keeps one scale per 64 values, with double quantization in 8 bits again.
The head, tied weights and what a task trains anew stay as they are. References: Dettmers et al. 2022, arXiv 2208.07339;
Dettmers et al. 2023, arXiv 2305.14314. Imports no torch at its top.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.core.errors import ConfigError, MethodError
from subspace.models.config import ModelConfig
from subspace.models.weights import check_finite
from subspace.plan.shapes import TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "bitsandbytes_settings",
    "check_finite_files",
    "dequantized_weight",
    "left_alone",
    "quantized_modules",
    "require_backend",
    "steady",
    "stored_bytes",
    "stored_tensors",
    "unquantized",
    "weight_bytes",
]

_BLOCK = 64
_NESTED_BLOCK = 256
_NOISE = ("MatMul8bitLt: inputs will be cast", "Failed to load CPU gemm_4bit_forward")


def stored_tensors(weight: TensorSpec, quantization: str, double_quantization: bool = True) -> tuple[TensorSpec, ...]:
    """Return the tensors that hold one quantized weight, under names below the weight's own.

    Formula, for a weight of n values: int8 n + 4 rows; nf4 ceil(n/2) + 64 for its code + 4 ceil(n/64), or with double
    quantization ceil(n/64) + 4 ceil(ceil(n/64)/256) + 1024 for the second code + 4 for the offset (bytes).

    Args:
        weight: The weight as it would be without quantization, shape (m, n).
        quantization: `none`, `int8` or `nf4`.
        double_quantization: With nf4: the scales are quantized as well.

    >>> sum(t.num_bytes for t in stored_tensors(TensorSpec("w", (64, 64)), "int8"))
    4352
    """
    name, count = weight.name, weight.num_elements
    if quantization == "none":
        return (weight,)
    if quantization == "int8":
        return (TensorSpec(name, weight.shape, "int8"), TensorSpec(f"{name}.SCB", weight.shape[:1]))
    blocks = -(-count // _BLOCK)
    packed = (TensorSpec(name, (-(-count // 2), 1), "uint8"), TensorSpec(f"{name}.quant_map", (16,)))
    if not double_quantization:
        return (*packed, TensorSpec(f"{name}.absmax", (blocks,)))
    return (
        *packed,
        TensorSpec(f"{name}.absmax", (blocks,), "uint8"),
        TensorSpec(f"{name}.nested_absmax", (-(-blocks // _NESTED_BLOCK),)),
        TensorSpec(f"{name}.nested_quant_map", (256,)),
        TensorSpec(f"{name}.nested_offset", ()),
    )


def stored_bytes(weight: TensorSpec, quantization: str, double_quantization: bool = True) -> int:
    """Return the bytes of `stored_tensors`."""
    return sum(tensor.num_bytes for tensor in stored_tensors(weight, quantization, double_quantization))


def left_alone(model: nn.Module) -> tuple[str, ...]:
    """Return the modules that keep their type: head, tied weights, new task layers, and what must stay in float32.

    Reads names alone, so a model on the meta device will do.
    """
    from transformers.quantizers.base import get_keys_to_not_convert

    names = set(get_keys_to_not_convert(model)) | set(getattr(model, "_keep_in_fp32_modules", None) or ())
    body = str(getattr(model, "base_model_prefix", ""))
    if type(model).__name__.endswith("ForSequenceClassification") and hasattr(model, body):
        # Whatever lies beside the body is made anew for the task and trained, which codes cannot be.
        names |= {name for name, _ in model.named_children() if name != body}
        names |= {f"{body}.{name}" for name, _ in getattr(model, body).named_children() if name == "pooler"}
    return tuple(sorted(names))


def quantized_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the linear modules of a plain model whose weights would be quantized, in the model's order."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    skipped = list(left_alone(model))
    return tuple(
        name
        for name, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, skipped)
    )


def require_backend(quantization: str, device: str) -> None:
    """Check that bitsandbytes is there and can work on `device`.

    Raises:
        ConfigError: E-CFG-020 if it is not installed.
        MethodError: E-MTH-001 if the device has no kernels.
    """
    _silence()
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise ConfigError(
            "E-CFG-020",
            where="model.quantization",
            found=f"{quantization} needs bitsandbytes, which is not installed",
            action="Install it: pip install 'subspace-ft[quantized]'.",
        ) from None
    if device.partition(":")[0] not in ("cpu", "cuda", "xpu"):
        raise MethodError(
            "E-MTH-001",
            where="model.quantization",
            found=f"{quantization} on {device}: bitsandbytes has no kernels for it",
            expected="cpu, cuda or xpu",
            action="Set model.quantization: none, or another training.device.",
        )


def bitsandbytes_settings(config: ModelConfig, skipped: tuple[str, ...], dtype: torch.dtype) -> Any:
    """Return the BitsAndBytesConfig of a `model` section.

    Args:
        config: The section.
        skipped: Names of the modules left alone.
        dtype: Type that 4-bit weights are multiplied in: the one the other weights are held in.
    """
    from transformers import BitsAndBytesConfig

    if config.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(skipped))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=config.double_quantization,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(skipped),
    )


def steady(model: nn.Module) -> None:
    """Keep what is stored as it is for the life of the model, whatever passes through it.

    bitsandbytes changes frozen tensors in two places, which would change their bytes, and a resumed run:
    on processors with AVX512-BF16 it repacks 4-bit weights at the first evaluation, in place and with rounded scales
    (and fails where a row is not a multiple of 64); and an 8-bit layer turns its bias into the type of whatever input
    comes, which under mixed precision is a narrower one. The first is switched off per module; for the second the
    input is brought to the type of the bias instead.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt) and module.bias is not None:
            module.register_forward_pre_hook(_in_type_of_bias)


def _in_type_of_bias(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    bias: Tensor = module.bias  # type: ignore[assignment]  # nn.Module types its attributes loosely
    return (inputs[0].to(bias.dtype), *inputs[1:])


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of every parameter of a live model with all that belongs to those held as codes, shared once."""
    storages: dict[int, int] = {}
    for tensor in _held(model):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = max(storage.nbytes(), storages.get(storage.data_ptr(), 0))
    return sum(storages.values())


def dequantized_weight(module: nn.Module) -> Tensor:
    """Return the weight that a linear module acts with, (m, n), dequantized where it is stored in codes."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    weight: Tensor = module.weight  # type: ignore[assignment]  # nn.Module types its attributes loosely
    result: Tensor = dequantize_bnb_weight(weight, getattr(module, "state", None))
    return result.detach()


def unquantized(config: ModelConfig) -> ModelConfig:
    """Return the section that loads the same base with plain weights, onto which a method is exported."""
    return config.model_copy(update={"quantization": "none"})


def check_finite_files(files: Iterable[Path]) -> None:
    """Check weights before they become codes, which hide values that are not finite.

    Raises:
        CheckpointError: E-CKP-004.
    """
    from safetensors import safe_open

    for path in files:
        with safe_open(str(path), framework="pt") as stream:
            check_finite(((name, stream.get_tensor(name)) for name in stream.keys()), str(path))  # noqa: SIM118


def _held(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        yield parameter
        stored = getattr(parameter, "stored", None)
        if stored is not None:  # a trained weight that is held as codes
            yield from stored.buffers()
        scales = getattr(parameter, "SCB", None)
        if scales is not None:
            yield scales
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            yield from (value for value in (state.absmax, state.code, state.offset) if value is not None)
            state = state.state2
    for module in model.modules():
        # int8 moves its scales from the weight to the module at the first forward pass.
        scales = getattr(getattr(module, "state", None), "SCB", None)
        if scales is not None:
            yield scales


class _Noise(logging.Filter):
    """Drops two messages that say nothing a user could act on, one of them at every call."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOISE)


_FILTER = _Noise()


def _silence() -> None:
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).addFilter(_FILTER)

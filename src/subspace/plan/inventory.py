"""The base model as a list of shapes, read from the meta device. Imports torch only inside functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.plan.shapes import Inventory, ModuleKind, ModuleShape, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["module_shapes", "take_inventory"]


def take_inventory(model: nn.Module, *, task: str, quantization: str = "none") -> Inventory:
    """Return the shapes of a transformers model as its class builds it, before any method touches it.

    Args:
        model: On the meta device; weights are not looked at.
        task: `causal_lm`, `classification` or `seq2seq`.
        quantization: How the run will store the frozen linear weights.
    """
    full: Any = model.config
    config = full.get_text_config(decoder=True)
    num_heads = int(config.num_attention_heads)
    head_dim = getattr(config, "head_dim", None) or getattr(config, "d_kv", None) or config.hidden_size // num_heads
    return Inventory(
        model_type=str(full.model_type),
        task=task,
        modules=module_shapes(model),
        # torch names a shared tensor once, by the first module that holds it.
        tensors=tuple(_spec(name, tensor) for name, tensor in model.named_parameters()),
        num_layers=int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        num_attention_heads=num_heads,
        num_key_value_heads=int(getattr(config, "num_key_value_heads", None) or num_heads),
        head_dim=int(head_dim),
        vocab_size=int(config.vocab_size),
        num_labels=int(full.num_labels) if task == "classification" else 0,
        is_encoder_decoder=bool(full.is_encoder_decoder),
        quantization=quantization,
        buffers=tuple(_spec(name, tensor) for name, tensor in model.named_buffers()),
    )


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def module_shapes(model: nn.Module) -> tuple[ModuleShape, ...]:
    """Return the modules of any model that own parameters, in its order."""
    stacks = _stacks(model)
    seen: set[int] = set()
    shapes = []
    for name, module in model.named_modules():
        owned = {key: tensor for key, tensor in module._parameters.items() if tensor is not None}
        if not owned:
            continue
        weight = owned.get("weight", next(iter(owned.values())))
        kind, in_features, out_features = _kind(module)
        shapes.append(
            ModuleShape(
                name=name,
                kind=kind,
                in_features=in_features,
                out_features=out_features,
                block=_block(name, stacks),
                tied=id(weight) in seen,
                bias="bias" in owned,
            )
        )
        seen.add(id(weight))
    return tuple(shapes)


def _kind(module: nn.Module) -> tuple[ModuleKind, int, int]:
    """Return (kind, in_features, out_features)."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return "linear", module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return "conv1d", int(module.nx), int(module.nf)
    if isinstance(module, nn.Embedding):
        return "embedding", module.num_embeddings, module.embedding_dim
    # Every model family writes its own RMSNorm; they share nothing but the name.
    if "norm" in type(module).__name__.lower():
        width = int(next(module.parameters(recurse=False)).numel())
        return "norm", width, width
    return "other", 0, 0


def _stacks(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the module lists, outer ones before the lists inside their members."""
    from torch import nn

    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.ModuleList))


def _block(name: str, stacks: tuple[str, ...]) -> int | None:
    """Return the index in the outermost list; T5 keeps a second one inside each block."""
    for stack in stacks:
        if name.startswith(f"{stack}."):
            return int(name.removeprefix(f"{stack}.").partition(".")[0])
    return None

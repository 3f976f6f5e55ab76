"""PEFT adapters that we have no method for, by the import path of their config: attached, counted and traced.

What PEFT would add is counted on a skeleton: the modules of the inventory, without memory, in a tree of empty ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from subspace.adapters import peft_bridge
from subspace.adapters.specs import ADAPTER, head_copies, head_modules
from subspace.core.errors import ConfigError, MethodError
from subspace.core.registry import nearest
from subspace.plan.shapes import Inventory, ModuleShape, Placement, TensorSpec

__all__ = ["adapter_rank", "attach_foreign", "foreign_tensors", "trace_foreign"]

_ARGUMENTS = "method.arguments"
_OURS = {
    "target_modules": "method.target_modules",
    "exclude_modules": "method.exclude_modules",
    "task_type": "model.task",
    "modules_to_save": "model.task",
    "inference_mode": "what a run decides",
    "peft_type": "method.config",
}


def adapter_rank(kind: type, arguments: Mapping[str, Any]) -> int:
    """Return the rank that a config of PEFT has, 0 where it has none.

    Raises:
        ConfigError: E-CFG-014 for an argument that another key gives.
        MethodError: E-MTH-001 if the config cannot be made, or is not one of layers.
    """
    for key in _OURS.keys() & arguments.keys():
        where, found = f"{_ARGUMENTS}.{key}", f"{key} among the arguments"
        raise ConfigError("E-CFG-014", where=where, found=found, action=f"It is {_OURS[key]}.")
    config = _new(kind, arguments, ["layer"])
    if config.is_prompt_learning:
        raise MethodError(
            "E-MTH-001",
            where="method.config",
            found=f"{kind.__name__} puts virtual tokens before the input and adapts no layer",
            action="Use the method prefix or prompt.",
        )
    rank = getattr(config, "r", 0)
    return rank if isinstance(rank, int) else 0


def attach_foreign(
    model: nn.Module, kind: type, arguments: Mapping[str, Any], placements: tuple[Placement, ...]
) -> nn.Module:
    """Wrap `model` and return the PeftModel; only what is trained requires gradients.

    Raises:
        MethodError: E-MTH-001 if PEFT does not adapt exactly the placed modules.
    """
    adapter_rank(kind, arguments)
    try:
        return peft_bridge.attach(model, kind, _plain(arguments), placements)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _refused(kind, error) from error


def foreign_tensors(
    inventory: Inventory, placements: tuple[Placement, ...], kind: type, arguments: Mapping[str, Any]
) -> tuple[TensorSpec, ...]:
    """Return what PEFT adds to a model of these shapes, under the names of the PeftModel's parameters."""
    skeleton = _skeleton(inventory)
    before = {name for name, _ in skeleton.named_parameters()}
    _inject(skeleton, kind, arguments, placements)
    added = []
    for name, parameter in skeleton.named_parameters():
        if name not in before and ".base_layer." not in name:
            # PEFT trains adapters of half-precision models in float32
            spec = TensorSpec(f"base_model.model.{name}", tuple(parameter.shape), trained=parameter.requires_grad)
            added.append(spec)
    return (*added, *head_copies(inventory))


def trace_foreign(
    model: nn.Module, kind: type, arguments: Mapping[str, Any], placements: tuple[Placement, ...]
) -> None:
    """Put PEFT's own layers into a model on the meta device; its new head is opened."""
    heads = head_modules(name for name, _ in model.named_parameters())
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    _inject(model, kind, arguments, placements)
    model.to("meta")
    for name in heads if classifies else ():
        model.get_submodule(name).requires_grad_(True)


def _inject(model: nn.Module, kind: type, arguments: Mapping[str, Any], placements: tuple[Placement, ...]) -> None:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config = _new(kind, arguments, [placement.module for placement in placements])
    tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    try:
        with torch.random.fork_rng(devices=[]):
            tuner(model, config, adapter_name=ADAPTER, low_cpu_mem_usage=True)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _refused(kind, error) from error
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.requires_grad:
            parameter.data = parameter.data.float()


def _new(kind: type, arguments: Mapping[str, Any], modules: list[str]) -> Any:
    """Return a config of PEFT's for these modules.

    Raises:
        MethodError: E-MTH-001 if it cannot be made.
    """
    known = inspect.signature(kind).parameters
    given = {**_plain(arguments), **({"target_modules": modules} if "target_modules" in known else {})}
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise _refused(kind, error, arguments) from error


def _refused(kind: type, error: Exception, arguments: Mapping[str, Any] | None = None) -> MethodError:
    known = inspect.signature(kind).parameters
    wrong = next(iter((arguments or {}).keys() - known.keys()), "")
    close = nearest(wrong, known)
    text = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    action = f"Did you mean {close!r}?" if close else ""
    return MethodError("E-MTH-001", where=_ARGUMENTS, found=f"{kind.__name__}: {text}", action=action)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}


def _skeleton(inventory: Inventory) -> nn.Module:
    """Return a tree of modules with the inventory's names and shapes, without memory."""
    root = nn.Module()
    root.config = {"model_type": inventory.model_type, "hidden_size": inventory.hidden_size}  # type: ignore[assignment]
    kinds = {tensor.name: tensor for tensor in inventory.tensors}
    for shape in inventory.modules:
        spec = kinds.get(f"{shape.name}.weight")
        module = _leaf(shape, getattr(torch, spec.dtype) if spec is not None else torch.float32)
        if module is not None:
            _put(root, shape.name.split("."), module)
    return root.requires_grad_(False)


def _leaf(shape: ModuleShape, dtype: torch.dtype) -> nn.Module | None:
    options: Any = {"device": "meta", "dtype": dtype}
    if shape.kind == "linear":
        return nn.Linear(shape.in_features, shape.out_features, bias=shape.bias, **options)
    if shape.kind == "embedding":
        return nn.Embedding(shape.in_features, shape.out_features, **options)
    if shape.kind == "conv1d":
        from transformers.pytorch_utils import Conv1D

        with torch.device("meta"):
            module: nn.Module = Conv1D(shape.out_features, shape.in_features).to(dtype)
        return module
    return None


def _put(root: nn.Module, path: Iterable[str], module: nn.Module) -> None:
    *parents, last = path
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root._modules[name]  # type: ignore[assignment]  # just put there
    root.add_module(last, module)

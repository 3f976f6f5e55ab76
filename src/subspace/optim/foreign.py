"""Optimizers of other people by their import path: built, measured, and tried for a stop and a resume."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from subspace.core.errors import CheckpointError, ConfigError, MethodError
from subspace.core.registry import nearest
from subspace.optim.groups import decays
from subspace.optim.state_io import pack, unpack
from subspace.plan.shapes import TensorSpec
from subspace.runs.plain_json import require_plain

if TYPE_CHECKING:
    from subspace.optim.settings import OptimizerSettings

__all__ = ["build_foreign", "foreign_class", "foreign_state", "require_resumable"]

_PATH, _ARGUMENTS = "method.optimizer", "method.arguments"
_OURS = {"params": "the model", "lr": "training.learning_rate", "weight_decay": "training.weight_decay"}


def foreign_class(path: str, parent: type, where: str) -> type:
    """Return the class that an import path names.

    Raises:
        ConfigError: E-CFG-018 if there is none; E-CFG-020 if its package is missing.
        MethodError: E-MTH-001 if it is no subclass of `parent`.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        found = f"{module_name} cannot be imported ({error})"
        raise ConfigError("E-CFG-020", where=where, found=found, action="Install its package.") from error
    kind = getattr(module, name, None)
    if kind is None:
        close = nearest(name, vars(module))
        action = f"Did you mean {module_name}.{close}?" if close else ""
        raise ConfigError("E-CFG-018", where=where, found=f"{module_name} has no {name}", action=action)
    if not (isinstance(kind, type) and issubclass(kind, parent)):
        wanted = f"a subclass of {parent.__module__}.{parent.__qualname__}"
        raise MethodError("E-MTH-001", where=where, found=f"{path} is none", expected=wanted)
    return kind


def build_foreign(
    named: Iterable[tuple[str, nn.Parameter]], path: str, arguments: Mapping[str, Any], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """Return the optimizer over every parameter that requires a gradient; its groups carry parameter names.

    Raises:
        ConfigError: E-CFG-018, E-CFG-020 for the path; E-CFG-014 for an argument that the training section gives.
        MethodError: E-MTH-001 if it cannot be made with these arguments, or has no learning rate.
    """
    kind = foreign_class(path, torch.optim.Optimizer, _PATH)
    known = inspect.signature(kind).parameters
    for key in _OURS.keys() & arguments.keys():
        found = f"{key} among the arguments"
        raise ConfigError("E-CFG-014", where=f"{_ARGUMENTS}.{key}", found=found, action=f"It is {_OURS[key]}.")
    if "lr" not in known:
        raise MethodError("E-MTH-001", where=_PATH, found=f"{path} has no argument lr", expected="a learning rate")
    decaying = "weight_decay" in known
    if settings.weight_decay and not decaying:
        found = f"{settings.weight_decay} with {path}, which has no weight decay"
        raise ConfigError("E-CFG-014", where="training.weight_decay", found=found, action="Leave it out.")
    groups: dict[float, tuple[list[str], list[nn.Parameter]]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            decay = settings.weight_decay if decaying and decays(name, parameter) else 0.0
            names, members = groups.setdefault(decay, ([], []))
            names.append(name)
            members.append(parameter)
    # a group's own decay wins over an optimizer's default for it
    given = [
        {"params": members, **({"weight_decay": decay} if decaying else {})} for decay, (_, members) in groups.items()
    ]
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    try:
        optimizer: torch.optim.Optimizer = kind(given, lr=settings.learning_rate, **plain)
    except (TypeError, ValueError) as error:
        close = nearest(next(iter(arguments.keys() - known.keys()), ""), known)
        action = f"Did you mean {close!r}?" if close else f"Its arguments: {', '.join(known)}."
        raise MethodError("E-MTH-001", where=_ARGUMENTS, found=_first_line(error), action=action) from error
    for group, (names, _) in zip(optimizer.param_groups, groups.values(), strict=True):
        group["param_names"] = names
    return optimizer


def foreign_state(
    trained: tuple[TensorSpec, ...], path: str, arguments: Mapping[str, Any], settings: OptimizerSettings
) -> tuple[TensorSpec, ...]:
    """Return the state tensors after the first step, found by a step on tensors without memory.

    Where an optimizer reads numbers off its tensors, which then have none, one weight of every shape is taken for real.

    Raises:
        MethodError: E-MTH-001 if the optimizer cannot step.
    """
    try:
        return _stepped(trained, path, arguments, settings, "meta")
    except MethodError:
        found: dict[tuple[tuple[int, ...], str], tuple[TensorSpec, ...]] = {}
        specs: list[TensorSpec] = []
        for spec in trained:
            key = (spec.shape, spec.dtype)
            if key not in found:
                found[key] = _stepped((spec,), path, arguments, settings, "cpu")
            keys = [(own.name.rpartition(".")[2], own) for own in found[key]]
            specs += [TensorSpec(f"{spec.name}.{name}", own.shape, own.dtype) for name, own in keys]
        return tuple(specs)


def _stepped(
    trained: tuple[TensorSpec, ...], path: str, arguments: Mapping[str, Any], settings: OptimizerSettings, device: str
) -> tuple[TensorSpec, ...]:
    """Return the state tensors that a step on zeros leaves."""
    named = []
    for spec in trained:
        parameter = nn.Parameter(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype), device=device))
        parameter.grad = torch.ones_like(parameter)
        named.append((spec.name, parameter))
    optimizer = build_foreign(named, path, arguments, settings)
    _step(optimizer, path)
    return tuple(
        TensorSpec(f"{name}.{key}", tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, parameter in named
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    )


def require_resumable(path: str, arguments: Mapping[str, Any], settings: OptimizerSettings) -> None:
    """Try a stop and a resume on two small tensors.

    Raises:
        MethodError: E-MTH-001 if the state is no tensors and numbers, or does not lead to the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        whole, optimizer = _trial(path, arguments, settings)
        _steps(optimizer, whole, (1, 2, 3, 4), path)
        halted, first = _trial(path, arguments, settings)
        _steps(first, halted, (1, 2), path)
        tensors, meta = pack(first)
        try:
            require_plain(meta, "state")
        except (TypeError, ValueError) as error:
            raise _not_resumable(path, f"it keeps what is neither tensor nor number ({error})") from error
        resumed, second = _trial(path, arguments, settings)
        with torch.no_grad():
            for own, saved in zip(resumed, halted, strict=True):
                own.copy_(saved)
        try:
            unpack(second, copy.deepcopy(tensors), copy.deepcopy(meta))
        except CheckpointError as error:
            raise _not_resumable(path, error.found) from error
        _steps(second, resumed, (3, 4), path)
    if not all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True)):
        raise _not_resumable(path, "after a stop it goes on to other weights: it keeps more than its state_dict says")


def _trial(
    path: str, arguments: Mapping[str, Any], settings: OptimizerSettings
) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(1)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (3,))]
    named = list(zip(("matrix", "vector"), parameters, strict=True))
    return parameters, build_foreign(named, path, arguments, settings)


def _steps(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], numbers: tuple[int, ...], path: str
) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        torch.manual_seed(number)  # as the loop does
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        _step(optimizer, path)


def _step(optimizer: torch.optim.Optimizer, path: str) -> None:
    try:
        optimizer.step()
    except Exception as error:
        raise MethodError(
            "E-MTH-001",
            where=_PATH,
            found=f"{path} cannot make a plain step ({_first_line(error)})",
            expected="an optimizer that steps on gradients, without a closure",
        ) from error


def _not_resumable(path: str, reason: str) -> MethodError:
    return MethodError(
        "E-MTH-001",
        where=_PATH,
        found=f"{path} cannot be resumed: {reason}",
        expected="state of tensors and numbers",
        action="Write a method for it (docs/extending.md), whose state() carries the rest.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")

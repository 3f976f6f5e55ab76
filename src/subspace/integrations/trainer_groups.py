"""Parameter groups of any model: projected matrices, other matrices, and what does not decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor, nn

from subspace.core.errors import ConfigError, MethodError
from subspace.optim.groups import projected_groups
from subspace.plan.inventory import module_shapes
from subspace.plan.placement import match_linear
from subspace.plan.shapes import Inventory

__all__ = ["parameter_groups"]

_STACK_DIMENSIONS = 3
"""Of the weights of fused experts, one matrix for each."""


def parameter_groups(
    model: nn.Module,
    *,
    rank: int | None,
    target_modules: Iterable[str] | Literal["all-linear"] = "all-linear",
    exclude_modules: Iterable[str] = (),
    project_embeddings: bool = False,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Return groups with parameter names over everything that is trained.

    Args:
        model: Any module; what is frozen is left out.
        rank: Of projected groups; 0 or None: nothing is projected.
        target_modules, exclude_modules, project_embeddings: See `create_optimizer`.
        weight_decay: Of matrices; biases, norms and scales get none.

    Raises:
        ConfigError: E-CFG-016 if nothing is trained, or none of the targets is; what `match_linear` raises.
        MethodError: E-MTH-001 if a weight is sharded.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ConfigError("E-CFG-016", where=type(model).__name__, found="no parameter that is trained")
    _check_whole(trained)
    projected: set[int] = set()
    if rank:
        weights = _targets(model, target_modules, exclude_modules, project_embeddings)
        projected = {id(weight) for weight in weights if weight.requires_grad}
        if not projected:
            raise ConfigError(
                "E-CFG-016",
                where="target_modules",
                found=f"{len(weights)} matching weights, all of them frozen",
                expected="weights that are trained",
                action="Choose among those; for an adapter that is 'all-linear' or its own layers.",
            )
    names = {name for name, parameter in trained.items() if id(parameter) in projected}
    return projected_groups(trained.items(), names, rank, weight_decay)


def _targets(
    model: nn.Module,
    target_modules: Iterable[str] | Literal["all-linear"],
    exclude_modules: Iterable[str],
    project_embeddings: bool,
) -> list[Tensor]:
    """Return the weights that the patterns mean; a tied one once for each of its modules."""
    inventory = _inventory(model)
    targets: Any = target_modules if target_modules == "all-linear" else _patterns(target_modules, "target_modules")
    shapes = match_linear(inventory, targets, _patterns(exclude_modules, "exclude_modules"), "target_modules")
    weights = [_weight(model, shape.name) for shape in shapes]
    if targets == "all-linear":
        for shape in inventory.modules:
            if shape.kind == "other" and shape.block is not None:
                inside = model.get_submodule(shape.name).parameters(recurse=False)
                weights += [weight for weight in inside if weight.ndim == _STACK_DIMENSIONS]
    if project_embeddings:
        live: Any = model
        ends = (live.get_input_embeddings(), live.get_output_embeddings())
        weights += [end.weight for end in ends if end is not None]
    return weights


def _patterns(given: Iterable[str], where: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise ConfigError(
            "E-CFG-010", where=where, found=repr(given), expected="a list of names", action=f"Write [{given!r}]."
        )
    return tuple(given)


def _weight(model: nn.Module, module: str) -> Tensor:
    weight = model.get_submodule(module).weight
    assert isinstance(weight, Tensor)
    return weight


def _inventory(model: nn.Module) -> Inventory:
    """Return the modules of any model, a transformers one or not; patterns ask for nothing else."""
    return Inventory(
        model_type="",
        task="causal_lm",
        modules=module_shapes(model),
        tensors=(),
        num_layers=0,
        hidden_size=0,
        num_attention_heads=0,
        num_key_value_heads=0,
        head_dim=0,
        vocab_size=0,
    )


def _check_whole(trained: dict[str, nn.Parameter]) -> None:
    for name, parameter in trained.items():
        if hasattr(parameter, "device_mesh"):
            raise MethodError(
                "E-MTH-001",
                where=name,
                found="a sharded weight: a part of a matrix has another subspace than the matrix",
                action="Train with one process, or with plain data parallelism.",
            )

"""An optimizer's state as tensors and JSON, and back, bit for bit.

torch's `load_state_dict` casts state to the type of its parameter (float32 moments of bfloat16 weights, uint8 blocks
and code tables are ruined) and identifies parameters by position. Here state is kept as it is, under parameter names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from subspace.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

    from subspace.optim.stateful import StatefulOptimizer

__all__ = ["check_state_dict", "pack", "unpack"]

_NOT_IN_STATE = ("update", "refresh_from", "full_accumulator")
"""Options that say when an update runs; state is the same whatever they are."""
_MOST_LISTED = 5


def pack(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state as (tensors, JSON values).

    Tensors are named `<parameter>.<key>`. A tensor that several parameters share is given once; `meta["shared"]` says
    who else uses it.

    Args:
        optimizer: Any; parameters that were given without names are numbered.
    """
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    scalars: dict[str, Any] = {}
    owners: dict[tuple[int, int], str] = {}
    for name, parameter, _ in _members(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                scalars[f"{name}.{key}"] = value
                continue
            place = (value.data_ptr(), value.numel())
            if value.numel() and place in owners:
                shared[f"{name}.{key}"] = owners[place]
            else:
                owners[place] = f"{name}.{key}"
                tensors[f"{name}.{key}"] = value.detach().contiguous()
    groups = [
        {**{key: value for key, value in group.items() if key != "params"}, "param_names": names}
        for group, names in zip(optimizer.param_groups, _names(optimizer.param_groups), strict=True)
    ]
    meta = {"optimizer": type(optimizer).__name__, "groups": groups, "scalars": scalars, "shared": shared}
    return tensors, meta


def unpack(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Put state that `pack` returned into an optimizer over the same parameters; all or none.

    Raises:
        CheckpointError: E-CKP-005 if it belongs to another optimizer, other parameters or other shapes.
    """
    _check(optimizer, tensors, meta)
    keys_of: dict[str, list[str]] = {}
    for label in (*tensors, *meta["shared"], *meta["scalars"]):
        name, _, key = label.rpartition(".")
        keys_of.setdefault(name, []).append(key)
    placed: dict[str, Tensor] = {}
    optimizer.state.clear()
    for name, parameter, group in _members(optimizer):
        for key in keys_of.get(name, ()):
            label = f"{name}.{key}"
            if label in meta["scalars"]:
                optimizer.state[parameter][key] = meta["scalars"][label]
                continue
            source = meta["shared"].get(label, label)
            if source not in placed:
                placed[source] = _place(optimizer, parameter, group, key, tensors[source])
            optimizer.state[parameter][key] = placed[source]
    for group, saved in zip(optimizer.param_groups, meta["groups"], strict=True):
        for key, value in saved.items():
            if key == "param_names" and key not in group:
                continue  # they were numbered
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value


def check_state_dict(optimizer: StatefulOptimizer, state_dict: Mapping[str, Any]) -> None:
    """Refuse what the `state_dict` of another optimizer gave, before anything is changed.

    Raises:
        CheckpointError: E-CKP-005 if options or tensors are not those of this optimizer.
    """
    problems = []
    for saved, group in zip(state_dict["param_groups"], optimizer.param_groups, strict=False):  # torch counts them
        problems += _other_options(saved, group)
        for index, parameter in zip(saved["params"], group["params"], strict=False):
            problems += _other_tensors(optimizer, optimizer.slots[parameter], state_dict["state"].get(index, {}))
    _refuse(problems, "the state of an optimizer of the same kind, rank and options")


def _other_options(saved: Mapping[str, Any], group: Mapping[str, Any]) -> list[str]:
    """Return the options of a group on which state depends and in which another one differs."""
    if "settings" not in saved:
        return ["state of another kind of optimizer"]
    then = {"rank": saved.get("rank"), **saved["settings"]}
    now = {"rank": group.get("rank"), **group["settings"]}
    return [
        f"{key} {value!r}, here {now[key]!r}"
        for key, value in then.items()
        if key in now and key not in _NOT_IN_STATE and value != now[key]
    ]


def _other_tensors(optimizer: StatefulOptimizer, slot: Any, state: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the state of one parameter.

    A basis may be missing as long as it waits, and the overlaps of bases in the state of an older version.
    """
    if not state:
        return []
    planned = {spec.name: (spec.shape, spec.dtype) for spec in optimizer.planned_of(slot)}
    found = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    wrong = {key for key, value in found.items() if planned.get(key) != value}
    missing = {key for key in planned.keys() - found.keys() if not key.startswith(("basis", "overlaps"))}
    return [f"{slot.name}.{key} missing or of another shape or type" for key in sorted(wrong | missing)]


def _members(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
    for group, names in zip(optimizer.param_groups, _names(optimizer.param_groups), strict=True):
        for name, parameter in zip(names, group["params"], strict=True):
            yield name, parameter, group


def _names(groups: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return the names of the parameters of every group; where none were given, their numbers."""
    found: list[list[str]] = []
    first = 0
    for group in groups:
        count = len(group["params"])
        found.append(list(group.get("param_names") or map(str, range(first, first + count))))
        first += count
    return found


def _place(optimizer: Any, parameter: nn.Parameter, group: Mapping[str, Any], key: str, value: Tensor) -> Tensor:
    if getattr(optimizer, "is_paged", False) and key in ("state1", "state2"):
        buffer: Tensor = optimizer.get_state_buffer(parameter, dtype=value.dtype)  # paged memory on CUDA
        return buffer.copy_(value)
    # torch keeps the step counter on the CPU unless the kernel itself reads it
    stays = key == "step" and not group.get("fused") and not group.get("capturable")
    return value.detach().to("cpu" if stays else parameter.device, copy=True)


def _check(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    shapes = {name: parameter.shape for name, parameter, _ in _members(optimizer)}
    problems = []
    if meta["optimizer"] != type(optimizer).__name__:
        problems.append(f"state of {meta['optimizer']} for {type(optimizer).__name__}")
    for saved_group, group in zip(meta["groups"], optimizer.param_groups, strict=False):  # the next check counts them
        problems += _other_options(saved_group, group) if "settings" in group else []
    saved = [group["param_names"] for group in meta["groups"]]
    if saved != _names(optimizer.param_groups):
        problems.append("other parameters or groups")
    unknown = sorted({label.rpartition(".")[0] for label in (*tensors, *meta["scalars"])} - shapes.keys())
    if unknown:
        problems.append(f"{len(unknown)} unknown parameters ({', '.join(unknown[:5])})")
    planned = _planned_shapes(optimizer, shapes)
    reshaped = [
        label for label, value in tensors.items() if planned.get(label, tuple(value.shape)) != tuple(value.shape)
    ]
    if reshaped:
        problems.append(f"{len(reshaped)} tensors of another shape ({', '.join(reshaped[:5])})")
    _refuse(problems, "the state of this recipe's optimizer")


def _refuse(problems: Sequence[str], expected: str) -> None:
    if problems:
        listed = list(dict.fromkeys(problems))
        more = f"; and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
        raise CheckpointError(
            "E-CKP-005",
            where="optimizer state",
            found="; ".join(listed[:_MOST_LISTED]) + more,
            expected=expected,
            action="Go on with the recipe or the options that wrote the checkpoint.",
        )


def _planned_shapes(optimizer: Any, shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that state tensors must have, as far as they are known."""
    if hasattr(optimizer, "planned_state"):
        return {spec.name: spec.shape for spec in optimizer.planned_state()}
    moments = ("exp_avg", "exp_avg_sq", "state1", "state2")
    return {f"{name}.{key}": tuple(shape) for name, shape in shapes.items() for key in moments}

"""Parameter groups: made of plain parameters, checked, and taken over from other packages."""

from __future__ import annotations

import difflib
import math
from collections.abc import Container, Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from torch import Tensor, nn

from subspace.config.foreign import SIDES
from subspace.core.errors import ConfigError, MethodError

__all__ = [
    "as_groups",
    "check_group",
    "decay_of",
    "decays",
    "groups_from_galore",
    "like_groups",
    "plain_numbers",
    "projected_groups",
    "refuse_arguments",
]

_MULTIPLIERS = frozenset({"ia3_l", "lora_E"})
"""Trained matrices with one row or column that scale something: decay would pull them to zero, not to simplicity."""
_ORTHONORMAL = frozenset({"stella_U", "stella_V"})
"""Bases: decay could only change their fixed length. How large StelLA's change is lies in `stella_S` alone."""

_KEYS = {"update_proj_gap": "refresh_interval", "alpha": "scale", "proj_type": "side", "proj": "basis"}
_BASES = {"random": "random", "svd": "svd"}
_DROPPED = {"dim"}
"""The dimensions of a tensor are read from it."""
_FIXED = {"quant_n_bit": 4, "quant_group_size": 256, "cos_threshold": 0.4, "gamma_proj": 2, "queue_size": 5}
"""Q-GaLore's keys that are no options here, with the value that everybody gets."""
_OTHER_KEYS = frozenset({"momentum", "beta1", "beta2"})
"""Keys of groups of other optimizers that look like ours."""
_OWN_KEYS = ("lr", "betas", "eps", "weight_decay", "rank", "params")
_MISSPELT = 0.8
"""Likeness to an option from which on an unknown key is taken for one: a group may hold keys of its owner's."""


def groups_from_galore(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return parameter groups in galore-torch's, fira's or apollo-torch's style as ours.

    `update_proj_gap` becomes `refresh_interval`, `proj_type` (std, reverse_std, left, right, full) `side`, `alpha`
    `scale`, `proj` `basis`, and Q-GaLore's `quant` bases of 4 bits; APOLLO's `scale_type` is the optimizer's `scaling`
    and is refused here.

    Raises:
        ConfigError: E-CFG-007 for a key that is a misspelt one; E-CFG-010 for an unknown `proj_type` or `proj`, or a
            value of Q-GaLore's that is fixed here; E-CFG-014 for `scale_type`.

    >>> groups_from_galore([{"params": [], "rank": 4, "update_proj_gap": 50, "proj_type": "std"}])
    [{'params': [], 'rank': 4, 'refresh_interval': 50, 'side': 'shorter'}]
    """
    return [_translated(group) for group in groups]


def _translated(group: dict[str, Any]) -> dict[str, Any]:
    if "scale_type" in group:
        raise ConfigError(
            "E-CFG-014",
            where="scale_type",
            found=f"{group['scale_type']!r} in a group",
            action="Use Apollo(..., scaling='channel' or 'tensor') for all groups.",
        )
    translated: dict[str, Any] = {}
    _refuse_misspelt(group, (*_KEYS, *_DROPPED, *_FIXED, "quant", *_OWN_KEYS))
    for key, value in group.items():
        if key in _FIXED:
            if value != _FIXED[key]:
                raise ConfigError("E-CFG-010", where=key, found=repr(value), expected=f"{_FIXED[key]}, which is fixed")
            continue
        if key == "quant":
            translated["basis_bits"] = 4 if value else 32
            continue
        names = {"proj_type": SIDES, "proj": _BASES}.get(key)
        if names is not None and value not in names:
            raise ConfigError("E-CFG-010", where=key, found=repr(value), expected=f"one of {', '.join(names)}")
        if key not in _DROPPED:
            translated[_KEYS.get(key, key)] = value if names is None else names[value]
    return translated


def as_groups(params: Iterable[Any], rank: int | None, default_rank: int | None) -> list[Any]:
    """Return groups: those given, or a projected one of all matrices and a plain one of the rest.

    Args:
        params: Parameters, named parameters, or groups.
        rank: Of the projected group.
        default_rank: In its place if it is None; 0: nothing is projected.

    Raises:
        ConfigError: E-CFG-011 for parameters without any rank; E-CFG-014 if a rank stands beside groups, which have
            their own; E-CFG-016 for a rank that is no positive integer.
        MethodError: E-MTH-001 for a model in place of its parameters.
    """
    if isinstance(params, nn.Module):
        raise MethodError(
            "E-MTH-001",
            where="params",
            found=f"a model, {type(params).__name__}",
            expected="parameters",
            action="Give model.parameters(), or model.named_parameters().",
        )
    _check_rank(rank)
    items = list(params)
    if any(isinstance(item, dict) for item in items):
        if rank is not None:
            raise ConfigError(
                "E-CFG-014",
                where="rank",
                found="a rank beside parameter groups",
                action="Give each group that is to be projected its own rank.",
            )
        return items
    rank = default_rank if rank is None else rank
    if rank is None:
        raise ConfigError(
            "E-CFG-011",
            where="rank",
            found="parameters without a rank, so that nothing would be projected",
            action="Give rank=128, for example, or groups of which some have a rank.",
        )
    if rank == 0:
        return [{"params": items}]
    matrices: list[Any] = []
    rest: list[Any] = []
    for item in items:
        tensor = item[1] if isinstance(item, tuple) else item
        (matrices if tensor.ndim >= 2 else rest).append(item)
    groups: list[dict[str, Any]] = [{"params": matrices, "rank": rank}, {"params": rest}]
    return [group for group in groups if group["params"]]


def check_group(group: dict[str, Any], options: Sequence[str]) -> None:
    """Refuse what a group must not hold; its options are checked elsewhere.

    Args:
        group: Without the options.
        options: Their names.

    Raises:
        ConfigError: E-CFG-007 for keys of other packages or misspelt ones, E-CFG-009 for a number out of range,
            E-CFG-010 for what is none, E-CFG-016 for a rank that is no positive integer.
        MethodError: E-MTH-001 for parameters that are not real numbers.
    """
    foreign = sorted((_KEYS.keys() | {"scale_type"}) & group.keys())
    if foreign:
        raise ConfigError(
            "E-CFG-007",
            where=f"group.{foreign[0]}",
            found="a key of other packages",
            action="Translate the groups: groups_from_galore(groups).",
        )
    _refuse_misspelt(group, (*options, *_OWN_KEYS))
    _check_rank(group.get("rank"))
    eps = group["eps"] if isinstance(group["eps"], tuple) else (group["eps"],)
    betas = tuple(group["betas"]) if isinstance(group["betas"], Sequence) else ()
    betas = betas if len(betas) == 2 else ("no pair",)
    least = {"lr": (group["lr"],), "betas": betas, "eps": eps, "weight_decay": (group["weight_decay"],)}
    for key, values in least.items():
        if not all(_is_number(value) or (value is None and key in ("lr", "eps")) for value in values):
            expected = "two numbers" if key == "betas" else "a number"
            raise ConfigError("E-CFG-010", where=key, found=repr(group[key]), expected=expected)
        below = 1.0 if key == "betas" else math.inf
        if not all(value is None or 0.0 <= value < below for value in values):
            expected = "0 or more, below 1" if key == "betas" else "0 or more"
            raise ConfigError("E-CFG-009", where=key, found=repr(group[key]), expected=expected)
    for parameter in group["params"]:
        if not parameter.is_floating_point():
            raise MethodError(
                "E-MTH-001",
                where=f"a parameter of shape {tuple(parameter.shape)}",
                found=str(parameter.dtype).removeprefix("torch."),
                expected="real floating-point numbers",
                action="Train it with an optimizer of torch; complex numbers can be held as torch.view_as_real gives.",
            )


def refuse_arguments(options: Container[str], **instead: str) -> None:
    """Refuse arguments that other optimizers have and this one has not.

    Args:
        options: What was given beside its own arguments.
        instead: Name to a sentence on what stands in its place.

    Raises:
        ConfigError: E-CFG-007.
    """
    for name, action in instead.items():
        if name in options:
            raise ConfigError("E-CFG-007", where=name, found="no argument of this optimizer", action=action)


def _refuse_misspelt(group: dict[str, Any], known: Sequence[str]) -> None:
    for key in group.keys() - {*known, *_OTHER_KEYS}:
        close = difflib.get_close_matches(key, known, n=1, cutoff=_MISSPELT)
        # people hardly misspell a first letter, and `weight_decay_mult` is no misspelt `weight_decay`
        if close and close[0][0] == key[0] and f"_{close[0]}_" not in f"_{key}_":
            action = f"Did you mean {close[0]!r}?"
            raise ConfigError("E-CFG-007", where=f"group.{key}", found="no such option", action=action)


def _check_rank(rank: Any) -> None:
    if rank is not None and (not isinstance(rank, Integral) or isinstance(rank, bool) or rank < 1):
        raise ConfigError("E-CFG-016", where="rank", found=repr(rank), expected="an integer of 1 or more")


def _is_number(value: Any) -> bool:
    """Return whether a value is a number; a learning rate may be a tensor of one."""
    return isinstance(value, Real | Tensor) and not isinstance(value, bool)


def plain_numbers(group: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a checked group as Python's own: those of other libraries would not be saved."""

    def plain(value: Any) -> Any:
        if isinstance(value, Integral) and not isinstance(value, bool):
            return int(value)
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value

    found = {key: plain(group[key]) for key in ("lr", "eps", "weight_decay", "rank") if key in group}
    return found | {"betas": tuple(plain(value) for value in group["betas"])}


def like_groups(members: Iterable[tuple[str, Tensor, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return groups of named parameters with equal options, in the order in which the first member appears.

    Args:
        members: (name, parameter, options of its group).
    """
    found: dict[tuple[tuple[str, Any], ...], list[tuple[str, Tensor]]] = {}
    for name, parameter, options in members:
        found.setdefault(tuple(options.items()), []).append((name, parameter))
    return [{"params": named, **dict(options)} for options, named in found.items()]


def projected_groups(
    named: Iterable[tuple[str, Tensor]], projected: Container[str], rank: int | None, weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups of parameters that are projected or not, and decay or not.

    Args:
        named: Parameters with their names.
        projected: Names of those that get the rank.
        rank: Of projected groups.
        weight_decay: Of what decays.
    """
    return like_groups(
        (name, parameter, decay_of(name, parameter, weight_decay) | ({"rank": rank} if name in projected else {}))
        for name, parameter in named
    )


def decays(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies: to matrices, not to biases, norms, magnitudes, scales and bases."""
    parts = name.split(".")
    return parts[-1] == "stella_S" or (parameter.ndim > 1 and (_MULTIPLIERS | _ORTHONORMAL).isdisjoint(parts))


def decay_of(name: str, parameter: Tensor, weight_decay: float) -> dict[str, float]:
    """Return the weight decay of a parameter as an option of its group: the given one, or none."""
    return {"weight_decay": weight_decay if decays(name, parameter) else 0.0}

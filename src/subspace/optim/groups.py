"""Groups written for other packages, in our words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from subspace.core.errors import ConfigError

__all__ = ["groups_from_galore"]

_KEYS = {"update_proj_gap": "refresh_interval", "alpha": "scale", "proj_type": "side", "proj": "basis"}
_SIDES = {"std": "shorter", "reverse_std": "longer", "left": "left", "right": "right", "full": "both"}
_BASES = {"random": "random", "svd": "svd"}
_DROPPED = {"dim"}
"""The dimensions of a tensor are read from it."""


def groups_from_galore(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return parameter groups in galore-torch's, fira's or apollo-torch's style as ours.

    `update_proj_gap` becomes `refresh_interval`, `proj_type` (std, reverse_std, left, right, full) `side`, `alpha`
    `scale`, `proj` `basis`; APOLLO's `scale_type` is the optimizer's `scaling` and is refused here.

    Raises:
        ConfigError: E-CFG-010 for an unknown `proj_type` or `proj`; E-CFG-014 for `scale_type`.

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
    for key, value in group.items():
        names = {"proj_type": _SIDES, "proj": _BASES}.get(key)
        if names is not None and value not in names:
            raise ConfigError("E-CFG-010", where=key, found=repr(value), expected=f"one of {', '.join(names)}")
        if key not in _DROPPED:
            translated[_KEYS.get(key, key)] = value if names is None else names[value]
    return translated

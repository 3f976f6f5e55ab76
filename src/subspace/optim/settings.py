"""What an optimizer is asked for. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_type_hints

from subspace.core.errors import ConfigError
from subspace.core.registry import nearest
from subspace.projection.geometry import Basis, Side

__all__ = ["CHOICES", "PRESETS", "OptimizerSettings", "Preset", "ProjectionSettings", "projection_settings"]

Preset = Literal["paper", "fast", "small"]
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "fast": {"basis": "warm", "refresh": "staggered"},
    "small": {"basis": "warm", "refresh": "staggered", "state_bits": 8},
}
"""Bundles of options: as published; cheap refreshes without stalls; the same with moments of 8 bits."""
_KINDS: dict[str, tuple[Any, str]] = {
    "refresh_interval": (Integral, "an integer"),
    "scale": (Real, "a number"),
    "seed": (Integral, "an integer"),
    "full_accumulator": (bool, "True or False"),
}


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """The numbers that every optimizer reads."""

    name: str = "adamw"
    learning_rate: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class ProjectionSettings:
    """How gradients are projected, and how the projected state is kept.

    Attributes:
        refresh_interval: Steps between new bases.
        scale: Factor on the lifted update.
        side: Dimension in which the basis lives.
        basis: How a basis is found.
        refresh: When bases are found: all at once, staggered over the weights, or less often where one hardly moves.
        moments: What becomes of the moments when a basis is new.
        state_bits: Width of the moments.
        basis_bits: Width of the bases.
        fidelity: The published method, or the official code step for step.
        update: After the backward pass, or as soon as a gradient exists, which is then freed: in one process and
            without loss scaling, since gradients are used before they are reduced or unscaled.
        refresh_from: With updates in the backward pass: a new basis from the whole step's gradient, which is then kept
            in full for that step, or from its first micro-batch.
        full_accumulator: With updates in the backward pass, for methods that need the whole gradient: keep it in full,
            so that accumulation and clipping work.
        seed: Of random and estimated bases.
    """

    refresh_interval: int = 200
    scale: float = 1.0
    side: Side = "shorter"
    basis: Basis = "svd"
    refresh: Literal["interval", "staggered", "adaptive"] = "interval"
    moments: Literal["keep", "zero", "transport"] = "keep"
    state_bits: Literal[32, 8, 4] = 32
    basis_bits: Literal[32, 4] = 32
    fidelity: Literal["paper", "reference"] = "paper"
    update: Literal["after_backward", "in_backward"] = "after_backward"
    refresh_from: Literal["step", "micro_batch"] = "step"
    full_accumulator: bool = False
    seed: int = 0


CHOICES: dict[str, tuple[object, ...]] = {
    name: get_args(hint) for name, hint in get_type_hints(ProjectionSettings).items() if get_args(hint)
}
"""The values of every option that is not a number or a flag."""


def projection_settings(
    defaults: ProjectionSettings, given: Mapping[str, Any], preset: str | None = None, where: str = "optimizer"
) -> ProjectionSettings:
    """Return the settings that a preset or expert options make; options that are None are not given.

    Raises:
        ConfigError: E-CFG-007 for an unknown option, E-CFG-010 for a value that is none of the choices, E-CFG-009 for a
            number out of range, E-CFG-014 for an option that a preset already decides.
    """
    chosen = {key: value for key, value in given.items() if value is not None}
    bundle = _bundle(preset or "paper", defaults, where)
    both = sorted(bundle.keys() & chosen.keys())
    if both:
        raise ConfigError(
            "E-CFG-014",
            where=f"{where}.{both[0]}",
            found=f"{both[0]} beside preset {preset}, which sets it to {bundle[both[0]]!r}",
            action="Give the preset or the options, not both.",
        )
    chosen = {**bundle, **chosen}
    unknown = sorted(chosen.keys() - set(defaults.__slots__))
    if unknown:
        close = nearest(unknown[0], defaults.__slots__)
        raise ConfigError(
            "E-CFG-007",
            where=f"{where}.{unknown[0]}",
            found="no such option",
            expected=f"one of {', '.join(defaults.__slots__)}",
            action=f"Did you mean {close!r}?" if close else "",
        )
    _check(chosen, where)
    # numbers of other libraries would not be saved
    chosen |= {key: int(chosen[key]) for key in ("refresh_interval", "seed") if key in chosen}
    chosen |= {"scale": float(chosen["scale"])} if "scale" in chosen else {}
    values = {name: getattr(defaults, name) for name in defaults.__slots__}
    return ProjectionSettings(**values | chosen)


def _bundle(preset: str, defaults: ProjectionSettings, where: str) -> dict[str, Any]:
    """Return what a preset sets: nothing of bases that are drawn, of refreshes that grow rare, of moments so narrow."""
    if preset not in PRESETS:
        expected = f"one of {', '.join(PRESETS)}"
        raise ConfigError("E-CFG-010", where=f"{where}.preset", found=repr(preset), expected=expected)
    bundle = dict(PRESETS[preset])
    if defaults.basis == "random":
        bundle.pop("basis", None)
    if defaults.basis == "random" or defaults.refresh == "adaptive":
        bundle.pop("refresh", None)
    if defaults.state_bits <= bundle.get("state_bits", defaults.state_bits):
        bundle.pop("state_bits", None)
    return bundle


def _check(chosen: Mapping[str, Any], where: str) -> None:
    """Refuse values of the wrong type or size."""
    for key, choices in CHOICES.items():
        if key in chosen and (chosen[key] not in choices or isinstance(chosen[key], bool)):
            listed = ", ".join(map(str, choices))
            raise ConfigError("E-CFG-010", where=f"{where}.{key}", found=repr(chosen[key]), expected=f"one of {listed}")
    for key, (kinds, expected) in _KINDS.items():
        if key in chosen and (not isinstance(chosen[key], kinds) or isinstance(chosen[key], bool) != (kinds is bool)):
            raise ConfigError("E-CFG-010", where=f"{where}.{key}", found=repr(chosen[key]), expected=expected)
    for key, least in (("refresh_interval", 1), ("scale", 0)):
        if key in chosen and not (least <= chosen[key] < math.inf):
            raise ConfigError("E-CFG-009", where=f"{where}.{key}", found=repr(chosen[key]), expected=f"{least} or more")

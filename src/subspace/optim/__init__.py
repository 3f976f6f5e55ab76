"""Optimizers for any torch loop, and the exact size of their state.

    from subspace.optim import GaLoreAdamW
    optimizer = GaLoreAdamW(model.parameters(), lr=1e-3, rank=128)

The names are those that people look for; the modules are named after what they do. Nothing is imported before it is
asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "Apollo",
    "ApolloMini",
    "FiraAdamW",
    "Flora",
    "GaLoreAdafactor",
    "GaLoreAdamW",
    "QGaLoreAdamW",
    "SophiaG",
    "SubspaceAdamW",
    "groups_from_galore",
]

_PLACES = {
    "Apollo": "channelwise:ChannelScaledAdamW",
    "ApolloMini": "channelwise:TensorScaledAdamW",
    "FiraAdamW": "residual:ResidualAdamW",
    "Flora": "sketched:SketchedAdafactor",
    "GaLoreAdafactor": "adafactor:ProjectedAdafactor",
    "GaLoreAdamW": "projected:ProjectedAdamW",
    "QGaLoreAdamW": "projected:QuantizedProjectedAdamW",
    "SophiaG": "curvature:CurvatureClipped",
    "SubspaceAdamW": "projected:PlainAdamW",
    "groups_from_galore": "groups:groups_from_galore",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)

"""Optimizers for any torch loop, and the exact size of their state.

    from subspace.optim import GaLoreAdamW
    optimizer = GaLoreAdamW(model.parameters(), lr=1e-3, rank=128)

`pack_state` gives the state of any of them as named tensors, for safetensors, and JSON values; `unpack_state` takes
both back. The names are those that people look for; classes and modules are named after what they do.
`help(GaLoreAdamW)` lists all options. Nothing is imported before it is asked for.
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
    "StiefelSteps",
    "SubspaceAdamW",
    "groups_from_galore",
    "pack_state",
    "public_name",
    "unpack_state",
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
    "StiefelSteps": "riemannian:StiefelSteps",
    "SubspaceAdamW": "projected:PlainAdamW",
    "groups_from_galore": "groups:groups_from_galore",
    "pack_state": "state_io:pack",
    "unpack_state": "state_io:unpack",
}


def public_name(attribute: str) -> str:
    """Return the name by which people know a class of this room.

    >>> public_name("ProjectedAdamW"), public_name("Mine")
    ('GaLoreAdamW', 'Mine')
    """
    names = {place.partition(":")[2]: name for name, place in _PLACES.items()}
    return names.get(attribute, attribute)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)

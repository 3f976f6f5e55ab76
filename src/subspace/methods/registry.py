"""The table of methods; a third party adds to it through the entry-point group `subspace.methods`. Imports no torch."""

from __future__ import annotations

from subspace.core.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry(
    "method",
    {
        "full": "subspace.methods.full:Full",
        "lora": "subspace.methods.lora:Lora",
        "dora": "subspace.methods.dora:Dora",
        "pissa": "subspace.methods.pissa:Pissa",
        "olora": "subspace.methods.olora:Olora",
        "eva": "subspace.methods.eva:Eva",
        "adalora": "subspace.methods.adalora:AdaLora",
        "stella": "subspace.methods.stella:Stella",
        "galore": "subspace.methods.galore:GaLore",
        "fira": "subspace.methods.fira:Fira",
        "flora": "subspace.methods.flora:Flora",
        "apollo": "subspace.methods.apollo:Apollo",
        "apollo_mini": "subspace.methods.apollo_mini:ApolloMini",
        "qgalore": "subspace.methods.qgalore:QGaLore",
        "sophia": "subspace.methods.sophia:Sophia",
        "ia3": "subspace.methods.ia3:Ia3",
        "prefix": "subspace.methods.prefix:Prefix",
        "prompt": "subspace.methods.prompt:Prompt",
        "custom_optimizer": "subspace.methods.custom_optimizer:CustomOptimizer",
        "custom_peft": "subspace.methods.custom_peft:CustomPeft",
    },
    group="subspace.methods",
)

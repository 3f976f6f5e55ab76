"""`subspace methods`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["verb"]


def verb(name: Annotated[str | None, typer.Argument(help="Show one method's whole card.")] = None) -> None:
    """List the methods, or show one."""
    from subspace.methods.registry import REGISTRY

    if name is None:
        width = max(map(len, REGISTRY.names()))
        for each in REGISTRY.names():
            card = REGISTRY.load(each).card
            print(f"{each:<{width}}  {card.summary}")
        return
    method = REGISTRY.load(name)
    card = method.card
    print(f"{card.name}: {card.summary}\nlow-rank: {card.low_rank}\nreference: {card.reference or 'none'}")
    print(f"use it: {card.use_when}\ncost of an (m, n) weight: {card.cost}")
    print(f"can be merged into plain weights: {'yes' if card.mergeable else 'no'}")
    for index, text in enumerate(card.differs, start=1):
        print(f"differs from the paper ({index}): {text}")
    for refusal in card.refuses:
        print(f"refuses {refusal}: {refusal.reason}")
    print("keys:")
    for key, field in method.config_class.model_fields.items():
        print(f"  method.{key} = {field.get_default()!r}: {field.description or ''}")

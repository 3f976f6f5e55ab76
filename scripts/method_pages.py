"""Writes docs/methods/: a page for every method, from its card, its module's docstring and its recipe keys.

    python scripts/method_pages.py

A test compares what it writes with what lies there.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

from subspace.methods.base import MethodCard
from subspace.methods.registry import REGISTRY

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "methods"
FAMILIES = {
    "full": "Every weight",
    "adapter": "Adapters: a small trained part beside frozen weights",
    "projection": "Projections: every weight is trained, the optimizer's state is small",
    "prompt": "Virtual tokens: nothing of the model changes",
}


def pages() -> dict[str, str]:
    """Return the text of every page by file name."""
    found = {f"{name}.md": page(name) for name in REGISTRY.names()}
    return {"README.md": index(), **found}


def index() -> str:
    """Return the page that lists the methods by family."""
    lines = ["# Methods", "", "Written by `scripts/method_pages.py` from the methods' cards.", ""]
    for family, title in FAMILIES.items():
        lines += [
            f"## {title}",
            "",
            "| method | what it does | what it costs for an (m, n) weight |",
            "| --- | --- | --- |",
        ]
        for name in REGISTRY.names():
            card: MethodCard = REGISTRY.load(name).card
            if card.family == family:
                lines.append(f"| [`{name}`]({name}.md) | {card.summary} | {card.cost} |")
        lines.append("")
    return "\n".join(lines)


def page(name: str) -> str:
    """Return the page of one method."""
    method: Any = REGISTRY.load(name)
    card: MethodCard = method.card
    text = inspect.getdoc(inspect.getmodule(method)) or ""
    body = text.partition("\n")[2].replace("Imports no torch.", "").rstrip().strip("\n")
    parts = [
        f"# `{name}`",
        card.summary,
        f"**When to use it.** {card.use_when}",
        f"**Cost of an (m, n) weight.** {card.cost}.",
        f"**What is low-rank.** {card.low_rank}",
        f"**Folds into plain weights.** {'Yes' if card.mergeable else 'No'}.",
        "## How it works",
        _fenced(body),
    ]
    if card.differs:
        parts += [
            "## Differs from the paper",
            "\n".join(f"{n}. {text}" for n, text in enumerate(card.differs, start=1)),
        ]
    if card.refuses:
        refused = "\n".join(f"| `{refusal}` | {refusal.reason} |" for refusal in card.refuses)
        parts += ["## Refuses", f"| what | why |\n| --- | --- |\n{refused}"]
    keys = "\n".join(
        f"| `method.{key}` | `{_default(field)}` | {' '.join((field.description or '').split())} |"
        for key, field in method.config_class.model_fields.items()
        if key != "name"
    )
    parts += ["## Keys", f"| key | default | meaning |\n| --- | --- | --- |\n{keys}" if keys else "None."]
    if card.reference:
        parts += ["## Reference", f"{card.reference}."]
    return "\n\n".join(parts) + "\n"


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    return "absent" if value is None else str(value)


def _fenced(text: str) -> str:
    """Return text whose indented paragraphs stand in code blocks."""
    paragraphs = [block.strip("\n").rstrip() for block in text.split("\n\n") if block.strip()]
    return "\n\n".join(
        f"```text\n{textwrap.dedent(block)}\n```" if block.startswith("    ") else block for block in paragraphs
    )


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

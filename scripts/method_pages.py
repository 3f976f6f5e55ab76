"""Writes docs/methods/, a page for every method, from its card, its module's docstring and its recipe keys; and
docs/recipe.md, the keys of all other sections.

    python scripts/method_pages.py

A test compares what it writes with what lies there.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

from subspace.config.base import Section
from subspace.config.expected import describe_field
from subspace.data.config import DataConfig
from subspace.evaluation.config import EvaluationConfig
from subspace.methods.base import MethodCard
from subspace.methods.registry import REGISTRY
from subspace.models.config import ModelConfig
from subspace.training.config import TrainingConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"
SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}
FAMILIES = {
    "full": "Every weight",
    "adapter": "Adapters: a small trained part beside frozen weights",
    "projection": "Projections: every weight is trained, the optimizer's state is small",
    "prompt": "Virtual tokens: nothing of the model changes",
}


def pages() -> dict[str, str]:
    """Return the text of every page by its path below docs."""
    found = {f"methods/{name}.md": page(name) for name in REGISTRY.names()}
    return {"methods/README.md": index(), **found, "recipe.md": recipe()}


def recipe() -> str:
    """Return the page of all sections but `method`."""
    parts = [
        "# The keys of a recipe",
        "Written by `scripts/method_pages.py` from the sections themselves. A recipe is one YAML file; every key may "
        "also be given on the command line, as `training.learning_rate=1e-4`. `subspace validate recipe.yaml` checks "
        "it, `--show` prints it with every default filled in, `subspace init` writes one, and "
        "[recipes/template.yaml](../recipes/template.yaml) explains one. Well-known names of other tools (`lr`, "
        "`batch_size`, ...) are understood.",
    ]
    for name, section in SECTIONS.items():
        parts += [f"## `{name}`", _keys(name, section)]
    parts += ["## `method`", "`method.name` and the keys of that method: [a page for each](methods/README.md)."]
    return "\n\n".join(parts) + "\n"


def _keys(section: str, kind: type[Section], left_out: str = "") -> str:
    """Return a table of a section's keys: what each accepts, its default, its meaning."""
    rows = "\n".join(
        f"| `{section}.{key}` | {describe_field(field)} | `{_default(field)}` | "
        f"{' '.join((field.description or '').split())} |"
        for key, field in kind.model_fields.items()
        if key != left_out
    )
    return f"| key | accepts | default | meaning |\n| --- | --- | --- | --- |\n{rows}" if rows else "None."


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
    parts += ["## Keys", _keys("method", method.config_class, "name")]
    if card.reference:
        parts += ["## Reference", f"{card.reference}."]
    return "\n\n".join(parts) + "\n"


def _default(field: Any) -> str:
    if field.is_required():
        return "none: required"
    value = field.get_default(call_default_factory=True)
    if value in ("", (), {}):
        return "empty"
    return "absent" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _fenced(text: str) -> str:
    """Return text whose indented paragraphs stand in code blocks."""
    paragraphs = [block.strip("\n").rstrip() for block in text.split("\n\n") if block.strip()]
    return "\n\n".join(
        f"```text\n{textwrap.dedent(block)}\n```" if block.startswith("    ") else block for block in paragraphs
    )


def main() -> None:
    """Write the pages."""
    for file, text in pages().items():
        (DOCS / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

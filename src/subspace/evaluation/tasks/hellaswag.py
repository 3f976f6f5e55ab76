"""HellaSwag: which ending goes on with a scene.

The texts are cleaned as everybody does it: bracketed remains of WikiHow's mark-up go, " [title]" ends a sentence,
double blanks become one, and the second half of the context begins with its first letter large and the rest small.

References:
    Zellers et al., 2019, HellaSwag: Can a Machine Really Finish Your Sentence?, arXiv:1905.07830.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS, read_options

__all__ = ["TASK", "clean"]


def clean(text: str) -> str:
    """Return a text of HellaSwag without the remains of mark-up.

    >>> clean(" Bake it. [title] Cool [step] it. ")
    'Bake it.. Cool it.'
    """
    ended = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", ended).replace("  ", " ")


def _from_hub(row: Mapping[str, Any]) -> Doc:
    scene = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _doc(scene, row["endings"], int(row["label"]))


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    return _doc(*read_options(row, "Ending"))


def _doc(scene: str, endings: Any, gold: int) -> Doc:
    if not 0 <= gold < len(endings):
        raise ValueError(f"label {gold} of {len(endings)} endings")
    return {"query": clean(scene), "choices": tuple(clean(ending) for ending in endings), "gold": gold}


TASK = Task(
    name="hellaswag",
    version=1,
    kind="multiple_choice",
    source=Source("Rowan/hellaswag", None, "validation", "train"),
    layouts=(
        Layout(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _from_hub),
        Layout(COLUMNS, _from_adapters),
    ),
    metrics=("acc_norm", "acc", "acc_bytes"),
    question=lambda doc: str(doc["query"]),
    choices=lambda doc: doc["choices"],
    gold=lambda doc: int(doc["gold"]),
)

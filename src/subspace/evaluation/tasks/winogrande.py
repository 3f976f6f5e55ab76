"""WinoGrande: which of two names fills the blank.

Partial evaluation (Trinh and Le, 2018, arXiv:1806.02847): either name is put into the part before the blank, and what
is compared is how likely the rest of the sentence, the same for both, is after it.

References:
    Sakaguchi et al., 2020, WinoGrande, arXiv:1907.10641.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS, read_options

__all__ = ["TASK"]

_BLANK = "_"


def _from_hub(row: Mapping[str, Any]) -> Doc:
    return _doc(row["sentence"], (row["option1"], row["option2"]), int(row["answer"]) - 1)


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    return _doc(*read_options(row, "Option"))


def _doc(sentence: str, options: tuple[str, ...], gold: int) -> Doc:
    if _BLANK not in sentence or gold not in (0, 1):
        raise ValueError(f"no blank in {sentence!r}" if _BLANK not in sentence else f"answer {gold + 1}")
    return {"sentence": sentence, "options": options, "gold": gold}


def _contexts(doc: Doc) -> tuple[str, ...]:
    before, _, _ = doc["sentence"].partition(_BLANK)
    return tuple(before + option for option in doc["options"])


def _rest(doc: Doc) -> str:
    return str(doc["sentence"].partition(_BLANK)[2].strip())


TASK = Task(
    name="winogrande",
    version=1,
    kind="multiple_choice",
    source=Source("allenai/winogrande", "winogrande_xl", "validation", "train"),
    layouts=(Layout(("sentence", "option1", "option2", "answer"), _from_hub), Layout(COLUMNS, _from_adapters)),
    metrics=("acc",),
    question=lambda doc: str(doc["sentence"]),
    contexts=_contexts,
    answer=_rest,
    choices=lambda doc: doc["options"],
    gold=lambda doc: int(doc["gold"]),
)

"""The same task on the same local rows twice: by us, and by lm-evaluation-harness with its own task file."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fixtures.stories260k import DATA

from subspace.evaluation.harness import run_harness
from subspace.evaluation.score import Scores
from subspace.evaluation.task_scores import Subject, score_task
from subspace.evaluation.tasks import find_task
from subspace.evaluation.tasks.documents import SourceOverride, read_documents

LETTERS = "ABCD"


@dataclass(frozen=True)
class Twin:
    """A task of ours, the harness's file for it, and its local rows in the layout that the harness reads."""

    ours: str
    file: str
    splits: Mapping[str, Callable[[], Iterable[Mapping[str, Any]]]]
    metrics: Mapping[str, str]
    """Our metric to the harness's."""
    changes: Mapping[str, Any] | None = None


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of a file of ../shared/data; skips the test where it is absent."""
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/{name}.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _arc(name: str) -> list[dict[str, Any]]:
    task = find_task("arc_easy")
    rows = []
    for row in rows_of(name):
        doc = task.to_doc(row, name)
        assert doc is not None
        choices = {"text": list(doc["choices"]), "label": list("ABCDE")[: len(doc["choices"])]}
        rows.append({"question": doc["question"], "choices": choices, "answerKey": "ABCDE"[doc["gold"]]})
    return rows


def _mmlu(split: str, subject: str) -> list[dict[str, Any]]:
    rows = [row for row in rows_of(f"mmlu/{split}") if row["subject"] == subject]
    return [row | {"answer": LETTERS.index(row["answer"])} for row in rows]


def _mmlu_twin(subject: str) -> Twin:
    splits = {"dev": lambda: _mmlu("dev", subject), "test": lambda: _mmlu("test", subject)}
    return Twin(f"mmlu/{subject}", f"mmlu/default/mmlu_{subject}.yaml", splits, {"acc": "acc"}, {"num_fewshot": 5})


TWINS = {
    "mmlu/abstract_algebra": _mmlu_twin("abstract_algebra"),
    "mmlu/anatomy": _mmlu_twin("anatomy"),
    "mmlu/high_school_us_history": _mmlu_twin("high_school_us_history"),
    "arc_easy": Twin(
        "arc_easy",
        "arc/arc_easy.yaml",
        {"train": lambda: _arc("commonsense/arc_easy_train"), "test": lambda: _arc("commonsense/arc_easy_test")},
        {"acc": "acc", "acc_norm": "acc_norm"},
    ),
    "hellaswag": Twin(
        "hellaswag",
        "hellaswag/hellaswag.yaml",
        {"validation": lambda: rows_of("commonsense/hellaswag_val1000")},
        {"acc": "acc", "acc_norm": "acc_norm"},
    ),
    "boolq": Twin(
        "boolq",
        "super_glue/boolq/default.yaml",
        {"validation": lambda: rows_of("superglue/boolq_validation")},
        {"acc": "acc"},
    ),
    "gsm8k": Twin(
        "gsm8k",
        "gsm8k/gsm8k.yaml",
        {"train": lambda: rows_of("math/gsm8k_train"), "test": lambda: rows_of("math/gsm8k_test")},
        {"exact_match": "exact_match", "exact_match_flexible": "exact_match_flexible"},
    ),
}


def write_twin(twin: Twin, folder: Path) -> tuple[Path, Path]:
    """Write the rows as a data set folder, and a task file that includes the harness's own; return both folders."""
    import lm_eval
    import yaml

    texts = {split: "".join(json.dumps(dict(row)) + "\n" for row in rows()) for split, rows in twin.splits.items()}
    # `datasets` takes two folders of one name for one data set, wherever they lie.
    data = folder / f"rows-{hashlib.sha256(repr(texts).encode()).hexdigest()[:16]}"
    data.mkdir(parents=True)
    for split, text in texts.items():
        (data / f"{split}.jsonl").write_text(text, encoding="utf-8")
    listed = [{"split": split, "path": f"{split}.jsonl"} for split in twin.splits]
    front = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": listed}]})
    (data / "README.md").write_text(f"---\n{front}---\n", encoding="utf-8")
    tasks = folder / "tasks"
    tasks.mkdir()
    original = Path(lm_eval.__file__).parent / "tasks" / twin.file
    absent = {f"{name}_split": None for name in ("training", "validation", "test")}
    names = {"training": "train", "validation": "validation", "test": "test"}
    present = {f"{kind}_split": name for kind, name in names.items() if name in twin.splits}
    content = {"include": str(original), "task": "twin", "dataset_path": str(data), "dataset_name": None}
    fewshot = {} if "dev" in twin.splits or twin.ours == "gsm8k" else {"fewshot_split": None}
    content |= absent | present | fewshot | dict(twin.changes or {})
    (tasks / "twin.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return tasks, data


@dataclass(frozen=True)
class Agreement:
    """What two evaluations of one task have in common."""

    items: int
    decisions: int
    """Items times metrics."""
    equal: int
    largest: float
    """Largest difference of two log-likelihoods of one choice; 0 for generated answers."""
    outputs: int
    """Generated answers that are the same text."""
    different: tuple[dict[str, Any], ...]
    """What both found where a decision differs."""


def compare(
    twin: Twin, subject: Subject, folder: Path, *, limit: int | None = None, answer: int | None = None
) -> Agreement:
    """Evaluate a task in both ways.

    Args:
        twin: The task.
        subject: The model.
        folder: For the task file and its data.
        limit: First documents only.
        answer: Tokens of an answer at the most, in both.
    """
    tasks, data = write_twin(twin, folder)
    generation = {"max_gen_toks": answer} if answer is not None else None
    theirs = run_harness(subject, "twin", limit=limit, include=str(tasks), generation=generation)
    task = find_task(twin.ours)
    if answer is not None:
        task = dataclasses.replace(task, max_new_tokens=answer)
    documents = read_documents(task, SourceOverride(str(data)), limit=limit)
    ours = score_task(subject, task, documents)
    return agreement(twin, ours, theirs.scores)


def agreement(twin: Twin, ours: Scores, theirs: Scores) -> Agreement:
    assert len(ours.items) == len(theirs.items)
    equal, largest, outputs, different = 0, 0.0, 0, []
    for mine, other in zip(ours.items, theirs.items, strict=True):
        for metric, name in twin.metrics.items():
            same = mine[metric] == other[name]
            equal += same
            if not same:
                different.append({"metric": metric, "ours": mine, "theirs": other})
        outputs += "output" in mine and mine["output"] == other.get("output")
        for one, two in zip(mine.get("log_likelihoods", ()), other.get("log_likelihoods", ()), strict=True):
            largest = max(largest, abs(one - two))
    decisions = len(ours.items) * len(twin.metrics)
    return Agreement(len(ours.items), decisions, equal, largest, outputs, tuple(different))

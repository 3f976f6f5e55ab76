"""The same task on the same local rows twice: by us, and by lm-evaluation-harness with its own task file."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.stories260k import DATA
from subspace.evaluation.harness import run_harness
from subspace.evaluation.task_scores import Subject, score_task
from subspace.evaluation.tasks import find_task
from subspace.evaluation.tasks.documents import SourceOverride, read_documents

LETTERS = "ABCD"
_POOL = 60
"""Rows that shots are taken from, where a slice is scored."""


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


def _as_docs(name: str, file: str) -> list[dict[str, Any]]:
    task = find_task(name)
    docs = [task.to_doc(row, file) for row in rows_of(file)]
    return [dict(doc) for doc in docs if doc is not None]


def _openbookqa() -> list[dict[str, Any]]:
    return [
        {
            "question_stem": doc["question_stem"],
            "choices": {"text": list(doc["choices"]), "label": list(LETTERS)},
            "answerKey": LETTERS[doc["gold"]],
        }
        for doc in _as_docs("openbookqa", "commonsense/openbookqa_test")
    ]


def _piqa() -> list[dict[str, Any]]:
    """Return the rows whose choices fit 512 tokens: the harness gives up a whole task for one choice that does not."""
    docs = [doc for doc in _as_docs("piqa", "commonsense/piqa_test") if max(map(len, doc["choices"])) < 800]
    return [
        {"goal": doc["goal"], "sol1": doc["choices"][0], "sol2": doc["choices"][1], "label": doc["gold"]}
        for doc in docs
    ]


def _winogrande() -> list[dict[str, Any]]:
    return [
        {
            "sentence": doc["sentence"],
            "option1": doc["options"][0],
            "option2": doc["options"][1],
            "answer": str(doc["gold"] + 1),
        }
        for doc in _as_docs("winogrande", "commonsense/winogrande_test")
    ]


def _siqa() -> list[dict[str, Any]]:
    """Return rows made from OpenBookQA's: no file here has the original."""
    return [
        {
            "context": f"{doc['question_stem']}.",
            "question": "What will happen next?",
            "answerA": doc["choices"][0],
            "answerB": doc["choices"][1],
            "answerC": doc["choices"][2],
            "label": str(doc["gold"] % 3 + 1),
        }
        for doc in _as_docs("openbookqa", "commonsense/openbookqa_test")
    ]


def _glue(part: str, file: str) -> Twin:
    rows = lambda: _as_docs(f"glue/{part}", file)  # noqa: E731
    return Twin(f"glue/{part}", f"glue/{part}/default.yaml", {"validation": rows}, {"acc": "acc"})


def _qqp() -> list[dict[str, Any]]:
    """Return rows made from MRPC's: no file here has the original."""
    docs = _as_docs("glue/mrpc", "glue/mrpc_test")
    return [{"question1": doc["sentence1"], "question2": doc["sentence2"], "label": doc["label"]} for doc in docs]


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

BOTH = {"acc": "acc", "acc_norm": "acc_norm"}
TWINS |= {
    "arc_challenge": Twin(
        "arc_challenge", "arc/arc_challenge.yaml", {"test": lambda: _arc("commonsense/arc_challenge_test")}, BOTH
    ),
    "openbookqa": Twin("openbookqa", "openbookqa/openbookqa.yaml", {"test": _openbookqa}, BOTH),
    "piqa": Twin("piqa", "piqa/piqa.yaml", {"validation": _piqa}, BOTH),
    "winogrande": Twin("winogrande", "winogrande/default.yaml", {"validation": _winogrande}, {"acc": "acc"}),
    "siqa": Twin("siqa", "siqa/siqa.yaml", {"validation": _siqa}, {"acc": "acc"}),
    "glue/mrpc": _glue("mrpc", "glue/mrpc_test"),
    "glue/sst2": _glue("sst2", "glue/sst2_dev"),
    "glue/rte": _glue("rte", "glue/rte_validation"),
    "glue/qqp": Twin("glue/qqp", "glue/qqp/default.yaml", {"validation": _qqp}, {"acc": "acc"}),
}


def write_twins(names: Sequence[str], folder: Path, *, limit: int | None = None) -> tuple[Path, dict[str, Path]]:
    """Write task files that include the harness's own, a group `twins` of them, and their rows as data set folders.

    Returns:
        The folder of task files, and the folder of rows of every task.
    """
    import yaml

    tasks = folder / "tasks"
    tasks.mkdir()
    places = {name: _write_twin(TWINS[name], folder, tasks, limit) for name in names}
    group = {"group": "twins", "task": [_twin_name(name) for name in names]}
    (tasks / "twins.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    return tasks, places


def _twin_name(name: str) -> str:
    return f"twin_{name.replace('/', '_')}"


def _write_twin(twin: Twin, folder: Path, tasks: Path, limit: int | None) -> Path:
    import lm_eval
    import yaml

    scored = find_task(twin.ours).source.split
    texts = {}
    for split, rows in twin.splits.items():
        kept = list(rows())[: limit if split == scored or limit is None else _POOL]
        texts[split] = "".join(json.dumps(dict(row)) + "\n" for row in kept)
    # `datasets` takes two folders of one name for one data set, wherever they lie.
    data = folder / f"rows-{hashlib.sha256(repr(texts).encode()).hexdigest()[:16]}"
    data.mkdir(parents=True)
    for split, text in texts.items():
        (data / f"{split}.jsonl").write_text(text, encoding="utf-8")
    listed = [{"split": split, "path": f"{split}.jsonl"} for split in twin.splits]
    front = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": listed}]})
    (data / "README.md").write_text(f"---\n{front}---\n", encoding="utf-8")
    original = Path(lm_eval.__file__).parent / "tasks" / twin.file
    names = {"training": "train", "validation": "validation", "test": "test"}
    splits = {f"{kind}_split": name if name in twin.splits else None for kind, name in names.items()}
    content = {"include": str(original), "task": _twin_name(twin.ours), "dataset_path": str(data), "dataset_name": None}
    fewshot = {} if "dev" in twin.splits or twin.ours == "gsm8k" else {"fewshot_split": None}
    content |= splits | fewshot | dict(twin.changes or {})
    (tasks / f"{_twin_name(twin.ours)}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return data


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
    names: Sequence[str], subject: Subject, folder: Path, *, limit: int | None = None, answer: int | None = None
) -> dict[str, Agreement]:
    """Evaluate tasks in both ways.

    Args:
        names: Of `TWINS`.
        subject: The model.
        folder: For task files and their data.
        limit: First documents of each only.
        answer: Tokens of an answer at the most, in both.
    """
    tasks, places = write_twins(names, folder, limit=limit)
    generation = {"max_gen_toks": answer} if answer is not None else None
    theirs = run_harness(subject, "twins", include=str(tasks), generation=generation).scores.items
    found = {}
    for name, place in places.items():
        task = find_task(name)
        if answer is not None:
            task = dataclasses.replace(task, max_new_tokens=answer)
        documents = read_documents(task, SourceOverride(str(place)), limit=limit)
        others = [item for item in theirs if item["id"].startswith(f"{_twin_name(name)}/")]
        found[name] = agreement(TWINS[name], score_task(subject, task, documents).items, others)
    return found


def agreement(twin: Twin, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> Agreement:
    """Hold items of ours against items of the harness."""
    assert len(ours) == len(theirs)
    equal, largest, outputs, different = 0, 0.0, 0, []
    for mine, other in zip(ours, theirs, strict=True):
        for metric, name in twin.metrics.items():
            same = mine[metric] == other[name]
            equal += same
            if not same:
                different.append({"metric": metric, "ours": mine, "theirs": other})
        outputs += "output" in mine and mine["output"] == other.get("output")
        for one, two in zip(mine.get("log_likelihoods", ()), other.get("log_likelihoods", ()), strict=True):
            largest = max(largest, abs(one - two))
    return Agreement(len(ours), len(ours) * len(twin.metrics), equal, largest, outputs, tuple(different))

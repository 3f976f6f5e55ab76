"""A learning-rate search is scored on rows of its own: none is trained on by a trial, none is a test row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subspace.data.config import DataConfig
from subspace.data.sources import open_sources
from subspace.data.splits import read_split


def rows_of(split: Any, **fields: Any) -> set[str]:
    config = DataConfig(**fields)
    return {example.content_key() for example in read_split(config, open_sources(config), "causal_lm", split).usable}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    paths = {}
    for name, first in (("train", 0), ("test", 1000)):
        lines = [json.dumps({"prompt": f"{n} + 1 =", "completion": f" {n + 1}"}) for n in range(first, first + 400)]
        paths[name] = str(tmp_path / f"{name}.jsonl")
        Path(paths[name]).write_text("\n".join(lines))
    return paths


@pytest.mark.parametrize("held_out", [False, True], ids=["a test file", "a share for tests"])
def test_three_parts_have_nothing_in_common(files: dict[str, str], held_out: bool) -> None:
    test: dict[str, Any] = {"validation_fraction": 0.25} if held_out else {"validation": files["test"]}
    fields = {"source": files["train"], **test}
    train, tests = rows_of("train", **fields), rows_of("validation", **fields)
    shorter, tuned = (rows_of(split, **fields, tuning_fraction=0.2) for split in ("train", "validation"))
    assert not tuned & tests
    assert not tuned & shorter
    assert tuned | shorter == train
    assert 0.1 < len(tuned) / len(train) < 0.3


def test_of_one_document_the_end_before_the_test_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    fields: dict[str, Any] = {"source": str(path), "format": "text", "validation_fraction": 0.1}

    def text(split: Any, **more: Any) -> str:
        config = DataConfig(**fields, **more)
        (example,) = read_split(config, open_sources(config), "causal_lm", split).usable
        return example.text

    whole, test = text("train"), text("validation")
    shorter, tuned = text("train", tuning_fraction=0.2), text("validation", tuning_fraction=0.2)
    assert shorter + tuned == whole
    assert whole + test == path.read_text()
    assert len(tuned) == pytest.approx(0.2 * len(whole), rel=0.05)

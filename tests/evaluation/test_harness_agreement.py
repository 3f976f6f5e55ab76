"""Our scores and those of lm-evaluation-harness on the same model and the same rows, decision by decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness_twins import TWINS, Agreement, compare

from fixtures.stories260k import write_stories_folder
from subspace.evaluation.task_scores import Subject
from subspace.pipeline.loaded import load_result

pytest.importorskip("lm_eval", reason="needs the extra harness")

MODELS = ("stories260K", "builtin/tiny-llama")
CORE = ("mmlu/anatomy", "arc_easy", "hellaswag", "boolq", "gsm8k")
SLICES = {
    MODELS[0]: tuple(name for name in TWINS if name not in ("mmlu/abstract_algebra", "mmlu/high_school_us_history")),
    MODELS[1]: CORE,
}
LIMIT, ANSWER = 8, 16
"""Documents of a task, and tokens of an answer, in the fast test."""


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    stories = str(write_stories_folder(tmp_path_factory.mktemp("stories")))
    found: dict[str, Subject] = {}
    for name, target in zip(MODELS, (stories, MODELS[1]), strict=True):
        loaded = load_result(target)
        found[name] = Subject(loaded.model, loaded.tokenizer, loaded.model_config.task, batch_size=16)
    return found


def explained(difference: dict[str, Any]) -> bool:
    """Return whether a decision differs only because two choices are as good as equal in both."""
    mine, other = difference["ours"], difference["theirs"]
    if "log_likelihoods" not in mine:
        return False
    lengths = [len(choice) if difference["metric"] == "acc_norm" else 1 for choice in mine["choices"]]
    for item in (mine, other):
        scores = sorted((value / length for value, length in zip(item["log_likelihoods"], lengths, strict=True)))
        if scores[-1] - scores[-2] > 1e-5:
            return False
    return True


def check(found: Agreement, name: str) -> None:
    generated = name == "gsm8k"
    assert found.largest < 1e-3
    assert all(explained(difference) for difference in found.different), found.different[:1]
    if generated:
        assert found.outputs >= 0.99 * found.items


@pytest.mark.parametrize("model", MODELS)
def test_a_slice_is_decided_alike(model: str, subjects: dict[str, Subject], tmp_path: Path) -> None:
    for name, found in compare(SLICES[model], subjects[model], tmp_path, limit=LIMIT, answer=ANSWER).items():
        assert (name, found.items) == (name, LIMIT)
        assert (name, found.equal) == (name, found.decisions)
        check(found, name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", TWINS)
def test_every_item_is_decided_alike(name: str, model: str, subjects: dict[str, Subject], tmp_path: Path) -> None:
    found = compare([name], subjects[model], tmp_path)[name]
    print("agreement", name, model, found.items, found.decisions, found.equal, found.largest, found.outputs)
    check(found, name)

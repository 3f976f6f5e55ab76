"""The bridge to lm-evaluation-harness: any of its tasks on a loaded model, results in its own format."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from subspace.core.errors import ConfigError, DataError
from subspace.evaluation.harness import run_harness
from subspace.evaluation.task_scores import Subject
from subspace.evaluation.tasks.documents import SourceOverride
from subspace.pipeline.evaluate_tasks import Request, evaluate_tasks

pytest.importorskip("lm_eval", reason="needs the extra harness")
MakeModel = Callable[..., Any]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Return a folder with two task files and a group, over local rows."""
    rows = [{"q": f"{n} + 1 =", "a": [str(n + 1), str(n)], "g": 0} for n in range(4)]
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "tasks"
    folder.mkdir()
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(place)}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "metadata": {"version": 2},
    }
    choose = {
        "task": "toy_choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "a",
        "doc_to_target": "g",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }
    say = {
        "task": "toy_answer",
        "output_type": "generate_until",
        "doc_to_target": "{{a[0]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 4, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    for task in (choose, say):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(common | task))
    (folder / "toys.yaml").write_text(yaml.safe_dump({"group": "toys", "task": ["toy_choice", "toy_answer"]}))
    return folder


@pytest.mark.parametrize(("family", "kind"), [("llama", "lora"), ("t5", "plain")])
def test_a_loaded_model_is_asked_and_left_as_it_was(
    family: str, kind: str, make_model: MakeModel, wrap: Any, tokenizer: Any, tasks: Path
) -> None:
    model = wrap(make_model(family), kind)
    subject = Subject(model, tokenizer, "seq2seq" if family == "t5" else "causal_lm", batch_size=4)
    model.train()
    random.seed(1)
    before = random.getstate(), torch.get_rng_state()
    found = run_harness(subject, "toys", include=str(tasks), limit=3)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert model.training
    assert set(found.samples) == {"toy_choice", "toy_answer"}
    assert [item["id"] for item in found.scores.items] == [
        f"toy_{kind}/{n}" for kind in ("choice", "answer") for n in range(3)
    ]
    chosen, answered = found.scores.items[:3], found.scores.items[3:]
    table = found.results["results"]
    assert table["toy_choice"]["acc,none"] == sum(item["acc"] for item in chosen) / 3
    assert all(len(item["log_likelihoods"]) == 2 for item in chosen)
    assert all(item["correct"] is (item["acc"] == 1.0) for item in chosen)
    assert all(isinstance(item["output"], str) for item in answered)


def test_scores_of_one_task(make_model: MakeModel, tokenizer: Any, tasks: Path) -> None:
    subject = Subject(make_model("llama"), tokenizer, "causal_lm", batch_size=2)
    found = run_harness(subject, "toy_choice", include=str(tasks))
    assert set(found.scores.metrics) == {"acc", "acc_norm"}
    assert (found.version, found.num_fewshot, found.metrics[0], found.higher_is_better) == ("2", 0, "acc", True)


def test_what_cannot_be_run_is_told(
    make_model: MakeModel, tokenizer: Any, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(make_model("llama"), tokenizer, "causal_lm")
    with pytest.raises(ConfigError, match=r"E-EVL-001.*Did you mean harness:toy_choice"):
        run_harness(subject, "toy_choise", include=str(tasks))
    with pytest.raises(ConfigError, match="a model with a classification head"):
        run_harness(Subject(None, None, "classification", ("a", "b")), "toy_choice", include=str(tasks))
    file = tasks / "toy_choice.yaml"
    away = yaml.safe_load(file.read_text()) | {"dataset_path": "nobody/nothing-at-all", "dataset_kwargs": None}
    other = tasks.parent / "other"
    other.mkdir()
    (other / "toy.yaml").write_text(yaml.safe_dump(away))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"E-DAT-017.*--source harness=PATH"):
        run_harness(subject, "toy_choice", include=str(other))


def test_an_assertion_of_the_harness_says_where_it_stands(make_model: MakeModel, tokenizer: Any, tasks: Path) -> None:
    # A choice longer than the context: ours marks the item, the harness gives up the task.
    subject = Subject(make_model("llama", max_position_embeddings=2), tokenizer, "causal_lm")
    file = tasks / "toy_choice.yaml"
    longer = yaml.safe_load(file.read_text()) | {"doc_to_choice": ["one two three", "four"]}
    other = tasks.parent / "longer"
    other.mkdir()
    (other / "toy.yaml").write_text(yaml.safe_dump(longer))
    with pytest.raises(ConfigError, match=r"the harness says: AssertionError in .*\.py:\d+, assert len"):
        run_harness(subject, "toy_choice", include=str(other))


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"E-CFG-020.*pip install 'subspace-ft\[harness\]'"):
        run_harness(Subject(None, None, "causal_lm"), "arc_easy")


def test_its_results_are_collected_as_it_gave_them(tasks: Path, tmp_path: Path) -> None:
    class Quiet:
        def on_note(self, text: str) -> None: ...

        def on_task(self, model: str, split: str) -> None: ...

        def on_progress(self, done: int, total: int) -> None: ...

    request = Request(
        paths=("builtin/tiny-llama",),
        tasks=("harness:toys",),
        sources={"harness": SourceOverride(str(tasks))},
        limit=2,
        out=tmp_path / "out",
    )
    (done,) = evaluate_tasks(request, Quiet())
    assert (done.split, done.state) == ("harness.toys-first2", "done")
    assert set(done.metrics) == {"toy_choice.acc", "toy_choice.acc_norm", "toy_answer.exact_match"}
    (kept,) = evaluate_tasks(request, Quiet())
    assert (kept.state, kept.metrics) == ("kept", done.metrics)
    folder = request.out / "builtin__tiny-llama"
    (results,) = (json.loads(path.read_text()) for path in folder.glob("results_*.json"))
    assert set(results["results"]) >= {"toy_choice", "toy_answer"}
    assert results["versions"]["toy_choice"] == 2
    samples = {path.name.split("_2")[0] for path in folder.glob("samples_*.jsonl")}
    assert samples == {"samples_toy_choice", "samples_toy_answer"}

"""Results of lm-evaluation-harness, with and without samples."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from foreign_results import HARNESS, samples, write, write_lines

from subspace.report.foreign import is_foreign, read_foreign
from subspace.report.record import RunRecord

EARLY, LATE = "2026-01-01T00-00-00.5", "2026-01-02T00-00-00.5"


def read(path: Path) -> RunRecord:
    found = read_foreign(path)
    assert found is not None
    return found


def test_scores_and_circumstances(tmp_path: Path) -> None:
    run = read(write(tmp_path / f"results_{EARLY}.json", HARNESS))
    assert run.metrics == {
        "gsm8k": {"exact_match": 0.5, "exact_match_flexible": 1.0},
        "arc_easy": {"acc": 0.5, "acc_norm": 0.0},
    }
    assert (run.model, run.method, run.outcome, run.seed) == ("Qwen/Qwen2.5-7B", "", "finished", None)
    assert run.config["model"]["adapter"] == "saves/lora"
    assert run.manifest["facts"]["tasks"]["gsm8k"] == {"version": 3.0, "num_fewshot": 5}
    assert run.manifest["summary"] == {"num_parameters": 7000, "evaluation_seconds": 12.5}
    assert run.answers == {}
    assert run.notes == ("seed unknown",)


def test_a_folder_holds_every_task_as_it_was_evaluated_last(tmp_path: Path) -> None:
    write(tmp_path / f"results_{EARLY}.json", HARNESS)
    write_lines(tmp_path / f"samples_gsm8k_{EARLY}.jsonl", samples())
    later = copy.deepcopy(HARNESS)
    later["results"] = {"arc_easy": {"acc,none": 0.75}}
    write(tmp_path / f"results_{LATE}.json", later)
    run = read(tmp_path)
    assert run.name == tmp_path.name
    assert run.metrics["arc_easy"] == {"acc": 0.75}
    assert run.metrics["gsm8k"]["exact_match"] == 0.5
    assert set(run.answers) == {"gsm8k"}


def test_samples_are_items_with_one_value_a_filter(tmp_path: Path) -> None:
    write(tmp_path / f"results_{EARLY}.json", HARNESS)
    write_lines(tmp_path / f"samples_gsm8k_{EARLY}.jsonl", samples())
    items = read(tmp_path).answers["gsm8k"]()
    assert items == [
        {
            "index": 0,
            "id": "0",
            "prompt": "Question: 0",
            "reference": "so 0\n#### 0",
            "output": "0",
            "exact_match": 1.0,
            "exact_match_flexible": 1.0,
            "correct": True,
        },
        {
            "index": 1,
            "id": "1",
            "prompt": "Question: 1",
            "reference": "so 1\n#### 1",
            "output": "[invalid]",
            "exact_match": 0.0,
            "exact_match_flexible": 1.0,
            "correct": False,
        },
    ]


def test_samples_of_an_earlier_evaluation_are_not_those_of_a_later_one(tmp_path: Path) -> None:
    write(tmp_path / f"results_{EARLY}.json", HARNESS)
    write_lines(tmp_path / f"samples_gsm8k_{EARLY}.jsonl", samples())
    write(tmp_path / f"results_{LATE}.json", HARNESS)
    assert read(tmp_path).answers == {}


def test_two_models_in_one_folder_are_told(tmp_path: Path) -> None:
    write(tmp_path / f"results_{EARLY}.json", HARNESS)
    write(tmp_path / f"results_{LATE}.json", HARNESS | {"model_name": "other"})
    assert "results of 2 models in one folder: other, saves/lora" in read(tmp_path).notes


@pytest.mark.parametrize("found", [None, 3, {}, {"gsm8k": None}, {"gsm8k": {"acc,none": "N/A"}}])
def test_results_without_scores_are_told(tmp_path: Path, found: object) -> None:
    run = read(write(tmp_path / f"results_{EARLY}.json", HARNESS | {"results": found}))
    assert "no scores" in run.notes
    assert run.outcome == "unfinished"


def test_damage_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / f"results_{EARLY}.json", HARNESS)
    path.write_bytes(path.read_bytes()[:200])
    run = read(path)
    assert run.notes[0].startswith(f"{path.name} is not readable (")
    write(path, HARNESS | {"config": [], "versions": 1, "n-shot": "x"})
    lines = [json.dumps(row) for row in samples()]
    (tmp_path / f"samples_gsm8k_{EARLY}.jsonl").write_text(
        "\n".join([lines[0], "[", '{"doc_id": "x"}', '{"doc_id": 5}'])
    )
    items = read(path).answers["gsm8k"]()
    assert [item["index"] for item in items] == [1, 5]
    assert "correct" not in items[1]


def test_the_bare_name_is_not_enough(tmp_path: Path) -> None:
    assert not is_foreign(write(tmp_path / "results.json", {"results": [1, 2]}))
    assert not is_foreign(tmp_path)
    assert is_foreign(write(tmp_path / "results.json", HARNESS))
    assert not is_foreign(write(tmp_path / "results_of_mine.json", {"scores": 1}))

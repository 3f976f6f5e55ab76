"""Results of the PEFT comparison suite, of every generation and in every state."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from foreign_results import image_result, inference_result, suite_result, write

from subspace.core.errors import DataError
from subspace.report.compare import compare
from subspace.report.foreign import is_foreign, read_foreign
from subspace.report.load import read_runs
from subspace.report.record import RunRecord
from subspace.report.tables import LOWER_IS_BETTER


def read(path: Path, tree: Any) -> RunRecord:
    found = read_foreign(write(path, tree))
    assert found is not None
    return found


def test_a_result_of_today(tmp_path: Path) -> None:
    run = read(tmp_path / "lora--llama-rank32.json", suite_result())
    assert (run.name, run.method, run.model, run.data) == (
        "lora--llama-rank32",
        "lora",
        "meta-llama/Llama-3.2-3B",
        "metamath, gsm8k",
    )
    assert (run.seed, run.outcome, run.last_step, run.total_steps) == (3, "finished", 500, 500)
    assert (run.trained_parameters, run.measured_peak_bytes, run.seconds) == (9175040, 22292725760, 941.9589)
    assert run.metrics == {"validation": {"accuracy": 0.36}, "test": {"accuracy": 0.478, "forgetting": 0.05}}
    assert run.scores["accuracy"] == 0.478
    assert run.series("step", "loss") == ([250, 500], [0.98, 0.71])
    assert run.series("eval", "accuracy", split="validation") == ([250, 500], [0.32, 0.36])
    assert [record["machine"].get("elapsed_seconds") for record in run.log] == [66.5, 66.5, 110.75, 110.75]
    assert run.log[0]["machine"]["reserved_bytes"] == 14525755555.84
    summary, attempt = run.manifest["summary"], run.manifest["attempts"][-1]
    assert (summary["reserved_99th_bytes"], summary["reserved_mean_bytes"]) == (20120076288, 14397338969)
    assert (summary["num_tokens"], summary["total_seconds"], summary["file_bytes"]) == (417800, 1153.25, 36715216)
    assert attempt["versions"]["torch"] == "2.13.0"
    assert (attempt["commits"], attempt["device"]) == ({"peft": "5f4b1d3"}, "NVIDIA L40S")
    assert run.manifest["facts"]["data_revisions"] == {"metamath": "aa4f34d", "gsm8k": "e53f048"}
    assert run.config["method"] == {
        "name": "lora",
        "rank": 32,
        "target_modules": ["q_proj", "v_proj"],
        "alpha": 64,
        "dropout": 0.0,
        "init_lora_weights": True,
    }
    assert (run.config["training"]["learning_rate"], run.config["training"]["seed"]) == (1e-4, 3)
    assert run.notes == ()


def test_a_result_of_2025(tmp_path: Path) -> None:
    run = read(tmp_path / "a.json", suite_result(2025))
    assert (run.measured_peak_bytes, run.trained_parameters) == (22292725760, None)
    assert run.manifest["summary"]["reserved_99th_bytes"] == 20120076288
    assert run.metrics["test"] == {"accuracy": 0.478}
    assert run.manifest["facts"]["device"] == "NVIDIA L40S"
    assert run.notes == ()


def test_other_tasks_of_the_suite(tmp_path: Path) -> None:
    image = read(tmp_path / "image.json", image_result())
    assert (image.data, image.scores) == ("cats", {"dino_similarity": 0.74, "drift": 0.11})
    assert image.series("step", "loss") == ([100, 150], [0.77, 0.75])
    asked = read(tmp_path / "asked.json", inference_result())
    assert (asked.model, asked.method, asked.trained_parameters) == ("facebook/opt-350m", "lora", 786432)
    assert (asked.measured_peak_bytes, asked.metrics["inference"]["time_per_token"]) == (100 * 2**20, 0.01)
    assert asked.notes == ("the suite's inference benchmark; nothing was trained", "seed unknown")


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (None, "full"),
        ({"peft_type": "LORA", "use_dora": True}, "dora"),
        ({"peft_type": "LORA", "init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"peft_type": "LORA", "init_lora_weights": "gaussian"}, "lora"),
        ({"peft_type": "PREFIX_TUNING"}, "prefix"),
        ({"peft_type": "LOHA"}, "loha"),
        ({}, ""),
    ],
)
def test_methods_have_our_names(tmp_path: Path, config: dict[str, Any] | None, method: str) -> None:
    tree = suite_result()
    tree["run_info"]["peft_config"] = config
    assert read(tmp_path / "a.json", tree).method == method


def test_a_zero_is_a_score(tmp_path: Path) -> None:
    tree = suite_result()
    tree["train_info"]["metrics"][-1] |= {"forgetting": 0, "test accuracy": 0.0}
    assert read(tmp_path / "a.json", tree).metrics["test"] == {"accuracy": 0.0, "forgetting": 0.0}


@pytest.mark.parametrize(("status", "outcome"), [("canceled", "stopped"), ("failed", "failed"), ("odd", "unfinished")])
def test_runs_that_did_not_succeed(tmp_path: Path, status: str, outcome: str) -> None:
    tree = suite_result()
    tree["train_info"] |= {"status": status, "metrics": tree["train_info"]["metrics"][:1]}
    tree["run_info"]["error_msg"] = "CUDA out of memory\nat step 260"
    run = read(tmp_path / "a.json", tree)
    assert run.outcome == outcome
    assert "its error: CUDA out of memory" in run.notes
    assert f"the run is not finished ({outcome}, step 250)" in run.notes
    assert run.metrics == {"validation": {"accuracy": 0.32}}


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    tree = suite_result()
    tree["train_info"]["metrics"][1]["train loss"] = float("nan")
    run = read(tmp_path / "a.json", tree)
    assert run.series("step", "loss") == ([250], [0.98])
    assert run.notes == ("not finite in 1 places: loss",)


@pytest.mark.parametrize("cut", [60, 1000, 2500])
def test_a_half_written_file_is_named(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "half.json", suite_result())
    path.write_bytes(path.read_bytes()[:cut])
    run = read_foreign(path)
    assert run is not None
    assert run.notes[0].startswith("half.json is not readable (")
    assert (run.outcome, run.log, run.metrics) == ("unfinished", [], {})


@pytest.mark.parametrize("section", ["run_info", "train_info", "meta_info"])
@pytest.mark.parametrize(
    "value", [None, [], 3, {"metrics": 7, "train_config": [], "peft_config": 1, "package_info": ""}]
)
def test_foreign_sections_are_named_and_do_no_harm(tmp_path: Path, section: str, value: Any) -> None:
    tree = suite_result()
    tree[section] = value
    run = read(tmp_path / "a.json", tree)
    assert isinstance(run.method, str)
    if not isinstance(value, dict):
        assert f"{section} is missing" in run.notes
    elif section == "train_info":
        assert "no metrics" in run.notes


def test_every_single_value_may_be_nonsense(tmp_path: Path) -> None:
    """Each leaf and each branch of the file in turn becomes something else; nothing raises."""

    def places(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        found = [here] if here else []
        children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        for key, value in children:
            found += places(value, (*here, key))
        return found

    path = tmp_path / "a.json"
    for place in places(suite_result()):
        for nonsense in ("text", -1, {"deep": [None]}, [[]], True):
            tree = suite_result()
            inner: Any = tree
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = nonsense
            run = read(path, tree)
            assert isinstance(run.method + run.model + run.data + run.outcome, str)
            run.series("step", "loss")


def test_what_is_no_result_is_left_alone(tmp_path: Path) -> None:
    assert not is_foreign(write(tmp_path / "package.json", {"name": "x"}))
    assert not is_foreign(write(tmp_path / "result.txt", suite_result()))
    assert not is_foreign(tmp_path / "absent.json")
    assert not is_foreign(tmp_path)
    assert read_foreign(tmp_path / "package.json") is None
    with pytest.raises(DataError, match="E-DAT-001"):
        read_runs([tmp_path / "package.json"])


def test_a_folder_of_results_and_runs_of_ours(tmp_path: Path, make_run: Any) -> None:
    ours = make_run("ours")
    for name in ("a", "b"):
        write(tmp_path / "suite" / "results" / f"{name}.json", suite_result())
    write(tmp_path / "suite" / "results" / "other.json", {"name": "x"})
    found = read_runs([tmp_path / "suite", ours])
    assert [run.name for run in found] == ["a", "b", "ours"]


def test_they_join_curves_tables_and_ranking(tmp_path: Path) -> None:
    for name, score in (("lora", 0.4), ("loha", 0.3)):
        tree = suite_result()
        tree["run_info"]["peft_config"]["peft_type"] = name.upper()
        tree["train_info"]["metrics"][-1] |= {"test accuracy": score}
        write(tmp_path / "suite" / f"{name}.json", tree)
    made = compare([tmp_path / "suite"], tmp_path / "page")
    assert made.curves is not None
    page = made.page.read_text(encoding="utf-8")
    assert all(text in page for text in ("loha", "40.0 %", "30.0 %", "NVIDIA L40S", "20.76 GiB"))
    (row, _) = csv.DictReader(made.summary.read_text().splitlines())
    assert (row["method"], row["metric"], row["score"], row["seconds"]) == ("loha", "accuracy", "0.3", "941.9589")


def test_forgetting_is_better_when_it_is_lower() -> None:
    assert {"forgetting", "drift", "word_perplexity"} <= LOWER_IS_BETTER


def test_what_the_files_do_not_tell_can_be_stated(tmp_path: Path) -> None:
    tree = suite_result()
    del tree["run_info"]["train_config"]["seed"]
    (tmp_path / "subspace.yaml").write_text("data: {source: meta-math}\ntraining: {seed: 8}\nmore: 1\n")
    run = read(tmp_path / "a.json", tree)
    assert (run.seed, run.data, run.model) == (8, "meta-math", "meta-llama/Llama-3.2-3B")
    assert run.config["training"]["learning_rate"] == 1e-4
    assert read(tmp_path / "b.json", suite_result()).seed == 8
    assert run.notes == ("subspace.yaml: more ignored; its sections are model, data, method, training",)
    (tmp_path / "subspace.yaml").write_text("data: [\n")
    run = read(tmp_path / "a.json", tree)
    assert run.notes[0].startswith("subspace.yaml is not readable (")
    assert run.notes[1:] == ("seed unknown",)
    (tmp_path / "subspace.yaml").write_text(json.dumps(["x"]))
    assert "subspace.yaml is not a mapping" in read(tmp_path / "a.json", tree).notes

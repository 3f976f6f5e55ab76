"""A matrix is checked whole before anything runs; errors name its keys; every cell is a recipe on equal terms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from stub_bench import MATRIX, WriteMatrix

from subspace.core.errors import SubspaceError
from subspace.experiments.cells import Cell, Matrix, read_matrix
from subspace.experiments.halving import Trial, ladder, ranked, search_steps
from subspace.experiments.jobs import final_job, trial_job
from subspace.runs.bench_layout import BenchLayout

ROOT = Path(__file__).resolve().parents[2]
SEARCH = {"learning_rates": [1e-3, 1e-2], "seed": 7}


def cell_of(matrix: Matrix, arm: str, task: str | None = None, model: str | None = None) -> Cell:
    (cell,) = (
        cell for cell in matrix.cells if cell.arm == arm and task in (None, cell.task) and model in (None, cell.model)
    )
    return cell


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"arms": {"a": {"method": {"name": "lora", "rnk": 2}}}}, "E-CFG-007", "arms.a.method.rnk"),
        ({"arms": {"a": {"method": "lorra"}}}, "E-CFG-018", "Did you mean 'lora'"),
        ({"arms": {"a": {"method": {"name": "lora", "rnk": 2, "foo": 1}}}}, "E-CFG-007", "(and 1 more)"),
        ({"arms": {"a": {"methd": "lora"}}}, "E-CFG-007", "Did you mean 'method'"),
        ({"tasks": {"t": {"metrik": "loss"}}}, "E-CFG-007", "tasks.t.metrik"),
        ({"tasks": {"t": {"metric": "accuracy"}}}, "E-EVL-001", "tasks.t.metric"),
        ({"tasks": {"t": {"metric": "loss", "data": {"max_length": 1}}}}, "E-CFG-009", "tasks.t.data.max_length"),
        ({"tasks": {"a b": {"metric": "loss"}}}, "E-CFG-010", "cannot name a folder"),
        ({"tasks": {}}, "E-CFG-014", "no task"),
        ({"budgets": {}}, "E-CFG-007", "Did you mean 'budget'"),
        ({"budget": {"steps": 1, "tokens": 5}}, "E-CFG-014", "steps and tokens are given"),
        ({"budget": {"seconds": 5}}, "E-CFG-014", "Set search.steps"),
        ({"reference": "ful"}, "E-CFG-014", "no arm is named"),
        ({"seeds": [1, 1]}, "E-CFG-014", "given twice"),
        ({"seeds": [1, 7]}, "E-CFG-014", "search.seed"),
        ({"search": {"learning_rates": [1e-3], "seed": 7}}, "E-CFG-014", "fewer than two"),
        ({"arms": {"a": {"method": "full", "learning_rates": [1e-3]}}, "reference": None}, "E-CFG-014", "equal size"),
        ({"arms": {"a": {"method": "full", "training": {"max_steps": 3}}}}, "E-CFG-014", "The budget is the same"),
        ({"arms": {"a": {"method": "full", "training": {"batch_size": 3}}}}, "E-CFG-014", "The budget is the same"),
        ({"arms": {"a": {"method": "full", "training": {"seed": 3}}}}, "E-CFG-014", "Use seeds"),
        ({"arms": {"a": {"method": "full", "training": {"lr": 0.1}}}}, "E-CFG-014", "beside a search"),
        ({"arms": {"a": {"method": "full", "model": {"local_path": "x"}}}}, "E-CFG-014", "an own local_path"),
        ({"models": ["a/x", "b/x"]}, "E-CFG-014", "two models"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(
    write_matrix: WriteMatrix, changes: dict[str, Any], code: str, said: str
) -> None:
    if "arms" in changes:
        changes = {"reference": None, **changes}
    path = write_matrix(changes)
    with pytest.raises(SubspaceError) as refused:
        read_matrix(path)
    assert refused.value.code == code
    assert said in str(refused.value)
    assert f"{path}:" in refused.value.where


def test_layers_lie_over_each_other(write_matrix: WriteMatrix) -> None:
    changes = {
        "tasks": {
            "short": {"metric": "loss", "data": {"max_length": 32}, "steps": 3},
            "long": {"metric": "exact_match", "training": {"lr": 0.5}},
        },
        "models": {"one": None, "two": {"dtype": "bfloat16"}},
        "arms": {"full": {"method": "full", "training": {"learning_rate": 0.25}}, "lora": {"method": "lora"}},
        "search": None,
    }
    matrix = read_matrix(write_matrix(changes), ["data.max_train_samples=9", "budget.steps=5"])
    assert len(matrix.cells) == 2 * 2 * 2
    short, long = cell_of(matrix, "full", "short", "one"), cell_of(matrix, "full", "long", "two")
    assert (short.config.data.max_length, long.config.data.max_length) == (32, 64)
    assert (short.steps, long.steps) == (3, 5)
    assert (short.config.model.dtype, long.config.model.dtype) == ("auto", "bfloat16")
    assert long.config.training.learning_rate == 0.25  # the arm's, under whatever name the task gave its own
    assert cell_of(matrix, "lora", "long", "two").config.training.learning_rate == 0.5
    assert {cell.config.data.max_train_samples for cell in matrix.cells} == {9}
    assert (short.higher_is_better, long.higher_is_better) == (False, True)
    assert "exact_match" in long.config.evaluation.metrics


def test_a_recipe_file_is_the_common_base(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(json.dumps({**MATRIX["recipe"], "method": {"name": "dora", "rank": 3}}))
    matrix = read_matrix(write_matrix({"recipe": "base.yaml"}), ["training.per_device_train_batch_size=3"])
    config = cell_of(matrix, "lora").config
    assert (config.method.name, config.data.source) == ("lora", "builtin/word-problems")
    assert config.training.per_device_train_batch_size == 3


def test_all_arms_get_the_same_budget_seeds_and_search(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    own = {"full": {"method": "full", "learning_rates": [0.1, 0.2]}, "lora": {"method": "lora"}}
    matrix = read_matrix(write_matrix({"arms": own, "search": SEARCH}))
    layout = BenchLayout(tmp_path / "out")
    assert matrix.search is not None
    full, lora = cell_of(matrix, "full"), cell_of(matrix, "lora")
    assert (full.rates, lora.rates) == ((0.1, 0.2), (1e-3, 1e-2))
    one, other = (final_job(cell, layout, 2, 0.01).config for cell in (full, lora))
    assert one.model_copy(update={"method": other.method}).differences(other) == ()


def test_a_trial_never_looks_at_the_test_rows(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    matrix = read_matrix(write_matrix({"search": {**SEARCH, "max_eval_samples": 5}}))
    assert matrix.search is not None
    cell = cell_of(matrix, "lora")
    trial = trial_job(cell, BenchLayout(tmp_path), matrix.search, 1, 3, 1e-2)
    final = final_job(cell, BenchLayout(tmp_path), 1, 1e-2)
    assert (trial.config.data.tuning_fraction, final.config.data.tuning_fraction) == (0.1, 0.0)
    assert (trial.config.data.max_eval_samples, final.config.data.max_eval_samples) == (5, None)
    assert (trial.seed, trial.rate, trial.steps) == (7, 1e-2, 3)
    assert trial.folder == tmp_path / "runs/words/tiny-llama/lora/search/rung-1/rate-0.01"


@pytest.mark.parametrize("name", ["shakespeare", "mrpc"])
def test_the_real_matrices_are_whole(name: str) -> None:
    path = ROOT / "benchmarks" / "matrices" / f"{name}.yaml"
    matrix = read_matrix(path, ["model.local_path=/somewhere", "data.source=/elsewhere.gz"])
    assert len(matrix.cells) == 10
    assert all(cell.config.model.local_path == "/somewhere" for cell in matrix.cells)
    assert {len(cell.rates) for cell in matrix.cells} == {4}


def test_the_example_is_whole_and_reading_needs_no_torch() -> None:
    path = ROOT / "examples" / "bench_tiny.yaml"
    code = f"""
import sys
from pathlib import Path
from subspace.experiments.cells import read_matrix
import subspace.experiments.bench
print(len(read_matrix(Path({str(path)!r})).cells), [n for n in ("torch", "transformers", "peft") if n in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split(maxsplit=1) == ["4", "[]\n"]


def test_the_document_shows_the_example() -> None:
    shown = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    example = (ROOT / "examples" / "bench_tiny.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown) == yaml.safe_load(example)


def test_halving_costs_each_arm_the_same() -> None:
    assert [(rung.num_trials, rung.steps) for rung in ladder(8, 80, 2)] == [(8, 20), (4, 40), (2, 80)]
    assert [(rung.num_trials, rung.steps) for rung in ladder(3, 50, 2)] == [(3, 50)]
    assert [(rung.num_trials, rung.steps) for rung in ladder(4, 9, 3, rungs=3)] == [(4, 1), (1, 3), (1, 9)]
    assert search_steps(ladder(8, 80, 2)) == 3 * 160


def test_equal_scores_are_told_apart_by_the_loss() -> None:
    trials = [
        Trial(0.1, 0, 5, None, error="E-NUM-001"),
        Trial(0.2, 0, 5, 0.5, loss=0.9),
        Trial(0.3, 0, 5, 0.5, loss=0.7),
        Trial(0.4, 0, 5, 0.4, loss=0.1),
    ]
    assert [trial.rate for trial in ranked(trials, higher_is_better=True)] == [0.3, 0.2, 0.4, 0.1]
    assert [trial.rate for trial in ranked(trials, higher_is_better=False)] == [0.4, 0.3, 0.2, 0.1]

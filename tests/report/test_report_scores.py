"""Score tables: arms and tasks, pairing of items, and what is told where items cannot be paired."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from report.forged_bench import forge_bench, forge_run
from subspace.core.errors import UsageError
from subspace.report.arms import arrange
from subspace.report.bench import read_bench
from subspace.report.items import read_items
from subspace.report.load import find_benches, find_runs, read_run, read_runs
from subspace.report.score_tables import Scored, score_tables
from subspace.report.study import study_of

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return forge_bench(tmp_path_factory.mktemp("bench") / "out", arms=("full", "lora", "dora"), seeds=(0, 1), items=30)


def scored_of(folder: Path, **settings: str) -> list[Scored]:
    benches = find_benches([folder])
    return score_tables(arrange(read_runs([folder], benches), benches), **settings)


def codes(scored: Scored) -> list[str]:
    return [remark.code for remark in scored.remarks]


def test_a_bench_becomes_a_table_for_every_task(bench: Path) -> None:
    words, plays = scored_of(bench)
    assert (words.name, words.metric, words.split) == ("word-problems", "exact_match", "test")
    assert (plays.name, plays.metric, plays.higher_is_better) == ("shakespeare", "loss", False)
    table = words.table
    assert table is not None
    assert (table.arms, table.seeds, table.values.shape) == (("full", "lora", "dora"), (0, 1), (3, 2, 30))
    assert table.binary
    assert table.weights is None
    run = read_run(bench / "runs/word-problems/tiny-llama/lora/seed-1")
    rows = [json.loads(line) for line in run.predictions["test"].read_text().splitlines()]
    assert table.rows_of("lora")[1].tolist() == [row["exact_match"] for row in rows]
    assert plays.table is not None
    assert plays.table.weights is not None
    assert plays.table.weights.tolist() == [20 + place % 13 for place in range(30)]
    assert np.average(plays.table.rows_of("dora")[0], weights=plays.table.weights) == pytest.approx(
        plays.scores["dora"][0]
    )
    assert codes(words) == codes(plays) == []
    assert words.before == 0.2


def test_items_are_paired_by_id_whatever_their_order(bench: Path, tmp_path: Path) -> None:
    left, right = (
        forge_run(tmp_path / arm, arm=arm, task="word-problems", seed=0, items=9) for arm in ("full", "lora")
    )
    file = right / "predictions" / "test.jsonl"
    before = scored_of(tmp_path)[0].table
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    after = scored_of(tmp_path)[0].table
    assert before is not None
    assert after is not None
    assert np.array_equal(before.values, after.values)
    del left


def test_a_missing_item_is_nan_and_told(tmp_path: Path) -> None:
    for arm in ("full", "lora"):
        forge_run(tmp_path / arm, arm=arm, task="word-problems", seed=0, items=10)
    folder = tmp_path / "lora"
    rows = (folder / "predictions" / "test.jsonl").read_text().splitlines()[:-1]
    (folder / "predictions" / "test.jsonl").write_text("\n".join(rows) + "\n")
    mean = sum(json.loads(row)["exact_match"] for row in rows) / 9
    (folder / "metrics.json").write_text(json.dumps({"test": {"exact_match": mean}}))
    [scored] = scored_of(tmp_path)
    assert scored.table is not None
    assert np.isnan(scored.table.rows_of("lora")).sum() == 1
    assert codes(scored) == ["items-missing"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: [{**row, "prompt": "another"} for row in rows], "items-differ"),
        (lambda rows: [{**rows[0], "reference": "another"}, *rows[1:]], "items-differ"),
        (lambda rows: [{**row, "exact_match": 0.0} for row in rows], "items-differ-from-score"),
        (lambda rows: [], "no-items"),
        (lambda rows: [{"index": place} for place in range(len(rows))], "no-items"),
        (lambda rows: [{**row, "id": f"other/{place}"} for place, row in enumerate(rows)], "items-differ"),
    ],
)
def test_items_that_cannot_be_paired_leave_one_score_a_run(
    change: Callable[[list[dict[str, object]]], list[dict[str, object]]], expected: str, tmp_path: Path
) -> None:
    for arm in ("full", "lora"):
        forge_run(tmp_path / arm, arm=arm, task="word-problems", seed=0, items=12)
    file = tmp_path / "lora" / "predictions" / "test.jsonl"
    rows = change([json.loads(line) for line in file.read_text().splitlines()])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [scored] = scored_of(tmp_path)
    assert codes(scored) == [expected]
    assert scored.table is not None
    assert scored.table.values.shape == (2, 1, 1)
    assert scored.table.values[1, 0, 0] == scored.scores["lora"][0]
    assert scored.items == {}


def test_correct_stands_for_what_an_item_does_not_name(tmp_path: Path) -> None:
    forge_run(tmp_path / "a", arm="full", task="word-problems", seed=0, items=4)
    record = read_run(tmp_path / "a")
    named, stood_for = read_items(record, "test", "exact_match"), read_items(record, "test", "accuracy")
    assert named is not None
    assert stood_for is not None
    assert named.values == stood_for.values
    assert read_items(record, "test", "rougeL") is None


def test_a_metric_can_be_chosen_and_an_unknown_one_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    for name, method in (("a", "lora"), ("b", "dora")):
        make_run(name, method=method, metrics={"validation": {"exact_match": 0.5, "loss": 0.4}})
    assert [found.metric for found in scored_of(tmp_path / "outputs")] == ["exact_match"]
    assert [found.metric for found in scored_of(tmp_path / "outputs", metric="loss")] == ["loss"]
    with pytest.raises(UsageError, match=r"E-CLI-001 --metric: rouge; expected one of exact_match, loss"):
        study_of([tmp_path / "outputs"], metric="rouge")
    with pytest.raises(UsageError, match=r"E-CLI-001 --reference: full; expected one of dora, lora"):
        study_of([tmp_path / "outputs"], reference="full")


def test_different_data_are_tasks_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    for data in ("one.json", "two.json"):
        for method in ("lora", "dora"):
            make_run(f"{data}-{method}", method=method, data=data, metrics={"validation": {"exact_match": 0.5}})
    first, second = scored_of(tmp_path / "outputs")
    assert (first.name, second.name) == ("one.json", "two.json")
    assert set(first.scores) == set(second.scores) == {"lora", "dora"}


def test_a_later_evaluation_is_a_task_of_its_own(make_run: MakeRun, tmp_path: Path) -> None:
    for method in ("lora", "dora"):
        scores = {"validation": {"loss": 0.5}, "gsm8k": {"exact_match": 0.25}, "before": {"loss": 2.0}}
        make_run(method, method=method, metrics=scores)
    assert [(found.name, found.metric, found.before) for found in scored_of(tmp_path / "outputs")] == [
        ("word-problems", "loss", 2.0),
        ("gsm8k", "exact_match", None),
    ]


def test_unequal_budgets_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", method="lora", steps=40)
    make_run("b", method="dora", steps=20)
    [scored] = scored_of(tmp_path / "outputs")
    told = next(remark for remark in scored.remarks if remark.code == "unequal-steps")
    assert (told.values["low"], told.values["high"]) == (20, 40)


def test_runs_on_several_kinds_of_devices_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    folders = [make_run(method, method=method) for method in ("lora", "dora")]
    assert all("mixed-devices" not in codes(scored) for scored in scored_of(tmp_path / "outputs"))
    for folder, devices in zip(folders, (["cpu"], ["cuda:1", "cpu"]), strict=True):
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest["attempts"] = [{"device": device} for device in devices]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    [scored] = scored_of(tmp_path / "outputs")
    told = next(remark for remark in scored.remarks if remark.code == "mixed-devices")
    assert told.values["devices"] == "cpu, cuda"


def test_two_runs_of_one_seed_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(name, metrics={"validation": {"loss": 0.5}})
    make_run("c", method="dora", metrics={"validation": {"loss": 0.5}})
    [scored] = scored_of(tmp_path / "outputs")
    assert "seed-repeated" in codes(scored)


def test_of_many_arms_the_best_are_judged(make_run: MakeRun, tmp_path: Path) -> None:
    for rank in range(1, 28):
        make_run(f"r{rank}", rank=rank, steps=1, eval_every=0, metrics={"validation": {"exact_match": rank / 100}})
    [scored] = scored_of(tmp_path / "outputs")
    assert scored.table is not None
    assert len(scored.table.arms) == 24
    assert not {"lora, rank 1", "lora, rank 2", "lora, rank 3"} & set(scored.table.arms)
    assert len(scored.scores) == 27
    told = next(remark for remark in scored.remarks if remark.code == "arms-left-out")
    assert (told.values["judged"], told.values["arms"]) == (24, 27)


def test_a_bench_is_found_from_its_folder_above_and_below(bench: Path) -> None:
    trial = forge_run(
        bench / "runs/word-problems/tiny-llama/full/search/0.001", arm="full", task="word-problems", seed=9
    )
    for path in (bench, bench.parent, bench / "runs", bench / "runs" / "word-problems"):
        benches = find_benches([path])
        assert [found.folder for found in benches] == [bench.resolve()]
        runs = find_runs([path], benches)
        assert len(runs) == (6 if path.name == "word-problems" else 12), path
        assert trial not in runs
    read = read_bench(bench)
    assert read is not None
    assert (read.budget, len(read.searches), read.notes) == (("steps", 120.0), 6, ())


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"jobs": 3, "arms": [], "searches": "x"}', '{"jobs": [{"arm": 1}]}']
)
def test_a_damaged_bench_is_noted_and_survived(content: str, tmp_path: Path) -> None:
    forge_run(tmp_path / "runs" / "a", arm="full", task="word-problems", seed=0, items=3)
    (tmp_path / "bench.json").write_text(content)
    found = study_of([tmp_path])
    assert [run.name for run in found.records] == ["a"]
    assert bool(found.benches[0].notes) == (content in ("", "{", "[]"))

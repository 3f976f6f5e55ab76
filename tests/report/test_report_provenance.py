"""What the page says of where numbers come from: tasks that were evaluated, and a budget in seconds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from forged_bench import forge_bench, forge_run, write_json
from parsed_page import Page

from subspace.report.load import read_run
from subspace.report.page.document import write_page
from subspace.report.page.provenance import provenance
from subspace.report.study import study_of

TASK = {
    "name": "mmlu/anatomy", "version": "3", "kind": "choice", "metric": "acc", "num_fewshot": 5, "num_items": 135,
    "source": "data/mmlu_<anatomy>", "source_digest": "0" * 64, "digest": "4d6e2b9c1a7f5e30" * 4,
}  # fmt: skip
FEW = {"arms": ("lora", "dora"), "tasks": ("word-problems",), "seeds": (0, 1, 2), "items": 40, "searches": False}


def page_of(bench: Path) -> str:
    path = bench / "page.html"
    write_page(study_of([bench]), path)
    return Page(path.read_text(encoding="utf-8")).text


def test_tasks_are_told_one_a_line_in_both_languages(tmp_path: Path) -> None:
    bench = forge_bench(tmp_path / "bench", **FEW)  # type: ignore[arg-type]
    assert "Tasks that were evaluated" not in provenance(study_of([bench]))
    folders = sorted(bench.glob("runs/*/*/*/seed-*"))
    for folder in folders[:4]:
        write_json(folder / "tasks.json", {"mmlu.anatomy": TASK})
    write_json(folders[4] / "tasks.json", {"mmlu.anatomy": {**TASK, "version": "4", "digest": "f" * 64}})
    (folders[5] / "tasks.json").write_text("[1, 2]")
    assert read_run(folders[5]).notes == ("tasks.json is not a JSON object",)
    text = provenance(study_of([bench]))
    table = text[text.index("Tasks that were evaluated") : text.index("To make this again")]
    rows = [Page(f"<tr{row.partition('</tbody>')[0]}").text.split() for row in table.split("<tr")[2:]]
    assert rows == [
        ["mmlu.anatomy", "3", "5", "acc", "135", "data/mmlu_<anatomy>", "4d6e2b9c1a7f", "4"],
        ["mmlu.anatomy", "4", "5", "acc", "135", "data/mmlu_<anatomy>", "ffffffffffff", "1"],
    ]
    for word in ("评测任务", "示例数", "来源", "Shots", "Source"):
        assert word in table


def test_unequal_steps_of_a_budget_in_seconds_are_told_as_that(tmp_path: Path) -> None:
    bench = forge_bench(tmp_path / "bench", **FEW)  # type: ignore[arg-type]
    for seed in (0, 1, 2):
        folder = bench / f"runs/word-problems/tiny-llama/dora/seed-{seed}"
        shutil.rmtree(folder)
        forge_run(folder, arm="dora", task="word-problems", seed=seed, items=40, steps=80)
    assert "Unequal budgets: runs were trained for 80 to 120 steps." in page_of(bench)
    tree = json.loads((bench / "bench.json").read_bytes())
    write_json(bench / "bench.json", {**tree, "budget": {"kind": "seconds", "value": 90.0}})
    text = page_of(bench)
    assert re.search(r"Runs took 1\d\.\d to 1\d\.\d seconds and not the 90 of the budget", text)
    assert "Unequal budgets" not in text
    assert "The budget was 90 seconds of training" in text
    assert "they buy 80 to 120 steps" in text
    assert "预算为 90 秒的训练时间" in text
    assert "可训练 80 至 120 步" in text
    write_json(bench / "bench.json", {**tree, "budget": {"kind": "seconds", "value": 17.0}})
    assert "Runs took" not in page_of(bench), "what the forged runs took, within a fifth"

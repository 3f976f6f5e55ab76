"""The fidelity stands in every result, so that `galore` is always GaLore as published."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parsed_page import Page

from report.forged_bench import forge_bench
from subspace.config.load import document_from
from subspace.pipeline.card import model_card
from subspace.pipeline.run_config import parse_run_config
from subspace.report.arms import arrange
from subspace.report.compare import compare
from subspace.report.fidelity import joined, marked
from subspace.report.groups import group_runs
from subspace.report.load import read_run, read_runs
from subspace.report.page.sensitivity import search_fields
from subspace.report.study import study_of
from subspace.report.tables import summary_rows, summary_table, write_summary

MakeRun = Callable[..., Path]
OFFICIAL = "galore, fidelity reference"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def labels(folder: Path) -> dict[str, str]:
    """Return the label of each run by its name."""
    groups = group_runs(read_runs([folder]))
    return {record.name: group.label for group in groups for record in group.records}


@pytest.mark.parametrize(
    ("label", "fidelity", "expected"),
    [
        ("galore", None, "galore"),
        ("galore", "paper", "galore"),
        ("galore", "reference", OFFICIAL),
        (OFFICIAL, "reference", OFFICIAL),
        ("GaLore (Reference)", "reference", "GaLore (Reference)"),
        ("galore_reference", "reference", "galore_reference"),
        ("galore, preference", "reference", "galore, preference, fidelity reference"),
        ("galore, references", "reference", "galore, references, fidelity reference"),
        ("galore", "paper and reference", "galore, fidelity paper and reference"),
    ],
)
def test_a_label_says_once_what_is_not_the_paper(label: str, fidelity: str | None, expected: str) -> None:
    assert marked(label, fidelity) == expected
    assert marked(expected, fidelity) == expected


def test_several_runs_have_one_fidelity_or_all_of_theirs() -> None:
    assert joined(["paper", None, "paper"]) == "paper"
    assert joined(["reference", "paper"]) == "paper and reference"
    assert joined([None]) is None


def test_a_run_says_its_fidelity(make_run: MakeRun) -> None:
    for fidelity in ("paper", "reference", None):
        assert read_run(make_run(f"run-{fidelity}", method="galore", fidelity=fidelity, steps=2)).fidelity == fidelity


def test_tables_of_runs_say_the_fidelity(make_run: MakeRun, tmp_path: Path) -> None:
    from rich.console import Console

    make_run("a", method="galore", fidelity="paper", eval_every=20)
    make_run("b", method="galore", fidelity="reference", eval_every=20)
    make_run("c", eval_every=20)
    records = read_runs([tmp_path / "outputs"])
    write_summary(summary_rows(records), tmp_path / "summary.csv")
    expected = {"a": "paper", "b": "reference", "c": ""}
    assert {row["run"]: row["fidelity"] for row in read_csv(tmp_path / "summary.csv")} == expected
    made = compare([tmp_path / "outputs"], tmp_path / "out")
    for path in (made.summary, made.tidy, made.epochs):
        assert path is not None
        assert {row["run"]: row["fidelity"] for row in read_csv(path)} == expected, path.name
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary_table(records))
    assert console.export_text().count(OFFICIAL) == 1
    words = Page(made.page.read_text(encoding="utf-8")).words
    assert [words.count(word) for word in ("Fidelity", "实现依据", "paper", "reference")] == [1, 1, 1, 1]


def test_the_official_code_is_told_where_nothing_else_is_compared(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(f"galore-{seed}", method="galore", fidelity="reference", seed=seed, steps=2)
    make_run("lora", steps=2)
    assert labels(tmp_path / "outputs") == {"galore-1": OFFICIAL, "galore-2": OFFICIAL, "lora": "lora"}


def test_both_fidelities_are_called_what_they_are_called_alone(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", method="galore", fidelity="paper", steps=2)
    make_run("b", method="galore", fidelity="reference", steps=2)
    assert labels(tmp_path / "outputs") == {"a": "galore", "b": OFFICIAL}
    make_run("c", method="galore", fidelity="reference", rank=4, steps=2)
    assert labels(tmp_path / "outputs") == {
        "a": "galore, rank 8",
        "b": f"{OFFICIAL}, rank 8",
        "c": f"{OFFICIAL}, rank 4",
    }


def test_the_paper_is_told_beside_a_run_of_unknown_fidelity(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", method="galore", fidelity="paper", steps=2)
    make_run("b", method="galore", steps=2)
    assert labels(tmp_path / "outputs") == {"a": "galore, fidelity paper", "b": "galore"}


def test_the_name_of_a_folder_is_marked_as_well(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("one", method="galore", fidelity="reference", rank=4, data="a.json", model="m1", steps=2)
    make_run("two", method="galore", fidelity="paper", rank=8, data="b.json", model="m2", steps=2)
    assert labels(tmp_path / "outputs") == {"one": "one, fidelity reference", "two": "two"}


def test_an_arm_has_one_name_in_every_field(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", method="galore", fidelity="paper", data="one.json", steps=2)
    make_run("b", method="galore", fidelity="reference", data="one.json", steps=2)
    make_run("c", method="galore", fidelity="reference", data="two.json", steps=2)
    arms = arrange(read_runs([tmp_path / "outputs"]))
    assert {group.label: [run.name for run in group.records] for group in arms.groups} == {
        "galore": ["a"],
        OFFICIAL: ["b", "c"],
    }


def test_an_arm_of_a_bench_is_marked_and_still_found(tmp_path: Path) -> None:
    fidelity = {"galore": "reference", "apollo, rank 16": "paper"}
    folder = forge_bench(
        tmp_path / "bench", arms=("full", *fidelity), tasks=("word-problems",), seeds=(0, 1), items=20,
        reference="galore", fidelity=fidelity,
    )  # fmt: skip
    study = study_of([folder])
    assert {group.label: (group.fidelity, len(group.records)) for group in study.arms.groups} == {
        "full": (None, 2),
        OFFICIAL: ("reference", 2),
        "apollo, rank 16": ("paper", 2),
    }
    assert study.reference == study_of([folder], reference="galore").reference == OFFICIAL
    assert study_of([folder], reference=OFFICIAL).reference == OFFICIAL
    [searches] = search_fields(study).values()
    assert {group.label: search.arm for group, search in searches} == {
        "full": "full",
        OFFICIAL: "galore",
        "apollo, rank 16": "apollo, rank 16",
    }
    assert all(sum(job.arm == "galore" for job in bench.jobs) == 2 for bench in study.benches)


def test_benches_that_call_both_fidelities_the_same_are_kept_apart(tmp_path: Path) -> None:
    folders = [
        forge_bench(
            tmp_path / fidelity, arms=("full", "galore"), tasks=("word-problems",), seeds=(0,), items=9,
            fidelity={"galore": fidelity},
        )
        for fidelity in ("paper", "reference")
    ]  # fmt: skip
    study = study_of(folders)
    assert {group.label: group.fidelity for group in study.arms.groups} == {
        "full": None,
        "galore": "paper",
        OFFICIAL: "reference",
    }
    [searches] = search_fields(study).values()
    assert [group.label for group, _ in searches] == ["full", "galore", "full", OFFICIAL]


def test_the_tables_of_the_verdict_say_the_fidelity(tmp_path: Path) -> None:
    fidelity = {"galore": "reference", "apollo, rank 16": "paper"}
    folder = forge_bench(
        tmp_path / "bench", arms=("full", *fidelity), tasks=("word-problems",), seeds=(0, 1), items=20,
        searches=False, fidelity=fidelity,
    )  # fmt: skip
    out = compare([folder], tmp_path / "out").page.parent
    ranking = read_csv(out / "ranking.csv")
    assert list(ranking[0])[3:5] == ["arm", "fidelity"]
    expected = {"full": "", OFFICIAL: "reference", "apollo, rank 16": "paper"}
    assert {row["arm"]: row["fidelity"] for row in ranking} == expected
    pairs = read_csv(out / "comparisons.csv")
    assert {row[side] for row in pairs for side in ("first", "second")} == set(expected)
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["fidelity"] == {OFFICIAL: "reference", "apollo, rank 16": "paper"}
    assert {rank["arm"] for rank in verdict["tasks"][0]["ranking"]} == set(expected)
    lines = (out / "ranking.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert (cells[0][:2], cells[1][:3]) == (["Method", "Fidelity"], ["---", "---", "---:"])
    assert {row[0]: row[1] for row in cells[2:]} == {arm: told or "–" for arm, told in expected.items()}
    tex = (out / "ranking.tex").read_text()
    assert "\\begin{tabular}{llrrrrrr}\n" in tex
    best = next(line.split(" & ") for line in tex.splitlines() if "textbf" in line)
    assert [cell.startswith("\\textbf{") for cell in best[:4]] == [False, False, True, False]


def test_a_ranking_of_methods_without_fidelity_has_no_column_for_people(tmp_path: Path) -> None:
    folder = forge_bench(
        tmp_path / "bench", arms=("full", "lora"), tasks=("word-problems",), seeds=(0, 1), items=9, searches=False
    )
    made = compare([folder], tmp_path / "out")
    assert "Fidelity" not in (made.page.parent / "ranking.md").read_text()
    assert "Fidelity" not in Page(made.page.read_text(encoding="utf-8")).text
    assert json.loads((made.page.parent / "verdict.json").read_text())["fidelity"] == {}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"name": "galore"}, "Method: `galore`. Fidelity: `paper`, the published method."),
        (
            {"name": "galore", "fidelity": "reference"},
            "Method: `galore`. Fidelity: `reference`, the official code, step for step.",
        ),
        ({"name": "lora"}, "Method: `lora`."),
    ],
)
def test_the_model_card_says_method_and_fidelity(method: dict[str, Any], expected: str) -> None:
    tree = {
        "model": {"model_name_or_path": "builtin/tiny-llama"},
        "data": {"source": "builtin/word-problems"},
        "method": method,
        "training": {"max_steps": 1},
    }
    summary = {
        "metrics": {}, "steps": 1, "num_tokens": 1, "trained_parameters": 1, "planned_peak_bytes": 1,
        "measured_peak_bytes": 1, "seconds": 1.0,
    }  # fmt: skip
    card = model_card(parse_run_config(document_from(tree))[0], summary)
    assert expected in card.splitlines()

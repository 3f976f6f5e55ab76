"""The page and the whole of `compare`: whole, self-contained, honest about what is missing, and free of torch."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from parsed_page import Page

from subspace.core.errors import DataError, UsageError
from subspace.report.compare import Comparison, compare
from subspace.report.page.document import write_page
from subspace.report.study import study

MakeRun = Callable[..., Path]


def scores(before: float, after: float) -> dict[str, dict[str, float]]:
    return {"before": {"exact_match": before}, "validation": {"exact_match": after, "loss": 0.4}}


@pytest.fixture
def comparison(make_run: MakeRun, tmp_path: Path) -> Comparison:
    make_run("demo-lora", metrics=scores(0.1, 0.7))
    make_run("demo-dora", method="dora", metrics=scores(0.1, 0.8), parameters=140_000)
    make_run("demo-full", method="full", finished=False)
    return compare([tmp_path / "outputs"], tmp_path / "comparison")


def test_a_comparison_is_a_page_a_picture_and_two_tables(comparison: Comparison) -> None:
    for path in (comparison.page, comparison.tidy, comparison.summary, comparison.curves):
        assert path is not None
        assert path.stat().st_size > 100
    assert len(comparison.records) == 3
    assert comparison.notes == (
        "demo-full: metrics.json is missing",
        "demo-full: the run is not finished (stopped, step 40)",
    )


def test_the_page_says_what_came_out(comparison: Comparison) -> None:
    page = Page(comparison.page.read_text(encoding="utf-8"))
    for expected in (
        "dora scores best, but nothing tells whether by chance.",
        "dora has 80.0 % exact match, the best of 2.",
        "Before training: 10.0 %.",
        "Judged by one score a run",
        "builtin/tiny-llama",
        "70.0 %",
        "140.00K",
        "predicted 362.40 MiB",
        "372.89 MiB",
        "21.5 s",
        "stopped",
        "demo-full : metrics.json is missing",
    ):
        assert expected in page.text
    names = {words.get("href") for tag, words in page.tags if tag == "a"}
    assert {"tidy.csv", "summary.csv", "loss_curves.png", "ranking.csv"} <= names
    assert all((comparison.page.parent / str(name)).is_file() for name in names)
    text = comparison.page.read_text(encoding="utf-8")
    table = text[text.index('<section id="runs">') : text.index('<section id="provenance">')]
    assert table.count("<tr") == 4


def test_the_page_loads_nothing_and_runs_one_script_that_its_policy_names(comparison: Comparison) -> None:
    text = comparison.page.read_text(encoding="utf-8")
    page = Page(text)
    assert [words for tag, words in page.tags if tag == "script"] == [{}]
    assert not {"iframe", "object", "embed", "img", "form", "base"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, words in page.tags for name in words)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(words["content"] for tag, words in page.tags if words.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    viewport = next(words["content"] for tag, words in page.tags if words.get("name") == "viewport")
    assert viewport == "width=device-width,initial-scale=1"
    assert "prefers-color-scheme:dark" in text


def test_names_are_text_whatever_they_contain(make_run: MakeRun, tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">&\'"'
    make_run(
        evil, model=evil.replace('"', "").replace("'", ""), method="a<b>c", metrics={"validation": {"<i>odd": 0.5}}
    )
    make_run("other", method="dora", metrics={"validation": {"<i>odd": 0.6}})
    page = Page(compare([tmp_path / "outputs"], tmp_path / "out").page.read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in page.tags}
    assert evil in page.text
    assert "<i>odd" in page.text


def test_one_run_is_enough(make_run: MakeRun, tmp_path: Path) -> None:
    found = compare([make_run("alone", metrics=scores(0.2, 0.9))], tmp_path / "out")
    page = Page(found.page.read_text(encoding="utf-8"))
    assert "has 90.0 % exact match after training. Before training: 20.0 %." in page.text
    assert "chance" not in page.text
    assert found.notes == ()


def test_a_lower_loss_is_better(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", metrics={"validation": {"loss": 0.5}})
    make_run("b", method="dora", metrics={"validation": {"loss": 0.4}})
    text = compare([tmp_path / "outputs"], tmp_path / "out").page.read_text(encoding="utf-8")
    assert "dora has 0.4000 loss, the best of 2." in Page(text).text
    assert "lower is better" in text


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", "No scores yet"),
        ('{"event":"step","step":1,"loss":2.0}\n{"event":"st', "No scores yet"),
        ('{"event":"eval","step":2,"split":"validation","loss":1.25}\n', "ends at a validation loss of 1.25"),
    ],
)
def test_a_bare_or_torn_log_makes_a_page(lines: str, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "unified_log.jsonl").write_text(lines)
    found = compare([folder], tmp_path / "out")
    page = Page(found.page.read_text(encoding="utf-8"))
    assert expected in page.text
    assert "seed unknown" in page.text
    assert (found.curves is None) == (lines == "")
    if lines.endswith("st"):
        assert "the last line is torn; ignored" in page.text


def test_compare_again_replaces_its_own_files_only(make_run: MakeRun, tmp_path: Path) -> None:
    folder, out = make_run("a"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    first = compare([folder], out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    compare([folder], out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert {path.rpartition(".")[0] for path in before} == {
        "mine", "index", "tidy", "summary", "loss_curves", "ranking", "epochs",
    }  # fmt: skip
    assert first.page == out / "index.html"


def test_nothing_to_compare_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="E-DAT-001"):
        compare([tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="E-DAT-001"):
        write_page(study([]), tmp_path / "page.html")


def test_a_comparison_imports_no_torch(make_run: MakeRun, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from subspace.report.compare import compare\n"
        f"compare([Path({str(make_run())!r})], Path({str(tmp_path / 'out')!r}))\n"
        "from subspace.report.load import read_run; from subspace.report.tables import summary_table\n"
        f"summary_table([read_run(Path({str(tmp_path / 'outputs' / 'lora')!r}))])\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('subspace.')}\n"
        "assert rooms == {'core', 'runs', 'report', 'statistics'}, rooms\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def section_of(made: Comparison, name: str) -> str:
    text = made.page.read_text(encoding="utf-8")
    start, end = text.index(f'<section id="{name}">'), "</section>"
    return text[start : text.index(end, start) + len(end)]


def test_epochs_stand_side_by_side(make_run: MakeRun, tmp_path: Path) -> None:
    for name, end in (("a", 0.4), ("b", 0.6)):
        make_run(name, method="galore", seed=ord(name), end=end, steps=60, seconds=60.0, loaded=2**30)
    make_run("c", method="full", steps=20, measured=3 * 2**30)
    make_run("d", method="dora", steps=15)
    made = compare([tmp_path / "outputs"], tmp_path / "comparison")
    assert made.epochs is not None
    part = section_of(made, "epochs")
    assert part.count("<tr") == 3  # a run of less than an epoch has no row
    shown = Page(part).text
    for expected in ("Epoch 1", "Epoch 3", "Time per epoch", "20.0 s", "1.00 GiB", "3.00 GiB", "第 3 轮"):
        assert expected in shown
    assert "Epoch 4" not in shown
    last = [run.epochs[-1].loss for run in made.records if run.method == "galore"]
    assert f"{sum(last) / 2:.4f}" in shown


def test_runs_on_different_data_are_never_averaged(make_run: MakeRun, tmp_path: Path) -> None:
    for name, data, end, size in (("a", "builtin/word-problems", 0.4, 2**30), ("b", "own/rows.jsonl", 3.4, 3 * 2**30)):
        make_run(name, data=data, end=end, steps=20, start=4.0, measured=size, loaded=size // 2)
        make_run(f"{name}-torn", data=data, seed=7, steps=15, measured=9 * 2**30, loaded=9 * 2**30)
    made = compare([tmp_path / "outputs"], tmp_path / "comparison")
    assert [len(group.records) for group in made.study.arms.groups] == [4]
    parts = section_of(made, "epochs").split("data-chosen=")
    assert all(f">{name}</button>" in parts[0] for name in ("word-problems", "rows.jsonl"))
    for part, name, size in zip(parts[1:], ("a", "b"), ("1.00 GiB", "3.00 GiB"), strict=True):
        [epoch] = next(run.epochs for run in made.records if run.name == name)
        assert f"{epoch.loss:.{4 if epoch.loss < 1 else 3}f}" in part
        assert size in part  # of the run with an epoch, not of the torn one beside it
    bars = section_of(made, "memory").split("data-chosen=")
    assert [part.count("5.00 GiB") for part in bars] == [0, 1, 0]  # means of 1 and 9, of 3 and 9
    assert [part.count("6.00 GiB") for part in bars] == [0, 0, 1]


def test_without_scores_every_field_has_its_own_loss(make_run: MakeRun, tmp_path: Path) -> None:
    for name, data, loss in (("a", "own/a", 1.0), ("b", "own/b", 3.0)):
        make_run(name, data=data, start=loss / 1.08, end=loss / 1.08, metrics={})
    told = compare([tmp_path / "outputs"], tmp_path / "out").words()
    assert [line.partition(" at ")[2][:22] for line in told[1:3]] == [
        "a validation loss of 1",
        "a validation loss of 3",
    ]
    assert [line.partition(":")[0] for line in told[1:3]] == ["a", "b"]


def test_one_field_of_several_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", eval_every=20)
    make_run("b", data="own/rows.jsonl", steps=15)
    part = section_of(compare([tmp_path / "outputs"], tmp_path / "comparison"), "epochs")
    assert '<p class="task">word-problems</p>' in part
    assert "rows.jsonl" not in part


@pytest.mark.parametrize("section", ["epochs", "runs"])
def test_losses_of_one_column_have_as_many_digits(section: str, make_run: MakeRun, tmp_path: Path) -> None:
    for method, loss in (("galore", 1.8364), ("fira", 1.6), ("stella", 0.9)):
        make_run(method, method=method, start=loss / 1.08, end=loss / 1.08, eval_every=20, metrics={})
    part = section_of(compare([tmp_path / "outputs"], tmp_path / "comparison"), section)
    assert [re.findall(rf">({loss}\d*)<", part)[0] for loss in ("1.83", "1.6", "0.9")] == ["1.836", "1.600", "0.900"]


@pytest.mark.parametrize("kind", ["run", "log", "bench", "bench begun"])
def test_a_run_or_a_bench_is_no_place_for_a_comparison(kind: str, make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run("a"), tmp_path / "other"
    out.mkdir()
    name = {"run": "manifest.json", "log": "unified_log.jsonl", "bench": "bench.json", "bench begun": "journal.jsonl"}
    (out / name[kind]).write_text("{}")
    with pytest.raises(UsageError, match="E-CLI-004") as refused:
        compare([run], out)
    assert refused.value.where == f"--out {out}"
    assert refused.value.found.endswith("bench" if "bench" in kind else "run")
    assert [path.name for path in out.iterdir()] == [name[kind]]
    assert compare([run], out / "comparison").page.is_file()


def test_runs_of_several_kinds_are_no_headline(make_run: MakeRun, tmp_path: Path) -> None:
    for data in ("a", "b"):
        for method in ("galore", "fira"):
            make_run(f"{data}-{method}", data=f"own/{data}", method=method, metrics={"validation": {"loss": 0.5}})
    told = compare([tmp_path / "outputs"], tmp_path / "out").words()
    assert told[0] == "4 runs, too few of a kind to tell differences from chance."


def test_of_many_epochs_some_are_shown(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", steps=400, eval_every=20)
    shown = Page(section_of(compare([tmp_path / "outputs"], tmp_path / "comparison"), "epochs")).text
    assert [number for number in range(1, 22) if f"Epoch {number} " in shown] == [1, 4, 6, 9, 12, 15, 17, 20]


def test_without_evaluations_at_the_ends_of_epochs_there_is_no_table(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", eval_every=13)
    made = compare([tmp_path / "outputs"], tmp_path / "comparison")
    assert made.epochs is None
    assert 'id="epochs"' not in made.page.read_text(encoding="utf-8")

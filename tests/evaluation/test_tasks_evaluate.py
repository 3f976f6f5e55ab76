"""`subspace evaluate --tasks`: many models, what is done is passed over, what fails is told, nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from subspace.cli.main import main
from subspace.core.errors import ConfigError, DataError, UsageError
from subspace.evaluation.tasks.documents import SourceOverride
from subspace.pipeline.evaluate_tasks import Outcome, Request, evaluate_tasks, parse_sources
from subspace.pipeline.targets import find_targets
from subspace.runs.discovery import runs_in
from subspace.runs.layout import RunLayout
from subspace.runs.manifest import file_digest, read_manifest

RECIPE = """\
model: {model_name_or_path: builtin/tiny-llama}
data: {source: builtin/word-problems}
method: {name: lora, rank: 2}
training: {max_steps: 1, per_device_train_batch_size: 2}
evaluation: {batch_size: 200}
"""


class Heard:
    """What a listener hears."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.tasks: list[tuple[str, str]] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def on_task(self, model: str, split: str) -> None:
        self.tasks.append((Path(model).name, split))

    def on_progress(self, done: int, total: int) -> None:
        assert 0 < done <= total


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one finished run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(RECIPE)
    with pytest.raises(SystemExit) as left:
        main(["train", str(folder / "recipe.yaml"), f"training.output_dir={folder / 'run'}"])
    assert left.value.code == 0
    return folder / "run"


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, SourceOverride]:
    arc = [
        {"question": f"{n} + 1?", "choices": {"text": [str(n), str(n + 1)], "label": ["A", "B"]}, "answerKey": "B"}
        for n in range(5)
    ]
    sums = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(3)]
    shots = [{"question": f"{n} + 2?", "answer": f"#### {n + 2}"} for n in range(6)]
    return {
        "arc_easy": SourceOverride(write(tmp_path / "arc.jsonl", arc)),
        "gsm8k": SourceOverride(write(tmp_path / "sums.jsonl", sums), write(tmp_path / "shots.jsonl", shots)),
    }


@pytest.fixture
def outputs(tmp_path: Path, trained: Path) -> Path:
    """Return a folder with two finished runs, one deeper, and an unfinished one."""
    for name in ("outputs/a", "outputs/deep/down/b", "outputs/stopped"):
        shutil.copytree(trained, tmp_path / name)
    for number, name in enumerate(("outputs/deep/down/b", "outputs/stopped")):
        path = RunLayout(tmp_path / name).manifest
        manifest = json.loads(path.read_text())
        manifest["run_id"] = f"{number}" * 12
        if name.endswith("stopped"):
            manifest["outcome"] = "unfinished"
        path.write_text(json.dumps(manifest))
    return tmp_path / "outputs"


def request(*paths: Path | str, sources: dict[str, SourceOverride], tmp_path: Path, **more: Any) -> Request:
    more = {"tasks": ("arc_easy", "gsm8k"), "num_fewshot": None, "out": tmp_path / "eval_results"} | more
    asked = {name: source for name, source in sources.items() if name in more["tasks"] or source.path == "x"}
    return Request(paths=tuple(str(path) for path in paths), sources=asked, **more)


def states(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str]]:
    return [(Path(outcome.model).name, outcome.split, outcome.state) for outcome in outcomes]


def test_every_finished_run_and_model_is_evaluated_once(
    outputs: Path, sources: dict[str, SourceOverride], tmp_path: Path
) -> None:
    heard = Heard()
    asked = request(outputs, outputs / "a", "builtin/tiny-llama", sources=sources, tmp_path=tmp_path)
    outcomes = evaluate_tasks(asked, heard)
    names = [("a", "arc_easy"), ("a", "gsm8k"), ("b", "arc_easy"), ("b", "gsm8k")]
    names += [("tiny-llama", "arc_easy"), ("tiny-llama", "gsm8k")]
    assert states(outcomes) == [(*name, "done") for name in names]
    assert heard.tasks == names
    assert len(heard.notes) == 1
    assert "stopped: not finished; `subspace resume" in heard.notes[0]

    layout = RunLayout(outputs / "a")
    metrics, record = json.loads(layout.metrics.read_text()), json.loads(layout.tasks.read_text())["arc_easy"]
    assert metrics["arc_easy"] == outcomes[0].metrics
    assert (record["name"], record["version"], record["num_fewshot"], record["num_items"]) == ("arc_easy", "1", 0, 5)
    lines = layout.predictions("arc_easy").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    assert [item["id"] for item in items] == [f"arc_easy/{index}" for index in range(5)]
    assert metrics["arc_easy"]["acc"] == sum(item["correct"] for item in items) / 5
    digests = read_manifest(outputs / "a")["digests"]
    for path in (layout.metrics, layout.tasks, layout.predictions("arc_easy")):
        assert digests[path.relative_to(layout.folder).as_posix()] == file_digest(path)

    again = Heard()
    assert {outcome.state for outcome in evaluate_tasks(asked, again)} == {"kept"}
    assert again.tasks == []
    summary = json.loads((tmp_path / "eval_results" / "summary.json").read_text())
    assert len(summary) == 3
    assert all(set(entry["scores"]) == {"arc_easy", "gsm8k"} for entry in summary.values())


def test_other_settings_and_documents_are_evaluated_anew(
    outputs: Path, sources: dict[str, SourceOverride], tmp_path: Path
) -> None:
    common: dict[str, Any] = {"sources": sources, "tmp_path": tmp_path, "tasks": ("arc_easy",)}
    evaluate_tasks(request(outputs / "a", **common), Heard())
    (short,) = evaluate_tasks(request(outputs / "a", **common, limit=2), Heard())
    assert (short.split, short.state) == ("arc_easy-first2", "done")
    whole = json.loads(RunLayout(outputs / "a").metrics.read_text())
    assert {"arc_easy", "arc_easy-first2", "validation"} <= set(whole)
    path = Path(str(sources["arc_easy"].path))
    moved = SourceOverride(str(shutil.copy(path, tmp_path / "moved.jsonl")))
    (kept,) = evaluate_tasks(request(outputs / "a", **common | {"sources": {"arc_easy": moved}}), Heard())
    assert kept.state == "kept"
    path.write_text(path.read_text().replace("+", "-"))
    (anew,) = evaluate_tasks(request(outputs / "a", **common), Heard())
    assert anew.state == "done"


def test_a_killed_evaluation_repeats_only_its_last_task(
    outputs: Path, sources: dict[str, SourceOverride], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from subspace.evaluation import task_scores

    real = task_scores.score_task

    def killed(subject: Any, task: Any, documents: Any) -> Any:
        if task.name == "gsm8k":
            raise KeyboardInterrupt
        return real(subject, task, documents)

    asked = request(outputs / "a", sources=sources, tmp_path=tmp_path)
    monkeypatch.setattr(task_scores, "score_task", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_tasks(asked, Heard())
    monkeypatch.setattr(task_scores, "score_task", real)
    assert states(evaluate_tasks(asked, Heard())) == [("a", "arc_easy", "kept"), ("a", "gsm8k", "done")]


@pytest.mark.parametrize("lost", ["metrics", "tasks", "predictions"])
def test_scores_that_are_not_whole_are_made_again(
    lost: str, outputs: Path, sources: dict[str, SourceOverride], tmp_path: Path
) -> None:
    asked = request(outputs / "a", sources=sources, tmp_path=tmp_path, tasks=("arc_easy",))
    evaluate_tasks(asked, Heard())
    layout = RunLayout(outputs / "a")
    {"metrics": layout.metrics, "tasks": layout.tasks, "predictions": layout.predictions("arc_easy")}[lost].unlink()
    assert states(evaluate_tasks(asked, Heard())) == [("a", "arc_easy", "done")]


def test_one_failure_leaves_the_others_done(
    outputs: Path, sources: dict[str, SourceOverride], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = next((outputs / "a" / "adapter").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    given = [str(outputs), "--tasks", "arc_easy", "--source", f"arc_easy={sources['arc_easy'].path}"]
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *given, "--out", str(tmp_path / "results"), "--json"])
    assert left.value.code == 1
    printed = capsys.readouterr()
    found = {Path(each["model"]).name: each for each in json.loads(printed.out)}
    assert (found["a"]["state"], found["b"]["state"]) == ("failed", "done")
    assert "E-CKP-002" in printed.err
    assert "failed:" in printed.err


def test_a_lost_collection_is_made_again_from_the_run(
    outputs: Path, sources: dict[str, SourceOverride], tmp_path: Path
) -> None:
    from subspace.report.foreign import read_foreign

    asked = request(outputs / "a", sources=sources, tmp_path=tmp_path)
    first = evaluate_tasks(asked, Heard())
    shutil.rmtree(asked.out)
    assert {outcome.state for outcome in evaluate_tasks(asked, Heard())} == {"kept"}
    (folder,) = (path for path in asked.out.iterdir() if path.is_dir())
    results = [json.loads(path.read_text()) for path in folder.glob("results_*.json")]
    tables = {task: row for result in results for task, row in result["results"].items()}
    assert tables["arc_easy"]["acc,none"] == first[0].metrics["acc"]
    assert "exact_match,strict-match" in tables["gsm8k"]
    assert "exact_match,flexible-extract" in tables["gsm8k"]
    record = read_foreign(folder)  # what the report makes of the harness's own files
    assert record is not None
    assert record.metrics["gsm8k"] == first[1].metrics
    assert len(record.answers["arc_easy"]()) == 5


def test_other_weights_under_the_same_name_are_evaluated_anew(
    sources: dict[str, SourceOverride], tmp_path: Path
) -> None:
    from subspace.models.tiny import BUILTIN

    model = tmp_path / "model"
    shutil.copytree(BUILTIN["builtin/tiny-llama"], model)
    asked = request(model, sources=sources, tmp_path=tmp_path, tasks=("arc_easy",))
    assert states(evaluate_tasks(asked, Heard())) == [("model", "arc_easy", "done")]
    assert states(evaluate_tasks(asked, Heard())) == [("model", "arc_easy", "kept")]
    config = model / "config.json"
    config.write_text(config.read_text() + "\n")
    assert states(evaluate_tasks(asked, Heard())) == [("model", "arc_easy", "done")]


def test_bad_requests(
    outputs: Path, sources: dict[str, SourceOverride], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*paths: Path | str, **more: Any) -> None:
        evaluate_tasks(request(*paths, **{"sources": sources, "tmp_path": tmp_path} | more), Heard())

    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(DataError, match="no run and no model here"):
        ask(empty)
    for lost in (outputs / "lost", "./lost", "~/lost", "a/b/c"):
        monkeypatch.chdir(outputs.parent)
        with pytest.raises(DataError, match="there is nothing at this path"):
            ask(lost)
    with pytest.raises(DataError, match="no finished run"):
        ask(outputs / "stopped")
    with pytest.raises(UsageError, match="Did you mean 'arc_easy'"):
        ask(outputs, sources={"arc_esy": SourceOverride("x")}, tasks=("arc_easy",))
    with pytest.raises(UsageError, match="no task"):
        ask(outputs, tasks=())

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ConfigError, match=r"E-CFG-020.*pip install 'subspace-ft\[harness\]'"):
        ask(outputs, tasks=("harness:arc_easy",), sources={})
    for text in ("arc_easy", "=x", "arc_easy=", "arc_easy:train=x"):
        with pytest.raises(UsageError, match="E-CLI-001"):
            parse_sources([text])
    both = parse_sources(["gsm8k:fewshot=b", "gsm8k=a"])
    assert both == {"gsm8k": SourceOverride("a", "b")}


def test_overrides_without_tasks_stay_overrides(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["evaluate", str(trained), str(trained)])
    assert left.value.code == 2
    assert "E-CLI-002" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["evaluate", str(trained), "--limit", "3"])
    assert left.value.code == 2
    assert "E-CLI-004 --limit: no --tasks" in capsys.readouterr().err


def test_runs_are_found_three_levels_down(outputs: Path) -> None:
    assert [path.name for path in runs_in(outputs)] == ["a", "b", "stopped"]
    assert [path.name for path in runs_in(outputs.parent)] == ["a", "stopped"]
    names = {target.name for target in find_targets([str(outputs), "org/model"])[0]}
    assert "org__model" in names
    assert {name.partition("-")[0] for name in names} == {"a", "b", "org__model"}

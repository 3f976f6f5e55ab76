"""Every verb as a user meets it, on the built-in model."""

from __future__ import annotations

import hashlib
import io
import json
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, CommandLine, Ended, contents, signal_at

from subspace import Recipe, evaluate, train
from subspace.methods.registry import REGISTRY
from subspace.models.tiny import BUILTIN

ASSETS = BUILTIN["builtin/tiny-llama"]
ROOT = Path(__file__).parents[2]
TEXTS = ["the sea is blue", "two and two are four", "a boat on the sea", "six minus one is five"]


@pytest.fixture(scope="session")
def classifier(shop: CommandLine) -> Path:
    """A finished run that tells two classes of texts apart."""
    rows = [{"text": text, "label": ["nature", "sums"][index % 2]} for index, text in enumerate(TEXTS * 4)]
    shop.write("texts.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    changes = {
        "model": {"task": "classification"},
        "data": {"source": "texts.jsonl", "validation": "texts.jsonl"},
        "training": {"output_dir": "classifier"},
    }
    shop("train", shop.recipe(changes, "classifier.yaml"))
    return shop.folder / "classifier"


def log_of(run: Path) -> list[dict[str, Any]]:
    """Return the records of a log without what may differ between equal runs."""
    records = [json.loads(line) for line in (run / "unified_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "machine"} for record in records]


def sealed(run: Path) -> bool:
    """Return whether every file that the manifest lists has the digest that stands there."""
    manifest = json.loads((run / "manifest.json").read_text())
    found = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in manifest["digests"]}
    return manifest["outcome"] == "finished" and found == manifest["digests"]


def test_train(trained: tuple[Path, Ended]) -> None:
    run, ended = trained
    names = {
        "README.md", "adapter", "checkpoints", "config.yaml", "loss.png", "manifest.json", "metrics.json", "plan.json",
        "predictions", "unified_log.jsonl", ".lock",
    }  # fmt: skip
    assert {path.name for path in run.iterdir()} == names
    assert sealed(run)
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    phases = ["reading data", "planning", "loading the model", "attaching the method", "writing the result"]
    places = [ended.err.index(phase) for phase in phases]
    assert places == sorted(places)
    assert [record["event"] for record in log_of(run)] == ["run_start", "step", "step", "step", "checkpoint", "run_end"]
    for figure in ("peak memory", "optimizer steps", "training time", "loss", "perplexity"):
        assert figure in ended.out
    assert f"run folder: {run}" in ended.out or f"run folder: {run.name}" in ended.out


def test_train_without_a_recipe(subspace: CommandLine) -> None:
    subspace.recipe()
    given = ["--model", "builtin/tiny-llama", "--data", "sums.jsonl", "--method", "ia3", "--seed", "7", "--no-wandb"]
    subspace("train", *given, "training.max_steps=1", "data.max_length=32", "--platform", "cpu")
    run = subspace.folder / "outputs" / "tiny-llama_sums.jsonl_ia3"
    assert sealed(run)
    assert "seed: 7\n" in (run / "config.yaml").read_text()


def test_dry_run_is_the_plan_and_leaves_nothing(subspace: CommandLine) -> None:
    recipe = subspace.recipe()
    before = contents(subspace.folder)
    shown = subspace("train", recipe, "--dry-run").out
    assert shown == subspace("plan", recipe).out
    for part in ("trained parameters", "optimizer state", "run FLOPs", "q_proj", "128 x 128"):
        assert part in shown
    assert contents(subspace.folder) == before


def test_plan_is_the_one_that_the_run_followed(finished: Path, subspace: CommandLine) -> None:
    planned = json.loads(subspace("plan", subspace.recipe({"training": {"max_steps": 3}}), "--json").out)
    assert planned == json.loads((finished / "plan.json").read_text())
    assert planned["model"] == "builtin/tiny-llama"


def test_probe_and_fast_dev_run_leave_nothing(subspace: CommandLine) -> None:
    recipe = subspace.recipe({"training": {"max_steps": 500}})
    before = contents(subspace.folder)
    shown = subspace("plan", recipe, "--probe", "2").out
    for part in ("probe of 2 steps", "a step", "all 500 steps", "peak memory"):
        assert part in shown
    assert "every act of the run works" in subspace("train", recipe, "--fast-dev-run").out
    assert contents(subspace.folder) == before


def test_profile(subspace: CommandLine) -> None:
    ended = subspace("train", subspace.recipe({"training": {"max_steps": 4}}), "--profile")
    trace = subspace.folder / "out" / "profile" / "trace.json"
    assert str(trace.relative_to(subspace.folder)) in ended.err.replace("\n", "")
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"ProfilerStep#2", "ProfilerStep#3", "aten::mm"} <= names
    assert "ProfilerStep#1" not in names


@pytest.mark.parametrize("way", ["resume", "train --resume"])
def test_resumed_run_ends_like_one_that_was_never_stopped(way: str, stopped: Path, subspace: CommandLine) -> None:
    changes = {"training": {"output_dir": "whole", "max_steps": 4, "save_steps": 2}}
    subspace("train", subspace.recipe(changes))
    if way == "resume":
        subspace("resume", stopped)
    else:
        subspace("train", "recipe.yaml", f"training.output_dir={stopped}", "--resume")
    whole = subspace.folder / "whole"
    for name in ("adapter/adapter_model.safetensors", "metrics.json", "predictions/validation.jsonl"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert log_of(stopped) == log_of(whole)
    assert sealed(stopped)
    attempts = json.loads((stopped / "manifest.json").read_text())["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["stopped", "finished"]
    lines = map(json.loads, (stopped / "unified_log.jsonl").read_text().splitlines())
    clock = [line["machine"]["elapsed_seconds"] for line in lines if line["event"] == "step"]
    assert clock == sorted(clock), "the second attempt counts on from the first"
    assert json.loads((stopped / "manifest.json").read_text())["summary"]["seconds"] >= clock[-1] - 0.001


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_stopped_by_a_signal(number: signal.Signals, status: int, subspace: CommandLine) -> None:
    with signal_at(1, number):
        ended = subspace.end("train", subspace.recipe())
    assert ended.status == status
    told = ended.err.strip().splitlines()[-1]
    out = subspace.folder / "out"
    assert told.startswith(f"E-RUN-075 {out}: stopped by {number.name} at step 1 of 2; saved")
    assert f"subspace resume {out}" in told
    assert [path.name for path in (subspace.folder / "out" / "checkpoints").glob("step-*")] == ["step-00000001"]


def test_only_one_process_at_a_time(stopped: Path, subspace: CommandLine) -> None:
    from subspace.runs.store import RunFolder

    before = (stopped / "unified_log.jsonl").read_bytes()
    with RunFolder.resume(stopped):
        ended = subspace.end("resume", stopped)
    assert ended.status == 7
    assert f"E-LCK-001 {stopped}: in use by process" in ended.err
    assert (stopped / "unified_log.jsonl").read_bytes() == before


@pytest.mark.parametrize("verb", ["evaluate", "eval"])
def test_evaluate(verb: str, own_run: Path, subspace: CommandLine) -> None:
    first = json.loads((own_run / "metrics.json").read_text())["validation"]
    for device in ("cpu", "auto"):
        again = json.loads(subspace(verb, own_run, "--json", "--device", device).out)
        assert again == pytest.approx(first, abs=1e-6 if device == "cpu" else 1e-3)
    given = ["data.validation=sums.jsonl", "evaluation.metrics=[loss, exact_match]", "evaluation.max_new_tokens=4"]
    shown = subspace(verb, own_run, *given, "--name", "seen").out
    assert "exact_match " in shown
    scores = json.loads((own_run / "metrics.json").read_text())
    assert set(scores) == {"validation", "seen"}
    assert len((own_run / "predictions" / "seen.jsonl").read_text().splitlines()) == 16
    assert sealed(own_run)


def test_predict_one_text_and_files(finished: Path, subspace: CommandLine) -> None:
    prompts = ["1 + 1 =", "2 + 1 ="]
    said = [subspace("predict", finished, prompt, "--max-new-tokens", "4").out for prompt in prompts]
    subspace.write("prompts.txt", "\n".join(prompts))
    subspace.write("prompts.jsonl", "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    for name in ("prompts.txt", "prompts.jsonl"):
        given = ["--file", name, "--max-new-tokens", "4"]
        shown = json.loads(subspace("predict", finished, *given).out)
        assert [row["prompt"] for row in shown] == prompts
        assert [row["output"] + "\n" for row in shown] == said
        subspace("predict", finished, *given, "--out", f"{name}.json", "--batch-size", "1")
        assert json.loads((subspace.folder / f"{name}.json").read_text()) == shown
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    subspace.write("chat.jsonl", json.dumps(chat) + "\n")
    (answer,) = json.loads(subspace("predict", finished, "--file", "chat.jsonl", "--max-new-tokens", "2").out)
    assert answer["prompt"] == [["user", "hello"]]


def test_predict_without_a_run(subspace: CommandLine) -> None:
    said = subspace("predict", "builtin/tiny-llama", "Once upon a time", "--max-new-tokens", "3")
    assert said.out.strip()


def test_predict_classes(classifier: Path, subspace: CommandLine) -> None:
    label = subspace("predict", classifier, TEXTS[0]).out.strip()
    assert label in ("nature", "sums")
    subspace.write("texts.txt", "\n".join(TEXTS))
    rows = json.loads(subspace("predict", classifier, "--file", "texts.txt").out)
    assert [row["text"] for row in rows] == TEXTS
    assert rows[0]["label"] == label
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1.0)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
    assert (
        subspace("predict", classifier, TEXTS[0], "--pair", TEXTS[1], "--out", "pair.json").out == "wrote pair.json\n"
    )
    (paired,) = json.loads((subspace.folder / "pair.json").read_text())
    assert (paired["text"], paired["text_pair"]) == (TEXTS[0], TEXTS[1])


def test_chat(finished: Path, subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("1 + 1 =\n\n/clear\n1 + 1 =\n/quit\nnever read\n"))
    ended = subspace("chat", finished, "--max-new-tokens", "4")
    once = subspace("predict", finished, "1 + 1 =", "--max-new-tokens", "4").out
    assert ended.out == once * 2
    assert ended.err.count("you> ") == 5
    monkeypatch.setattr(sys, "stdin", io.StringIO("word " * 2000 + "\n"))
    assert "E-DAT-016" in subspace("chat", finished).err


def test_chat_with_a_classifier(classifier: Path, subspace: CommandLine) -> None:
    subspace.refused("chat", classifier, status=2, code="E-MTH-001", said="subspace predict")


def logits_of(model: Any) -> Any:
    import torch

    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("verb", ["export", "merge"])
def test_export_is_a_plain_model_with_its_tokenizer(verb: str, finished: Path, subspace: CommandLine) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    assert subspace(verb, finished, "made/merged").out == "wrote made/merged\n"
    merged = subspace.folder / "made" / "merged"
    weights = [merged / "model.safetensors", finished / "adapter" / "adapter_model.safetensors"]
    assert {path.stat().st_mode & 0o777 for path in weights} == {merged.stat().st_mode & 0o666}  # as the umask has it
    base = AutoModelForCausalLM.from_pretrained(ASSETS)
    plain = logits_of(base)
    adapted = logits_of(PeftModel.from_pretrained(base, finished / "adapter"))
    folded = logits_of(AutoModelForCausalLM.from_pretrained(merged))
    largest = adapted.abs().max()
    assert (folded - adapted).abs().max() <= 1e-5 * largest
    assert (plain - adapted).abs().max() >= 1e-2 * largest
    names = {path.name for path in ASSETS.iterdir() if "token" in path.name or path.suffix == ".jinja"}
    assert names
    for folder in (merged, finished / "adapter"):
        assert all((folder / name).read_bytes() == (ASSETS / name).read_bytes() for name in names)
    prompt = ["1 + 1 =", "--max-new-tokens", "4"]
    assert subspace("predict", merged, *prompt).out == subspace("predict", finished, *prompt).out


def test_export_of_a_classifier_and_of_full_training(classifier: Path, subspace: CommandLine) -> None:
    subspace("export", classifier, "classes")
    shown = [subspace("predict", target, TEXTS[0]).out for target in ("classes", classifier)]
    assert shown[0] == shown[1]
    full = subspace.recipe({"training": {"max_steps": 1}})
    full.write_text(full.read_text().replace("name: lora\n  rank: 4", "name: full"))
    subspace("train", full)
    assert {path.name for path in (subspace.folder / "out").iterdir()} >= {"model", "metrics.json"}
    subspace("export", "out", "full")
    prompt = ["1 + 1 =", "--max-new-tokens", "4"]
    assert subspace("predict", "full", *prompt).out == subspace("predict", "out", *prompt).out


def test_adapter_goes_on(finished: Path, subspace: CommandLine) -> None:
    """A new run from a trained adapter begins where that ended."""
    ends = {"finished": finished, "onward": subspace.folder / "onward", "fresh": subspace.folder / "fresh"}
    changes = {"training": {"max_steps": 1, "output_dir": "onward"}}
    subspace("train", subspace.recipe({**changes, "model": {"adapter_name_or_path": str(finished / "adapter")}}))
    subspace("train", subspace.recipe({"training": {"max_steps": 1, "output_dir": "fresh"}}))
    losses = {name: next(r["loss"] for r in log_of(run) if r["event"] == "step") for name, run in ends.items()}
    assert losses["fresh"] == losses["finished"]
    assert losses["onward"] != losses["fresh"]


def test_compare(finished: Path, stopped: Path, subspace: CommandLine) -> None:
    with (stopped / "unified_log.jsonl").open("a") as log:
        log.write('{"schema": 1, "event": "st')
    before = contents(stopped)
    ended = subspace("compare", finished, stopped, "--out", "both")
    verdict, _, files = ended.out.partition("\n\n")
    assert verdict.startswith("2 runs, nothing to compare by yet.")
    told = {line.partition(":")[0]: subspace.folder / line.partition(":")[2].strip() for line in files.splitlines()}
    assert list(told) == ["page", "plot", "summary", "every number"]
    assert all(path.parent == subspace.folder / "both" for path in told.values())
    assert "lora" in told["page"].read_text()
    assert told["plot"].read_bytes().startswith(b"\x89PNG")
    assert "stopped" in ended.err
    assert contents(stopped) == before


def test_init(subspace: CommandLine) -> None:
    subspace.write("[1].jsonl", '{"prompt": "a", "completion": "b"}\n')
    given = ["--model", "builtin/tiny-llama", "--data", "[1].jsonl"]
    assert "subspace plan recipe.yaml" in subspace("init", *given).out
    subspace("init", *given, "--method", "dora", "--full", "--out", "full.yaml")
    short, long = ((subspace.folder / name).read_text() for name in ("recipe.yaml", "full.yaml"))
    assert len(short.splitlines()) < 15 < len(long.splitlines())
    assert subspace("validate", ".").out == "ok    full.yaml\nok    recipe.yaml\n"
    assert json.loads(subspace("plan", "full.yaml", "--json").out)["method"] == "dora"


def test_migrate(subspace: CommandLine) -> None:
    theirs = {
        "model_name_or_path": "builtin/tiny-llama", "stage": "sft", "finetuning_type": "lora", "lora_rank": 4,
        "dataset": "sums", "cutoff_len": 64, "output_dir": "out", "learning_rate": 1e-4, "plot_loss": True,
    }  # fmt: skip
    subspace.write("theirs.yaml", json.dumps(theirs))
    shown = subspace("migrate", "theirs.yaml")
    assert "not carried: plot_loss" in shown.err
    made = subspace("migrate", "theirs.yaml", "--out", "ours.yaml")
    assert (subspace.folder / "ours.yaml").read_text() == shown.out
    assert "subspace plan ours.yaml" in made.out
    assert subspace("validate", "ours.yaml").out == "ok    ours.yaml\n"


def test_data_preview(subspace: CommandLine) -> None:
    shown = subspace("data", "preview", subspace.recipe(), "--samples", "2").out
    assert shown.count("in the loss⟧") == 2
    assert "1 + 1 =⟦ 2" in shown
    assert "16 of 16 rows in use" in " ".join(shown.split())


@pytest.mark.parametrize("name", ["sample.jsonl", "sample.json"])
def test_data_prepare(name: str, subspace: CommandLine) -> None:
    said = subspace("data", "prepare", name, "--rows", "20", "--seed", "3").out
    assert said.startswith(f"wrote 20 rows to {name}")
    text = (subspace.folder / name).read_text()
    rows = json.loads(text) if name.endswith("json") else [json.loads(line) for line in text.splitlines()]
    assert len(rows) == 20
    assert set(rows[0]) >= {"instruction", "output"}
    shown = subspace("data", "preview", "--model", "builtin/tiny-llama", "--data", name).out
    assert "format alpaca" in " ".join(shown.split())


def test_methods(subspace: CommandLine) -> None:
    listed = subspace("methods").out.splitlines()
    assert tuple(line.split()[0] for line in listed) == REGISTRY.names()
    shown = subspace("methods", "adalora").out
    assert "reference: " in shown
    assert "method.rank = " in shown or "method.init_rank = " in shown


def test_env(subspace: CommandLine) -> None:
    lines = subspace("env").out.splitlines()
    assert lines[0].startswith("python 3.")
    assert any(line.startswith("torch 2.") for line in lines)
    assert lines[-2].startswith("cuda ")


def test_demo(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from subspace.pipeline import demo

    usual = demo.demo_matrix

    def short() -> dict[str, Any]:
        matrix = usual()
        matrix["recipe"]["training"]["per_device_train_batch_size"] = 4
        matrix["recipe"]["data"] |= {"source": "sums.jsonl", "validation": "more-sums.jsonl"}
        return matrix

    monkeypatch.setattr(demo, "demo_matrix", short)
    monkeypatch.setattr(demo, "DEMO_STEPS", 1)
    monkeypatch.setattr(demo, "DEMO_SEEDS", (42,))
    monkeypatch.setattr(demo, "DEMO_METHODS", ("full", "stella", "flora"))
    subspace.recipe()
    ended = subspace("demo", "--out", "shown", "--jobs", "1")
    for word in (*demo.DEMO_METHODS, "before", "after", "peak memory", "page:", "plot:"):
        assert word in ended.out
    runs = [subspace.folder / "shown/runs/word-problems/tiny-llama" / method for method in demo.DEMO_METHODS]
    assert all(sealed(run / "seed-42") for run in runs)
    assert all("before" in json.loads((run / "seed-42" / "metrics.json").read_text()) for run in runs)


def test_validate_shows_the_whole_recipe(subspace: CommandLine) -> None:
    recipe = subspace.recipe()
    shown = subspace("validate", recipe, "--show", "training.lr=3e-4").out
    assert "learning_rate: 0.0003\n" in shown
    assert "note: command line:training.lr is read as learning_rate" in shown
    whole = subspace.write("whole.yaml", shown.split("\n", 2)[2])
    assert subspace("validate", whole, "--show").out.split("\n", 1)[1] == shown.split("\n", 2)[2]
    subspace.write("bad.yaml", "model:\n")
    ended = subspace.end("validate", ".")
    assert ended.status == 2
    assert ended.out == "ok    recipe.yaml\nok    whole.yaml\n"
    assert "wrong bad.yaml\n  E-CFG-" in ended.err
    assert "1 of 3 recipes are wrong" in ended.err


def test_python_api(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(subspace.folder)
    path = subspace.recipe()
    run = train(Recipe(**TINY))
    assert run.folder == subspace.folder / "out"
    assert run.metrics["loss"] > 0
    assert sealed(run.folder)
    assert evaluate(run.folder, name="again") == pytest.approx(run.metrics, abs=1e-6)
    assert "rank: 8" in repr(Recipe.load(path, "method.rank=8"))


def test_quick_start_example(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(subspace.folder)
    main = runpy.run_path(str(ROOT / "examples" / "quick_start.py"))["main"]
    scores = main("quick", max_steps=2)
    assert set(scores) == {"loss", "exact_match", "exact_match_normalized"}
    assert sealed(subspace.folder / "quick")

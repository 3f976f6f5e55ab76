"""Bad checkpoints, adapters and models on the real command line: rows 41 to 53 of the bad-input matrix."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Ended, contents, signal_at

from subspace.models.tiny import BUILTIN

ASSETS = BUILTIN["builtin/tiny-llama"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567\n"
PICKLE = b"cos\nsystem\n(S'touch canary'\ntR."


@pytest.fixture
def model(subspace: CommandLine) -> Path:
    """A copy of the built-in model in the test's folder."""
    return shutil.copytree(ASSETS, subspace.folder / "model")


def change(path: Path, **entries: Any) -> None:
    fields = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(fields | entries))


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def header(entries: dict[str, Any], data: bytes = b"") -> bytes:
    raw = json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def tensors_of(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(path)
    return found


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors.torch import save_file

    tensors = tensors_of(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda whole: whole[:-1000], "cut off"),
    "empty": (lambda whole: b"", "zero bytes"),
    "zeros": (lambda whole: bytes(len(whole)), ""),
    "header-too-large": (lambda whole: struct.pack("<Q", 2**40) + whole[8:], "header claims"),
    "unknown-dtype": (lambda whole: header({"a": ONE | {"dtype": "F99"}}, bytes(8)), ""),
    "overlapping": (lambda whole: header({"a": ONE, "b": ONE}, bytes(8)), ""),
    "web-page": (lambda whole: b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "lfs-pointer": (lambda whole: POINTER, "git lfs pull"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_weights_of_a_model(kind: str, model: Path, subspace: CommandLine) -> None:
    weights, (damage, said) = model / "model.safetensors", DAMAGE[kind]
    weights.write_bytes(damage(weights.read_bytes()))
    subspace.refused("predict", model, "hello", status=4, code="E-CKP-002", said=[str(weights), said])
    recipe = subspace.recipe({"model": {"model_name_or_path": str(model)}})
    subspace.refused("train", recipe, status=4, code="E-CKP-002", said=[str(weights), said])


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_weights_of_an_adapter(kind: str, own_run: Path, subspace: CommandLine) -> None:
    weights, (damage, said) = own_run / "adapter" / "adapter_model.safetensors", DAMAGE[kind]
    weights.write_bytes(damage(weights.read_bytes()))
    subspace.refused("predict", own_run, "hello", status=4, code="E-CKP-002", said=[str(weights), said])
    recipe = subspace.recipe({"model": {"adapter_name_or_path": str(weights.parent)}})
    subspace.refused("train", recipe, status=4, code="E-CKP-002", said=[str(weights), said])


def no_run(subspace: CommandLine, name: str) -> Path:
    """Make a folder of which nothing can be resumed."""
    folder = subspace.folder / name
    if name != "missing":
        folder.mkdir()
    if name == "foreign":
        (folder / "optimizer.pt").write_bytes(PICKLE)
    return folder


@pytest.mark.parametrize("name", ["missing", "empty", "foreign"])
def test_nothing_to_resume(name: str, subspace: CommandLine) -> None:
    folder = no_run(subspace, name)
    subspace.refused("resume", folder, status=4, code="E-CKP-001", said=f"{folder}: no run")
    recipe = subspace.recipe({"training": {"output_dir": str(folder)}})
    subspace.refused("train", recipe, "--resume", status=4, code="E-CKP-001", said=f"{folder}: no run")
    for verb in ("evaluate", "export"):
        target = [folder, "out"][: 1 + (verb == "export")]
        subspace.refused(verb, *target, status=4, code="E-CKP-001", said=f"{folder}: no run")
    assert not (subspace.folder / "canary").exists()


def steps(run: Path) -> list[Path]:
    found = sorted((run / "checkpoints").glob("step-*"))
    assert [path.name for path in found] == ["step-00000002", "step-00000003"]
    return found


def after(refused: Ended, run: Path, code: str, status: int = 4) -> str:
    """Check that a refused resumption left checkpoints, log and results alone; return what it said."""
    told = refused.err.strip().splitlines()[-1]
    assert (refused.status, told.split()[0]) == (status, code)
    assert not (run / "adapter").exists()
    return told


INCOMPLETE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no-manifest": (lambda step: (step / "manifest.json").unlink(), "manifest missing"),
    "torn-manifest": (lambda step: (step / "manifest.json").write_bytes(b'{"kind": '), "manifest.json is not JSON"),
    "no-file": (lambda step: (step / "trained.safetensors").unlink(), "trained.safetensors is missing"),
    "truncated": (lambda step: (step / "optimizer.safetensors").write_bytes(b"x"), "optimizer.safetensors has 1 bytes"),
    "bit": (lambda step: flip(step / "trained.safetensors"), "E-CKP-003 sha256 of trained.safetensors differs"),
    "pickle": (lambda step: (step / "optimizer.pt").write_bytes(PICKLE), "E-SEC-006"),
}


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_no_checkpoint_is_complete(kind: str, stopped: Path, subspace: CommandLine) -> None:
    spoil, said = INCOMPLETE[kind]
    for step in steps(stopped):
        spoil(step)
    before = contents(stopped / "checkpoints")
    told = after(subspace.end("resume", stopped), stopped, "E-CKP-001")
    assert told.count(said) == 2
    assert "no complete checkpoint; skipped: step-00000003 (" in told
    assert contents(stopped / "checkpoints") == before
    assert not (subspace.folder / "canary").exists()


def test_newest_checkpoint_damaged_falls_back_to_the_one_before(
    stopped: Path, stopped_once: Path, subspace: CommandLine
) -> None:
    flip(steps(stopped)[1] / "trained.safetensors", 2000)
    ended = subspace("resume", stopped)
    note = "checkpoint step-00000003 passed over: E-CKP-003 sha256 of trained.safetensors differs"
    assert note in " ".join(ended.err.split())
    whole = shutil.copytree(stopped_once, subspace.folder / "whole")
    subspace("resume", whole)
    ends = [tensors_of(run / "adapter" / "adapter_model.safetensors") for run in (stopped, whole)]
    assert ends[0].keys() == ends[1].keys()
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])


def reseal(step: Path, identity: dict[str, str] | None = None, **changed: Callable[[dict[str, Any]], object]) -> None:
    """Write a checkpoint again, whole and sealed, with other contents."""
    from subspace.runs.checkpoint import load_checkpoint, save_checkpoint

    found = load_checkpoint(step)
    tensors = {stem: dict(group) for stem, group in found.tensors.items()}
    for stem, edit in changed.items():
        edit(tensors[stem])
    shutil.rmtree(step)
    save_checkpoint(step.parent, found.step, tensors, found.state, {**found.identity, **(identity or {})})


def pop_first(tensors: dict[str, Any]) -> None:
    tensors.pop(min(tensors))


def cut_first(tensors: dict[str, Any]) -> None:
    name = min(tensors)
    tensors[name] = tensors[name][:1].clone()


def rename_first(tensors: dict[str, Any]) -> None:
    tensors["stranger"] = tensors.pop(min(tensors))


def nan_first(tensors: dict[str, Any]) -> None:
    tensors[min(tensors)][0] = float("nan")


@pytest.mark.parametrize(
    ("stem", "edit", "said"),
    [
        ("trained", pop_first, "1 missing (base_model"),
        ("trained", rename_first, "1 unexpected (stranger)"),
        ("trained", cut_first, "1 of another shape (base_model"),
        ("optimizer", rename_first, "unknown parameters"),
    ],
)
def test_checkpoint_with_other_tensors(
    stem: str, edit: Callable[[dict[str, Any]], object], said: str, stopped: Path, subspace: CommandLine
) -> None:
    reseal(steps(stopped)[1], **{stem: edit})
    assert said in after(subspace.end("resume", stopped), stopped, "E-CKP-005")


@pytest.mark.parametrize("stem", ["trained", "optimizer"])
def test_checkpoint_with_values_that_are_not_finite(stem: str, stopped: Path, subspace: CommandLine) -> None:
    for step in steps(stopped):
        reseal(step, **{stem: nan_first})
    told = after(subspace.end("resume", stopped), stopped, "E-CKP-001")
    assert told.count("non-finite values in base_model.model.") == told.count("E-CKP-004 ") == 2


@pytest.mark.parametrize("field", ["recipe", "base_model", "data"])
def test_checkpoint_of_something_else(field: str, stopped: Path, subspace: CommandLine) -> None:
    reseal(steps(stopped)[1], {field: "f" * 64})
    told = after(subspace.end("resume", stopped), stopped, "E-CKP-006")
    assert f"made for another {field} ({field} ffffffffffff here" in told


def test_data_changed_before_the_first_checkpoint(subspace: CommandLine) -> None:
    """A run without a checkpoint knows from its manifest what it began with."""
    rows = subspace.write("rows.jsonl", '{"prompt": "1 + 1 =", "completion": " 2"}\n' * 16)
    recipe = subspace.recipe({"data": {"source": "rows.jsonl"}})
    with signal_at(1):
        assert subspace.end("train", recipe).status == 75
    shutil.rmtree(subspace.folder / "out" / "checkpoints")
    rows.write_text(rows.read_text().replace("2", "3"))
    told = after(subspace.end("resume", "out"), subspace.folder / "out", "E-CKP-006")
    assert "made for another data" in told


def test_recipe_in_the_run_folder_was_edited(stopped: Path, own_run: Path, subspace: CommandLine) -> None:
    for run in (stopped, own_run):
        config = run / "config.yaml"
        config.write_text(config.read_text().replace("learning_rate: 0.01", "learning_rate: 0.02"))
    subspace.refused("resume", stopped, status=4, code="E-CKP-003", said=f"{stopped / 'config.yaml'}: it was changed")
    subspace.refused("evaluate", own_run, status=4, code="E-CKP-003", said=f"{own_run / 'config.yaml'}: it was changed")
    (stopped / "config.yaml").unlink()
    subspace.refused("resume", stopped, status=4, code="E-CKP-002", said=str(stopped / "config.yaml"))


@pytest.mark.parametrize("verb", ["predict", "evaluate", "export"])
def test_one_bit_of_the_result_flipped(verb: str, own_run: Path, subspace: CommandLine) -> None:
    weights = own_run / "adapter" / "adapter_model.safetensors"
    flip(weights)
    rest = {"predict": ["hello"], "evaluate": [], "export": ["merged"]}[verb]
    subspace.refused(verb, own_run, *rest, status=4, code="E-CKP-003", said=f"{weights}: it was changed")


def test_weights_that_are_not_finite(model: Path, subspace: CommandLine) -> None:
    rewrite(model / "model.safetensors", nan_first)
    subspace.refused("predict", model, "hello", status=4, code="E-CKP-004", said=[str(model), "not finite in model."])
    recipe = subspace.recipe({"model": {"model_name_or_path": str(model)}})
    subspace.refused("train", recipe, status=4, code="E-CKP-004", said=[str(model), "not finite in model."])


def test_adapter_to_continue_that_is_not_finite(own_run: Path, subspace: CommandLine) -> None:
    adapter = own_run / "adapter"
    rewrite(adapter / "adapter_model.safetensors", nan_first)
    recipe = subspace.recipe({"model": {"adapter_name_or_path": str(adapter)}})
    subspace.refused("train", recipe, status=4, code="E-CKP-004", said=[str(adapter), "not finite in base_model."])


@pytest.mark.parametrize(
    ("edit", "said"), [(pop_first, "missing"), (rename_first, "stranger"), (cut_first, "another shape")]
)
def test_model_with_other_tensors(
    edit: Callable[[dict[str, Any]], object], said: str, model: Path, subspace: CommandLine
) -> None:
    rewrite(model / "model.safetensors", edit)
    subspace.refused("predict", model, "hello", status=4, code="E-CKP-005", said=[str(model), said])


def test_adapter_that_met_another_base(model: Path, subspace: CommandLine) -> None:
    subspace("train", subspace.recipe({"model": {"model_name_or_path": str(model)}, "training": {"max_steps": 1}}))
    rewrite(model / "model.safetensors", lambda tensors: tensors[min(tensors)].add_(0.001))
    run = subspace.folder / "out"
    said = [f"{run / 'adapter'}: trained on a base model with fingerprint", "has"]
    subspace.refused("predict", run, "hello", status=4, code="E-CKP-006", said=said)
    subspace.refused("export", run, "merged", status=4, code="E-CKP-006", said=said)


@pytest.mark.parametrize(
    ("method", "code", "said"),
    [
        ({"rank": 8}, "E-CKP-005", "of another shape"),
        ({"target_modules": ["q_proj"]}, "E-CKP-005", "v_proj"),
        ({"alpha": 64.0}, "E-CKP-006", "lora_alpha"),
        ({"name": "dora"}, "E-CKP-006", "use_dora"),
    ],
)
def test_adapter_to_continue_of_another_kind(
    method: dict[str, Any], code: str, said: str, finished: Path, subspace: CommandLine
) -> None:
    recipe = subspace.recipe({"model": {"adapter_name_or_path": str(finished / "adapter")}, "method": method})
    subspace.refused("train", recipe, status=4, code=code, said=[str(finished / "adapter"), said])


def test_adapter_to_continue_that_is_missing(subspace: CommandLine) -> None:
    recipe = subspace.recipe({"model": {"adapter_name_or_path": "nowhere"}})
    subspace.refused("train", recipe, status=4, code="E-CKP-010", said="nowhere: no PEFT adapter")


def test_pickled_weights_are_not_opened(model: Path, own_run: Path, subspace: CommandLine) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(PICKLE)
    adapter = own_run / "adapter"
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(PICKLE)
    subspace.refused("predict", model, "hello", status=8, code="E-SEC-006", said=[str(model), "pytorch_model.bin"])
    recipe = subspace.recipe({"model": {"adapter_name_or_path": str(adapter)}})
    subspace.refused("train", recipe, status=8, code="E-SEC-006", said=str(adapter / "adapter_model.bin"))
    assert not (subspace.folder / "canary").exists()


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("config.json", {"trust_remote_code": True}),
        ("config.json", {"_attn_implementation_internal": "evil/kernel"}),
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}),
        ("tokenizer_config.json", {"trust_remote_code": True}),
        ("generation_config.json", {"custom_generate": "evil/generate"}),
    ],
)
def test_model_that_would_bring_its_own_code(
    name: str, entries: dict[str, Any], model: Path, subspace: CommandLine
) -> None:
    change(model / name, **entries)
    (model / "evil.py").write_text("open('canary', 'w')\n")
    subspace.refused("predict", model, "hello", status=8, code="E-SEC-004", said=f"{model / name}:")
    recipe = subspace.recipe({"model": {"model_name_or_path": str(model)}})
    subspace.refused("train", recipe, status=8, code="E-SEC-004", said=f"{model / name}:")
    assert not (subspace.folder / "canary").exists()


def test_foreign_code_is_ignored_where_the_model_is_known(model: Path, subspace: CommandLine) -> None:
    change(model / "config.json", auto_map={"AutoModelForCausalLM": "evil.Evil"})
    (model / "evil.py").write_text("open('canary', 'w')\n")
    subspace("predict", model, "hello", "--max-new-tokens", "1")
    assert not (subspace.folder / "canary").exists()


TEMPLATES = {
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "endless": "{% for a in range(100000000) %}{% for b in range(100000000) %}x{% endfor %}{% endfor %}",
    "huge": "x" * 5_000_000,
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_chat_template_that_does_more_than_chat(kind: str, model: Path, subspace: CommandLine) -> None:
    chat = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    subspace.write("rows.jsonl", json.dumps({"messages": chat}) + "\n")
    template = subspace.write("evil.jinja", TEMPLATES[kind])
    changes: dict[str, dict[str, Any]] = {"data": {"source": "rows.jsonl"}}
    recipe = subspace.recipe({**changes, "model": {"chat_template": str(template)}})
    subspace.refused("train", recipe, status=8, code="E-SEC-007", said="template")
    (model / "chat_template.jinja").write_text(TEMPLATES[kind])
    recipe = subspace.recipe({**changes, "model": {"model_name_or_path": str(model)}})
    subspace.refused("train", recipe, status=8, code="E-SEC-007", said="template")


def test_run_and_checkpoint_of_a_newer_version(stopped: Path, own_run: Path, subspace: CommandLine) -> None:
    change(own_run / "manifest.json", schema=99)
    for command in (["evaluate", own_run], ["resume", own_run], ["predict", own_run, "hello"]):
        subspace.refused(*command, status=4, code="E-CKP-007", said=[f"{own_run / 'manifest.json'}: schema 99", "0."])
    change(steps(stopped)[1] / "manifest.json", schema=99)
    told = after(subspace.end("resume", stopped), stopped, "E-CKP-007")
    assert f"{steps(stopped)[1]}: schema 99, written by subspace " in told


def test_run_with_a_damaged_manifest(own_run: Path, subspace: CommandLine) -> None:
    (own_run / "manifest.json").write_text('{"kind": "run", ')
    for command in (
        ["evaluate", own_run],
        ["resume", own_run],
        ["predict", own_run, "hello"],
        ["export", own_run, "m"],
    ):
        subspace.refused(*command, status=4, code="E-CKP-002", said=f"{own_run / 'manifest.json'}: unreadable")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/passwd"])
def test_index_that_leads_outside(name: str, model: Path, subspace: CommandLine) -> None:
    (model / "model.safetensors").unlink()
    index = model / "model.safetensors.index.json"
    change(index, weight_map={"model.norm.weight": name})
    subspace.refused("predict", model, "hello", status=8, code="E-SEC-003", said=[str(index), name])


def test_what_cannot_be_merged(finished: Path, subspace: CommandLine) -> None:
    prefix = subspace.recipe({"method": {"name": "prefix", "rank": None}, "training": {"max_steps": 1}})
    text = prefix.read_text().replace("  rank: null\n", "")
    prefix.write_text(text)
    subspace("train", prefix)
    subspace.refused("export", "out", "merged", status=2, code="E-CKP-008", said=["out: ", "prefix", "out/adapter"])
    subspace("export", finished, "merged")
    subspace.refused("export", finished, "merged", status=2, code="E-CFG-023", said="merged: ")
    subspace.refused("export", "merged", "again", status=4, code="E-CKP-001", said="merged: no run")


def test_unfinished_run_has_no_result(stopped: Path, subspace: CommandLine) -> None:
    for command in (["predict", stopped, "hello"], ["evaluate", stopped], ["export", stopped, "merged"]):
        told = subspace.refused(*command, status=4, code="E-CKP-001", said=f"{stopped}: an unfinished run")
        assert f"subspace resume {stopped}" in told


def test_eight_bit_optimizer_without_its_package(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    with signal_at(1):
        assert subspace.end("train", subspace.recipe({"training": {"optim": "adamw_8bit"}})).status == 75
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    told = after(subspace.end("resume", "out"), subspace.folder / "out", "E-CKP-009")
    assert "out/checkpoints/step-00000001: state of an 8-bit optimizer" in told
    assert "subspace-ft[quantized]" in told

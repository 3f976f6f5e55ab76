"""Bad recipes on the real command line: rows 1 to 24 of the bad-input matrix.

A row that needs no model is refused by `train` and by `validate`, without torch; one that does, by `train` and `plan`,
before weights are read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

BASE = """\
model: {model_name_or_path: builtin/tiny-llama}
data:
  source: builtin/word-problems
  max_length: 64
  max_train_samples: 16
method:
  name: lora
  rank: 4
training:
  max_steps: 2
  per_device_train_batch_size: 4
  output_dir: out
"""
"""Line numbers in the cases below are those of this text."""

SECRET = "hf_" + "a1B2" * 8
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Case:
    """A recipe that is refused.

    Attributes:
        row: In the matrix.
        content: Of the recipe: all of it, or (old, new) in `BASE`, or what makes the file.
        code: Of the error.
        said: The place, and more that the message must hold.
        status: Exit status.
    """

    row: int
    content: str | bytes | tuple[str, str] | Callable[[Path], object]
    code: str
    said: Sequence[str]
    status: int = 2

    def write(self, path: Path) -> None:
        if callable(self.content):
            self.content(path)
            return
        content = BASE.replace(*self.content) if isinstance(self.content, tuple) else self.content
        assert content != BASE
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def large(path: Path) -> None:
    path.touch()
    os.truncate(path, 50_000_000)


RATE = "  max_steps: 2\n"
FOLDER = f"{RECIPE}:12:training.output_dir"
TORCH_FREE = [
    Case(2, os.mkfifo, "E-CFG-002", [f"{RECIPE}: a pipe"]),
    Case(2, lambda path: path.symlink_to("/dev/zero"), "E-CFG-002", [f"{RECIPE}: a device"]),
    Case(3, "", "E-CFG-003", [RECIPE, "found nothing"]),
    Case(3, "# nothing\n\n# here\n", "E-CFG-003", [RECIPE, "found nothing"]),
    Case(3, "- model\n- data\n", "E-CFG-003", [RECIPE, "found a list"]),
    Case(4, ("  rank: 4", "\trank: 4"), "E-CFG-004", [f"{RECIPE}:8", "tab"]),
    Case(4, ("builtin/tiny-llama}", "builtin/tiny-llama"), "E-CFG-004", [f"{RECIPE}:"]),
    Case(5, BASE + "---\n" + BASE, "E-CFG-005", [RECIPE, "document"]),
    Case(6, ("  output_dir: out", "  max_steps: 3"), "E-CFG-006", [f"{RECIPE}:12", "max_steps", "10"]),
    Case(7, (RATE, f"{RATE}  learing_rate: 1e-4\n"), "E-CFG-007",
         [f"{RECIPE}:11:training.learing_rate", "'learning_rate'"]),
    Case(7, ("method:", "methods:"), "E-CFG-007", [f"{RECIPE}:6:methods", "'method'"]),
    Case(9, (RATE, f"{RATE}  learning_rate: fast\n"), "E-CFG-009", [f"{RECIPE}:11:training.learning_rate", "'fast'"]),
    Case(9, (RATE, f"{RATE}  lr: -1\n"), "E-CFG-009", [f"{RECIPE}:11:training.lr", "-1"]),
    Case(9, (RATE, f"{RATE}  learning_rate: .nan\n"), "E-CFG-009", [f"{RECIPE}:11:training.learning_rate", "nan"]),
    Case(9, (RATE, f"{RATE}  learning_rate: .inf\n"), "E-CFG-009", [f"{RECIPE}:11:training.learning_rate", "inf"]),
    Case(9, (RATE, f"{RATE}  learning_rate: 1e9\n"), "E-CFG-009", [f"{RECIPE}:11:training.learning_rate"]),
    Case(10, (RATE, "  epochs: 3.5\n"), "E-CFG-010", [f"{RECIPE}:10:training.epochs", "3.5"]),
    Case(10, ("size: 4", "size: true"), "E-CFG-010", [f"{RECIPE}:11:training.per_device_train_batch_size", "true"]),
    Case(10, ("rank: 4", "rank: 0"), "E-CFG-009", [f"{RECIPE}:8:method.rank", "0"]),
    Case(11, (RATE, f'{RATE}  output_dir: !!python/object/apply:os.system ["touch canary"]\n'), "E-SEC-001",
         [f"{RECIPE}:11", "tag"], 8),
    Case(12, "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "E-CFG-012", [f"{RECIPE}:1", "alias"]),
    Case(12, "model: &a [*a]\n", "E-CFG-012", [f"{RECIPE}:1", "alias"]),
    Case(12, "model: " + "[" * 1000 + "]" * 1000, "E-CFG-012", [f"{RECIPE}:1", "deep"]),
    Case(12, large, "E-CFG-012", [RECIPE]),
    Case(13, BASE.replace("builtin", "b\xefltin").encode("latin-1"), "E-CFG-013", [RECIPE, "0xef", "offset"]),
    Case(13, BASE.encode("utf-16"), "E-CFG-013", [RECIPE, "UTF-16"]),
    Case(13, ("tiny", "ti\0ny"), "E-CFG-013", [RECIPE]),
    Case(14, ("tiny-llama}", "tiny-llama, load_in_4bit: true, load_in_8bit: true}"), "E-CFG-014",
         [f"{RECIPE}:1:model.load_in_8bit", "'load_in_4bit' and 'load_in_8bit' exclude each other"]),
    Case(14, BASE.replace("tiny-llama", "tiny-llama, task: classification").replace("max_length: 64", "packing: true"),
         "E-CFG-014", [f"{RECIPE}:4:data.packing", "classification"]),
    Case(14, (RATE, f"{RATE}  fp16: true\n  device: cpu\n"), "E-CFG-014",
         [f"{RECIPE}:11:training.fp16", "fp16 on the CPU"]),
    Case(14, BASE.replace("lora\n  rank: 4", "full").replace("llama}", "llama, quantization: nf4}"), "E-CFG-014",
         [f"{RECIPE}:1:model.quantization", "'nf4' with method full"]),
    Case(14, (RATE, f"{RATE}  early_stopping_patience: 2\n"), "E-CFG-014",
         [f"{RECIPE}:11:training.early_stopping_patience", "eval_steps"]),
    Case(14, BASE + "evaluation: {metrics: [loss, accuracy]}\n", "E-EVL-001",
         [f"{RECIPE}:13:evaluation.metrics", "'accuracy' does not fit task causal_lm"]),
    Case(15, (RATE, ""), "E-CFG-015", [f"{RECIPE}:9:training.max_steps", "neither"]),
    Case(15, (RATE, f"{RATE}  warmup_steps: 3\n"), "E-CFG-015", [f"{RECIPE}:11:training.warmup_steps", "3", "2"]),
    Case(18, ("name: lora", "name: loar"), "E-CFG-018", [f"{RECIPE}:7:method.name", "'loar'", "'lora'"]),
    Case(18, (RATE, f"{RATE}  scheduler: cosin\n"), "E-CFG-010", [f"{RECIPE}:11:training.scheduler", "cosine"]),
    Case(19, (RATE, f"{RATE}  device: gpu\n"), "E-CFG-010", [f"{RECIPE}:11:training.device"]),
    Case(20, BASE + "deepspeed: {stage: 3}\n", "E-CFG-007", [f"{RECIPE}:13:deepspeed"]),
    Case(21, BASE + f"hf_token: {SECRET}\n", "E-SEC-002", [f"{RECIPE}:13:hf_token", "HF_TOKEN"], 8),
    Case(21, ("tiny-llama}", f"tiny-llama, revision: {SECRET}}}"), "E-SEC-002", [f"{RECIPE}:1:model.revision"], 8),
    Case(23, ("output_dir: out", "output_dir: /"), "E-CFG-023", [FOLDER, "root"]),
    Case(23, ("output_dir: out", f"output_dir: {RECIPE}"), "E-CFG-023", [FOLDER, "not a folder"]),
    Case(23, ("output_dir: out", f"output_dir: {'x' * 5000}"), "E-CFG-023", [FOLDER, "5000"]),
    Case(23, ("output_dir: out", f"output_dir: {'x/' * 5000}"), "E-CFG-023", [FOLDER]),
    Case(24, ("tiny-llama}", "tiny-llama, trust_remote_code: true}"), "E-SEC-004",
         [f"{RECIPE}:1:model.trust_remote_code"], 8),
]  # fmt: skip

WITH_SHAPES = [
    Case(
        10,
        ("rank: 4", "rank: 1000000"),
        "E-CFG-016",
        [f"{RECIPE}:8:method.rank: ", "rank 1000000", "self_attn.q_proj", "1 to 128"],
    ),
    Case(
        16,
        ("rank: 4", "rank: 4\n  target_modules: [q_pro]"),
        "E-CFG-016",
        [f"{RECIPE}:9:method.target_modules: ", "'q_pro'", "q_proj"],
    ),
    Case(
        16,
        ("rank: 4", "rank: 4\n  target_modules: ['re:q_(']"),
        "E-CFG-016",
        [f"{RECIPE}:9:method.target_modules: ", "re:q_("],
    ),
    Case(
        17,
        ("rank: 4", "rank: 4\n  target_modules: [lm_head]"),
        "E-CFG-017",
        [f"{RECIPE}:9:method.target_modules: ", "lm_head", "embed_tokens"],
    ),
    Case(
        19,
        (RATE, f"{RATE}  device: cuda:97\n"),
        "E-CFG-019",
        [f"{RECIPE}:11:training.device: ", "requested cuda:97, found"],
    ),
]


def names(cases: Sequence[Case]) -> list[str]:
    return [f"{case.row}-{case.code}-{number}" for number, case in enumerate(cases)]


@pytest.mark.parametrize("case", TORCH_FREE, ids=names(TORCH_FREE))
def test_recipe_that_is_wrong_in_itself(case: Case, subspace: CommandLine) -> None:
    case.write(subspace.folder / RECIPE)
    for verb in ("train", "validate"):
        told = subspace.refused(verb, RECIPE, status=case.status, code=case.code, said=case.said)
        assert SECRET not in told
    assert len(told) < 1000


@pytest.mark.parametrize("case", WITH_SHAPES, ids=names(WITH_SHAPES))
def test_recipe_that_does_not_fit_the_model_or_the_machine(
    case: Case, subspace: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*arguments: object, **options: object) -> None:
        pytest.fail("weights were read")

    monkeypatch.setattr("subspace.models.load.load_model", read)
    case.write(subspace.folder / RECIPE)
    subspace("validate", RECIPE)
    for verb in ("train", "plan"):
        subspace.refused(verb, RECIPE, status=case.status, code=case.code, said=case.said)


def test_no_torch_is_needed_to_refuse_a_recipe(tmp_path: Path) -> None:
    """All rows again, in one process that has no torch: exit statuses are the same."""
    for number, case in enumerate(TORCH_FREE):
        (tmp_path / str(number)).mkdir()
        case.write(tmp_path / str(number) / RECIPE)
    heavy = ("torch", "transformers", "peft", "accelerate", "datasets", "matplotlib")
    code = f"""
import contextlib, io, json, os, sys
sys.modules.update(dict.fromkeys({heavy!r}))
from subspace.cli.main import main
ends = []
for number in range({len(TORCH_FREE)}):
    os.chdir(os.path.join({str(tmp_path)!r}, str(number)))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main(["train", {RECIPE!r}])
        except SystemExit as end:
            ends.append([end.code, said.getvalue().split()[0]])
print(json.dumps(ends))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [[case.status, case.code] for case in TORCH_FREE]


def test_missing_recipe(subspace: CommandLine) -> None:
    subspace.write("recipes/tiny.yaml", BASE)
    said = ["recipes/tyni.yaml: no such file", "Did you mean recipes/tiny.yaml?"]
    for verb in ("train", "plan", "validate"):
        subspace.refused(verb, "recipes/tyni.yaml", status=2, code="E-CFG-001", said=said)


def test_all_that_is_wrong_is_told_at_once(subspace: CommandLine) -> None:
    wrong = BASE.replace("method:\n", "method:\n  rnk: 4\n").replace("data:\n", "data:\n  foo: 1\n")
    subspace.write(RECIPE, f"{wrong}evaluaton: {{}}\n")
    told = subspace.refused("validate", RECIPE, "training.seed=-1", status=2, code="E-CFG-007", said="method.rnk")
    lines = told.splitlines()
    assert len(lines) == 6  # the file, four errors, how many files are wrong
    assert "more)" not in told
    for part in ("'evaluaton'", "data.foo", "E-CLI-002", "method.rnk"):
        assert sum(part in line for line in lines) == 1
    subspace.refused(
        "train", RECIPE, "training.seed=-1", status=2, code="E-CFG-007", said=["evaluaton", "(and 3 more)"]
    )


def test_folder_instead_of_a_recipe(subspace: CommandLine) -> None:
    subspace.write("recipes/tiny.yaml", BASE)
    subspace.refused("train", "recipes", status=2, code="E-CFG-002", said="recipes: a directory")
    subspace.refused("validate", subspace.write("empty/x", "").parent, status=2, code="E-CFG-001", said="no recipe")


@pytest.mark.parametrize("written", ["1e-4", "1E-4", "0.0001", "1.0e-04"])
def test_rate_without_a_point_is_a_number(written: str, subspace: CommandLine) -> None:
    subspace.write(RECIPE, BASE.replace(RATE, f"{RATE}  lr: {written}\n"))
    assert "learning_rate: 0.0001\n" in subspace("validate", RECIPE, "--show").out


def test_byte_order_mark_is_borne(subspace: CommandLine) -> None:
    subspace.write(RECIPE, b"\xef\xbb\xbf" + BASE.encode())
    subspace("validate", RECIPE)


MISSING: list[tuple[str, dict[str, dict[str, Any]], str]] = [
    ("bitsandbytes", {"model": {"quantization": "nf4"}}, "3:model.quantization"),
    ("bitsandbytes", {"training": {"optim": "adamw_8bit"}}, "15:training.optim"),
    ("modelscope", {"model": {"model_name_or_path": "nobody/nothing", "hub": "modelscope"}}, "3:model.hub"),
]


@pytest.mark.parametrize(("package", "changes", "key"), MISSING, ids=[key for _, _, key in MISSING])
def test_package_that_is_missing(
    package: str, changes: dict[str, dict[str, Any]], key: str, subspace: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = [f"{RECIPE}:{key}: ", package, "pip install", "subspace-ft["]
    subspace.refused("train", subspace.recipe(changes), status=2, code="E-CFG-020", said=said)


def test_tracker_that_is_missing(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subspace.training.trackers.find_spec", lambda name: None)
    recipe = subspace.recipe({"training": {"report_to": ["wandb"]}})
    subspace.refused(
        "train", recipe, status=2, code="E-CFG-020", said=[f"{recipe}:15:training.report_to: ", "subspace-ft[wandb]"]
    )


def test_kernel_that_is_missing(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: False)
    recipe = subspace.recipe({"model": {"attn_implementation": "flash_attention_2"}})
    subspace.refused(
        "train", recipe, status=2, code="E-CFG-020", said=[f"{recipe}:3:model.attn_implementation: ", "sdpa"]
    )


def test_half_precision_where_auto_finds_only_the_cpu(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    recipe = subspace.recipe({"training": {"mixed_precision": "fp16"}})
    subspace.refused(
        "train", recipe, status=2, code="E-CFG-014", said=[f"{recipe}:15:training.mixed_precision: ", "fp16 on the CPU"]
    )


def test_evaluations_without_validation_rows(subspace: CommandLine) -> None:
    recipe = subspace.recipe({"data": {"validation": None}, "training": {"eval_steps": 1}})
    subspace.refused(
        "train", recipe, status=2, code="E-CFG-014", said=[f"{recipe}:15:training.eval_steps: ", "no validation rows"]
    )


def test_metric_that_the_rows_cannot_give(subspace: CommandLine) -> None:
    wanted = {"metrics": ["exact_match"], "answer_pattern": "no such text"}
    recipe = subspace.recipe({"evaluation": wanted})
    subspace.refused(
        "train",
        recipe,
        status=2,
        code="E-CFG-010",
        said=[f"{recipe}:17:evaluation.answer_pattern: ", "matches none of 16"],
    )


@pytest.mark.parametrize("name", ["${HOME}/../../etc/passwd", "/etc/passwd", "../rows.jsonl", "link.jsonl"])
def test_dataset_info_cannot_leave_its_folder(name: str, subspace: CommandLine) -> None:
    subspace.write("rows.jsonl", '{"instruction": "a", "output": "b"}\n')
    info = subspace.write("data/dataset_info.json", json.dumps({"mine": {"file_name": name}}))
    (info.parent / "link.jsonl").symlink_to("../rows.jsonl")
    recipe = subspace.recipe({"data": {"source": "mine", "dataset_info": str(info)}})
    subspace.refused("train", recipe, status=8, code="E-SEC-003", said=[f"{info}:mine", name])


def test_folder_that_holds_something_else(subspace: CommandLine) -> None:
    subspace.write("out/thesis.txt", "mine")
    recipe = subspace.recipe()
    subspace.refused("train", recipe, status=2, code="E-CFG-023", said=["out: files that are not of a run"])
    assert "thesis" not in subspace("validate", recipe).err


def test_finished_run_is_not_overwritten(own_run: Path, subspace: CommandLine) -> None:
    recipe = subspace.recipe({"training": {"output_dir": str(own_run)}})
    subspace.refused("train", recipe, status=2, code="E-CFG-023", said=[f"{own_run}: a finished run"])


def test_unfinished_run_is_not_overwritten(stopped: Path, subspace: CommandLine) -> None:
    recipe = subspace.recipe({"training": {"output_dir": str(stopped)}})
    told = subspace.refused("train", recipe, status=2, code="E-CFG-023", said=[f"{stopped}: an unfinished run"])
    assert f"subspace resume {stopped}" in told

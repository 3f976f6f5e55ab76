"""Bad recipes of methods that are optimizers, of StelLA, trained codes and the chunked loss: row 14 and its neighbours.

What needs no model is refused by `validate` without torch; what does, by `plan`, before weights are read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from command_line import CommandLine

BASE = """\
model: {model_name_or_path: builtin/tiny-llama}
data: {source: builtin/word-problems, max_length: 64, max_train_samples: 16}
training:
  max_steps: 2
  per_device_train_batch_size: 4
  output_dir: out
method:
  name: galore
  rank: 8
"""
"""Line numbers in the cases below are those of this text: of the keys of a method, 8 is its name, 10 what is added."""

RECIPE = "recipe.yaml"
LEFT = f"{RECIPE}:10:method."


@dataclass(frozen=True)
class Case:
    """A recipe that is refused.

    Attributes:
        method: Its name.
        keys: Lines added to its section.
        said: The place, and more that the message must hold.
        code: Of the error.
        model: Added to the model section.
        training: Added to the training section.
        rank: Of the subspace; None to leave it out.
    """

    method: str
    keys: Sequence[str] = ()
    said: Sequence[str] = ()
    code: str = "E-CFG-014"
    model: str = ""
    training: str = ""
    rank: int | None = 8

    def text(self) -> str:
        text = BASE.replace("galore", self.method).replace("tiny-llama}", f"tiny-llama{self.model}}}")
        text = text.replace("  output_dir: out", f"  {self.training or 'output_dir: out'}")
        text = text.replace("  rank: 8\n", "" if self.rank is None else f"  rank: {self.rank}\n")
        return text + "".join(f"  {line}\n" for line in self.keys)

    def __str__(self) -> str:
        return "-".join(filter(None, (self.method, *self.keys, self.model.strip(", "), self.training)))


def frozen_base(method: str) -> list[Case]:
    """The method trains weights that the recipe freezes (row 14)."""
    return [
        Case(method, model=f", quantization: {kind}", said=[f"{RECIPE}:1:model.quantization: ", f"'{kind}'", "no grad"])
        for kind in ("int8", "nf4")
    ]  # fmt: skip


def uses_up(method: str) -> list[Case]:
    """The method needs whole gradients, which an update in the backward pass uses up."""
    backward, place = ["update: in_backward"], f"{RECIPE}:6:training."
    off = "max_grad_norm: 0, max_bad_steps: 0"
    return [
        Case(method, backward, ["training.max_grad_norm", "clipped"]),
        Case(method, backward, [f"{place}max_bad_steps", "skipped"], training="max_bad_steps: 3\n  max_grad_norm: 0"),
        Case(method, backward, [f"{place}accumulation: gradient_accumulation_steps 4", "accumulated"],
             training=f"accumulation: 4\n  {off.replace(', ', chr(10) + '  ')}"),
        Case(method, [*backward, "refresh_from: micro_batch"], [f"{RECIPE}:11:method.refresh_from", "whole gradients"]),
    ]  # fmt: skip


OPTIMIZERS = ("galore", "fira", "flora", "apollo", "apollo_mini", "qgalore", "sophia")
WHOLE = ("fira", "flora", "apollo", "apollo_mini")
TORCH_FREE = [
    *(case for name in OPTIMIZERS for case in frozen_base(name)),
    *(case for name in WHOLE for case in uses_up(name)),
    # Brings its own optimizer
    *(
        Case(name, training="optim: adamw_8bit", said=[f"{RECIPE}:6:training.optim: optim 'adamw_8bit'", "state_bits"])
        for name in OPTIMIZERS
    ),
    # Decided twice
    Case("galore", ["basis: svd", "preset: fast"], [f"{LEFT}basis: basis beside preset fast", "'warm'", "not both."]),
    Case("fira", ["state_bits: 4", "preset: small"], [f"{LEFT}state_bits: state_bits beside preset small"]),
    Case("galore", ["side: left", "proj_type: right"], [f"{RECIPE}:11:method.proj_type: ", "line 10"]),
    Case("apollo", ["apollo_rank: 9"], [f"{LEFT}apollo_rank: ", "'rank' and 'apollo_rank' exclude each other"]),
    # Refused by the table of the optimizers, in the words of the recipe
    Case("galore", ["full_accumulator: true"], [f"{LEFT}full_accumulator: full_accumulator true with method galore"]),
    Case("galore", ["moments: transport", "rule: adafactor"], [f"{LEFT}moments: moments transport", "row and column"]),
    Case("fira", ["proj_type: full"], [f"{LEFT}proj_type: side both with method fira: ", "row or a column"]),
    Case("apollo", ["moments: transport"], [f"{LEFT}moments: ", "method apollo: "]),
    Case("apollo_mini", ["refresh: adaptive"], [f"{LEFT}refresh: ", "method apollo_mini: "]),
    Case("flora", ["basis: svd"], [f"{LEFT}basis: ", "its projection is random"]),
    Case("qgalore", ["fidelity: reference"], [f"{LEFT}fidelity: ", "another library"]),
    Case("sophia", ["update: in_backward"], [f"{LEFT}update: ", "second backward pass"]),
    Case("sophia", training="loss_chunk_tokens: 8", said=[f"{RECIPE}:6:training.loss_chunk_tokens: ", "whole logits"]),
    # Read by nobody
    Case("galore", ["adapter_rank: 4"], [f"{LEFT}adapter_rank: ", "with target weights", "Leave it out"]),
    Case("galore", ["project_embeddings: true", "target: adapter"], [f"{LEFT}project_embeddings: ", "target adapter"]),
    Case("galore", ["refresh_from: micro_batch"], [f"{LEFT}refresh_from: ", "with update after_backward"]),
    Case("fira", ["full_accumulator: true"], [f"{LEFT}full_accumulator: ", "with update after_backward"]),
    Case("sophia", ["T: 5"], [f"{RECIPE}:9:method.T: refresh_interval is given", "without a rank"], rank=None),
    Case("sophia", ["targets: [q_proj]"], [f"{RECIPE}:9:method.targets: ", "without a rank"], rank=None),
    Case("sophia", ["preset: fast"], [f"{RECIPE}:9:method.preset: ", "without a rank"], rank=None),
    # No such value
    Case("galore", ["state_bits: 16"], [f"{LEFT}state_bits: found 16", "32, 8, 4"], "E-CFG-010"),
    Case("galore", ["side: std"], [f"{LEFT}side: found the text 'std'", "shorter"], "E-CFG-010"),
    Case("galore", ["preset: tiny"], [f"{LEFT}preset: ", "paper, fast, small"], "E-CFG-010"),
    Case("galore", ["fidelity: official"], [f"{LEFT}fidelity: ", "paper, reference"], "E-CFG-010"),
    Case("galore", ["rule: sgd"], [f"{LEFT}rule: ", "adamw, adafactor"], "E-CFG-010"),
    Case("galore", ["target: [q_proj]"], [f"{LEFT}target: ", "weights, adapter"], "E-CFG-010"),
    Case("galore", ["scale: 0"], [f"{LEFT}scale: found 0"], "E-CFG-009"),
    Case("galore", ["update_proj_gap: 0"], [f"{LEFT}update_proj_gap: found 0", ">= 1"], "E-CFG-009"),
    Case("qgalore", ["basis_bits: 8"], [f"{LEFT}basis_bits: found 8", "32, 4"], "E-CFG-010"),
    Case("sophia", ["rho: .nan"], [f"{LEFT}rho: found .nan"], "E-CFG-009"),
    Case("galore", ["scale_type: tensor"], [f"{LEFT}scale_type: unknown key"], "E-CFG-007"),
    Case("galore", training="loss_chunk_tokens: 0", said=[f"{RECIPE}:6:training.loss_chunk_tokens"], code="E-CFG-009"),
    Case("stella", ["diagonal: maybe"], [f"{LEFT}diagonal: ", "true or false"], "E-CFG-010"),
    Case("stella", ["retraction: qr"], [f"{LEFT}retraction: ", "polar, exponential"], "E-CFG-010"),
    Case("stella", ["gradient_scaling: -1"], [f"{LEFT}gradient_scaling: found -1"], "E-CFG-010"),
    Case("stella", ["init: pissa"], [f"{LEFT}init: ", "svd_major"], "E-CFG-010"),
    # Trained codes
    Case("galore", ["target: adapter"], [f"{RECIPE}:1:model.trained_weights: ", "trains no weight"],
         model=", trained_weights: int8"),
    Case("stella", model=", trained_weights: int8", said=[f"{RECIPE}:1:model.trained_weights: ", "trains no weight"]),
    Case("galore", model=", trained_weights: int4", said=[f"{RECIPE}:1:model.trained_weights: "], code="E-CFG-010"),
    # Loss scaling
    Case("galore", ["update: in_backward"], [f"{RECIPE}:6:training.fp16: ", "use bf16"], training="fp16: true"),
    Case("galore", training="fp16: true", model=", dtype: float16", said=[f"{RECIPE}:1:model.dtype: ", "loss scaling"]),
]  # fmt: skip

WITH_SHAPES = [
    Case("galore", rank=100_000, said=[f"{RECIPE}:9:method.rank: with rank 100000 no weight", "method.rank=32"]),
    Case("fira", ["r: 100000"], [f"{RECIPE}:9:method.r: with rank 100000 no weight is projected"], rank=None),
    Case("galore", ["target: adapter", "adapter_rank: 1000"], [f"{RECIPE}:11:method.adapter_rank: rank 1000 does"]),
    Case("galore", ["target: adapter", "adapter_rank: 2"], [f"{RECIPE}:9:method.rank: with rank 8 no weight"]),
    Case("stella", rank=1000, said=[f"{RECIPE}:9:method.rank: rank 1000", "1 to 128"]),
    Case("galore", ["target_modules: [q_pro]"], [f"{LEFT}target_modules: no module matches 'q_pro'", "'q_proj'"]),
    Case("galore", ["galore_target: [q_pro]"], [f"{LEFT}galore_target: no module matches 'q_pro'"]),
]  # fmt: skip


@pytest.mark.parametrize("case", TORCH_FREE, ids=str)
def test_recipe_of_a_method_that_is_wrong_in_itself(case: Case, subspace: CommandLine) -> None:
    subspace.write(RECIPE, case.text())
    told = subspace.refused("validate", RECIPE, status=2, code=case.code, said=case.said)
    assert ".." not in told
    assert "AdamW:" not in told, "the classes of optimizers are not the user's words"


def test_no_torch_is_needed_to_refuse_them(subspace: CommandLine) -> None:
    """All rows again, by `train` in one process that has no torch."""
    for number, case in enumerate(TORCH_FREE):
        subspace.write(f"{number}.yaml", case.text())
    code = f"""
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "peft", "accelerate", "datasets")))
from subspace.cli.main import main
ends = []
for number in range({len(TORCH_FREE)}):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main(["train", f"{{number}}.yaml"])
        except SystemExit as end:
            ends.append([end.code, said.getvalue().split()[0]])
print(json.dumps(ends))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=subspace.folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [[2, case.code] for case in TORCH_FREE]
    assert not (subspace.folder / "out").exists()


@pytest.mark.parametrize("case", WITH_SHAPES, ids=str)
def test_recipe_of_a_method_that_does_not_fit_the_model(case: Case, subspace: CommandLine) -> None:
    subspace.write(RECIPE, case.text())
    subspace("validate", RECIPE)
    subspace.refused("plan", RECIPE, status=2, code="E-CFG-016", said=case.said)


@pytest.mark.parametrize(
    ("method", "keys", "expected"),
    [
        ("galore", ["galore_update_interval: 50", "galore_scale: 2", "proj_type: reverse_std"],
         ["refresh_interval: 50", "scale: 2.0", "side: longer"]),
        ("qgalore", ["galore_update_proj_gap: 50", "galore_with_embedding: true"],
         ["refresh_interval: 50", "project_embeddings: true"]),
        ("apollo", ["apollo_proj: svd", "apollo_proj_type: std", "apollo_target: all"],
         ["basis: svd", "side: shorter", "target_modules: all-linear"]),
        ("stella", ["use_rslora: true", "grad_scaling: false"], ["rslora: true", "gradient_scaling: false"]),
        ("fira", ["target: adapter", "adapter_rank: 32", "project_embeddings: false"], ["adapter_rank: 32"]),
        ("galore", ["adapter_rank: 32", "refresh_from: step", "full_accumulator: false"], ["update: after_backward"]),
    ],
)  # fmt: skip
def test_names_that_people_know_are_understood(
    method: str, keys: list[str], expected: list[str], subspace: CommandLine
) -> None:
    """And a resolved recipe, in which every default is written out, is as good as the one that it came from."""
    subspace.write(RECIPE, Case(method, keys).text())
    _, begin, rest = subspace("validate", RECIPE, "--show").out.partition("model:\n")
    shown = begin + rest
    for line in expected:
        assert f"  {line}\n" in shown
    subspace("validate", subspace.write("again.yaml", shown))


@pytest.mark.parametrize(
    ("method", "keys", "read"),
    [("flora", [], False), ("galore", ["rule: adafactor"], False), ("sophia", [], False), ("galore", [], True)],
)
def test_numbers_that_a_method_does_not_read_are_noted(
    method: str, keys: list[str], read: bool, subspace: CommandLine
) -> None:
    subspace.write(RECIPE, Case(method, keys, training="adam_epsilon: 1e-6").text())
    note = f"{RECIPE}:6:training.adam_epsilon is not read with method {method}"
    assert (note in subspace("validate", RECIPE).out) is not read
    subspace.write(RECIPE, Case(method, keys, training="adam_epsilon: 1e-8").text())
    assert "not read" not in subspace("validate", RECIPE).out

"""Sections: what is accepted, what it is turned into, and how everything else is told."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from subspace.config.base import Section, Synonym
from subspace.config.expected import describe, describe_field, show
from subspace.config.load import document_from, dump_yaml, parse_section, read_document, with_overrides
from subspace.core.errors import SubspaceError
from subspace.data.config import DataConfig
from subspace.evaluation.config import EvaluationConfig
from subspace.models.config import ModelConfig
from subspace.training.config import TrainingConfig


class Probe(Section):
    """One field of every kind that a room may declare."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        "proj_type": Synonym("side", {"std": "shorter", "reverse_std": "longer"}),
        "side": Synonym("side", {"std": "shorter"}),
        "r": Synonym("rank", {"none": 0}),
        "all_layers": Synonym("targets", {True: "all-linear", False: ()}),
        "train_on_prompt": Synonym("loss_on", {True: "all", False: "answer"}),
    }

    side: Literal["shorter", "longer"] = "shorter"
    rank: int = Field(default=8, ge=1)
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    ranks: dict[str, int] = Field(default_factory=dict)
    shares: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] | None = None
    pair: tuple[int, str] = (1, "a")
    budget: int | Literal["auto"] = "auto"
    loss_on: Literal["all", "answer"] = "answer"
    even: int = 2
    low: float = 0.0
    high: float = 1.0

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Probe:
        if self.low > self.high:
            raise ValueError("low exceeds high")
        return self


def refusal(write, text: str, section: type[Section] = Probe, key: str = "s") -> SubspaceError:
    document = read_document(write(text))
    with pytest.raises(SubspaceError) as caught:
        parse_section(document, key, section)
    return caught.value


def accepted(write, text: str, section: type[Section] = Probe) -> tuple[dict, tuple[str, ...]]:
    parsed, notes = parse_section(read_document(write(text)), "s", section)
    return parsed.model_dump(exclude_unset=True), notes


TRAINING = {
    "lr: fast": ("E-CFG-009", "lr", "the text 'fast'; expected a finite number in (0, 1]"),
    "lr: -1": ("E-CFG-009", "lr", "-1;"),
    "lr: 0": ("E-CFG-009", "lr", "0;"),
    "lr: .nan": ("E-CFG-009", "lr", ".nan;"),
    "lr: .inf": ("E-CFG-009", "lr", ".inf;"),
    "lr: -.inf": ("E-CFG-009", "lr", "-.inf;"),
    "lr: 1e9": ("E-CFG-009", "lr", "1000000000.0;"),
    "lr: 1e999": ("E-CFG-009", "lr", ".inf;"),
    "lr: true": ("E-CFG-010", "lr", "true;"),
    "lr: [1e-4]": ("E-CFG-010", "lr", "a list of 1 item;"),
    "lr: null": ("E-CFG-010", "lr", "nothing (null);"),
    "epochs: 3.5": ("E-CFG-010", "epochs", "3.5; expected an integer >= 1, or null"),
    "epochs: 3.0": ("E-CFG-010", "epochs", "expected an integer >= 1, or null. Write 3."),
    "epochs: .nan": ("E-CFG-009", "epochs", ".nan;"),
    "epochs: '3'": ("E-CFG-009", "epochs", "the text '3';"),
    "batch_size: true": ("E-CFG-010", "batch_size", "true; expected an integer >= 1"),
    "batch_size: 0": ("E-CFG-009", "batch_size", "0; expected an integer >= 1"),
    "seed: 4294967296": ("E-CFG-009", "seed", "expected an integer in [0, 4294967296)"),
    "warmup_ratio: 1": ("E-CFG-009", "warmup_ratio", "expected a finite number in [0, 1)"),
    "save_total_limit: 1": ("E-CFG-009", "save_total_limit", "expected an integer >= 2"),
    "optim: sgd": ("E-CFG-010", "optim", "expected one of adamw, adamw_8bit, paged_adamw_8bit"),
    "device: gpu": ("E-CFG-010", "device", "expected text that matches ^(auto|cpu|mps|cuda"),
    "output_dir: 3": ("E-CFG-010", "output_dir", "3; expected text"),
    "report_to: wandb": ("E-CFG-010", "report_to", "expected a list, each item one of tensorboard, wandb, trackio"),
    "report_to: [wandb, mlflow]": ("E-CFG-010", "report_to[1]", "expected one of tensorboard, wandb, trackio"),
    "gradient_checkpointing: 'yes'": ("E-CFG-010", "gradient_checkpointing", "expected true or false"),
    "gradient_checkpointing: on": ("E-CFG-010", "gradient_checkpointing", "the text 'on'; expected true or false"),
    "bf16: 1": ("E-CFG-010", "bf16", "1; expected true or false"),
    "learing_rate: 1": ("E-CFG-007", "learing_rate", "Did you mean 'learning_rate'?"),
    "batchsize: 1": ("E-CFG-007", "batchsize", "Did you mean 'batch_size' (our per_device_train_batch_size)?"),
    "zzz: 1": ("E-CFG-007", "zzz", "expected one of output_dir, max_steps"),
    "trust_remote_code: false": ("E-CFG-007", "trust_remote_code", "unknown key"),
}


@pytest.mark.parametrize(("line", "expected"), TRAINING.items(), ids=TRAINING)
def test_every_complaint_has_code_place_found_and_expected(write, line: str, expected: tuple[str, str, str]) -> None:
    error = refusal(write, f"a: 1\ntraining:\n  # comment\n  {line}\n", TrainingConfig, "training")
    code, key, words = expected
    assert (error.code, error.exit_status) == (code, 2)
    assert error.where.endswith(f"recipe.yaml:4:training.{key}")
    assert words in str(error)


PROBE = {
    "s: {targets: q_proj}": ("E-CFG-010", "s.targets", "expected a list, each item text, or all-linear"),
    "s: {targets: [q, 1]}": ("E-CFG-010", "s.targets[1]", "found 1; expected text"),
    "s: {targets: 3}": ("E-CFG-010", "s.targets", "found 3; expected a list"),
    "s: {ranks: {a: x}}": ("E-CFG-009", "s.ranks.a", "found the text 'x'; expected an integer"),
    "s: {ranks: 3}": ("E-CFG-010", "s.ranks", "expected a mapping, each value an integer"),
    "s: {shares: [0.5, 2]}": ("E-CFG-009", "s.shares[1]", "found 2; expected a finite number in (0, 1]"),
    "s: {pair: [1]}": ("E-CFG-010", "s.pair", "expected a list of 2 items"),
    "s: {pair: [1, 2]}": ("E-CFG-010", "s.pair[1]", "found 2; expected text"),
    "s: {pair: [x, y]}": ("E-CFG-009", "s.pair[0]", "found the text 'x'; expected an integer"),
    "s: {r: none}": ("E-CFG-009", "s.r", "found the text 'none'; expected an integer >= 1"),
    "s: {budget: half}": ("E-CFG-010", "s.budget", "expected an integer, or auto"),
    "s: {even: 3}": ("E-CFG-010", "s.even", "s.even: 3 is odd."),
    "s: {low: 2, high: 1}": ("E-CFG-014", "s", "low exceeds high"),
    "s: [1]": ("E-CFG-010", "s", "found a list of 1 item; expected a mapping"),
    "s: lora": ("E-CFG-010", "s", "found the text 'lora'; expected a mapping"),
}


@pytest.mark.parametrize(("text", "expected"), PROBE.items(), ids=PROBE)
def test_every_kind_of_field_is_described(write, text: str, expected: tuple[str, str, str]) -> None:
    error = refusal(write, text)
    assert error.code == expected[0]
    assert error.where.endswith(f"recipe.yaml:1:{expected[1]}")
    assert expected[2] in str(error)


def test_missing_keys_point_at_the_section(write) -> None:
    error = refusal(write, "a: 1\ndata:\n  split: train\n", DataConfig, "data")
    assert error.code == "E-CFG-011"
    assert error.where.endswith("recipe.yaml:2:data.source")
    assert error.expected == "text of 1 to 4096 characters"
    with pytest.raises(SubspaceError, match=r"E-CFG-011 data\.source"):
        parse_section(document_from({}), "data", DataConfig)


def test_the_first_problem_is_told_and_the_others_counted(write) -> None:
    text = "s:\n  even: 3\n  rank: 0\n  nonsense: 1\n  budget: x\n"
    error = refusal(write, text)
    assert error.where.endswith(":2:s.even")
    assert str(error).endswith("(and 3 more)")
    assert [other.where.rpartition(".")[2] for other in error.others] == ["rank", "nonsense", "budget"]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "more)" not in str(refusal(write, "s:\n  rank: 0\n"))


def test_a_misspelt_required_key_is_told_before_the_missing_one(write) -> None:
    error = refusal(write, "data:\n  sorce: x\n", DataConfig, "data")
    assert error.code == "E-CFG-007"
    assert "Did you mean 'source'?" in str(error)


def test_base_and_recipe_lines_are_not_mixed_up(write) -> None:
    write("s:\n  a: 1\n  b: 2\n  c: 3\n  rank: 0\n".replace("  a: 1\n  b: 2\n  c: 3\n", "\n\n\n"), "base.yaml")
    error = refusal(write, "extends: base.yaml\ns:\n  even: 3\n")
    assert error.where.endswith("base.yaml:5:s.rank")


def test_an_empty_or_absent_section_is_all_defaults(write) -> None:
    assert accepted(write, "a: 1\n") == ({}, ())
    assert accepted(write, "s:\n") == ({}, ())
    assert accepted(write, "s: {}\n") == ({}, ())


def test_the_whole_document_can_be_a_section(write) -> None:
    document = read_document(write("rank: 4\nr: 4\n"))
    parsed, _ = parse_section(document, None, Probe)
    assert parsed.rank == 4
    with pytest.raises(SubspaceError, match=r"recipe\.yaml:1:rnk"):
        parse_section(read_document(write("rnk: 4\n")), None, Probe)


def test_synonyms_are_translated_and_noted_once(write) -> None:
    values, notes = accepted(write, "s:\n  r: 4\n  proj_type: std\n  rank: 4\n")
    assert values == {"rank": 4, "side": "shorter"}
    assert [note.split("recipe.yaml:")[1] for note in notes] == [
        "2:s.r is read as rank",
        "3:s.proj_type: std is read as side: shorter",
    ]


def test_a_synonym_may_translate_values_of_our_own_key(write) -> None:
    values, notes = accepted(write, "s: {side: std}")
    assert values == {"side": "shorter"}
    assert notes[0].endswith("1:s.side: std is read as side: shorter")
    assert accepted(write, "s: {side: longer}") == ({"side": "longer"}, ())


def test_a_translated_value_is_complained_of_as_it_was_written(write) -> None:
    error = refusal(write, "s: {proj_type: full}")
    assert error.where.endswith(":1:s.proj_type")
    assert "found the text 'full'; expected one of shorter, longer" in str(error)


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ("load_in_4bit: true", "load_in_8bit: true", "quantization"),
        ("load_in_4bit: true", "quantization: int8", "quantization"),
        ("quantization: nf4", "load_in_4bit: false", "quantization"),
        ("name: b", "base_model: a", "model_name_or_path"),
    ],
)
def test_names_that_contradict_exclude_each_other(write, first: str, second: str, key: str) -> None:
    error = refusal(write, f"s:\n  {first}\n  {second}\n", ModelConfig)
    names = [line.partition(":")[0] for line in (first, second)]
    assert error.code == "E-CFG-014"
    assert error.where.endswith(f"recipe.yaml:3:s.{names[1]}")
    assert f"'{names[0]}' and '{names[1]}' exclude each other" in str(error)
    assert key in error.found


def test_the_pair_of_quantizations_is_named_in_order(write) -> None:
    error = refusal(write, "s:\n  name: b\n  load_in_4bit: true\n  load_in_8bit: true\n", ModelConfig)
    assert error.where.endswith("recipe.yaml:4:s.load_in_8bit")
    assert error.found == (
        "'load_in_4bit' and 'load_in_8bit' exclude each other: both set quantization (the first on line 3)"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("load_in_4bit: true, load_in_8bit: false", "nf4"),
        ("load_in_4bit: false, load_in_8bit: true", "int8"),
        ("load_in_4bit: false, load_in_8bit: false", "none"),
        ("quantization: nf4, load_in_8bit: false", "nf4"),
        ("quantization: nf4, load_in_4bit: true", "nf4"),
        ("load_in_4bit: false", "none"),
    ],
)
def test_a_switch_that_is_off_contradicts_only_what_it_stands_for(write, text: str, expected: str) -> None:
    values, _ = accepted(write, f"s: {{name: x, {text}}}", ModelConfig)
    assert values["quantization"] == expected


@pytest.mark.parametrize(
    ("recipe", "override", "expected"),
    [
        ("load_in_4bit: true", "load_in_8bit=true", "int8"),
        ("load_in_4bit: true", "load_in_4bit=false", "none"),
        ("quantization: nf4", "load_in_4bit=false", "none"),
        ("load_in_4bit: true", "load_in_8bit=false", "nf4"),
        ("load_in_4bit: true", "quantization=none", "none"),
    ],
)
def test_a_later_layer_wins_under_any_name(write, recipe: str, override: str, expected: str) -> None:
    document = with_overrides(read_document(write(f"s: {{name: x, {recipe}}}")), [f"s.{override}"])
    assert parse_section(document, "s", ModelConfig)[0].quantization == expected


def test_the_recipe_wins_over_its_base_under_any_name(write) -> None:
    write("s: {load_in_4bit: true, name: x}\n", "base.yaml")
    values, _ = accepted(write, "extends: base.yaml\ns: {load_in_8bit: true, load_in_4bit: false}\n", ModelConfig)
    assert values["quantization"] == "int8"


def test_a_number_is_not_a_switch(write) -> None:
    assert refusal(write, "s: {all_layers: 1}").expected == "true or false"
    assert accepted(write, "s: {all_layers: true}")[0] == {"targets": "all-linear"}


@pytest.mark.parametrize(
    "section",
    [
        TrainingConfig(max_steps=1, report_to=("wandb", "trackio"), learning_rate=1),
        DataConfig(source="x", labels=("no", "1"), columns={"prompt": "q"}, validation_fraction=0.1),
        ModelConfig(model_name_or_path="1e4", quantization="nf4"),
        EvaluationConfig(metrics=("f1",), answer_pattern=r"#### (-?\d+)"),
    ],
)
def test_every_section_survives_being_written_and_read(write, section: Section) -> None:
    document = read_document(write(dump_yaml({"s": section.model_dump(mode="json")})))
    assert parse_section(document, "s", type(section)) == (section, ())


@pytest.mark.parametrize("section", [TrainingConfig, DataConfig, ModelConfig, EvaluationConfig, Probe])
def test_every_field_can_be_described_and_every_synonym_leads_somewhere(section: type[Section]) -> None:
    for name, field in section.model_fields.items():
        assert "another value" not in describe_field(field), name
    for name, synonym in section.synonyms.items():
        assert synonym.key in section.model_fields, name


def test_types_and_values_in_words() -> None:
    assert describe(Annotated[int, Field(gt=0)]) == "an integer > 0"
    assert describe(Annotated[float, Field(lt=5)]) == "a finite number < 5"
    assert describe(Annotated[str, Field(min_length=1)]) == "text that is not empty"
    assert describe(Annotated[str, Field(min_length=3)]) == "text of at least 3 characters"
    assert describe(tuple[tuple[int, ...], ...]) == "a list, each item a list, each item an integer"
    assert describe(Literal["only"]) == "only"
    assert describe(bool | None) == "true or false, or null"
    assert show("x" * 1000) == f"the text '{'x' * 60}...'"
    assert [show(value) for value in (math.nan, math.inf, -math.inf, {}, ())] == [
        ".nan",
        ".inf",
        "-.inf",
        "a mapping",
        "a list of 0 items",
    ]

"""LLaMA-Factory files: what comes along, what does not, and that nothing is lost without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subspace.config.base import Section
from subspace.config.llamafactory import CARRIED, ONLY_FOR
from subspace.config.load import dump_yaml, parse_section, read_document
from subspace.config.migrate import Migration, migrate_llamafactory
from subspace.core.errors import ConfigError, SecurityError, SubspaceError
from subspace.data.config import DataConfig
from subspace.evaluation.config import EvaluationConfig
from subspace.methods.registry import REGISTRY
from subspace.models.config import ModelConfig
from subspace.pipeline.run_config import parse_run_config
from subspace.training.config import TrainingConfig

SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}
LORA = """
model_name_or_path: Qwen/Qwen2-0.5B-Instruct
trust_remote_code: true
quantization_bit: 4
quantization_method: bnb
template: qwen
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_dropout: 0.05
lora_target: q_proj, v_proj
dataset: first,second
dataset_dir: my/data/
cutoff_len: 1024
max_samples: 1000
overwrite_cache: true
val_size: 0.1
output_dir: saves/run
overwrite_output_dir: true
plot_loss: true
logging_steps: 10
save_steps: 500
save_total_limit: 3
report_to: wandb
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
fp16: false
ddp_timeout: 180000000
deepspeed: examples/ds_z3.json
resume_from_checkpoint: null
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
wandb_project: x
max_new_tokens: 32
"""
PISSA = """
model_name_or_path: m
dataset: [d, e]
pissa_init: true
pissa_iter: 8
pissa_convert: true
use_rslora: true
"""
FULL = """
model_name_or_path: m
dataset: d
finetuning_type: full
use_galore: true
galore_rank: 128
use_badam: no
lora_rank: 8
pure_bf16: true
optim: adamw_torch
disable_gradient_checkpointing: true
max_steps: 100
"""
MINIMAL = "model_name_or_path: m\nstage: sft\ndataset: d\n"


def migrate(write: Any, text: str) -> Migration:
    return migrate_llamafactory(write(text, "lf.yaml"))


def heads(lines: tuple[str, ...]) -> list[str]:
    return [line.split(" -> ")[0].split(": ")[0].split(" ")[0] for line in lines]


def reason(migration: Migration, key: str) -> str:
    (line,) = [line for line in migration.not_carried if line.startswith(f"{key}: ")]
    return line.partition(": ")[2]


def extra(write: Any, lines: str) -> Migration:
    return migrate(write, MINIMAL + lines + "\n")


def test_a_lora_file_becomes_a_recipe(write) -> None:
    assert migrate(write, LORA).recipe == {
        "model": {"model_name_or_path": "Qwen/Qwen2-0.5B-Instruct", "quantization": "nf4", "chat_template": "qwen2"},
        "data": {
            "source": "first",
            "dataset_info": "my/data/dataset_info.json",
            "max_length": 1024,
            "max_train_samples": 1000,
            "validation_fraction": 0.1,
        },
        "method": {"name": "lora", "rank": 16, "alpha": 32, "dropout": 0.05, "target_modules": ("q_proj", "v_proj")},
        "training": {
            "gradient_checkpointing": True,
            "output_dir": "saves/run",
            "logging_steps": 10,
            "save_steps": 500,
            "save_total_limit": 3,
            "report_to": ("wandb",),
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8,
            "learning_rate": 1e-4,
            "num_train_epochs": 3,
            "lr_scheduler_type": "cosine",
            "warmup_ratio": 0.1,
            "mixed_precision": "bf16",
            "per_device_eval_batch_size": 1,
            "eval_steps": 500,
        },
        "evaluation": {"max_new_tokens": 32},
    }


def test_a_full_file_becomes_a_recipe(write) -> None:
    migration = migrate(write, FULL)
    assert migration.recipe["method"] == {"name": "galore", "fidelity": "reference", "rank": 128, "scale": 2.0}
    assert migration.recipe["model"] == {"model_name_or_path": "m", "dtype": "bfloat16"}
    assert migration.recipe["training"]["gradient_checkpointing"] is False
    assert "num_train_epochs" not in migration.recipe["training"]
    assert "use_galore -> method.name, method.fidelity" in migration.carried
    assert "the method galore has no place" in reason(migration, "lora_rank")


def test_defaults_that_differ_from_ours_are_written_out(write) -> None:
    migration = migrate(write, MINIMAL)
    assert migration.recipe == {
        "model": {"model_name_or_path": "m"},
        "data": {"source": "d", "dataset_info": "data/dataset_info.json", "max_length": 2048},
        "method": {"name": "lora", "rank": 8, "alpha": 16, "target_modules": "all-linear"},
        "training": {
            "learning_rate": 5e-5,
            "num_train_epochs": 3,
            "lr_scheduler_type": "linear",
            "gradient_checkpointing": True,
        },
    }
    assert "cutoff_len (default 2048) -> data.max_length" in migration.carried
    assert "lora_alpha (default 16) -> method.alpha" in migration.carried


@pytest.mark.parametrize("text", [LORA, PISSA, FULL, MINIMAL], ids=["lora", "pissa", "full", "minimal"])
def test_every_key_ends_in_one_list_and_every_section_parses(write, text: str) -> None:
    migration = migrate(write, text)
    given = [line.partition(":")[0] for line in text.strip().splitlines()]
    carried, dropped = heads(migration.carried), [head for head in heads(migration.not_carried) if head != "dataset"]
    assert sorted([*carried, *dropped]) == sorted({*given, *carried})
    assert not set(carried) & set(dropped)
    document = read_document(write(dump_yaml(migration.recipe)))
    for key, section in SECTIONS.items():
        parsed, notes = parse_section(document, key, section)
        assert notes == ()
        assert parsed.model_dump(exclude_unset=True) == document.tree.get(key, {})
    method_class = REGISTRY.load(migration.recipe["method"]["name"])
    assert parse_section(document, "method", method_class.config_class)[1] == ()


GALORE = {"name": "galore", "fidelity": "reference", "rank": 16, "scale": 2.0}
APOLLO = {"name": "apollo", "fidelity": "reference", "rank": 16, "scale": 32.0}


@pytest.mark.parametrize(
    ("lines", "method"),
    [
        ("use_galore: true", GALORE),
        ("use_galore: true\noptim: adamw_torch", GALORE),
        ("use_galore: true\noptim: adamw_8bit", GALORE | {"state_bits": 8}),
        ("use_galore: true\noptim: adafactor", GALORE | {"rule": "adafactor"}),
        ("use_galore: true\ngalore_layerwise: true", GALORE | {"update": "in_backward"}),
        ("use_galore: true\ngalore_layerwise: false", GALORE),
        ("use_galore: true\ngalore_rank: 64\ngalore_scale: 0.25", GALORE | {"rank": 64, "scale": 0.25}),
        ("use_galore: true\ngalore_update_interval: 50", GALORE | {"refresh_interval": 50}),
        ("use_galore: true\ngalore_proj_type: reverse_std", GALORE | {"side": "longer"}),
        ("use_galore: true\ngalore_target: all", GALORE | {"target_modules": "all-linear"}),
        (
            "use_galore: true\ngalore_target: mlp,q_proj",
            GALORE | {"target_modules": ("re:.*mlp.*", "q_proj")},
        ),
        ("use_apollo: true", APOLLO),
        ("use_apollo: true\napollo_scale_type: channel\napollo_proj: svd", APOLLO | {"basis": "svd"}),
        ("use_apollo: true\napollo_scale_type: tensor\napollo_rank: 1", APOLLO | {"name": "apollo_mini", "rank": 1}),
        ("use_apollo: true\napollo_layerwise: true\nmax_grad_norm: 1.0", APOLLO | {"update": "in_backward"}),
    ],
)
def test_galore_and_apollo_become_recipes(write, lines: str, method: dict[str, Any]) -> None:
    """The recipe that comes out is a whole one, which nothing refuses; no key of the file is lost."""
    migration = extra(write, f"finetuning_type: full\n{lines}")
    assert migration.recipe["method"] == method
    config, notes = parse_run_config(read_document(write(dump_yaml(migration.recipe))))
    assert notes == ()
    assert config.training.max_grad_norm == (0.0 if "apollo_layerwise" in lines else 1.0)
    given = {line.partition(":")[0] for line in lines.split("\n")}
    assert given <= {*heads(migration.carried), *heads(migration.not_carried)}


def test_keys_of_a_method_are_carried_to_methods_that_have_them() -> None:
    assert {key for key, (target, _) in CARRIED.items() if target.startswith("method.")} == set(ONLY_FOR)
    for key, names in ONLY_FOR.items():
        for name in names:
            assert CARRIED[key][0].partition(".")[2] in REGISTRY.load(name).config_class.model_fields


def test_data_sets_may_be_a_list(write) -> None:
    migration = migrate(write, PISSA)
    assert migration.recipe["data"]["source"] == "d"
    assert "join the files" in reason(migration, "dataset 'e'")


def test_what_is_not_carried_says_why(write) -> None:
    migration = migrate(write, LORA)
    assert "never overwritten" in reason(migration, "overwrite_output_dir")
    assert "join the files" in reason(migration, "dataset 'second'")
    assert "no code of a model repository" in reason(migration, "trust_remote_code")
    assert "it is off" in reason(migration, "fp16")
    assert "empty" in reason(migration, "resume_from_checkpoint")
    assert "one device" in reason(migration, "deepspeed")
    assert reason(migration, "wandb_project") == "subspace has no such setting"


@pytest.mark.parametrize(
    ("lines", "section", "expected"),
    [
        ("use_dora: true", "method", {"name": "dora"}),
        ("pissa_init: yes", "method", {"name": "pissa", "niter": 16}),
        ("pissa_init: true\npissa_iter: 4", "method", {"niter": 4}),
        ("use_rslora: true\nloraplus_lr_ratio: 16", "method", {"rslora": True, "lora_plus_ratio": 16}),
        ("use_dora: false", "method", {"name": "lora"}),
        ("lora_rank: 4", "method", {"rank": 4, "alpha": 8}),
        ("lora_rank: 4\nlora_alpha: 4", "method", {"rank": 4, "alpha": 4}),
        ("lora_alpha: null", "method", {"alpha": 16}),
        ("lora_target: [q_proj, v_proj]", "method", {"target_modules": ("q_proj", "v_proj")}),
        ("cutoff_len: null", "data", {"max_length": 2048}),
        ("train_on_prompt: true", "data", {"loss_on": "all"}),
        ("neat_packing: true\npacking: true", "data", {"packing": True}),
        ("quantization_bit: '4'", "model", {"quantization": "nf4"}),
        ("quantization_bit: 8", "model", {"quantization": "int8"}),
        ("double_quantization: false", "model", {"double_quantization": False}),
        ("flash_attn: fa2", "model", {"attn_implementation": "flash_attention_2"}),
        ("model_revision: main", "model", {"revision": "main"}),
        ("learning_rate: '2e-4'", "training", {"learning_rate": 2e-4}),
        ("num_train_epochs: 1", "training", {"num_train_epochs": 1}),
        ("max_steps: -1", "training", {"num_train_epochs": 3}),
        ("warmup_steps: 0.1", "training", {"warmup_ratio": 0.1}),
        ("warmup_steps: 20", "training", {"warmup_steps": 20}),
        ("optim: paged_adamw_8bit", "training", {"optim": "paged_adamw_8bit"}),
        ("fp16: true", "training", {"mixed_precision": "fp16"}),
        ("report_to: none", "training", {"report_to": ()}),
        ("report_to: [wandb, tensorboard]", "training", {"report_to": ("wandb", "tensorboard")}),
    ],
)
def test_a_value_is_carried(write, lines: str, section: str, expected: dict[str, Any]) -> None:
    recipe = extra(write, lines).recipe[section]
    assert {key: recipe[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        ("num_train_epochs: 2.5", "num_train_epochs", "whole numbers"),
        ("num_train_epochs: .nan", "num_train_epochs", "whole numbers"),
        ("num_train_epochs: .inf", "num_train_epochs", "whole numbers"),
        ("max_steps: -1", "max_steps", "not set"),
        ("val_size: 200", "val_size", "a count of rows"),
        ("val_size: many", "val_size", "not a number"),
        ("quantization_bit: 3", "quantization_bit", "nf4"),
        ("quantization_bit: 4\nquantization_method: hqq", "quantization_bit", "bitsandbytes only"),
        ("quantization_bit: 4\nquantization_type: fp4", "quantization_bit", "nf4"),
        ("template: deepseek3", "template", "own chat template"),
        ("adapter_name_or_path: a,b", "adapter_name_or_path", "several adapters"),
        ("lr_scheduler_type: warmup_stable_decay", "lr_scheduler_type", "schedules"),
        ("optim: adafactor", "optim", "AdamW"),
        ("save_total_limit: 1", "save_total_limit", "at least two"),
        ("report_to: swanlab", "report_to", "tracker"),
        ("bf16: true\nfp16: true", "fp16", "differently"),
        ("use_dora: true\npissa_init: true", "pissa_init", "one method"),
        ("pissa_iter: 16", "pissa_iter", "the method lora has no place for it"),
        ("pissa_init: true\npissa_iter: -1", "pissa_iter", "not set"),
        ("pissa_init: true\nuse_rslora: true", "use_rslora", "the method pissa has no place for it"),
        ("use_badam: true", "use_badam", "no method of this version"),
        ("use_apollo: true", "use_apollo", "finetuning_type full alone"),
        ("use_apollo: false", "use_apollo", "it is off"),
        ("galore_scale: 4", "galore_scale", "the method lora has no place for it"),
        ("finetuning_type: full\nuse_dora: true", "use_dora", "finetuning_type lora alone"),
        ("finetuning_type: full\nuse_galore: true\nuse_apollo: true", "use_apollo", "one method"),
        ("finetuning_type: full\nuse_galore: true\nlora_alpha: 4", "lora_alpha", "the method galore has no place"),
        ("finetuning_type: full\nuse_galore: true\napollo_proj: svd", "apollo_proj", "the method galore has no place"),
        ("finetuning_type: full\nuse_galore: true\ngalore_rank: many", "galore_rank", "not a number"),
        ("finetuning_type: full\nuse_galore: true\ngalore_proj_type: up", "galore_proj_type", "reverse_std"),
        ("finetuning_type: full\nuse_galore: true\noptim: sgd", "optim", "the method galore brings its own"),
        ("finetuning_type: full\nuse_apollo: true\noptim: adamw_8bit", "optim", "the method apollo brings its own"),
        ("finetuning_type: full\nuse_apollo: true\napollo_proj: dct", "apollo_proj", "random and svd"),
        ("finetuning_type: full\nuse_apollo: true\napollo_scale_type: row", "apollo_scale_type", "channel and tensor"),
        ("finetuning_type: full\nuse_apollo: true\napollo_scale_front: true", "apollo_scale_front", "nothing reads it"),
        ("dataset_dir: ONLINE", "dataset_dir", "on the hub"),
        ("eval_steps: 5", "eval_steps", "eval_strategy"),
        ("eval_steps: 5\neval_strategy: steps", "eval_steps", "no validation rows"),
        ("eval_strategy: epoch", "eval_strategy", "no validation rows"),
        ("eval_strategy: steps\nval_size: 0.1", "eval_strategy", "eval_steps alone says when"),
        ("load_best_model_at_end: true\nval_size: 0.1", "load_best_model_at_end", "eval_steps was not carried"),
        ("early_stopping_steps: 3", "early_stopping_steps", "eval_steps was not carried"),
        ("save_steps: 5\nsave_strategy: best", "save_steps", "save_strategy"),
        ("galore_scle: 2.0", "galore_scle", "did you mean 'galore_scale'?"),
        ("dpo_label_smoothing: 0.1", "dpo_label_smoothing", "another stage"),
        ("image_max_pixels: 10", "image_max_pixels", "text only"),
        ("use_dft_loss: true", "use_dft_loss", "cross-entropy"),
        ("lora_dropout: [1]", "lora_dropout", "not a number"),
        ("lora_target: 3", "lora_target", "not a list of names"),
        ("template: [1]", "template", "own chat template"),
        ("output_dir: true", "output_dir", "not text"),
        ("disable_gradient_checkpointing: maybe", "disable_gradient_checkpointing", "neither true nor false"),
    ],
)
def test_a_value_without_counterpart_is_listed(write, lines: str, key: str, words: str) -> None:
    migration = extra(write, lines)
    assert words in reason(migration, key)
    section, _, name = CARRIED.get(key, ("none.none", None))[0].partition(".")
    if key not in ("fp16", "max_steps"):
        assert name not in migration.recipe.get(section, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "not a LLaMA-Factory file"),
        ("a: 1\n", "not a LLaMA-Factory file"),
        ("model_name_or_path: m\n", "not a LLaMA-Factory file"),
        ("data:\n  source: x\nmethod: lora\n", "It looks like a recipe already."),
        ("model_name_or_path: m\nstage: dpo\ndataset: d\n", "stage 'dpo'"),
        ("model_name_or_path: m\nstage: pt\ndataset: d\n", "stage 'pt'"),
        ("model_name_or_path: m\nfinetuning_type: freeze\ndataset: d\n", "finetuning_type 'freeze'"),
        ("model_name_or_path: m\nfinetuning_type: oft\ndataset: d\n", "finetuning_type 'oft'"),
        ("model_name_or_path: m\nstage: sft\n", "no dataset"),
    ],
)
def test_other_files_are_refused(write, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        migrate(write, text)
    assert (caught.value.code, caught.value.exit_status) == ("E-CFG-022", 2)
    assert words in str(caught.value)


def test_secrets_are_left_behind_and_never_shown(write) -> None:
    token = "hf_" + "aBcD1234" * 4
    migration = extra(write, f"hf_hub_token: {token}\nswanlab_api_key: {token}\nrun_name: {token}")
    assert token not in str(migration)
    assert "environment" in reason(migration, "hf_hub_token")
    with pytest.raises(SecurityError, match=r"E-SEC-002 .*training\.output_dir") as caught:
        extra(write, f"output_dir: runs/{token}")
    assert token not in str(caught.value)
    assert token not in str(migrate(write, f"model_name_or_path: m\nstage: sft\ndataset: d, {token}\n"))


def test_unreadable_files_fail_like_recipes(write, tmp_path: Path) -> None:
    with pytest.raises(SubspaceError, match="E-CFG-001"):
        migrate_llamafactory(tmp_path / "nowhere.yaml")
    with pytest.raises(SubspaceError, match="E-SEC-001"):
        migrate(write, "a: !!python/name:os.system x\n")


def test_carried_keys_lead_to_keys_that_exist() -> None:
    templates = Path(__file__).parents[2] / "src/subspace/models/chat_templates"
    for key, (target, convert) in CARRIED.items():
        section, _, name = target.partition(".")
        if section in SECTIONS:
            assert name in SECTIONS[section].model_fields, key
        if key == "template":
            for theirs in (
                "alpaca",
                "chatml",
                "gemma",
                "gemma2",
                "llama3",
                "mistral",
                "qwen",
                "qwen3",
                "qwen3_nothink",
            ):
                assert (templates / f"{convert(theirs)}.jinja").is_file()


def test_once_an_epoch_stays_once_an_epoch(write) -> None:
    text = "eval_strategy: epoch\neval_steps: 5\nsave_strategy: epoch\nsave_steps: 5\nval_size: 0.1"
    migration = extra(write, text)
    assert migration.recipe["training"]["eval_steps"] == migration.recipe["training"]["save_steps"] == "epoch"
    assert "eval_strategy is not 'steps'" in reason(migration, "eval_steps")
    assert "save_strategy is not 'steps'" in reason(migration, "save_steps")


def test_two_names_of_one_strategy_without_validation_rows(write) -> None:
    migration = extra(write, "eval_strategy: epoch\nevaluation_strategy: epoch")
    assert "eval_steps" not in migration.recipe.get("training", {})
    for key in ("eval_strategy", "evaluation_strategy"):
        assert "no validation rows" in reason(migration, key)

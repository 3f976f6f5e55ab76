"""Our optimizers in transformers' real Trainer: numbers, schedule, clipping, checkpoints, and what is refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_runs import (
    LEARNING_RATES,
    METHODS,
    PROJECTED,
    QUIET,
    SETTINGS,
    assert_same,
    largest_difference,
    new_trainer,
    rows,
    tiny_llama,
    train,
)

import subspace.optim
from subspace.core.errors import ConfigError, MethodError, SubspaceError
from subspace.integrations import transformers_optimizers
from subspace.integrations.curvature_callback import CurvatureCallback
from subspace.integrations.transformers_optimizers import create_optimizer, optimizer_cls_and_kwargs
from subspace.models.tiny import tiny_model
from subspace.optim.riemannian import innermost

pytestmark = QUIET


def arguments(tmp_path: Path, **settings: Any) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(output_dir=str(tmp_path), **(SETTINGS | settings))


@pytest.mark.parametrize("method", METHODS)
def test_schedule_and_resumption(tmp_path: Path, method: str) -> None:
    """The schedule reaches every group; training resumes to the weights of the uninterrupted one, to the bit."""
    whole = train(new_trainer(tmp_path / "run", method, {}, **METHODS[method]))
    for rates, expected in zip(whole.rates, LEARNING_RATES, strict=True):
        assert len(rates) >= 2
        assert rates == pytest.approx([expected] * len(rates))
    logged = [entry["learning_rate"] for entry in whole.trainer.state.log_history if "learning_rate" in entry]
    assert logged == pytest.approx(LEARNING_RATES)
    checkpoint = tmp_path / "run" / "checkpoint-3"
    assert torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    resumed = train(new_trainer(tmp_path / "again", method, {}, **METHODS[method]), checkpoint)
    assert_same(whole.weights, resumed.weights)
    assert resumed.rates == whole.rates[3:]
    assert largest_difference(whole.weights, tiny_llama(method).state_dict()) > 1e-4


@pytest.mark.parametrize("method", ["apollo", "fira", "galore", "stella"])
def test_the_state_in_the_checkpoint_matters(tmp_path: Path, method: str) -> None:
    """Without it the weights differ, so that the equality above says something."""
    whole = train(new_trainer(tmp_path / "run", method, {}, **METHODS[method]))
    checkpoint = tmp_path / "run" / "checkpoint-3"
    (checkpoint / "optimizer.pt").unlink()
    forgetful = train(new_trainer(tmp_path / "again", method, {}, **METHODS[method]), checkpoint)
    assert largest_difference(whole.weights, forgetful.weights) > 1e-6


@pytest.mark.parametrize("method", [name for name in METHODS if name != "stella"])
def test_numbers_and_groups(tmp_path: Path, method: str) -> None:
    from transformers import Trainer

    chosen = transformers_optimizers.METHODS[method]
    numbers = {"adam_beta2": 0.95, "adam_epsilon": 1e-6}
    settings = {key: value for key, value in numbers.items() if key in chosen.reads}
    trainer = new_trainer(tmp_path, method, settings, **METHODS[method])
    optimizer = innermost(trainer.create_optimizer())
    assert type(optimizer) is getattr(subspace.optim, chosen.optimizer)
    if "adam_beta2" not in chosen.reads:
        assert (optimizer.rule.beta1, optimizer.rule.scale_parameter) == (0.8, False)
    named = dict(trainer.model.named_parameters())
    found = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(found) == sorted(named)
    decaying, projected = set(), set()
    for group in optimizer.param_groups:
        assert all(named[name] is value for name, value in zip(group["param_names"], group["params"], strict=True))
        assert group["lr"] == 1e-2
        assert group["betas"] == (0.8, 0.95 if "adam_beta2" in chosen.reads else 0.0)
        if "adam_epsilon" in chosen.reads:
            assert group["eps"] == 1e-6
        assert group["weight_decay"] in (0.1, 0.0)
        assert group["settings"]["seed"] == trainer.args.seed
        decaying |= set(group["param_names"]) if group["weight_decay"] else set()
        projected |= set(group["param_names"]) if "rank" in group else set()
    assert decaying == set(Trainer.get_decay_parameter_names(trainer, trainer.model))
    blocks = {name for name in named if ".layers." in name and "proj" in name}
    assert projected == (blocks if method not in ("adamw", "sophia") else set())


def test_every_number_counts_as_in_the_trainers_own_adamw(tmp_path: Path) -> None:
    settings = {"adam_beta2": 0.9, "adam_epsilon": 1e-3, "max_grad_norm": 0.5, "save_strategy": "no"}
    ours = train(new_trainer(tmp_path, "adamw", settings))
    from transformers import Trainer

    args = arguments(tmp_path, optim="adamw_torch", **settings)
    theirs = train(Trainer(tiny_llama(), args, train_dataset=rows()))
    assert largest_difference(ours.weights, theirs.weights) < 1e-7


def test_an_optimizer_made_beforehand(tmp_path: Path) -> None:
    from transformers import Trainer

    args, model = arguments(tmp_path, save_strategy="no"), tiny_llama()
    optimizer = create_optimizer(model, args, "fira", **PROJECTED)
    before = train(Trainer(model, args, train_dataset=rows(), optimizers=(optimizer, None)))
    after = train(new_trainer(tmp_path, "fira", {"save_strategy": "no"}, **PROJECTED))
    assert_same(before.weights, after.weights)
    assert before.rates == after.rates


def test_a_model_that_the_trainer_makes_and_numbers_that_it_changes(tmp_path: Path) -> None:
    from transformers import Trainer

    args = arguments(tmp_path, save_strategy="no", max_steps=1, warmup_steps=0)
    given = optimizer_cls_and_kwargs(args, "galore", **PROJECTED)
    trainer = Trainer(args=args, model_init=tiny_llama, train_dataset=rows(), optimizer_cls_and_kwargs=given)
    trainer.train()
    first = innermost(trainer.optimizer)
    args.learning_rate = 0.5  # as a search over hyperparameters does
    trainer.train()
    second = innermost(trainer.optimizer)
    assert second is not first
    assert [group["initial_lr"] for group in second.param_groups] == [0.5] * len(second.param_groups)


# Updates in the backward pass


def test_in_backward_gives_the_weights_of_after_backward(tmp_path: Path) -> None:
    """Accumulation 2, clipping that bites, warm-up and cosine; and a checkpoint in between."""
    settings, options = {"max_grad_norm": 0.0}, PROJECTED | {"max_consumed_norm": 0.05}
    after = train(new_trainer(tmp_path / "after", "galore", settings, **options))
    inside = train(new_trainer(tmp_path / "inside", "galore", settings, update="in_backward", **options))
    assert largest_difference(after.weights, inside.weights) < 1e-6
    loose = train(new_trainer(tmp_path / "loose", "galore", settings, **PROJECTED))
    assert largest_difference(after.weights, loose.weights) > 1e-5
    trainer = new_trainer(tmp_path / "again", "galore", settings, update="in_backward", **options)
    assert_same(inside.weights, train(trainer, tmp_path / "inside" / "checkpoint-3").weights)


def test_in_backward_of_a_method_that_needs_the_gradient(tmp_path: Path) -> None:
    settings = {"max_grad_norm": 0.0, "gradient_accumulation_steps": 1, "save_strategy": "no"}
    after = train(new_trainer(tmp_path, "fira", settings, **PROJECTED))
    inside = train(new_trainer(tmp_path, "fira", settings, update="in_backward", **PROJECTED))
    assert largest_difference(after.weights, inside.weights) < 1e-6
    settings = {"max_grad_norm": 0.1, "gradient_accumulation_steps": 2, "save_strategy": "no"}
    after = train(new_trainer(tmp_path, "fira", settings, **PROJECTED))
    kept = {"update": "in_backward", "full_accumulator": True}
    inside = train(new_trainer(tmp_path, "fira", settings, **PROJECTED, **kept))
    assert_same(after.weights, inside.weights)


@pytest.mark.parametrize(
    ("method", "settings", "options", "where"),
    [
        ("galore", {}, {}, "TrainingArguments.max_grad_norm"),
        ("galore", {"max_grad_norm": 0.0, "auto_find_batch_size": True}, {}, "TrainingArguments.auto_find_batch_size"),
        ("fira", {}, {}, "TrainingArguments.max_grad_norm"),
        ("fira", {"max_grad_norm": 0.0}, {"max_consumed_norm": 1.0}, "max_consumed_norm"),
        ("apollo", {"max_grad_norm": 0.0}, {}, "TrainingArguments.gradient_accumulation_steps"),
        ("flora", {"max_grad_norm": 0.0}, {}, "TrainingArguments.gradient_accumulation_steps"),
    ],
)
def test_what_in_backward_refuses(
    tmp_path: Path, method: str, settings: dict[str, Any], options: dict[str, Any], where: str
) -> None:
    args = arguments(tmp_path, **settings)
    with pytest.raises(ConfigError, match="E-CFG-014") as caught:
        optimizer_cls_and_kwargs(args, method, update="in_backward", **PROJECTED, **options)
    assert caught.value.where == where
    with pytest.raises(ConfigError, match="E-CFG-014"):
        create_optimizer(tiny_llama(), args, method, update="in_backward", **PROJECTED, **options)
    optimizer_cls_and_kwargs(arguments(tmp_path), method, **PROJECTED)


def test_in_backward_refuses_loss_scaling_and_several_devices(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_grad_norm=0.0)
    args.fp16 = True
    with pytest.raises(ConfigError, match="fp16"):
        optimizer_cls_and_kwargs(args, "galore", update="in_backward", **PROJECTED)
    args.fp16, args._n_gpu = False, 2
    with pytest.raises(MethodError, match="on 2 devices"):
        optimizer_cls_and_kwargs(args, "galore", update="in_backward", **PROJECTED)
    optimizer_cls_and_kwargs(args, "galore", **PROJECTED)


# What else is refused


@pytest.mark.parametrize(
    ("method", "settings", "options", "code", "text"),
    [
        ("galor", {}, {"rank": 4}, "E-CFG-018", "'galore'"),
        ("galore", {}, {}, "E-CFG-011", "rank"),
        ("galore", {}, {"rnak": 8}, "E-CFG-007", "rnak: no option of galore. Did you mean 'rank'"),
        ("fira", {}, {"rank": 8, "refresh_intervl": 8}, "E-CFG-007", "Did you mean 'refresh_interval'"),
        ("galore", {}, {"rank": 4, "lr": 1e-3}, "E-CFG-014", "learning_rate"),
        ("galore", {}, {"rank": 4, "betas": (0.9, 0.9)}, "E-CFG-014", "adam_beta1"),
        ("galore", {}, {"rank": 4, "eps": 1e-3}, "E-CFG-014", "adam_epsilon"),
        ("flora", {}, {"rank": 4, "beta1": 0.5}, "E-CFG-014", "adam_beta1"),
        ("flora", {"adam_beta2": 0.95}, {"rank": 4}, "E-CFG-014", "adam_beta2"),
        ("galore_adafactor", {"adam_epsilon": 1e-6}, {"rank": 4}, "E-CFG-014", "adam_epsilon"),
        ("sophia", {"adam_epsilon": 1e-6}, {}, "E-CFG-014", "adam_epsilon"),
        ("galore", {"optim_target_modules": ["q_proj"]}, {"rank": 4}, "E-CFG-014", "optim_target_modules"),
        ("galore", {"optim_args": "rank=8"}, {"rank": 4}, "E-CFG-014", "optim_args"),
        ("galore", {}, {"rank": 4, "max_consumed_norm": 1.0}, "E-CFG-014", "clipped twice"),
        ("galore", {}, {"rank": 4, "max_consumed_norm": math.nan}, "E-CFG-009", "max_consumed_norm"),
        ("galore", {}, {"rank": 4, "basis": "sdv"}, "E-CFG-010", "svd"),
        ("galore", {}, {"rank": 4, "update_proj_gap": 50}, "E-CFG-007", "update_proj_gap"),
    ],
)
def test_refusals(
    tmp_path: Path, method: str, settings: dict[str, Any], options: dict[str, Any], code: str, text: str
) -> None:
    args = arguments(tmp_path, **settings)
    with pytest.raises(SubspaceError, match=text) as caught:
        create_optimizer(tiny_llama(), args, method, **options)
    assert caught.value.code == code
    if code != "E-CFG-007":
        with pytest.raises(SubspaceError, match=code):
            optimizer_cls_and_kwargs(args, method, **options)


def test_sharded_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = arguments(tmp_path)
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.setenv(name, "true")
        with pytest.raises(MethodError, match="sharded"):
            optimizer_cls_and_kwargs(args, "galore", rank=4)
        monkeypatch.delenv(name)
    args.deepspeed = "zero.json"
    with pytest.raises(MethodError, match="deepspeed"):
        optimizer_cls_and_kwargs(args, "galore", rank=4)


# Targets


def projected(model: Any, args: Any, **options: Any) -> set[str]:
    optimizer = create_optimizer(model, args, "galore", **({"rank": 4} | options))
    return {name for group in optimizer.param_groups if "rank" in group for name in group["param_names"]}


def test_targets(tmp_path: Path) -> None:
    args, model = arguments(tmp_path), tiny_llama()
    blocks = {name for name, _ in model.named_parameters() if ".layers." in name and "proj" in name}
    assert projected(model, args) == blocks
    assert projected(model, args, target_modules=["q_proj", "re:.*layers.1.*up_proj"]) == {
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
    }
    assert projected(model, args, exclude_modules=["mlp.up_proj", "down_proj", "gate_proj"]) == {
        name for name in blocks if "self_attn" in name
    }
    with pytest.raises(ConfigError, match="E-CFG-016"):
        projected(model, args, target_modules=["q_pro"])
    with pytest.raises(ConfigError, match="E-CFG-010"):
        projected(model, args, target_modules="q_proj")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("k_proj" in name)
    assert projected(model, args) == {name for name in blocks if "k_proj" in name}
    with pytest.raises(ConfigError, match="all of them frozen"):
        projected(model, args, target_modules=["q_proj"])
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter that is trained"):
        projected(model, args)


def test_embeddings_and_head(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    ends = projected(tiny_llama(), args, project_embeddings=True) - projected(tiny_llama(), args)
    assert ends == {"model.embed_tokens.weight", "lm_head.weight"}
    tied = projected(tiny_model("qwen2", hidden_size=16), args, project_embeddings=True)
    assert "model.embed_tokens.weight" in tied
    assert "lm_head.weight" not in tied


def test_fused_experts_and_a_model_without_config(tmp_path: Path) -> None:
    class Experts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj = torch.nn.Parameter(torch.ones(3, 16, 12))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(16, 12), Experts()])
            self.head = torch.nn.Linear(12, 12)

    assert projected(Net(), arguments(tmp_path)) == {"layers.0.weight", "layers.1.gate_up_proj"}


# Sophia


def test_sophia_needs_its_curvature(tmp_path: Path) -> None:
    from transformers import Trainer

    args = arguments(tmp_path, save_strategy="no")
    given = optimizer_cls_and_kwargs(args, "sophia")
    with pytest.raises(MethodError, match="CurvatureCallback"):
        Trainer(tiny_llama(), args, train_dataset=rows(), optimizer_cls_and_kwargs=given).train()
    with pytest.raises(MethodError, match="SophiaG"):
        Trainer(tiny_llama(), args, train_dataset=rows(), callbacks=[CurvatureCallback()]).train()
    with pytest.raises(ConfigError, match="E-CFG-009"):
        CurvatureCallback(interval=0)


def test_a_loss_without_the_models_labels_is_refused(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, "sophia", {"save_strategy": "no", "label_smoothing_factor": 0.1})
    with pytest.raises(MethodError, match="label smoothing"):
        trainer.train()


def test_curvature_is_that_of_drawn_labels(tmp_path: Path) -> None:
    """Zero for what no logit depends on, positive elsewhere, and moved at its interval only."""
    seen: list[float] = []

    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            states = innermost(kwargs["optimizer"]).state.values()
            seen.append(sum(float(state["hessian"].double().sum()) for state in states))
            assert all(bool((state["hessian"] >= 0).all()) for state in states)
            assert all(parameter.grad is None for parameter in kwargs["model"].parameters())

    trainer = new_trainer(tmp_path, "sophia", {"save_strategy": "no"})
    trainer.add_callback(Watch())
    trainer.train()
    assert seen[0] > 0
    assert [later != earlier for earlier, later in itertools.pairwise(seen)] == [
        False,
        True,
        False,
        True,
        False,
    ]

"""StelLA beside linear layers of a model: what it adds, where it starts, how it leaves, how it resumes."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from test_account import live_state, trained_specs
from torch import Tensor, nn
from workbench import Bench, attached, base_model, batch_of, logits_of, new_method, planned, specs

from subspace.adapters.stella import (
    StellaLinear,
    StellaOptions,
    add_stella,
    attach_stella,
    fold_stella,
    hidden_size,
    stella_layers,
    stiefel_factors,
)
from subspace.adapters.stella_lora import continue_stella, export_stella
from subspace.core.errors import CheckpointError, ConfigError, MethodError, NotMergeableError
from subspace.linalg.stiefel import RETRACTIONS
from subspace.methods.base import AttachContext
from subspace.models.config import ModelConfig
from subspace.models.load import load_model
from subspace.models.tiny import write_tiny_folder
from subspace.optim.groups import decays
from subspace.optim.riemannian import StiefelSteps
from subspace.optim.settings import OptimizerSettings
from subspace.optim.state_io import pack, unpack
from subspace.plan.shapes import Placement
from subspace.training.state import load_trained, trained_tensors

VARIANTS = pytest.mark.parametrize(
    "changes",
    [
        {"init": "random"},
        {"init": "random", "diagonal": False, "retraction": "exponential", "gradient_scaling": False},
        {"init": "svd_major", "rslora": True, "target_modules": "all-linear", "gradient_scaling": 100.0},
        {"init": "svd_minor", "diagonal": False, "dropout": 0.0},
    ],
    ids=["random", "full-exponential", "major-rslora", "minor-full"],
)


def trained(steps: int = 4, family: str = "llama", task: str = "causal_lm", **changes: Any) -> Bench:
    bench = attached("stella", family, task, **changes)
    optimizer = bench.optimizer()
    for number in range(1, steps + 1):
        bench.step(optimizer, number)
    return bench


def error(factor: Tensor) -> float:
    wide = factor.detach()
    return float((wide.T @ wide - torch.eye(wide.shape[1])).abs().max())


def plain_peft(folder: Path, family: str = "llama", task: str = "causal_lm") -> nn.Module:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded: nn.Module = PeftModel.from_pretrained(base_model(family, task), str(folder))
    return loaded


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_its_formula(diagonal: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    base = nn.Linear(10, 6, dtype=dtype)
    layer = StellaLinear(base, 3, StellaOptions(alpha=6.0, rslora=True, diagonal=diagonal))
    for value in (layer.stella_U, layer.stella_V, layer.stella_S):
        nn.init.normal_(value)
        assert value.dtype == torch.float32
    spectrum = layer.stella_S.diag() if diagonal else layer.stella_S
    delta = 6.0 / 3**0.5 * layer.stella_U @ spectrum @ layer.stella_V.T
    torch.testing.assert_close(layer.delta_weight(), delta.detach(), rtol=0, atol=1e-5)
    for shape in ((10,), (4, 10), (2, 3, 10)):
        x = torch.randn(shape, dtype=dtype)
        found = layer(x)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), (base(x).float() + x.float() @ delta.T), rtol=1e-2, atol=1e-4)


def test_only_its_own_tensors_are_trained_and_the_model_stays_of_its_class() -> None:
    base = base_model("llama", "causal_lm", torch.bfloat16)
    model = add_stella(base, ["q_proj"], rank=2, alpha=4.0)
    assert model is base
    names = {name for name, value in model.named_parameters() if value.requires_grad}
    assert names == {f"model.layers.{i}.self_attn.q_proj.stella_{key}" for i in (0, 1) for key in "USV"}
    assert {value.dtype for name, value in model.named_parameters() if name in names} == {torch.float32}
    layer: Any = model.get_submodule("model.layers.0.self_attn.q_proj")
    assert layer.weight.dtype == torch.bfloat16
    assert (layer.out_features, layer.in_features) == tuple(layer.weight.shape)
    with pytest.raises(MethodError, match=r"E-MTH-001 .*has StelLA already"):
        add_stella(model, ["v_proj"])


def test_targets_and_ranks_are_checked_and_absent_ones_are_the_family_s() -> None:
    model = add_stella(base_model("llama", "causal_lm"), rank=2)
    assert {name.rpartition(".")[2] for name in stella_layers(model)} == {"q_proj", "v_proj"}
    with pytest.raises(ConfigError, match=r"E-CFG-016 .*Did you mean 'q_proj'"):
        add_stella(base_model("llama", "causal_lm"), ["q_pro"])
    with pytest.raises(ConfigError, match=r"E-CFG-016 rank"):
        add_stella(base_model("llama", "causal_lm"), "all-linear", rank=1000)


def test_random_start_has_singular_values_of_s() -> None:
    bench = attached("stella", init="random")
    layers = stella_layers(bench.model)
    assert all(error(factor) < 1e-6 for factor in stiefel_factors(bench.model))
    for layer in layers.values():
        values = torch.linalg.svdvals(layer.delta_weight())
        torch.testing.assert_close(values[: layer.rank], torch.full((layer.rank,), 4.0 / 2), rtol=0, atol=1e-5)
    wanted = logits_of(base_model("llama", "causal_lm"), "causal_lm")
    assert not torch.allclose(bench.logits(), wanted, atol=1e-3)


@pytest.mark.parametrize(("init", "chosen"), [("svd_major", slice(0, 2)), ("svd_minor", slice(-2, None))])
def test_singular_vectors_of_the_weight_are_a_start(init: str, chosen: slice) -> None:
    for layer in stella_layers(attached("stella", init=init).model).values():
        weight: Any = layer.weight
        left, values, right = torch.linalg.svd(weight.detach(), full_matrices=False)
        torch.testing.assert_close(
            layer.stella_U.detach().T @ weight.detach() @ layer.stella_V.detach(),
            values[chosen].diag(),
            rtol=0,
            atol=1e-5,
        )
        product = layer.stella_U.detach() @ layer.stella_V.detach().T
        torch.testing.assert_close(product, left[:, chosen] @ right[chosen], rtol=0, atol=1e-4)


@VARIANTS
def test_it_stays_orthonormal_folds_and_leaves_as_a_plain_lora(changes: dict[str, Any], tmp_path: Path) -> None:
    bench = trained(**changes)
    assert all(error(factor) < 1e-5 for factor in stiefel_factors(bench.model))
    wanted = bench.logits()
    bench.method.export(bench.model, tmp_path)
    torch.testing.assert_close(logits_of(plain_peft(tmp_path), "causal_lm"), wanted, rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 4)
    folded = bench.method.fold(bench.model)
    assert not stella_layers(folded)
    torch.testing.assert_close(logits_of(folded, "causal_lm"), wanted, rtol=0, atol=1e-5)


@VARIANTS
@pytest.mark.parametrize("optim", ["adamw", "adamw_8bit"])
def test_three_and_three_are_six(changes: dict[str, Any], optim: str, recwarn: pytest.WarningsRecorder) -> None:
    if optim != "adamw":
        pytest.importorskip("bitsandbytes")
    whole, halted = attached("stella", **changes), attached("stella", **changes)
    first, second = whole.optimizer(name=optim), halted.optimizer(name=optim)
    losses = [whole.step(first, number) for number in range(1, 7)]
    found = [halted.step(second, number) for number in (1, 2, 3)]
    resumed = attached("stella", restoring=True, **changes)
    load_trained(resumed.model, trained_tensors(halted.model), "checkpoint")
    third = resumed.optimizer(name=optim)
    unpack(third, *copy.deepcopy(pack(second)))
    found += [resumed.step(third, number) for number in (4, 5, 6)]
    assert found == losses
    wanted = trained_tensors(whole.model)
    assert all(torch.equal(value, wanted[name]) for name, value in trained_tensors(resumed.model).items())


def test_eight_bit_state_has_the_planned_bytes(recwarn: pytest.WarningsRecorder) -> None:
    pytest.importorskip("bitsandbytes")
    bench, settings = attached("stella", rank=64, target_modules=("up_proj",)), OptimizerSettings(name="adamw_8bit")
    optimizer = bench.optimizer(name="adamw_8bit")
    for number in (1, 2):
        bench.step(optimizer, number)
    state = live_state(optimizer)
    assert any(value.dtype == torch.uint8 for value in state.values())
    assert specs(state) == planned(bench.method.state_specs(trained_specs(bench), settings))


def test_the_recipe_s_choices_reach_the_steps() -> None:
    bench = attached("stella")
    for wanted, width, way in ((True, 64.0, "polar"), (False, None, "exponential"), (7.5, 7.5, "polar")):
        method = new_method("stella", gradient_scaling=wanted, retraction=way)
        optimizer: Any = method.optimizer(bench.model, OptimizerSettings(weight_decay=0.1))
        (hook,) = optimizer._optimizer_step_pre_hooks.values()
        assert hook.__self__.gradient_scaling == width
        assert hook.__self__._retract is RETRACTIONS[way]
    decayed = {
        name.rpartition(".")[2]: group["weight_decay"]
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert decayed == {"stella_U": 0.0, "stella_V": 0.0, "stella_S": 0.1}
    assert decays("model.stella_S", torch.ones(2))


def test_a_plain_lora_is_continued_as_stella(tmp_path: Path) -> None:
    lora = attached("lora", dropout=0.0)
    optimizer = lora.optimizer()
    for number in (1, 2, 3):
        lora.step(optimizer, number)
    lora.method.export(lora.model, tmp_path)
    for diagonal in (True, False):
        bench = attached("stella", dropout=0.0, diagonal=diagonal)
        continue_stella(bench.model, tmp_path)
        torch.testing.assert_close(bench.logits(), lora.logits(), rtol=0, atol=1e-5)
        assert all(error(factor) < 1e-5 for factor in stiefel_factors(bench.model))
    with pytest.raises(CheckpointError, match=r"E-CKP-006 .*lora_alpha 4; expected lora_alpha 8"):
        continue_stella(attached("stella", alpha=8.0).model, tmp_path)
    with pytest.raises(CheckpointError, match="E-CKP-005"):
        continue_stella(attached("stella", target_modules=("k_proj",)).model, tmp_path)


def test_a_classifier_s_head_is_trained_and_leaves_with_it(tmp_path: Path) -> None:
    bench = trained(family="bert", task="classification", init="random")
    head = base_model("bert", "classification").get_submodule("classifier")
    live: Any = bench.model.get_submodule("classifier")
    assert torch.equal(live.original_module.weight, head.weight)  # type: ignore[arg-type]
    assert not torch.equal(live.modules_to_save["default"].weight, head.weight)  # type: ignore[arg-type]
    bench.method.export(bench.model, tmp_path)
    wanted = bench.logits()
    loaded = plain_peft(tmp_path, "bert", "classification")
    torch.testing.assert_close(logits_of(loaded, "classification"), wanted, rtol=0, atol=1e-5)
    fresh = attached("stella", "bert", "classification")
    fresh.method.continue_from(fresh.model, tmp_path)
    torch.testing.assert_close(fresh.logits(), wanted, rtol=0, atol=1e-5)
    folded: Any = fold_stella(bench.model)
    assert isinstance(folded.classifier, nn.Linear)
    torch.testing.assert_close(logits_of(folded, "classification"), wanted, rtol=0, atol=1e-5)


def test_gpt2_s_transposed_layers(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gpt2", vocab_size=320, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config).eval()
    model = add_stella(copy.deepcopy(plain), ["c_attn", "c_proj"], rank=2, init="svd_major")
    for layer in stella_layers(model).values():
        nn.init.normal_(layer.stella_S)
    wanted = logits_of(model, "causal_lm")
    assert not torch.allclose(wanted, logits_of(plain, "causal_lm"), atol=1e-3)
    export_stella(model, tmp_path)
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), str(tmp_path))
    torch.testing.assert_close(logits_of(loaded, "causal_lm"), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(fold_stella(model), "causal_lm"), wanted, rtol=0, atol=1e-5)


def test_a_plain_torch_loop_learns() -> None:
    model = add_stella(base_model("llama", "causal_lm"), ["q_proj", "v_proj"], rank=2, alpha=4.0, init="zero", seed=3)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=3e-2)
    StiefelSteps(optimizer, stiefel_factors(model), gradient_scaling=hidden_size(model))
    batch = batch_of("causal_lm", rows=2, length=8)
    losses = []
    for _ in range(20):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert all(error(factor) < 1e-5 for factor in stiefel_factors(model))


def test_ranks_may_differ_and_any_module_will_do(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    plain = copy.deepcopy(model)
    attach_stella(model, [Placement("0", 3), Placement("2", 2)], StellaOptions(alpha=6.0), seed=1)
    export_stella(model, tmp_path)
    from peft import PeftModel

    loaded, x = PeftModel.from_pretrained(plain, str(tmp_path)), torch.randn(5, 8)
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=1e-5)
    with pytest.raises(NotMergeableError, match=r"E-CKP-008 Sequential: no adapter"):
        fold_stella(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method. is deprecated", "ignore:MatMul8bitLt:UserWarning")
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantized_base(quantization: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = write_tiny_folder(tmp_path / "model", "llama", hidden_size=64)

    def base() -> nn.Module:
        return load_model(ModelConfig(model_name_or_path=str(folder), quantization=quantization))

    method = new_method("stella", init="svd_major")
    placements = tuple(
        Placement(f"model.layers.{i}.self_attn.{key}", 2) for i in (0, 1) for key in ("q_proj", "v_proj")
    )
    model = method.attach(base(), placements, AttachContext(seed=7))
    codes = {name: value.clone() for name, value in model.named_parameters() if not value.is_floating_point()}
    exact = load_model(ModelConfig(model_name_or_path=str(folder)))
    for name, layer in stella_layers(model).items():
        left, _, _ = torch.linalg.svd(exact.get_submodule(name).weight.detach())  # type: ignore[operator, union-attr]
        shared = torch.linalg.svdvals(left[:, :2].T @ layer.stella_U.detach())
        assert shared.min() > 0.7  # nearly the subspace of the exact weight
    bench = Bench(method, attached("stella").inventory, placements, model, "causal_lm", 20)
    optimizer, batch = bench.optimizer(learning_rate=3e-2), batch_of("causal_lm", rows=2, length=8)
    losses = [bench.step(optimizer, number, batch) for number in range(1, 21)]
    assert min(losses[-3:]) < losses[0] - 0.05
    assert codes
    assert all(torch.equal(dict(model.named_parameters())[name], value) for name, value in codes.items())
    (tmp_path / "adapter").mkdir()
    method.export(model, tmp_path / "adapter")
    from subspace.adapters.peft_bridge import load_adapter

    same = load_adapter(base(), tmp_path / "adapter")
    torch.testing.assert_close(logits_of(same, "causal_lm"), bench.logits(), rtol=0, atol=1e-5)
    with pytest.raises(NotMergeableError, match=r"E-CKP-008 .*quantized base"):
        method.fold(model)

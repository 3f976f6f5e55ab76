"""Optimizers and adapters of other people: exact accounts, exact resumes, clear refusals."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.workbench import FAMILIES, attached, inventory_of, meta_model, new_method, planned, specs
from subspace.core.errors import ConfigError, MethodError, SubspaceError
from subspace.optim.foreign import foreign_state, require_resumable
from subspace.optim.settings import OptimizerSettings
from subspace.plan.shapes import TensorSpec

SETTINGS = OptimizerSettings(learning_rate=1e-2)
WEIGHTS = (TensorSpec("matrix", (4, 3)), TensorSpec("vector", (3,)))


class Momentum(torch.optim.Optimizer):
    """Keeps its state where torch looks for it."""

    def __init__(self, params: Any, lr: float = 1e-3, factor: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "factor": factor})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # torch types it twice
        with torch.no_grad():
            for group in self.param_groups:
                for value in group["params"]:
                    self.move(value, group)

    def move(self, value: Tensor, group: dict[str, Any]) -> None:
        state = self.state[value]
        state.setdefault("speed", torch.zeros_like(value)).mul_(group["factor"]).add_(value.grad)
        value.sub_(state["speed"], alpha=group["lr"])


class Hiding(Momentum):
    """Keeps a count beside its state."""

    count = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count += 1
        for group in self.param_groups:
            group["factor"] = 0.9 / self.count
        super().step()


class Listing(Momentum):
    """Keeps a list of tensors."""

    def move(self, value: Tensor, group: dict[str, Any]) -> None:
        super().move(value, group)
        self.state[value].setdefault("past", []).append(value.detach().clone())


class Counting(Momentum):
    """Keeps a number beside its tensor, and reads it."""

    def move(self, value: Tensor, group: dict[str, Any]) -> None:
        state = self.state[value]
        state["count"] = state.get("count", 0) + 1
        super().move(value, {**group, "lr": group["lr"] / state["count"]})


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("foreign_package")
    for kind in (Momentum, Hiding, Listing, Counting):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "foreign_package", module)


@pytest.mark.parametrize("name", ["Momentum", "Counting"])
def test_an_optimizer_with_plain_state_is_taken(name: str) -> None:
    require_resumable(f"foreign_package.{name}", {}, SETTINGS)
    found = foreign_state(WEIGHTS, f"foreign_package.{name}", {}, SETTINGS)
    assert [(spec.name, spec.shape) for spec in found] == [("matrix.speed", (4, 3)), ("vector.speed", (3,))]


@pytest.mark.parametrize(
    ("path", "arguments", "kind", "said"),
    [
        ("foreign_package.Hiding", {}, MethodError, "goes on to other weights"),
        ("foreign_package.Listing", {}, MethodError, "neither tensor nor number"),
        ("torch.optim.LBFGS", {}, MethodError, "closure"),
        ("torch.nn.Linear", {}, MethodError, "subclass of torch.optim"),
        ("torch.optim.SDG", {}, ConfigError, "Did you mean torch.optim.SGD"),
        ("nowhere.Adam", {}, ConfigError, "cannot be imported"),
        ("torch.optim.SGD", {"momentun": 0.9}, MethodError, "Did you mean 'momentum'"),
        ("torch.optim.SGD", {"lr": 0.1}, ConfigError, "It is training.learning_rate"),
    ],
)
def test_what_cannot_be_used_is_refused(
    path: str, arguments: dict[str, Any], kind: type[SubspaceError], said: str
) -> None:
    with pytest.raises(kind) as refused:
        require_resumable(path, arguments, SETTINGS)
    assert said in str(refused.value)


def test_the_plan_refuses_before_a_run_begins() -> None:
    method = new_method("custom_optimizer", optimizer="foreign_package.Hiding")
    with pytest.raises(MethodError, match="cannot be resumed"):
        method.state_specs(WEIGHTS, SETTINGS)


def test_weight_decay_is_handed_on_where_there_is_one() -> None:
    model = attached("custom_optimizer", optimizer="torch.optim.SGD").model
    method = new_method("custom_optimizer", optimizer="torch.optim.SGD")
    optimizer = method.optimizer(model, OptimizerSettings(weight_decay=0.1))
    decay = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert {decay[name] for name, value in model.named_parameters() if value.ndim > 1} == {0.1}
    assert {decay[name] for name, value in model.named_parameters() if value.ndim == 1} == {0.0}
    plain = new_method("custom_optimizer", optimizer="foreign_package.Momentum")
    with pytest.raises(ConfigError, match=r"E-CFG-014 training\.weight_decay"):
        plain.optimizer(model, OptimizerSettings(weight_decay=0.1))


def test_state_is_found_where_numbers_are_read_off_tensors() -> None:
    found = foreign_state(WEIGHTS, "torch.optim.Adafactor", {}, SETTINGS)
    parameters = [nn.Parameter(torch.ones(spec.shape)) for spec in WEIGHTS]
    optimizer = torch.optim.Adafactor(parameters)
    for value in parameters:
        value.grad = torch.ones_like(value)
    optimizer.step()
    live = {
        f"{spec.name}.{key}": state
        for spec, value in zip(WEIGHTS, parameters, strict=True)
        for key, state in optimizer.state[value].items()
        if isinstance(state, Tensor)
    }
    assert planned(found) == specs(live)


ADAPTERS: list[tuple[str, dict[str, Any]]] = [
    ("peft.LoraConfig", {"r": 3, "lora_alpha": 6}),
    ("peft.VeraConfig", {"r": 4}),
    ("peft.LoKrConfig", {"r": 2}),
    ("peft.OFTConfig", {"r": 0, "oft_block_size": 4}),
]


@pytest.mark.parametrize(("family", "task"), [FAMILIES[0], FAMILIES[3]], ids=["llama", "bert"])
@pytest.mark.parametrize(("config", "arguments"), ADAPTERS, ids=[path for path, _ in ADAPTERS])
def test_what_peft_adds_is_counted(config: str, arguments: dict[str, Any], family: str, task: str) -> None:
    bench = attached("custom_peft", family, task, config=config, arguments=arguments, target_modules="all-linear")
    account = bench.method.account(inventory_of(family, task), bench.placements)
    trained = {name: value for name, value in bench.model.named_parameters() if value.requires_grad}
    assert planned(tuple(spec for spec in account.added if spec.trained)) == specs(trained)
    assert not account.trained_base
    traced = meta_model(family, task)
    bench.method.trace(traced, bench.placements)
    assert {tuple(value.shape) for value in traced.parameters() if value.requires_grad} == {
        tuple(value.shape) for value in trained.values()
    }
    first = bench.optimizer(learning_rate=1e-2)
    losses = [bench.step(first, number) for number in (1, 2)]
    assert losses[0] > 0


@pytest.mark.parametrize(
    ("config", "arguments", "kind", "said"),
    [
        ("peft.PrefixTuningConfig", {"num_virtual_tokens": 3}, MethodError, "prefix or prompt"),
        ("peft.LoHaConfig", {"rr": 2}, MethodError, "rr"),
        ("peft.LoHaConfig", {"target_modules": ["q_proj"]}, ConfigError, "It is method.target_modules"),
        ("peft.LoHuConfig", {}, ConfigError, "Did you mean peft.LoHaConfig"),
        ("torch.optim.SGD", {}, MethodError, "subclass of peft"),
    ],
)
def test_adapters_that_cannot_be_used_are_refused(
    config: str, arguments: dict[str, Any], kind: type[SubspaceError], said: str
) -> None:
    method = new_method("custom_peft", config=config, arguments=arguments)
    with pytest.raises(kind) as refused:
        method.place(inventory_of("llama", "causal_lm"))
    assert said in str(refused.value)

"""What is said twice of projected methods is said alike: configs, optimizers, refusals, Trainers, plans."""

from __future__ import annotations

from typing import Any

import pytest
from workbench import inventory_of

import subspace.optim
from subspace.core.errors import ConfigError
from subspace.integrations.transformers_optimizers import METHODS
from subspace.methods.base import Refusal
from subspace.methods.projected import ProjectedMethod
from subspace.methods.registry import REGISTRY
from subspace.optim.refusals import REFUSALS

FOUND = {name: REGISTRY.load(name) for name in REGISTRY.names()}
PROJECTED: dict[str, Any] = {name: kind for name, kind in FOUND.items() if issubclass(kind, ProjectedMethod)}
WITH_RULES = [(name, {}) for name in PROJECTED] + [("galore", {"rule": "adafactor"})]


def method_of(name: str, options: dict[str, Any]) -> Any:
    kind = PROJECTED[name]
    return kind(kind.config_class(**options))


@pytest.mark.parametrize(("name", "options"), WITH_RULES)
def test_config_and_optimizer_agree_on_whole_gradients_and_defaults(name: str, options: dict[str, Any]) -> None:
    method = method_of(name, options)
    kind = method.optimizer_class()
    assert method.config.needs_whole_gradient == kind.needs_whole_gradient
    assert method.config.built_in == kind.built_in


@pytest.mark.parametrize(("name", "options"), WITH_RULES)
def test_a_card_lists_every_row_of_its_optimizer(name: str, options: dict[str, Any]) -> None:
    method = method_of(name, options)
    tree = {"method": method.config.model_dump()}
    rows = [row for row in REFUSALS if row.optimizer == method.optimizer_class().__name__]
    for row in rows:
        for value in row.values:
            asked = {"method": {**tree["method"], row.key: value}}
            listed = [refusal for refusal in method.card.refuses if refusal.applies(asked)]
            assert any(refusal.key == f"method.{row.key}" for refusal in listed), row
    own: list[Refusal] = [refusal for refusal in method.card.refuses if "method.rule" in dict(refusal.when)]
    assert not [refusal for refusal in own if refusal.applies(tree)]


def test_what_adafactor_refuses_is_allowed_with_adamw() -> None:
    [refusal] = [refusal for refusal in PROJECTED["galore"].card.refuses if refusal.key == "method.moments"]
    for rule in ("adamw", "adafactor"):
        assert refusal.applies({"method": {"rule": rule, "moments": "transport"}}) == (rule == "adafactor")


def test_trainers_know_every_method_under_its_name() -> None:
    wanted = {name: method_of(name, {}).optimizer_class() for name in PROJECTED}
    assert {name: METHODS[name].kind() for name in wanted} == wanted
    assert METHODS["galore_adafactor"].kind() is method_of("galore", {"rule": "adafactor"}).optimizer_class()
    assert METHODS["adamw"].kind() is subspace.optim.SubspaceAdamW
    assert METHODS.keys() == wanted.keys() | {"galore_adafactor", "adamw"}


@pytest.mark.parametrize("name", sorted(PROJECTED.keys() - {"sophia"}))
def test_the_reason_of_a_plain_weight_is_the_optimizer_s(name: str) -> None:
    inventory = inventory_of("llama", "causal_lm")
    method = method_of(name, {"rank": 4, "project_embeddings": True})
    [note] = method.notes(inventory, method.place(inventory)) or ("",)
    if name == "flora":
        assert note.endswith(
            "more than 4 times the other or shorter than rank 4, or they are no single matrices: "
            "their momentum stays whole."
        )
    else:
        assert not note or note.endswith("rank 4 would keep more than it saves.")


@pytest.mark.parametrize("name", ["galore", "fira", "apollo", "flora"])
def test_a_rank_that_projects_nothing_is_answered_with_one_that_does(name: str) -> None:
    inventory = inventory_of("llama", "causal_lm")
    with pytest.raises(ConfigError, match=r"E-CFG-016 method\.rank: with rank 128 no weight") as caught:
        method_of(name, {"rank": 128}).place(inventory)
    proposed = int(caught.value.action.partition("method.rank=")[2].partition(",")[0])
    assert any(placement.rank for placement in method_of(name, {"rank": proposed}).place(inventory))

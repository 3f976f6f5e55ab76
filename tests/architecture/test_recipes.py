"""Every recipe is complete: it validates without torch and resolves to a plan without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from subspace.pipeline.planning import make_plan
from subspace.pipeline.resolve import recipe_paths, resolve
from subspace.plan.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
RECIPES = recipe_paths(ROOT / "recipes")


BIG = ("7b", "8b")


def planned(path: Path) -> Plan:
    config, _ = resolve(path)
    num_labels = 4 if config.data.source == "builtin/topics" else len(config.data.labels or ()) or None
    # the graph of a short row has the shape of a long one, and takes a tenth of the time
    short = config.model_copy(update={"data": config.data.model_copy(update={"max_length": 32})})
    return make_plan(short, num_labels=num_labels, total_steps=10)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] if any(size in path.stem for size in BIG) else [], id=path.stem)
        for path in RECIPES
    ],
)
def test_resolves_to_a_plan_offline(path: Path) -> None:
    plan = planned(path)
    assert plan.trained_parameters > 0
    assert plan.peak_bytes > plan.weight_bytes


@pytest.mark.parametrize("path", [path for path in RECIPES if any(size in path.stem for size in BIG)], ids=str)
def test_big_recipes_find_their_modules_offline(path: Path) -> None:
    from subspace.models.load import meta_model
    from subspace.plan.inventory import take_inventory

    config, _ = resolve(path)
    inventory = take_inventory(meta_model(config.model), task=config.model.task)
    method = config.new_method()
    placements = method.place(inventory)
    per_layer = 4 if "code-feedback" in path.stem else 7
    ends = 2 * getattr(config.method, "project_embeddings", False)  # the embedding and the head
    assert len(placements) == per_layer * inventory.num_layers + ends
    account = method.account(inventory, placements)
    assert account.added or account.trained_base


def test_names_say_model_task_and_method() -> None:
    for path in RECIPES:
        if path.stem == "template":
            continue
        _, _, method = path.stem.split("_")
        assert method.partition("-")[0] in (resolve(path)[0].method.name, "qlora")  # "-4gb" says where it fits

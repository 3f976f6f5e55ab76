"""The search for what makes a run fit: least harm first, every step planned, what is refused passed over."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from subspace.core.errors import ConfigError
from subspace.plan.fit import HARMS, Fit, Planned, find_fit, next_changes
from subspace.plan.plan import Batch, Plan

from .test_plan import inventory_of, lora_plan

TREE: dict[str, dict[str, Any]] = {
    "model": {"task": "causal_lm", "dtype": "auto", "quantization": "none", "trained_weights": "as_stored"},
    "data": {"max_length": 256},
    "method": {"name": "any", "rank": 16, "update": "after_backward", "refresh_from": "step", "state_bits": None},
    "training": {
        "loss_chunk_tokens": None,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 2,
        "mixed_precision": "no",
        "optim": "adamw",
    },
}
BASE = lora_plan(inventory_of("llama"), batch=Batch(6, 256, accumulation=2))

Tree = Mapping[str, Mapping[str, Any]]


def plan_of(peak_bytes: int, tree: Tree) -> Plan:
    batch = Batch(tree["training"]["per_device_train_batch_size"], tree["data"]["max_length"])
    return dataclasses.replace(BASE, batch=batch, working_bytes=peak_bytes - BASE.held_bytes)


def searched(
    limit: int,
    cost: Callable[[Tree], int],
    refused: Sequence[str] = (),
    asked: list[str] | None = None,
    **changes: Any,
) -> Fit:
    """Search with a peak that is a function of the recipe's values; `asked` gets the last override of every plan."""
    start = copy.deepcopy(TREE)
    asked = [] if asked is None else asked
    for key, value in changes.items():
        section, _, name = key.partition("__")
        start[section][name] = value

    def replan(overrides: Sequence[str]) -> Planned:
        asked.append(overrides[-1])
        tree = copy.deepcopy(start)
        for key, value in (override.split("=") for override in overrides):
            section, _, name = key.partition(".")
            if key in refused or name not in tree[section]:
                raise ConfigError("E-CFG-014", where=key, found="cannot be")
            tree[section][name] = True if value == "true" else int(value) if value.isdigit() else value
        return Planned(plan_of(cost(tree), tree), tree)

    return find_fit(limit, Planned(plan_of(cost(start), start), start), replan)


def everything_helps(tree: Tree) -> int:
    """Return a peak that each change lowers by a tenth, as often as it can be made."""
    training, model, method = tree["training"], tree["model"], tree["method"]
    steps = [
        {None: 0, 256: 1, 64: 2}[training["loss_chunk_tokens"]],
        training["gradient_checkpointing"],
        {6: 0, 3: 1, 1: 2}[training["per_device_train_batch_size"]],
        training["mixed_precision"] == "bf16",
        training["optim"] != "adamw",
        model["dtype"] == "bfloat16",
        {"none": 0, "int8": 1, "nf4": 2}[model["quantization"]],
        model.get("trained_weights") == "int8",
        method["update"] == "in_backward",
        method.get("refresh_from") == "micro_batch",
        {None: 0, 32: 0, 8: 1, 4: 2}[method["state_bits"]],
        (16 // method["rank"]).bit_length() - 1,
        (256 // tree["data"]["max_length"]).bit_length() - 1,
    ]
    return round(1e9 * 0.9 ** sum(steps))


def test_a_recipe_that_fits_is_left_alone() -> None:
    fit = searched(2_000_000_000, everything_helps)
    assert (fit.fits, fit.overrides, fit.trials, fit.peak_bytes) == (True, (), (), fit.first_bytes)


def test_least_harm_comes_first_and_all_of_it_in_the_end() -> None:
    fit = searched(1, everything_helps)
    harms = [HARMS.index(trial.harm) for trial in fit.trials if trial.kept]
    assert harms == sorted(harms)
    assert set(harms) == set(range(len(HARMS)))
    peaks = [fit.first_bytes, *(trial.peak_bytes for trial in fit.trials if trial.kept)]
    assert peaks == sorted(peaks, reverse=True)
    assert fit.peak_bytes == peaks[-1] == round(1e9 * 0.9**19)
    assert not fit.fits
    assert fit.overrides == (
        "training.loss_chunk_tokens=64",
        "method.update=in_backward",
        "training.gradient_checkpointing=true",
        "training.per_device_train_batch_size=1",
        "training.gradient_accumulation_steps=12",
        "training.mixed_precision=bf16",
        "training.optim=adamw_8bit",
        "method.state_bits=4",
        "model.dtype=bfloat16",
        "method.refresh_from=micro_batch",
        "model.quantization=nf4",
        "model.trained_weights=int8",
        "method.rank=4",
        "data.max_length=64",
    )


@pytest.mark.parametrize("steps", range(1, 18))
def test_it_stops_as_soon_as_it_fits(steps: int) -> None:
    fit = searched(round(1e9 * 0.9**steps), everything_helps)
    assert fit.fits
    assert len([trial for trial in fit.trials if trial.kept]) == steps
    assert [trial.fits for trial in fit.trials] == [False] * (len(fit.trials) - 1) + [True]


def test_what_is_refused_is_named_once_and_the_next_is_tried() -> None:
    refused = ("training.gradient_checkpointing", "model.trained_weights", "training.optim")
    asked: list[str] = []
    fit = searched(1, everything_helps, refused=refused, asked=asked)
    assert len([override for override in asked if override.partition("=")[0] in refused]) == 3
    told = {trial.overrides[0].partition("=")[0]: trial for trial in fit.trials if trial.peak_bytes is None}
    assert set(told) == set(refused)
    assert len([trial for trial in fit.trials if trial.peak_bytes is None]) == 3
    assert all((trial.reason, trial.kept, trial.fits) == ("cannot be", False, False) for trial in told.values())
    assert not any(key in override for override in fit.overrides for key in refused)
    assert fit.peak_bytes == round(1e9 * 0.9**16)


def test_nf4_is_tried_where_int8_is_refused() -> None:
    def cost(tree: Tree) -> int:
        return {"none": 900, "int8": 500, "nf4": 300}[tree["model"]["quantization"]]

    assert searched(600, cost).overrides == ("model.quantization=int8",)
    assert searched(400, cost).overrides == ("model.quantization=nf4",)


def test_what_saves_nothing_is_left_out_and_tried_again_later() -> None:
    """Chunks are worth nothing until blocks are recomputed."""

    def cost(tree: Tree) -> int:
        training = tree["training"]
        blocks = 500 if training["gradient_checkpointing"] else 1000
        return max(blocks, 900 if training["loss_chunk_tokens"] is None else 200)

    fit = searched(600, cost)
    assert set(fit.overrides) == {"training.gradient_checkpointing=true", "training.loss_chunk_tokens=256"}
    assert [trial.overrides[0] for trial in fit.trials if trial.kept] == [
        "training.gradient_checkpointing=true",
        "training.loss_chunk_tokens=256",
    ]
    useless = [trial for trial in fit.trials if not trial.kept]
    assert {trial.reason for trial in useless} == {"saves less than a hundredth"}
    assert len({trial.overrides for trial in fit.trials}) == len(fit.trials)


def test_what_is_harmless_is_tried_again_before_more_harm_is_done() -> None:
    """Chunks are worth nothing until moments are small; codes and shorter rows would help as well."""

    def cost(tree: Tree) -> int:
        small, chunks = tree["training"]["optim"] == "adamw_8bit", tree["training"]["loss_chunk_tokens"] is not None
        codes = tree["model"]["quantization"] != "none"
        return 1000 - 200 * small - 300 * (small and chunks) - 300 * codes - 300 * (tree["data"]["max_length"] < 256)

    kept = [trial.overrides for trial in searched(600, cost).trials if trial.kept]
    assert kept == [("training.optim=adamw_8bit",), ("training.loss_chunk_tokens=256",)]


def test_gradients_are_freed_at_once_where_bases_no_longer_need_them() -> None:
    def cost(tree: Tree) -> int:
        freed = tree["method"]["update"] == "in_backward" and tree["method"]["refresh_from"] == "micro_batch"
        return 500 if freed else 1000

    fit = searched(500, cost, method__refresh_from="step")
    assert fit.overrides == ("method.update=in_backward", "method.refresh_from=micro_batch")
    assert not searched(500, cost, method__refresh_from="step", refused=("method.refresh_from",)).fits


def test_rows_stay_whole() -> None:
    def cost(tree: Tree) -> int:
        return int(tree["training"]["per_device_train_batch_size"]) * 100

    fit = searched(300, cost, training__per_device_train_batch_size=9)
    assert fit.overrides == ("training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=6")
    fit = searched(100, cost, training__per_device_train_batch_size=7)
    assert fit.overrides == ("training.per_device_train_batch_size=1", "training.gradient_accumulation_steps=14")


def test_a_saving_of_less_than_a_hundredth_is_none() -> None:
    def cost(tree: Tree) -> int:
        return 10_000 - (99 if tree["training"]["optim"] == "adamw_8bit" else 0)

    assert searched(9_901, cost).overrides == ()


def test_keys_that_a_recipe_does_not_have_are_not_proposed() -> None:
    tree = copy.deepcopy(TREE)
    del tree["method"]["update"], tree["method"]["rank"], tree["method"]["state_bits"], tree["model"]["trained_weights"]
    keys = {key for change in next_changes(Planned(BASE, tree)) for key in change.values}
    assert not any(key.startswith("method.") or key == "model.trained_weights" for key in keys)
    tree["model"]["task"] = "classification"
    assert not any(change.name == "chunks" for change in next_changes(Planned(BASE, tree)))


def test_chunks_are_fewer_than_there_are_positions() -> None:
    def names(rows: int, length: int, chunk: int | None) -> list[str]:
        tree = copy.deepcopy(TREE)
        tree["training"]["loss_chunk_tokens"] = chunk
        plan = dataclasses.replace(BASE, batch=Batch(rows, length))
        changes = next_changes(Planned(plan, tree))
        return [value for change in changes if change.name == "chunks" for value in change.values.values()]

    assert [names(4, 128, None), names(2, 128, None), names(1, 64, None)] == [["256"], ["64"], []]
    assert [names(4, 128, 256), names(4, 128, 100), names(4, 128, 64)] == [["64"], ["64"], []]
    assert names(1, 64, 256) == []


def test_weights_that_are_not_float32_are_not_made_smaller_types() -> None:
    half = dataclasses.replace(BASE, weight_bytes=2 * BASE.num_parameters)
    names = {change.name for change in next_changes(Planned(half, TREE))}
    assert not names & {"dtype", "precision"}
    assert {"dtype", "precision"} <= {change.name for change in next_changes(Planned(BASE, TREE))}


def test_as_json() -> None:
    values = json.loads(json.dumps(searched(900_000_000, everything_helps).to_json()))
    assert values["fits"] is True
    assert values["overrides"] == ["training.loss_chunk_tokens=256"]
    assert values["trials"][0]["peak_bytes"] == values["peak_bytes"] == 900_000_000


@pytest.mark.parametrize(("basis", "offered"), [(None, True), ("svd", True), ("gram", False), ("warm", False)])
def test_a_basis_from_a_gram_matrix_is_offered_in_place_of_an_svd(basis: str | None, offered: bool) -> None:
    tree = {**TREE, "method": {**TREE["method"], "basis": basis}}
    found = [change for change in next_changes(Planned(BASE, tree)) if change.name == "basis"]
    assert [change.overrides for change in found] == ([("method.basis=gram",)] if offered else [])
    assert all(change.harm == "rounding" for change in found)

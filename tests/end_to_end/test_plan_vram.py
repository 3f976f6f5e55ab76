"""`subspace plan --vram`: what is proposed leads to the predicted peak, in a command that runs."""

from __future__ import annotations

import json
import shlex

from command_line import CommandLine, contents

HEAVY = {"training": {"batch_size": 8, "max_steps": 1}, "data": {"packing": False}}


def planned_peak(subspace: CommandLine, command: str) -> int:
    words = shlex.split(command)
    assert words[:2] == ["subspace", "train"]
    peak = json.loads(subspace("plan", *words[2:], "--json").out)["peak_bytes"]
    assert isinstance(peak, int)
    return peak


def test_the_last_line_is_a_command_with_the_promised_peak(subspace: CommandLine) -> None:
    recipe = subspace.recipe(HEAVY, "a recipe.yaml")  # its batch size stands under another name
    before = contents(subspace.folder)
    given = ("plan", recipe, "training.micro_batch_size=4", "--override", "method.rank=8", "--seed", "7")
    whole = json.loads(subspace(*given, "--json").out)["peak_bytes"]
    found = json.loads(subspace(*given, "--vram", f"{whole // 2} B", "--json").out)
    assert found["first_bytes"] == whole
    assert found["peak_bytes"] <= whole // 2
    assert found["fits"]
    assert planned_peak(subspace, found["command"]) == found["peak_bytes"]
    assert shlex.split(found["command"])[2:6] == [str(recipe), "--seed", "7", "method.rank=8"]
    assert "micro_batch_size" not in found["command"]
    shown = subspace(*given, "--vram", f"{whole // 2}B").out
    assert shown.splitlines()[-1] == found["command"]
    for override in found["overrides"]:
        assert override in shown
    assert contents(subspace.folder) == before
    subspace(*shlex.split(found["command"])[1:])


def test_a_recipe_that_fits_keeps_its_command(subspace: CommandLine) -> None:
    recipe = subspace.recipe()
    shown = subspace("plan", "--config", recipe, "--vram", "4GB").out
    assert shown.splitlines()[-1] == f"subspace train --config {recipe}"
    assert "the recipe as it is" in shown
    assert "fits" in shown


def test_what_fits_nowhere_ends_in_a_resource_error(subspace: CommandLine) -> None:
    ended = subspace.end("plan", subspace.recipe(), "--vram", "100K")
    assert ended.status == 5
    assert "E-RES-001 --vram: the smallest peak reached is" in ended.err
    assert "expected at most 100.00 KiB" in ended.err
    assert "model.quantization=nf4" in ended.out
    assert "subspace train" not in ended.out


def test_a_size_that_is_none_is_refused(subspace: CommandLine) -> None:
    recipe = subspace.recipe()
    subspace.refused("plan", recipe, "--vram", "four", status=2, code="E-CLI-001", said="--vram: 'four'")
    subspace.refused("plan", recipe, "--vram", "4", status=2, code="E-CLI-001", said="Did you mean 4GB?")

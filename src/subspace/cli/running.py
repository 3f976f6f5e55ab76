"""Running and planning a recipe with something to look at; shared by the verbs that do."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from subspace.cli.console import ProgressListener, error_console, output_console, quiet_libraries
from subspace.cli.tables import fit_table, fitting_command, run_table
from subspace.core.errors import ResourceError
from subspace.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from subspace.pipeline.results import RunResult
    from subspace.pipeline.run_config import RunConfig

__all__ = ["probe_run", "run_and_show", "show_fit", "show_plan", "try_out"]


def run_and_show(config: RunConfig, *, resume: bool = False, profile: bool = False) -> RunResult:
    """Train with a progress bar, then print planned against measured figures and where things lie."""
    quiet_libraries()
    from subspace import api

    with ProgressListener() as listener:
        result = api.train(config, resume=resume, listeners=(listener,), profile=profile)
    output_console().print(run_table(result.summary))
    print(f"run folder: {result.folder}")
    return result


def try_out(config: RunConfig) -> None:
    """Do two steps and one evaluation of a recipe in a folder that is removed."""
    from subspace.pipeline.probe import shortened

    with tempfile.TemporaryDirectory(prefix="subspace-") as folder:
        run_and_show(shortened(config, Path(folder) / "run", num_steps=2, num_eval_samples=8))
    print("fast dev run: every act of the run works; its folder was removed")


def show_plan(config: RunConfig, *, as_json: bool) -> None:
    """Print the plan of a recipe."""
    quiet_libraries()
    from subspace.pipeline.planning import plan_with_data
    from subspace.plan.render import render_plan

    plan = plan_with_data(config)
    if as_json:
        print(json.dumps(plan.to_json(), indent=2))
        return
    output_console(soft_wrap=False).print(render_plan(plan))


def show_fit(config: RunConfig, limit_bytes: int, words: Sequence[str], *, as_json: bool) -> None:
    """Print what makes a recipe fit, and the command that trains it so.

    Args:
        config: The recipe.
        limit_bytes: Bytes that the peak may take.
        words: The command line that gave the recipe.

    Raises:
        ResourceError: E-RES-001 if nothing makes it fit; the table is printed all the same.
    """
    quiet_libraries()
    from subspace.pipeline.fitting import fit_recipe

    def own_key(key: str) -> str:
        section, _, name = key.partition(".")
        synonym = getattr(getattr(config, section, None), "synonyms", {}).get(name)
        return key if synonym is None else f"{section}.{synonym.key}"

    with error_console().status("planning") as status:
        fit = fit_recipe(config, limit_bytes, lambda names: status.update(f"planning {' '.join(names)}"))
    command = fitting_command(words, fit.overrides, own_key)
    if as_json:
        print(json.dumps({**fit.to_json(), "command": command if fit.fits else None}, indent=2))
    else:
        output_console(soft_wrap=False).print(fit_table(fit))
        print("peaks are predicted; libraries, a GPU's context and an allocator's slack come on top")
    if not fit.fits:
        raise ResourceError(
            "E-RES-001",
            where="--vram",
            found=f"the smallest peak reached is {format_bytes(fit.peak_bytes)}",
            expected=f"at most {format_bytes(limit_bytes)}",
            action="Take a smaller model, or a method that trains less (`subspace methods`).",
        )
    if not as_json:
        print(command)


def probe_run(config: RunConfig, num_steps: int) -> None:
    """Do real steps in a folder that is removed; print seconds a step, time to the end, and both peaks."""
    quiet_libraries()
    from subspace.pipeline.planning import plan_with_data
    from subspace.pipeline.probe import probe

    plan = plan_with_data(config)
    with ProgressListener("probe: ") as listener:
        found = probe(config, num_steps, listeners=(listener,))
    table = Table(title=f"probe of {num_steps} steps", title_justify="left")
    for name in ("figure", "predicted", "measured"):
        table.add_column(name)
    table.add_row("peak memory", format_bytes(plan.peak_bytes), format_bytes(found.peak_bytes))
    table.add_row("a step", "", f"{found.seconds_per_step:.4g} s")
    if plan.batch.steps is not None:
        table.add_row(f"all {plan.batch.steps} steps", "", format_seconds(found.seconds_per_step * plan.batch.steps))
    output_console().print(table)

"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subspace.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from subspace.config.load import Document
    from subspace.pipeline.run_config import RunConfig

__all__ = ["Debug", "Given", "load_run_config", "repeated", "require_new_file", "split_given"]

Given = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", help="A recipe, then overrides such as training.seed=1."),
]
ConfigPath = Annotated[Path | None, typer.Option("--config", help="The recipe, as an option.")]
Override = Annotated[list[str] | None, typer.Option("--override", help="key=value, as an option.")]
Model = Annotated[str | None, typer.Option("--model", help="Model folder, hub id or builtin/tiny-llama.")]
Data = Annotated[str | None, typer.Option("--data", help="Data file, folder, hub id or builtin/<task>.")]
MethodName = Annotated[str | None, typer.Option("--method", help="A method; `subspace methods` lists them.")]
Seed = Annotated[str | None, typer.Option("--seed", help="Seed of the run.")]
Platform = Annotated[str | None, typer.Option("--platform", help="auto, cpu, cuda, rocm or mps.")]
NoWandb = Annotated[bool, typer.Option("--no-wandb", help="Send nothing to W&B.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", hidden=True)]


def split_given(given: Sequence[str] | None) -> tuple[Path | None, list[str]]:
    """Return the recipe and the overrides among positional arguments.

    The first one is a recipe unless it reads like `section.key=value` and no such file exists.

    Raises:
        UsageError: E-CLI-002 if a later one is not `key=value`.
    """
    items = list(given or ())
    recipe = None
    if items and ("=" not in items[0] or Path(items[0]).exists()):
        recipe = Path(items.pop(0))
    for item in items:
        if "=" not in item:
            raise UsageError(
                "E-CLI-002", where="command line", found=repr(item), expected="an override such as training.seed=1"
            )
    return recipe, items


def repeated(
    given: Sequence[str] | None,
    override: Sequence[str] | None,
    named: Mapping[str, object],
    *,
    seed: str | None,
    platform: str | None,
) -> list[str]:
    """Return the words of a command line that says the same; `named` are its options that have a value."""
    recipe, overrides = split_given(given)
    overrides += list(override or ())
    named = {**named, "--seed": seed, "--platform": platform}
    options = [word for name, value in named.items() if value is not None for word in (name, str(value))]
    return [*([str(recipe)] if recipe else []), *options, *overrides]


def require_new_file(path: Path, where: str) -> None:
    """Refuse a file to write that is there already, or whose folder is not.

    Raises:
        ConfigError: E-CFG-023.
    """
    if os.path.lexists(path):
        found, action = f"{path} exists", "Give another name; nothing is overwritten."
    elif not path.parent.is_dir():
        found, action = f"there is no folder {path.parent}", "Make it, or give another name."
    else:
        return
    raise ConfigError("E-CFG-023", where=where, found=found, expected="a new file", action=action)


def load_run_config(
    given: Sequence[str] | None,
    *,
    config: Path | None = None,
    override: Sequence[str] | None = None,
    model: str | None = None,
    data: str | None = None,
    method: str | None = None,
    seed: str | None = None,
    platform: str | None = None,
    no_wandb: bool = False,
    overwrite: bool = False,
) -> tuple[RunConfig, tuple[str, ...], Document]:
    """Return the RunConfig that a command line asks for, with its notes, and the document that it was written in.

    Raises:
        UsageError: E-CLI-002, E-CLI-003, E-CLI-004.
    """
    from subspace.pipeline.resolve import resolve_document

    if overwrite:
        raise UsageError(
            "E-CLI-004",
            where="--overwrite",
            found="nothing is overwritten",
            action="Give another training.output_dir, or remove the folder yourself.",
        )
    recipe, overrides = split_given(given)
    if config is not None and recipe is not None:
        raise UsageError("E-CLI-004", where="--config", found="two recipes", expected="one", action="Leave one out.")
    overrides += list(override or ())
    if seed is not None:
        overrides.append(f"training.seed={_checked_seed(seed)}")
    if platform is not None:
        overrides.append(f"training.device={'cuda' if platform == 'rocm' else platform}")
    given_recipe = config or recipe
    run_config, notes, document = resolve_document(given_recipe, overrides, model=model, data=data, method=method)
    if no_wandb and "wandb" in run_config.training.report_to:
        kept = tuple(name for name in run_config.training.report_to if name != "wandb")
        run_config = run_config.model_copy(
            update={"training": run_config.training.model_copy(update={"report_to": kept})}
        )
    return run_config, notes, document


def _checked_seed(text: str) -> int:
    from subspace.core.seeding import MAX_SEED

    if not (text.isascii() and text.isdecimal()) or int(text) >= MAX_SEED:
        raise UsageError("E-CLI-003", where="--seed", found=repr(text), expected=f"an integer from 0 to {MAX_SEED - 1}")
    return int(text)

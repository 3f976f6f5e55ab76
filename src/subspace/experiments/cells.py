"""From a matrix file to its cells: one checked recipe for every task, model and arm. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from subspace.config.document import Document
from subspace.config.load import parse_section, read_document, unknown_sections, with_overrides
from subspace.config.yaml_text import Loc
from subspace.core.errors import ConfigError
from subspace.evaluation.config import chosen_metrics
from subspace.experiments.matrix import ArmSection, BudgetSection, MatrixSection, SearchSection, TaskSection
from subspace.experiments.rooted import layered, named_below, named_by, rooted
from subspace.pipeline.run_config import RunConfig, parse_run_config
from subspace.runs.layout import is_split_name
from subspace.training.config import TrainingConfig

__all__ = ["Cell", "Matrix", "read_matrix"]

_RECIPE = ("model", "data", "training", "evaluation")
_LOWER = ("loss", "perplexity")
"""Metrics of which less is better."""
_EQUAL = ("max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "packing")
"""What an arm may not have its own of: the budget and what a step sees are the same for all."""
_OURS = {"seed": "seeds", "output_dir": "--out"}
Layers = list[tuple[Document, Loc]]
_NOT_KNOWN = 1_000_000
"""Stands for a number of steps that is found later: no warm-up is longer."""
_HOW_HELD = ("quantization", "double_quantization", "trained_weights", "dtype")


@dataclass(frozen=True)
class Cell:
    """One arm on one task with one model.

    Attributes:
        config: Its recipe; seed, learning rate and folder are those of no run yet.
        rates: The learning rates of its search, ascending; empty: the recipe's is taken.
        has_steps: Whether the number of steps is known; of a budget in tokens or seconds it is found later.
    """

    task: str
    model: str
    arm: str
    config: RunConfig
    metric: str
    higher_is_better: bool
    rates: tuple[float, ...] = ()
    has_steps: bool = True

    @property
    def label(self) -> str:
        return f"{self.task}/{self.model}/{self.arm}"

    @property
    def steps(self) -> int:
        """Optimizer steps of a final run."""
        steps = self.config.training.max_steps
        assert self.has_steps  # every budget ends in steps
        assert steps is not None
        return steps

    def with_steps(self, steps: int) -> Cell:
        """Return the cell with so many steps."""
        training = self.config.training.model_copy(update={"max_steps": steps})
        return replace(self, config=self.config.model_copy(update={"training": training}), has_steps=True)


@dataclass(frozen=True)
class Matrix:
    """What is compared with what.

    Attributes:
        path: The file.
        tree: What it says, overrides put in.
        notes: Foreign names that were translated, and the like.
    """

    section: MatrixSection
    budget: BudgetSection
    search: SearchSection | None
    arms: Mapping[str, ArmSection]
    cells: tuple[Cell, ...]
    path: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, str]:
        return {cell.task: cell.metric for cell in self.cells}


def read_matrix(source: Path | Document, overrides: Sequence[str] = ()) -> Matrix:
    """Read and check a matrix; every cell is a whole recipe afterwards.

    Args:
        source: A YAML file, or a document made in Python.
        overrides: `key=value` of the matrix; `model.`, `data.`, `training.` and `evaluation.` mean the recipe's.

    Raises:
        ConfigError: With file, line and key of the first thing that is wrong.
    """
    document = read_document(source) if isinstance(source, Path) else source
    common = [text for text in overrides if text.partition(".")[0] in _RECIPE]
    document = with_overrides(document, [text for text in overrides if text not in common])
    unknown_sections(document, tuple(MatrixSection.model_fields))
    section, notes = parse_section(document, None, MatrixSection)
    recipe = with_overrides(_recipe(document, section), common)
    with named_below("budget"):
        budget, _ = parse_section(rooted(document, "budget"), None, BudgetSection)
    search = None
    if section.search is not None:
        with named_below("search"):
            search, _ = parse_section(rooted(document, "search"), None, SearchSection)
    _names(document)
    arms = {name: _arm(document, name, search) for name in section.arms}
    _check_search(document, section, search, arms)
    cells = tuple(_cells(document, section, recipe, budget, search, arms))
    timed = budget.seconds is not None and not all(cell.has_steps for cell in cells)
    if timed and search is not None and search.steps is None:
        found, action = "a budget in seconds, and a search without steps", "Set search.steps, equal for all arms."
        raise _conflict(document, ("search",), found, action)
    return Matrix(section, budget, search, arms, cells, document.path, (*document.notes, *notes))


def _recipe(document: Document, section: MatrixSection) -> Document:
    """Return what all runs have in common; a method that a recipe file names belongs to no arm."""
    if isinstance(section.recipe, str):
        recipe = read_document(Path(document.path or "").parent / section.recipe)
        tree = {key: value for key, value in recipe.tree.items() if key != "method"}
        recipe = Document(tree, recipe.path, recipe.notes, recipe.marks)
    else:
        recipe = rooted(document, "recipe")
    with named_below("recipe"):
        unknown_sections(recipe, _RECIPE)
    return recipe


def _names(document: Document) -> None:
    """Refuse names that are no folder's."""
    for kind in ("tasks", "models", "arms"):
        found = document.tree.get(kind)
        for name in found if isinstance(found, dict) else ():
            if not is_split_name(name):
                raise ConfigError(
                    "E-CFG-010",
                    where=document.place((kind, name)),
                    found=f"{name!r} cannot name a folder",
                    expected="letters, digits, dots, dashes and underscores",
                )


def _arm(document: Document, name: str, search: SearchSection | None) -> ArmSection:
    with named_below("arms", name):
        arm, _ = parse_section(rooted(document, "arms", name), None, ArmSection)
    for given in arm.training:
        key, found, action = _known(given), "", ""
        if key in _EQUAL:
            found, action = f"an own {key} of one arm", "The budget is the same for all: set it in the recipe."
        elif key in _OURS:
            found, action = f"a {key} of an arm", f"Use {_OURS[key]}."
        elif key == "learning_rate" and search is not None:
            found, action = "a learning rate beside a search for it", "Give learning_rates, or leave search out."
        if found:
            raise _conflict(document, ("arms", name, "training", given), found, action)
    for key in arm.model:
        if key not in _HOW_HELD:
            found, action = f"an own {key} of one arm", f"An arm may set {', '.join(_HOW_HELD)}."
            raise _conflict(document, ("arms", name, "model", key), found, action)
    return arm


def _known(key: str) -> str:
    """Return our name of a training key."""
    synonym = TrainingConfig.synonyms.get(key)
    return key if synonym is None else synonym.key


def _check_search(
    document: Document, section: MatrixSection, search: SearchSection | None, arms: Mapping[str, ArmSection]
) -> None:
    """Refuse searches of unequal size, without a search, and with a seed of the final runs."""
    for name, arm in arms.items():
        if arm.learning_rates is None:
            continue
        if search is None:
            raise _conflict(document, ("arms", name, "learning_rates"), "rates to search without `search`", "Add it.")
        if len(set(arm.learning_rates)) != len(set(search.rates)):
            found = f"{len(set(arm.learning_rates))} learning rates, where the search has {len(set(search.rates))}"
            raise _conflict(document, ("arms", name, "learning_rates"), found, "Every arm's search is of equal size.")
    if search is not None and search.seed in section.seeds:
        found = f"the search's seed {search.seed} is one of the final runs'"
        raise _conflict(document, ("search", "seed"), found, "Give another: what was tuned on is not evidence.")


def _cells(
    document: Document,
    section: MatrixSection,
    recipe: Document,
    budget: BudgetSection,
    search: SearchSection | None,
    arms: Mapping[str, ArmSection],
) -> Iterator[Cell]:
    if not section.tasks:
        raise _conflict(document, ("tasks",), "no task", "Name at least one, with its metric.")
    for task_name in section.tasks:
        with named_below("tasks", task_name):
            part = rooted(document, "tasks", task_name)
            task, _ = parse_section(part, None, TaskSection)
        changes = Document({key: part.tree[key] for key in _RECIPE if key in part.tree}, part.path, (), part.marks)
        for model_name, model in _models(document, section, recipe):
            for arm_name, arm in arms.items():
                own = rooted(document, "arms", arm_name)
                kept: dict[str, Any] = {
                    key: own.tree[key] for key in ("model", "method", "training") if key in own.tree
                }
                layers: Layers = [
                    (recipe, ("recipe",) if recipe.path == document.path else ()),
                    (changes, ("tasks", task_name)),
                    (model, ("models", model_name)),
                    (Document(kept, own.path, (), own.marks), ("arms", arm_name)),
                ]
                steps = task.steps or budget.steps
                yield _cell(document, (task_name, model_name, arm_name), layers, task, steps, _rates(arm, search))


def _rates(arm: ArmSection, search: SearchSection | None) -> tuple[float, ...]:
    if search is None:
        return ()
    return search.rates if arm.learning_rates is None else tuple(sorted(set(arm.learning_rates)))


def _models(document: Document, section: MatrixSection, recipe: Document) -> Iterator[tuple[str, Document]]:
    models = section.models
    if models is None:
        named = recipe.tree.get("model")
        name = str(named.get("model_name_or_path", "model")) if isinstance(named, dict) else "model"
        yield _short(name), Document({}, document.path)
    elif isinstance(models, tuple):
        if len({_short(name) for name in models}) < len(models):
            found = "two models whose folders would have one name"
            raise _conflict(document, ("models",), found, "Write `models: {name: {model_name_or_path: ...}}`.")
        for name in models:
            yield _short(name), Document({"model": {"model_name_or_path": name}}, document.path)
    else:
        for name in models:
            part = rooted(document, "models", name)
            marks = {("model", *loc): mark for loc, mark in part.marks.items()}
            yield name, Document({"model": part.tree}, document.path, (), marks)


def _short(model: str) -> str:
    """Return a folder's name for a model.

    >>> _short("builtin/tiny-llama"), _short("org/model@main")
    ('tiny-llama', 'model-main')
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(model).name).strip("-._")
    return name[:100] or "model"


def _cell(
    document: Document,
    names: tuple[str, str, str],
    layers: Layers,
    task: TaskSection,
    steps: int | None,
    rates: tuple[float, ...],
) -> Cell:
    merged, origins = layered(layers)
    tree = dict(merged.tree)
    # before it is checked: a recipe without a length is none
    given = tree.get("training")
    training = dict(given) if isinstance(given, dict) else {}
    training.pop("num_train_epochs", None)
    tree["training"] = training | {"max_steps": steps or _NOT_KNOWN}
    with named_by(origins):
        config, _ = parse_run_config(Document(tree, document.path, (), merged.marks))
    metrics = chosen_metrics(config.evaluation, config.model.task)
    if task.metric not in metrics:
        wanted = config.evaluation.model_copy(update={"metrics": (*metrics, task.metric)})
        try:
            chosen_metrics(wanted, config.model.task)
        except ConfigError as error:
            where = document.place(("tasks", names[0], "metric"))
            raise ConfigError(error.code, where=where, found=error.found, expected=error.expected) from None
        config = config.model_copy(update={"evaluation": wanted})
    higher = task.metric not in _LOWER if task.higher_is_better is None else task.higher_is_better
    return Cell(*names, config, task.metric, higher, rates, steps is not None)


def _conflict(document: Document, loc: tuple[str | int, ...], found: str, action: str) -> ConfigError:
    return ConfigError("E-CFG-014", where=document.place(loc), found=found, action=action)

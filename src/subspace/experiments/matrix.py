"""A matrix: what is compared with what, on equal terms. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from subspace.config.base import Section, conflict
from subspace.core.seeding import MAX_SEED

__all__ = ["ArmSection", "BudgetSection", "MatrixSection", "RateRange", "SearchSection", "TaskSection"]

Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]


class MatrixSection(Section):
    """The top of the file; its mappings are read by the sections below."""

    name: str = Field(min_length=1, max_length=200)
    """What the comparison is called."""
    recipe: str | dict[str, Any]
    """What all runs have in common: model, data, training and evaluation, or the path of a recipe that says it."""
    tasks: dict[str, Any] = Field(default_factory=dict)
    """Name to what a task changes in the recipe, and its metric."""
    models: dict[str, Any] | tuple[str, ...] | None = None
    """Names, or name to what a model changes in the recipe's model section; absent: the recipe's model."""
    arms: dict[str, Any]
    """Name to method and training of each of the compared."""
    seeds: tuple[Seed, ...] = Field(min_length=1)
    """Seeds of the final runs, the same for all arms."""
    reference: str | None = None
    """The arm that all others are compared with; absent: all pairs are compared."""
    budget: dict[str, Any]
    """How long every run is."""
    search: dict[str, Any] | None = None
    """How every arm's learning rate is found; absent: as the arms say."""
    score_base: bool = False
    """Score the untuned model of every task as well."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of final runs once they have ended."""

    @model_validator(mode="after")
    def _consistent(self) -> MatrixSection:
        if len(set(self.seeds)) < len(self.seeds):
            raise conflict("seeds", "a seed is given twice", "Give each once.")
        if self.reference is not None and self.reference not in self.arms:
            raise conflict("reference", f"no arm is named {self.reference!r}", f"Name one of {', '.join(self.arms)}.")
        return self


class TaskSection(Section):
    """What one task changes in the recipe."""

    metric: str
    """The score that decides."""
    higher_is_better: bool | None = None
    """Which way the metric points; absent: as is known of it."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of a run on this task, in place of the budget's."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe's model section."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe's data section."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe's training section."""
    evaluation: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe's evaluation section."""


class ArmSection(Section):
    """One of the compared."""

    method: dict[str, Any]
    """The recipe's method section."""
    label: str | None = None
    """How the page calls it; absent: its name."""
    learning_rates: tuple[Rate, ...] | None = None
    """The rates of this arm's search, as many as every other arm's."""
    model: dict[str, Any] = Field(default_factory=dict)
    """How weights are held, where that is part of the method."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Keys of the recipe's training section that are part of the method."""


class BudgetSection(Section):
    """How long every run is: one of three."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps."""
    tokens: int | None = Field(default=None, ge=1)
    """Training tokens, padding left out; rounded to whole steps by the mean length of the task's rows."""
    seconds: float | None = Field(default=None, gt=0.0)
    """Seconds of training: as many steps as they buy at the pace that is measured of each arm beforehand."""

    @model_validator(mode="after")
    def _one(self) -> BudgetSection:
        given = [name for name in ("steps", "tokens", "seconds") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"{' and '.join(given)} are given" if given else "neither steps, tokens nor seconds are given"
            raise conflict(given[-1] if given else "", found, "Give one of them.")
        return self

    @property
    def kind(self) -> str:
        return next(name for name in ("steps", "tokens", "seconds") if getattr(self, name) is not None)

    @property
    def value(self) -> float:
        return getattr(self, self.kind)  # type: ignore[no-any-return]  # the validator left one of them


class RateRange(Section):
    """Learning rates at equal ratios."""

    low: Rate
    """The smallest."""
    high: Rate
    """The largest."""
    num: int = Field(ge=2, le=64)
    """How many."""


class SearchSection(Section):
    """Successive halving over learning rates, on rows held out of the training rows."""

    learning_rates: tuple[Rate, ...] | RateRange
    """The rates that are tried, or `{low, high, num}`."""
    halving: int = Field(default=2, ge=2, le=8)
    """One in so many trials of a rung goes on to the next."""
    rungs: int | None = Field(default=None, ge=1, le=8)
    """Rungs; absent: until fewer than `halving` would be left. The last one has all steps, each other one fewer."""
    steps: int | None = Field(default=None, ge=1)
    """Steps of the last rung; absent: those of a final run."""
    seed: Seed = 1000
    """Seed of all trials; none of the final runs has it."""
    validation_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the training rows that trials are scored on and do not train on."""
    max_eval_samples: int | None = Field(default=None, ge=1)
    """Score trials on so many of those rows at the most."""
    metric: str | None = None
    """The score that decides a trial; absent: the task's."""

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates, ascending.

        >>> SearchSection(learning_rates=RateRange(low=1e-4, high=1e-2, num=3)).rates
        (0.0001, 0.001, 0.01)
        """
        found = self.learning_rates
        if isinstance(found, RateRange):
            ratio = math.log(found.high / found.low) / (found.num - 1)
            return tuple(float(f"{found.low * math.exp(ratio * index):.3g}") for index in range(found.num))
        return tuple(sorted(found))

    @model_validator(mode="after")
    def _enough(self) -> SearchSection:
        if isinstance(self.learning_rates, RateRange) and self.learning_rates.high <= self.learning_rates.low:
            raise conflict("learning_rates", "high is not above low", "Give a range.")
        if len(set(self.rates)) < 2:
            raise conflict("learning_rates", "fewer than two rates", "Give more, or leave search out.")
        return self

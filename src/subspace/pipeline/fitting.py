"""From a recipe and a size to the overrides under which the recipe fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from subspace.config.load import document_from, with_overrides
from subspace.pipeline.planning import known_from_data, make_plan
from subspace.pipeline.run_config import RunConfig, parse_run_config

if TYPE_CHECKING:
    from subspace.plan.fit import Fit, Planned

__all__ = ["fit_recipe"]


def fit_recipe(config: RunConfig, limit_bytes: int, tell: Callable[[Sequence[str]], None] = lambda _: None) -> Fit:
    """Return what makes a recipe's predicted peak fit into `limit_bytes`; every candidate is planned.

    Args:
        config: The recipe.
        limit_bytes: Bytes that the peak may take.
        tell: Called with the overrides that are planned next.

    Raises:
        ConfigError, MethodError, DataError: If the recipe cannot be planned as it is.
    """
    from subspace.plan.fit import Planned, find_fit

    known = known_from_data(config)
    resolved = document_from(config.to_tree())  # every key under our name, so that an override replaces it

    def planned(made: RunConfig) -> Planned:
        plan = make_plan(made, num_labels=known.num_labels, total_steps=known.total_steps, notes=known.notes)
        return Planned(plan, made.to_tree())

    def replan(overrides: Sequence[str]) -> Planned:
        tell(overrides)
        return planned(parse_run_config(with_overrides(resolved, overrides))[0])

    return find_fit(limit_bytes, planned(config), replan)

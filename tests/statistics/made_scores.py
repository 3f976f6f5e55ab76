"""Score tables of tests: arms that differ by what is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subspace.statistics.scores import ScoreTable

__all__ = ["binary_table", "loss_table"]


def binary_table(
    levels: Sequence[float], *, seeds: int = 5, items: int = 300, task: str = "quiz", seed: int = 0
) -> ScoreTable:
    """Return answers of arms called a, b, ... that are right with these probabilities."""
    generator = np.random.default_rng(seed)
    luck = 0.6 * generator.random((1, 1, items)) + 0.4 * generator.random((len(levels), seeds, items))
    values = (luck < np.asarray(levels)[:, None, None]).astype(float)
    return ScoreTable(
        task, "accuracy", True, tuple("abcdefghij"[: len(levels)]), tuple(range(seeds)), values, binary=True
    )


def loss_table(
    levels: Sequence[float],
    *,
    seeds: int = 5,
    items: int = 80,
    task: str = "text",
    weighted: bool = False,
    seed: int = 0,
) -> ScoreTable:
    """Return losses of arms called a, b, ... with these means."""
    generator = np.random.default_rng(seed)
    values = generator.exponential(size=(1, 1, items)) + 0.05 * generator.normal(size=(len(levels), seeds, items))
    values += np.asarray(levels)[:, None, None] + 0.01 * generator.normal(size=(len(levels), seeds, 1))
    weights = np.ceil(generator.lognormal(3.0, 0.5, size=items)) if weighted else None
    return ScoreTable(task, "loss", False, tuple("abcdefghij"[: len(levels)]), tuple(range(seeds)), values, weights)

"""A budget in tokens as steps: the rows tell what a step sees, and the schedule needs its length beforehand."""

from __future__ import annotations

from dataclasses import replace

from subspace.experiments.cells import Cell, Matrix
from subspace.pipeline.run_config import RunConfig
from subspace.training.schedule import num_steps_per_epoch

__all__ = ["in_steps", "tokens_per_step"]


def in_steps(matrix: Matrix) -> Matrix:
    """Return a matrix whose cells have as many steps as its budget has tokens for, at the mean length of their rows.

    Raises:
        DataError: If the rows of a task cannot be read.
    """
    if matrix.budget.tokens is None:
        return matrix
    known: dict[str, float] = {}
    cells = []
    for cell in matrix.cells:
        if cell.has_steps:  # the task says its own
            cells.append(cell)
            continue
        key = _key(cell)
        if key not in known:
            known[key] = tokens_per_step(cell.config)
        cells.append(cell.with_steps(max(round(matrix.budget.tokens / known[key]), 1)))
    return replace(matrix, cells=tuple(cells))


def tokens_per_step(config: RunConfig) -> float:
    """Return the training tokens of a mean step, padding left out."""
    from subspace.pipeline.build import load_data

    data = load_data(config)
    return data.train.report.num_tokens / num_steps_per_epoch(config.training, data.num_batches)


def _key(cell: Cell) -> str:
    """Return what decides the tokens of a step: an arm changes none of it."""
    return f"{cell.task}/{cell.model}"

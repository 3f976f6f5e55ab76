"""How long the rest of a bench takes, from what the jobs so far took. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from subspace.experiments.campaign import Campaign
from subspace.experiments.cells import Cell
from subspace.experiments.jobs import Job

__all__ = ["Pace"]


class Pace:
    """Seconds a step, learned by cell; the steps of a cell that was not seen yet take what the average one does."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, job: Job, seconds: float) -> None:
        """Learn from a job that has ended."""
        if job.steps:
            for key in (job.cell.label, ""):
                self._seen[key][0] += seconds
                self._seen[key][1] += job.steps

    def remaining(self, campaign: Campaign, num_workers: int) -> float | None:
        """Return the seconds until all is done; None before the first job has ended."""
        if not self._seen:
            return None
        seconds = sum(steps * self._of(cell) for cell, steps in _open_steps(campaign))
        return (seconds + _unmeasured_seconds(campaign)) / max(num_workers, 1)

    def _of(self, cell: Cell) -> float:
        seconds, steps = self._seen[cell.label] if cell.label in self._seen else self._seen[""]
        return seconds / steps


def _open_steps(campaign: Campaign) -> Iterator[tuple[Cell, int]]:
    """Yield the steps that are not done yet, by cell."""
    done: defaultdict[str, int] = defaultdict(int)
    for job in campaign.finished.values():
        done[job.cell.label] += job.steps
    for failure in campaign.failures.values():
        done[failure.job.cell.label] += failure.job.steps
    for cell in campaign.matrix.cells:
        known = campaign.step_times.with_steps(cell)
        steps = 0 if known is None else known.steps * len(campaign.matrix.section.seeds)
        search = campaign.searches.get(cell.label)
        if search is not None:
            steps += sum(rung.num_trials * rung.steps for rung in search.rungs)
        yield cell, max(steps - done[cell.label], 0)


def _unmeasured_seconds(campaign: Campaign) -> float:
    """Return the seconds of final runs whose steps are not known yet: what they were given."""
    given_up = {failure.job.cell.label for failure in campaign.failures.values()}
    times = campaign.step_times
    cells = [cell for cell in campaign.matrix.cells if times.with_steps(cell) is None and cell.label not in given_up]
    return len(cells) * len(campaign.matrix.section.seeds) * (campaign.matrix.budget.seconds or 0.0)

"""Where scores on tasks are kept: in the run folder if there is one, and collected under one folder for all models.

OUT/<model>/results_<time>.json, samples_<task>_<time>.jsonl     as lm-evaluation-harness writes them
OUT/<model>/metrics.json, tasks.json, predictions/<split>.jsonl  as a run folder has them, for models that are no run
OUT/summary.json                                                 every model, task and metric
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subspace.evaluation.harness_format import file_stamp, results_of, samples_of, write_harness_files
from subspace.pipeline.targets import Target
from subspace.runs.durable import replace_file
from subspace.runs.layout import RunLayout
from subspace.runs.manifest import write_json
from subspace.runs.plain_json import finite_tree
from subspace.runs.store import RunFolder

__all__ = ["TaskResults"]


@dataclass(frozen=True)
class TaskResults:
    """The results of one model.

    Attributes:
        target: The model.
        out: Folder of the collected results of all models.
    """

    target: Target
    out: Path

    @property
    def layout(self) -> RunLayout:
        """Where its metrics, tasks and predictions lie."""
        return RunLayout(self.target.run if self.target.run is not None else self.folder)

    @property
    def folder(self) -> Path:
        """Its folder among the collected results."""
        return self.out / self.target.name

    def kept(self, split: str, digest: str, weights: str) -> dict[str, float] | None:
        """Return the metrics of a split if just this task has been evaluated to the end on just these weights."""
        record = _read(self.layout.tasks).get(split)
        whole = self.layout.predictions(split).is_file()
        wanted = {"digest": digest, "weights": weights}
        same = isinstance(record, dict) and all(record.get(key) == value for key, value in wanted.items())
        return self.metrics(split) if whole and same and split in _read(self.layout.metrics) else None

    def metrics(self, split: str) -> dict[str, float]:
        """Return the metrics of a split, {} if there are none."""
        found = _read(self.layout.metrics).get(split)
        return dict(found) if isinstance(found, dict) else {}

    def keep(
        self,
        split: str,
        record: Mapping[str, Any],
        metrics: Mapping[str, float],
        items: Sequence[Mapping[str, Any]],
    ) -> None:
        """Put scores in place; the metrics come last, so that what is cut off in the middle counts as not done.

        Raises:
            LockError: E-LCK-001 if another process is writing to the run.
            ResourceError: E-RES-002 if the disk refuses.
        """
        if self.target.run is not None:
            with RunFolder.reopen(self.target.run) as run:
                run.write_metrics({name: found for name, found in run.metrics().items() if name != split})
                run.write_predictions(split, items)
                run.write_tasks(_read(self.layout.tasks) | {split: dict(record)})
                run.write_metrics({**run.metrics(), split: dict(metrics)})
            return
        path = self.layout.predictions(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        others = {name: found for name, found in _read(self.layout.metrics).items() if name != split}
        write_json(self.layout.metrics, others)
        replace_file(path, (json.dumps(finite_tree(dict(item))[0]).encode() + b"\n" for item in items))
        write_json(self.layout.tasks, _read(self.layout.tasks) | {split: dict(record)})
        write_json(self.layout.metrics, others | {split: dict(metrics)})

    def collect(self, split: str, settings: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> None:
        """Write the collected files of a split, unless they are there.

        Args:
            split: What was evaluated.
            settings: Device, batch size and the like, for the files.
            own: `results` and `samples` of the harness, where it was the one who evaluated.

        Raises:
            ResourceError: E-RES-002 if the disk refuses.
        """
        record = _read(self.layout.tasks)[split]
        if (self.folder / f"results_{file_stamp(record['evaluated'])}.json").is_file():
            return
        if own is not None:
            write_harness_files(self.folder, record["evaluated"], own["results"], own["samples"])
            return
        lines = self.layout.predictions(split).read_text(encoding="utf-8").splitlines()
        items = [json.loads(line) for line in lines]
        metrics = _read(self.layout.metrics)[split]
        results = results_of(record, metrics, items, model=self.target.given, settings=settings)
        samples = {record["name"]: list(samples_of(record, items))}
        write_harness_files(self.folder, record["evaluated"], results, samples)

    def summarise(self) -> None:
        """Bring the table of all models up to date.

        Raises:
            ResourceError: E-RES-002 if the disk refuses.
        """
        path = self.out / "summary.json"
        metrics, tasks = _read(self.layout.metrics), _read(self.layout.tasks)
        scores = {split: metrics[split] for split in tasks if split in metrics}
        entry = {"model": self.target.given, "run": self.target.run is not None, "scores": scores}
        write_json(path, _read(path) | {self.target.name: entry})


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object, {} where there is none yet."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""What is kept beside the scores of a task: which task, which version, which documents. Imports no torch.

A record says whether a task has been done: its digest covers name, version, shots, limit and every document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Task
from subspace.evaluation.tasks.documents import Documents

__all__ = ["record_digest", "split_name", "task_record"]


def task_record(task: Task, documents: Documents, limit: int | None) -> dict[str, Any]:
    """Return the record of a task as it is to be evaluated, with its digest."""
    record = {
        "name": task.name,
        "version": str(task.version),
        "kind": task.kind,
        "metric": task.metrics[0],
        "metrics": list(task.metrics),
        "higher_is_better": not task.lower_is_better,
        "num_fewshot": documents.num_fewshot,
        "limit": limit,
        "num_items": len(documents.docs),
        "source": documents.place,
        "source_digest": documents.digest,
        "max_new_tokens": task.max_new_tokens if task.kind in ("generate", "code") else None,
    }
    if task.kind == "code":
        record |= {"num_samples": task.num_samples, "temperature": task.temperature}
    return record | {"digest": record_digest(record)}


def record_digest(record: Mapping[str, Any]) -> str:
    """Return what is the same exactly if a task, its settings and its documents are; where they lie does not matter."""
    covered = {key: value for key, value in record.items() if key not in ("source", "digest", "evaluated", "seconds")}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def split_name(name: str, *, num_fewshot: int | None, limit: int | None, sampling: str | None = None) -> str:
    """Return the name under which scores are kept; settings other than the task's own are part of it.

    >>> split_name("mmlu/anatomy", num_fewshot=0, limit=10)
    'mmlu.anatomy-0shot-first10'
    """
    shots = "" if num_fewshot is None else f"-{num_fewshot}shot"
    first = "" if limit is None else f"-first{limit}"
    drawn = "" if sampling is None else f"-{sampling}"
    return name.replace("/", ".").replace(":", ".") + shots + drawn + first

"""`unified_log.jsonl`: one JSON record a line, the same format whatever method or framework writes it.

Two identical runs write the same lines but for the key `machine`, which holds all that may differ (clock, memory,
throughput). A line is one write, so a crash can only tear the last one; readers ignore it and writers cut it.
`EVENTS` is the schema; docs/log-schema.md shows it to people.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subspace.core.errors import CheckpointError
from subspace.runs.durable import disk_errors
from subspace.runs.failpoints import reach
from subspace.runs.plain_json import finite_tree, line
from subspace.runs.redaction import redact_tree

__all__ = ["EVENTS", "LOG_SCHEMA", "RunLog", "read_log"]

LOG_SCHEMA = 1

_STEP = "optimizer steps done, from 1"
_MACHINE = "object: what may differ between identical runs"

EVENTS: Mapping[str, Mapping[str, str]] = {
    "every record": {
        "schema": "integer: version of this format",
        "event": "text: one of the events below",
        "nonfinite": "list of dotted names: fields that were NaN or infinite and stand as null; absent if none",
    },
    "run_start": {
        "step": "optimizer steps done before",
        "method": "text: name of the method",
        "model": "text: name or path of the base model",
        "task": "text: causal_lm, classification or seq2seq",
        "total_steps": "optimizer steps planned",
        "num_trained_parameters": "integer",
        "machine": _MACHINE,
    },
    "step": {
        "step": _STEP,
        "epoch": "passes over the training rows, a fraction",
        "loss": "mean training loss of the steps since the last record",
        "penalty": "the method's own term, not in `loss`; absent if it has none",
        "learning_rate": "rate of the step's update",
        "grad_norm": "global gradient norm before clipping",
        "num_tokens": "input tokens seen since the run began, padding left out",
        "num_targets": "targets (tokens or labels with a loss) seen since the run began",
        "machine": _MACHINE,
    },
    "eval": {
        "step": _STEP,
        "epoch": "passes over the training rows, a fraction",
        "split": "text: which rows",
        "loss": "mean loss on them",
        "num_targets": "targets that the mean is over",
        "machine": _MACHINE,
    },
    "checkpoint": {"step": "step of the checkpoint that is written next", "machine": _MACHINE},
    "method": {"step": _STEP, "machine": _MACHINE},
    "skip": {
        "step": "the step that was left out because its loss or gradient was not finite",
        "loss": "its loss",
        "grad_norm": "its gradient norm",
        "machine": _MACHINE,
    },
    "run_end": {"step": _STEP, "outcome": "text: finished, stopped or failed", "machine": _MACHINE},
    "machine": {
        "time": "text: wall clock, ISO 8601, UTC",
        "elapsed_seconds": "seconds of training, those of earlier attempts up to their last kept record included",
        "seconds": "what an evaluation took",
        "tokens_per_second": "input tokens per second since the last record",
        "rss_bytes": "resident memory of the process",
        "allocated_bytes": "CUDA: held by tensors",
        "reserved_bytes": "CUDA: held by torch's allocator",
        "peak_allocated_bytes": "CUDA: largest `allocated_bytes` so far",
    },
}
"""Event to field to meaning; `every record` and `machine` are not events but shared parts."""

_NAMES = frozenset(EVENTS) - {"every record", "machine"}


class RunLog:
    """The log of a run, open for appending; a torn last line is cut on opening.

    Raises:
        ResourceError: E-RES-002 if the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._cut_torn_line()

    def write(self, event: str, **fields: Any) -> None:
        """Append one record.

        Args:
            event: A key of `EVENTS`.
            fields: JSON values; those in `EVENTS` have the meaning given there, further ones are the caller's.

        Raises:
            ValueError: If the event is unknown.
            ResourceError: E-RES-002 if the disk refuses; the log then ends with the record before.
        """
        if event not in _NAMES:
            raise ValueError(f"unknown event {event!r}; log.EVENTS lists them")
        clean, places = finite_tree(redact_tree(fields))
        record = {"schema": LOG_SCHEMA, "event": event, **clean}
        if places:
            record["nonfinite"] = places
        descriptor, before = self._open_descriptor(), self.offset()
        with disk_errors(self.path):
            try:
                reach("log_write")
                _write_all(descriptor, line(record))
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, before)
                raise

    def offset(self) -> int:
        """Return the bytes written so far."""
        return os.fstat(self._open_descriptor()).st_size

    def truncate(self, offset: int) -> None:
        """Forget every record after the first `offset` bytes: a run that resumes writes them again.

        Raises:
            CheckpointError: E-CKP-006 if the log is shorter or no line ends there: it is not the checkpoint's.
            ResourceError: E-RES-002 if the disk refuses.
        """
        descriptor, size = self._open_descriptor(), self.offset()
        if offset > size or (offset and os.pread(descriptor, 1, offset - 1) != b"\n"):
            raise CheckpointError(
                "E-CKP-006",
                where=str(self.path),
                found=f"{size} bytes, and no record ends at byte {offset}",
                expected="the log that the checkpoint was written beside",
                action="Restore the log, or resume from an earlier checkpoint.",
            )
        with disk_errors(self.path):
            os.ftruncate(descriptor, offset)
            os.fsync(descriptor)

    def sync(self) -> None:
        """Make every record durable; call before a checkpoint that stores `offset()`.

        Raises:
            ResourceError: E-RES-002 if the disk refuses.
        """
        with disk_errors(self.path):
            reach("log_sync")
            os.fsync(self._open_descriptor())

    def close(self) -> None:
        """Close the file; safe to call twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed")
        return self._descriptor

    def _cut_torn_line(self) -> None:
        descriptor = self._open_descriptor()
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        end = status.st_size
        while end:
            start = max(0, end - 65536)
            newline = os.pread(descriptor, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < status.st_size:
            os.ftruncate(descriptor, end)


def _write_all(descriptor: int, data: bytes) -> None:
    # One call in all but the rarest case; a short write is how a nearly full disk answers before it says ENOSPC.
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def read_log(path: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the records of a log, and a note for every line that is none; a torn last line is one of these.

    >>> read_log(Path("absent.jsonl"))
    ([], ('absent.jsonl: no such file',))
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], (f"{path}: no such file",)
    except OSError as error:
        return [], (f"{path}: {error.strerror}",)
    *lines, rest = data.split(b"\n")
    records, notes = [], []
    for number, text in enumerate(lines, start=1):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            notes.append(f"{path}:{number}: not a JSON record; ignored")
    if rest:
        notes.append(f"{path}:{len(lines) + 1}: the last line is torn; ignored")
    return records, tuple(notes)

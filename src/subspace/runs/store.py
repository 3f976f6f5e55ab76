"""The folder of one run: who may write, what is in it, how it is sealed.

A folder is a run from the moment its manifest lies in it; before that, an interrupted creation can be repeated. It is
unfinished until `finish` writes the digests of everything in it. Whoever writes holds the lock; reading needs none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from subspace.core.errors import CheckpointError, StoppedError, SubspaceError, UsageError
from subspace.runs.durable import disk_errors, fsync_folder, replace_file
from subspace.runs.folder_state import RunState, occupied_error, run_state, usable_folder
from subspace.runs.layout import RunLayout
from subspace.runs.lock import FolderLock
from subspace.runs.log import RunLog
from subspace.runs.manifest import (
    MANIFEST_SCHEMA,
    file_digest,
    output_digests,
    read_manifest,
    require_unchanged,
    write_json,
    write_manifest,
)
from subspace.runs.plain_json import canonical, finite_tree
from subspace.runs.provenance import new_attempt, utc_now
from subspace.runs.redaction import redact
from subspace.runs.retention import clear_leftovers

__all__ = ["RunFolder", "RunState", "run_state"]


class RunFolder:
    """A run folder that this process may write; a context manager that lets go of it.

    Left by an error, the attempt is recorded as failed (stopped, for a StoppedError) and the run stays resumable.
    """

    def __init__(self, layout: RunLayout, lock: FolderLock, manifest: dict[str, Any]) -> None:
        self.layout = layout
        self._lock, self._manifest = lock, manifest
        self._log: RunLog | None = None
        self._closed = False
        self._made: tuple[Path, ...] = ()

    @classmethod
    def create(
        cls, folder: Path, *, config_yaml: str, plan: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """Begin a run in a new or empty folder.

        Args:
            folder: Used literally, never through a shell.
            config_yaml: The resolved recipe.
            plan: The plan as JSON.
            facts: What the manifest shall say of the run (seed, device, digests of base model and data, ...).

        Raises:
            ConfigError: E-CFG-023 if the name is unusable, or the folder holds something else or another run.
            LockError: E-LCK-001 if another process is writing there.
            ResourceError: E-RES-002 if nothing can be written there.
        """
        layout = RunLayout(usable_folder(folder))
        if run_state(layout.folder) in ("foreign", "finished"):
            raise occupied_error(layout)
        made = tuple(path for path in (layout.folder, *layout.folder.parents) if not path.exists())
        with disk_errors(layout.folder):
            layout.folder.mkdir(parents=True, exist_ok=True)
        run_id = secrets.token_hex(6)
        lock = FolderLock.acquire(layout.lock, run_id)
        with _released_on_error(lock):
            if run_state(layout.folder) != "absent":
                raise occupied_error(layout)
            clear_leftovers(layout.folder)
            contents = {layout.config: redact(config_yaml).encode(), layout.plan: canonical(finite_tree(dict(plan))[0])}
            for path, data in contents.items():
                replace_file(path, [data])
            manifest = {
                "kind": "run",
                "schema": MANIFEST_SCHEMA,
                "run_id": run_id,
                "created": utc_now(),
                "outcome": "unfinished",
                "facts": dict(facts or {}),
                "digests": {path.name: hashlib.sha256(data).hexdigest() for path, data in contents.items()},
                "attempts": [new_attempt((facts or {}).get("device"))],
            }
            write_manifest(layout, manifest)
            with contextlib.suppress(OSError):  # a parent that may be entered and not read
                fsync_folder(layout.folder.parent)
        run = cls(layout, lock, manifest)
        run._made = made
        return run

    @classmethod
    def resume(cls, folder: Path, *, facts: Mapping[str, Any] | None = None, force_unlock: bool = False) -> RunFolder:
        """Take up an unfinished run; tidy what its dead predecessor left half-written.

        Args:
            folder: The run's folder.
            facts: `device` is recorded for this attempt; the run's own facts stay as they were.
            force_unlock: Take the lock although another machine's name stands in it.

        Raises:
            CheckpointError: E-CKP-001 if there is no run; E-CKP-002, E-CKP-003 if its recipe or plan is missing or
                changed.
            LockError: E-LCK-001 if another process is writing there.
            UsageError: E-CLI-004 if the run is finished.
        """
        layout = RunLayout(usable_folder(folder))
        manifest = read_manifest(layout.folder)
        lock = FolderLock.acquire(layout.lock, manifest["run_id"], force=force_unlock)
        with _released_on_error(lock):
            manifest = read_manifest(layout.folder)  # again: its last holder may have sealed it in between
            if manifest["outcome"] == "finished":
                raise UsageError(
                    "E-CLI-004",
                    where=str(layout.folder),
                    found="the run is finished",
                    expected="an unfinished run",
                    action="There is nothing to resume; use `subspace evaluate` or start another run.",
                )
            require_unchanged(layout, manifest, (layout.config, layout.plan))
            for place in (layout.folder, layout.checkpoints, layout.best_checkpoints):
                clear_leftovers(place)
            for attempt in manifest["attempts"]:
                if attempt["outcome"] == "running":
                    attempt["outcome"] = "died"
            manifest["attempts"].append(new_attempt((facts or {}).get("device")))
            write_manifest(layout, manifest)
        return cls(layout, lock, manifest)

    @classmethod
    def reopen(cls, folder: Path) -> RunFolder:
        """Take up a finished run to add scores and predictions to it; its seal is renewed for what is written.

        Raises:
            CheckpointError: E-CKP-001 if there is no run.
            LockError: E-LCK-001 if another process is writing there.
            UsageError: E-CLI-004 if the run is not finished.
        """
        layout = RunLayout(usable_folder(folder))
        lock = FolderLock.acquire(layout.lock, read_manifest(layout.folder)["run_id"])
        with _released_on_error(lock):
            manifest = read_manifest(layout.folder)
            if manifest["outcome"] != "finished":
                raise UsageError(
                    "E-CLI-004",
                    where=str(layout.folder),
                    found="the run is not finished",
                    action=f"Go on with `subspace resume {layout.folder}` first.",
                )
        return cls(layout, lock, manifest)

    @property
    def log(self) -> RunLog:
        """The run's log, opened on first use."""
        if self._log is None:
            self._log = RunLog(self.layout.log)
        return self._log

    def manifest(self) -> dict[str, Any]:
        """Return a copy of the manifest."""
        copy: dict[str, Any] = json.loads(json.dumps(self._manifest))
        return copy

    def metrics(self) -> dict[str, Any]:
        """Return what `metrics.json` holds, {} before it is written.

        Raises:
            CheckpointError: E-CKP-002 if it is not JSON.
        """
        try:
            found: dict[str, Any] = json.loads(self.layout.metrics.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError("E-CKP-002", where=str(self.layout.metrics), found=f"unreadable ({error})") from error
        return found

    def write_tasks(self, tasks: Mapping[str, Any]) -> None:
        """Put `tasks.json`, split to description of a task, in place of the present one.

        Raises:
            ResourceError: E-RES-002 if the disk refuses; the old file is intact.
        """
        write_json(self.layout.tasks, dict(tasks))
        self._renew_seal(self.layout.tasks)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Put `metrics.json` in place of the present one; NaN becomes null and is named.

        Raises:
            ResourceError: E-RES-002 if the disk refuses; the old file is intact.
        """
        write_json(self.layout.metrics, dict(metrics))
        self._renew_seal(self.layout.metrics)

    def write_predictions(self, split: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put the per-item predictions of a split in place of the present ones, one JSON object a line.

        Raises:
            ResourceError: E-RES-002 if the disk refuses; the old file is intact.
        """
        path = self.layout.predictions(split)
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
        replace_file(path, (_readable_line(row) for row in rows))
        self._renew_seal(path)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Seal the run: its outcome, its figures, and the sha256 of every file in it but checkpoints.

        Raises:
            ResourceError: E-RES-002 if the disk refuses; the run is then still unfinished.
        """
        if self._log is not None:
            self._log.sync()
        with disk_errors(self.layout.folder):
            digests = output_digests(self.layout)
        sealed = {"outcome": "finished", "finished": utc_now(), "summary": dict(summary), "digests": digests}
        manifest = {**self.manifest(), **sealed}
        manifest["attempts"][-1] |= {"outcome": "finished", "end": utc_now()}
        write_manifest(self.layout, manifest)
        self._manifest = manifest

    def discard(self) -> None:
        """Remove a run that came to nothing, and let go of it.

        Only what a run writes before its first step goes, and folders that `create` made if they are empty then; what
        cannot be removed stays.
        """
        self._closed = True
        if self._log is not None:
            self._log.close()
        layout = self.layout
        for folder in (layout.checkpoints, layout.trackers, layout.profile):
            shutil.rmtree(folder, ignore_errors=True)
        # The manifest goes last of what makes the folder a run: cut off before, it is unfinished; after, absent.
        for path in (layout.log, layout.manifest, layout.plan, layout.config, layout.lock):
            with contextlib.suppress(OSError):
                path.unlink()
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._lock.release()

    def close(self, outcome: str = "stopped", error: str | None = None) -> None:
        """Let go of the folder; safe to call twice.

        Args:
            outcome: How the attempt ended, unless the run is finished.
            error: What ended it.

        Raises:
            ResourceError: E-RES-002 if the manifest cannot be written; the lock is released all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._log is not None:
                self._log.close()
            if self._manifest["outcome"] != "finished":
                ended = {"outcome": outcome, "end": utc_now()} | ({"error": error} if error else {})
                self._manifest["attempts"][-1] |= ended
                write_manifest(self.layout, self._manifest)
            elif self._log is not None:
                self._renew_seal(self.layout.log)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or isinstance(error, StoppedError):
                self.close()
            else:
                self.close("failed", str(error).partition("\n")[0] or type(error).__name__)
        except SubspaceError:
            if error is None:
                raise  # otherwise what ended the run matters more than that it could not be noted

    def _renew_seal(self, path: Path) -> None:
        if self._manifest["outcome"] != "finished":
            return
        name = path.relative_to(self.layout.folder).as_posix()
        digest = file_digest(path)
        if self._manifest["digests"].get(name) != digest:
            self._manifest["digests"][name] = digest
            write_manifest(self.layout, self._manifest)


@contextlib.contextmanager
def _released_on_error(lock: FolderLock) -> Iterator[None]:
    try:
        yield
    except BaseException:
        lock.release()
        raise


def _readable_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as people can read it in any script; escaped where UTF-8 has no bytes for it."""
    clean, places = finite_tree(dict(row))
    if places:
        clean["nonfinite"] = places
    try:
        return (json.dumps(clean, allow_nan=False, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(clean, allow_nan=False) + "\n").encode()

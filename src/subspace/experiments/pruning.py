"""What of a finished run is not kept: checkpoints, and of a trial the trained weights as well. Imports no torch."""

from __future__ import annotations

import shutil

from subspace.experiments.jobs import Job
from subspace.runs.folder_state import run_state
from subspace.runs.layout import RunLayout
from subspace.runs.manifest import read_manifest
from subspace.runs.store import RunFolder

__all__ = ["prune"]


def prune(job: Job, *, keep_checkpoints: bool = False) -> None:
    """Remove what nobody will read again; safe to repeat, and to be killed in.

    A trial is sealed anew without its weights: its score, its log and its recipe stay.

    Raises:
        LockError: E-LCK-001 if somebody else writes there.
    """
    layout = RunLayout(job.folder)
    if job.kind == "final":
        if not keep_checkpoints:
            shutil.rmtree(layout.checkpoints, ignore_errors=True)
        return
    if not job.is_run:
        return
    if run_state(job.folder) != "finished":  # a trial that diverged: it is not gone on with
        shutil.rmtree(layout.checkpoints, ignore_errors=True)
        return
    sealed = read_manifest(job.folder)["digests"]
    weights = (layout.adapter, layout.model)
    if layout.checkpoints.is_dir() or any(name.partition("/")[0] in {path.name for path in weights} for name in sealed):
        with RunFolder.reopen(job.folder) as folder:
            for path in (layout.checkpoints, *weights):
                shutil.rmtree(path, ignore_errors=True)
            folder.finish(folder.manifest()["summary"])

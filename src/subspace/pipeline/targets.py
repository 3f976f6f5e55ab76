"""What people name to be evaluated: runs, folders of runs, model folders, hub ids. Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from subspace.core.errors import DataError, SubspaceError
from subspace.runs.discovery import DEPTH, is_lost, runs_in
from subspace.runs.folder_state import run_state
from subspace.runs.layout import RunLayout
from subspace.runs.manifest import read_manifest

__all__ = ["Target", "find_targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """One model to evaluate.

    Attributes:
        given: What `load_result` is told: a run folder, a model folder, a hub id, or `builtin/...`.
        name: Of its folder under the collected results; the same whenever it is named again.
        run: The run's folder; None for a model that is no run.
    """

    given: str
    name: str
    run: Path | None


def find_targets(paths: Sequence[str]) -> tuple[list[Target], list[str]]:
    """Return the models among `paths`, each once, and a sentence on every run that is passed over.

    A folder that is neither a run nor a model is looked through, three levels down, for runs and benches.

    Raises:
        DataError: E-DAT-001 if a folder holds nothing to evaluate, or a path leads nowhere.
    """
    targets: list[Target] = []
    passed: list[str] = []
    for given in paths:
        folder = Path(given)
        if is_lost(given):
            raise DataError("E-DAT-001", where=given, found="there is nothing at this path", action="Check the path.")
        if not folder.is_dir() or (folder / "config.json").is_file():
            targets.append(_model(given))
            continue
        runs = runs_in(folder)
        if not runs:
            raise DataError(
                "E-DAT-001",
                where=given,
                found="no run and no model here",
                expected=(
                    f"a run ({RunLayout(folder).manifest.name}), a bench, a model (config.json), or a folder with runs "
                    f"or benches at most {DEPTH} levels below it"
                ),
            )
        for run in runs:
            reason = _unusable(run)
            if reason is not None:
                passed.append(f"{run}: {reason}")
                continue
            targets.append(Target(str(run), f"{run.resolve().name}-{read_manifest(run)['run_id'][:8]}", run))
    return list({target.name: target for target in targets}.values()), passed


def _unusable(run: Path) -> str | None:
    try:
        state = run_state(run)
    except SubspaceError as error:
        return error.found
    if state == "finished":
        return None
    if state == "unfinished":
        return f"not finished; `subspace resume {run}` goes on with it"
    return "a log without a manifest that can be read"


def _model(given: str) -> Target:
    if not os.path.exists(given):
        return Target(given, given.replace("/", "__"), None)
    place = str(Path(given).resolve())
    return Target(given, f"{Path(place).name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}", None)

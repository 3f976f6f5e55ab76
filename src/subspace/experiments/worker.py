"""A worker process: `python -m subspace.experiments.worker <descriptor> <parent>` runs job after job.

Jobs come as JSON lines on stdin, what happens goes as JSON lines to the descriptor; what libraries print goes to the
log that stdout and stderr are. It ends when stdin does, when a signal stops its run, and, on Linux, with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from subspace.config.load import document_from
from subspace.core.errors import LockError, StoppedError, SubspaceError
from subspace.experiments.step_time import PROBE_STEPS
from subspace.pipeline.run_config import RunConfig, parse_run_config
from subspace.runs.folder_state import run_state
from subspace.runs.manifest import read_manifest, write_json
from subspace.training.hooks import Listener

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_LOCK_PATIENCE_SECONDS = 20.0
"""A worker of a bench that was killed needs a moment to be gone, and its lock with it."""
_TELL_EVERY_SECONDS = 0.25


class _Teller(Listener):
    """Sends what happens to the parent; steps at most a few times a second."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._last = out, 0.0

    def send(self, event: str, **fields: Any) -> None:
        self._out.write(json.dumps({"event": event, **fields}) + "\n")
        self._out.flush()

    def on_phase(self, name: str) -> None:
        self.send("phase", name=name)

    def on_start(self, total_steps: int, step: int) -> None:
        self.send("step", step=step, total=total_steps, loss=None)

    def on_step(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._last >= _TELL_EVERY_SECONDS:
            self._last = now
            self.send("step", step=step, total=None, loss=loss if loss == loss and abs(loss) < 1e30 else None)


def main() -> None:
    """Serve until there is nothing more to do."""
    _end_with_parent(int(sys.argv[2]))
    teller = _Teller(os.fdopen(int(sys.argv[1]), "w", encoding="utf-8"))
    commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=(commands, busy), daemon=True).start()
    _import_everything()
    teller.send("ready")
    while (command := commands.get()) is not None:
        busy.set()
        if not _serve(command, teller):
            break
        busy.clear()
    sys.stderr.flush()
    os._exit(0)  # the thread that waits for stdin would make an orderly end abort


def _serve(command: Mapping[str, Any], teller: _Teller) -> bool:
    """Run one job and tell how it ended; False if a signal asked the process to stop."""
    try:
        teller.send("done", result=_run(command, teller))
    except StoppedError as stopped:
        teller.send("stopped", error=str(stopped))
        return False
    except SubspaceError as error:
        teller.send("failed", code=error.code, error=str(error))
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        teller.send("failed", code="E-RUN-001", error=f"E-RUN-001 {text} (the traceback is in the worker's log)")
    gc.collect()
    return True


def _run(command: Mapping[str, Any], teller: _Teller) -> dict[str, Any]:
    """Do what a command says and return its figures; what is finished already is only read."""
    config, _ = parse_run_config(document_from(command["config"]))
    if command["kind"] == "before":
        import torch

        from subspace.pipeline.demo import base_metrics

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        teller.on_phase("evaluate")
        metrics = base_metrics(config)
        Path(command["folder"]).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(command["folder"]), metrics)
        return {"metrics": metrics}
    if command["kind"] == "probe":
        teller.on_phase("probe")
        return {"metrics": {}, "seconds_per_step": _probed(config), "steps": PROBE_STEPS}
    if config.digest() != command["digest"]:
        raise RuntimeError("a recipe changed on its way to the worker")
    folder = Path(config.training.output_dir)
    if run_state(folder) != "finished":
        _train(config, teller)
    summary: dict[str, Any] = read_manifest(folder)["summary"]
    return summary


def _probed(config: RunConfig) -> float:
    """Time a few steps in a folder that is removed."""
    import torch

    from subspace.pipeline.probe import probe

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return probe(config, PROBE_STEPS).seconds_per_step


def _train(config: RunConfig, teller: _Teller) -> None:
    """Begin or go on; a folder that a dying predecessor still holds is waited for."""
    import torch

    from subspace.pipeline.execute import train

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # a run that was resumed has set its own
    folder = Path(config.training.output_dir)
    begun = time.monotonic()
    while True:
        try:
            train(config, resume=run_state(folder) == "unfinished", listeners=(teller,))
            return
        except LockError:
            if time.monotonic() - begun > _LOCK_PATIENCE_SECONDS:
                raise
            time.sleep(0.2)


def _listen(commands: queue.SimpleQueue[dict[str, Any] | None], busy: threading.Event) -> None:
    """Put commands into the queue; at the end of stdin the parent is gone, and a run in progress is stopped."""
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def _end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, whatever it dies of."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the end of stdin tells
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def _import_everything() -> None:
    """Pay for the imports once, while nothing waits."""
    import faulthandler
    import warnings

    faulthandler.enable()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    import subspace.pipeline.execution

    _ = subspace.pipeline.execution
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()

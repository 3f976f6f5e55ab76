"""Kill a run with SIGKILL at random moments, resume it each time, and hold its end against an uninterrupted run.

The parent imports everything and never runs a backward pass, so that a forked child starts in milliseconds. Run as a
program: `python campaign.py FOLDER KILLS SEED METHOD...` prints one JSON line per method.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contracts.cases import CASES  # the smallest config of every method

STEPS = 100
SAVE_STEPS = 2
EARLY = {"adalora": {"final_steps": STEPS - 6}}
"""What else would only happen late in a run, where no kill falls: AdaLoRA settles its ranks at step 6."""


def recipe(method: str, folder: Path) -> Any:
    """Return a run of `method` with dropout wherever it has some, a validation split and an accumulation."""
    from subspace.config.load import document_from
    from subspace.pipeline.run_config import parse_run_config

    tree = {
        "model": {"model_name_or_path": "builtin/tiny-llama"},
        "data": {"source": "builtin/word-problems", "max_length": 64, "max_train_samples": 60, "max_eval_samples": 4},
        "method": {"name": method, **CASES[method], **EARLY.get(method, {})},
        "training": {
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 3,
            "eval_steps": 4,
            "save_steps": SAVE_STEPS,
            "logging_steps": 3,
            "load_best_at_end": True,
        },
        "evaluation": {"metrics": ["loss"]},
    }
    return parse_run_config(document_from(tree))[0]


def child(method: str, folder: Path, *, resume: bool) -> None:
    """Run or go on, in a forked process that never returns."""
    status = 0
    try:
        from subspace.pipeline.execute import train

        train(recipe(method, folder), resume=resume)
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)


def start(method: str, folder: Path, *, resume: bool) -> int:
    pid = os.fork()
    if pid == 0:
        child(method, folder, resume=resume)
    return pid


def outcome(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the sha256 of the result's weights, and the log without what may differ between machines."""
    results = sorted(path for name in ("adapter", "model") for path in (folder / name).glob("*.safetensors"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in results)).hexdigest()
    lines = (folder / "unified_log.jsonl").read_text().splitlines()
    return digest, [{key: value for key, value in json.loads(line).items() if key != "machine"} for line in lines]


def newest_step(folder: Path) -> int:
    return max((int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*")), default=0)


def has_checkpoint(folder: Path) -> bool:
    return newest_step(folder) > 0


def killed_run(method: str, folder: Path, kills: int, seed: int, step_seconds: float) -> tuple[int, int]:
    """Kill a run `kills` times at random moments and let it end; return kills, and kills after a first checkpoint.

    A quarter of the kills may fall anywhere, even before the run has a folder; the others fall while it trains, once it
    has a checkpoint. None comes later than the second new checkpoint, whatever the speed of the machine does meanwhile,
    so that the run does not end before all are through.
    """
    from subspace.runs.store import run_state

    draw = random.Random(seed)
    anywhere = set(draw.sample(range(kills), kills // 4))
    late = 0
    for number in range(kills):
        pid = start(method, folder, resume=run_state(folder) == "unfinished")
        before, limit = log_size(folder), newest_step(folder) + 2 * SAVE_STEPS
        if number in anywhere:
            seconds = draw.uniform(0, 2.0)
        else:
            wait(pid, lambda before=before: log_size(folder) != before and has_checkpoint(folder), 60)
            seconds = draw.uniform(0, 2 * SAVE_STEPS * step_seconds)
        wait(pid, lambda limit=limit: newest_step(folder) >= limit, seconds)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"{method}: the run ended (status {status}) before kill {number + 1} of {kills}"
        late += has_checkpoint(folder)
    _, status = os.waitpid(start(method, folder, resume=run_state(folder) == "unfinished"), 0)
    assert status == 0, f"{method}: the last attempt failed"
    return kills, late


def wait(pid: int, happened: Callable[[], bool], seconds: float) -> None:
    """Return when something has happened, or the child has ended, or the time is over."""
    begun = time.monotonic()
    while not happened() and time.monotonic() - begun < seconds and alive(pid):
        time.sleep(0.002)


def alive(pid: int) -> bool:
    """Return whether a child still runs; it is not reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def log_size(folder: Path) -> tuple[int, int]:
    """Return a value that changes as soon as an attempt writes or cuts the log."""
    try:
        found = (folder / "unified_log.jsonl").stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_size, found.st_mtime_ns)


def campaign(method: str, base: Path, kills: int, seed: int) -> dict[str, Any]:
    whole, broken = base / f"{method}-whole", base / f"{method}-killed"
    _, status = os.waitpid(start(method, whole, resume=False), 0)
    assert status == 0, f"{method}: the uninterrupted run failed"
    last = [json.loads(line) for line in (whole / "unified_log.jsonl").read_text().splitlines() if '"step"' in line][-1]
    done, late = killed_run(method, broken, kills, seed, last["machine"]["elapsed_seconds"] / STEPS)
    (sha_whole, log_whole), (sha_killed, log_killed) = outcome(whole), outcome(broken)
    return {
        "method": method,
        "kills": done,
        "kills_after_first_checkpoint": late,
        "same_weights": sha_whole == sha_killed,
        "same_log": log_whole == log_killed,
        "sha256": sha_whole,
        "num_log_lines": len(log_whole),
    }


def import_everything() -> None:
    import accelerate
    import peft
    import safetensors.torch
    import torch
    import transformers

    import subspace.pipeline.execution

    torch.set_num_threads(1)
    del accelerate, peft, safetensors, transformers, subspace  # imported for the children


if __name__ == "__main__":
    import_everything()
    target, num_kills, first_seed, *methods = sys.argv[1:]
    for name in methods:
        print(json.dumps(campaign(name, Path(target), int(num_kills), int(first_seed))), flush=True)

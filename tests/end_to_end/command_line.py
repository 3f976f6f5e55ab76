"""The real command line, run in this process, with what it printed and what it left on the disk."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from subspace.cli.console import ProgressListener
from subspace.cli.main import main
from subspace.config.load import dump_yaml

TINY: dict[str, dict[str, Any]] = {
    "model": {"model_name_or_path": "builtin/tiny-llama"},
    "data": {"source": "sums.jsonl", "validation": "more-sums.jsonl", "max_length": 64},
    "method": {"name": "lora", "rank": 4},
    "training": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "output_dir": "out"},
}
"""A recipe that trains for two steps in about a second; `CommandLine.recipe` writes its rows beside it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def run_command(arguments: Sequence[str]) -> Ended:
    """Call `subspace` with these arguments."""
    out, err = io.StringIO(), io.StringIO()
    status: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int), "the command line ends with a number"
    return Ended(status, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, size and time of change of everything below a folder."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            facts = path.lstat()
            # a folder's own time moves when a lock file comes and goes in it
            seen = (facts.st_size, facts.st_mtime_ns) if name in files else (0, 0)
            found[str(path.relative_to(folder))] = (facts.st_mode, *seen)
    return found


class CommandLine:
    """Runs commands in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str | Path) -> Ended:
        """Run a command that has to succeed."""
        ended = self.end(*arguments)
        assert ended.status == 0, ended.err
        return ended

    def end(self, *arguments: str | Path) -> Ended:
        """Run a command, however it ends; nobody ever sees a traceback."""
        with contextlib.chdir(self.folder):
            ended = run_command([str(argument) for argument in arguments])
        assert "Traceback" not in ended.out + ended.err
        return ended

    def refused(self, *arguments: str | Path, status: int, code: str, said: str | Sequence[str] = ()) -> str:
        """Run a command that has to be refused, and leave the folder as it was; return what it said.

        Args:
            arguments: The command.
            status: Its exit status.
            code: Its error code, with which the last line begins.
            said: Parts of the last line: the place, and what is wrong.
        """
        before = contents(self.folder)
        ended = self.end(*arguments)
        told = ended.err.strip().splitlines()[-1] if ended.err.strip() else ""
        if arguments[:1] == ("validate",):  # which lists files, and their errors below them
            told = ended.err
        assert (ended.status, code in told) == (status, True), ended.err
        for part in (said,) if isinstance(said, str) else said:
            assert part in told
        assert ended.out == ""
        assert contents(self.folder) == before, "something was written or removed"
        return told

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def recipe(self, changes: Mapping[str, Mapping[str, Any]] | None = None, name: str = "recipe.yaml") -> Path:
        """Write the tiny recipe, with changes by section, and the rows that it names."""
        for file, first in (("sums.jsonl", 0), ("more-sums.jsonl", 16)):
            sums = [
                {"prompt": f"{number} + 1 =", "completion": f" {number + 1}"} for number in range(first, first + 16)
            ]
            self.write(file, "".join(json.dumps(row) + "\n" for row in sums))
        tree = {
            section: {**TINY.get(section, {}), **(changes or {}).get(section, {})}
            for section in (*TINY, *(changes or {}))
        }
        return self.write(name, dump_yaml(tree))


@contextlib.contextmanager
def signal_at(step: int, number: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """Send this process a signal when the progress bar hears of a step."""
    usual = ProgressListener.on_step

    def on_step(self: ProgressListener, done: int, loss: float) -> None:
        usual(self, done, loss)
        if done == step:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressListener, "on_step", on_step)
        yield
